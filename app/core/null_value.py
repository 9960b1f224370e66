"""The value of a record that has none: a tombstone, which deletes its key from a compacted Kafka topic."""

from __future__ import annotations

from typing import Final


class NullValue:
    """Takes the place of an empty payload in a message, and has its length."""

    __slots__ = ()

    def __len__(self) -> int:
        """Return the length of an empty payload."""
        return 0


NULL: Final = NullValue()
