"""What Faust wants of a table and its store: undelivered messages by key, to be read; `tables.write` writes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import faust
from faust.stores.base import SerializedStore

from tables import layout
from tables.entry import pack_entry, unpack_entry


class QuietTable(faust.Table):
    """A Faust table of which nobody hears that it changes."""

    def on_key_set(self, key: bytes, value: Any) -> None:
        """Leave it to the store to refuse an assignment; Faust would send a changelog, and count in its monitor."""

    def on_key_del(self, key: bytes) -> None:
        """See `on_key_set`."""


class FaustMapping(SerializedStore[bytes, bytes]):
    """The mapping, of a store that can return values and entries."""

    @abstractmethod
    def value(self, key: bytes) -> bytes | None:
        """Return the value of any key."""

    @abstractmethod
    def with_prefix(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the keys that begin with a prefix, and their values."""

    def _encode_key(self, key: bytes) -> bytes:
        return key

    def _decode_key(self, key: bytes | None) -> bytes:
        return key or b""

    def _encode_value(self, value: Any) -> bytes | None:
        return pack_entry(value)

    def _decode_value(self, value: Any) -> Any:
        return value

    def _get(self, key: bytes) -> Any:
        value = self.value(key) if key.startswith(layout.UNDELIVERED) else None
        return None if value is None else unpack_entry(key, value)

    def _set(self, key: bytes, value: bytes | None) -> None:
        raise NotImplementedError("the table writer writes, nobody else")

    def _del(self, key: bytes) -> None:
        raise NotImplementedError("the table writer writes, nobody else")

    def _clear(self) -> None:
        raise NotImplementedError("the table writer writes, nobody else")

    def _iterkeys(self) -> Iterator[bytes]:
        for key, _ in self.with_prefix(layout.UNDELIVERED):
            yield key

    def _itervalues(self) -> Iterator[Any]:
        for _, message in self._iteritems():
            yield message

    def _iteritems(self) -> Iterator[Any]:
        for key, value in self.with_prefix(layout.UNDELIVERED):
            yield key, unpack_entry(key, value)

    def _size(self) -> int:
        return self.table.total_messages  # type: ignore[attr-defined]  # ours, not Faust's

    def _contains(self, key: bytes) -> bool:
        return key.startswith(layout.UNDELIVERED) and self.value(key) is not None

    async def backup_partition(self, *_args: Any, **_options: Any) -> None:
        """Faust's backups are per Kafka partition; copy the directory of a stopped worker instead."""
        raise NotImplementedError("copy the directory of a stopped worker")

    def restore_backup(self, *_args: Any, **_options: Any) -> None:
        """See `backup_partition`."""
        raise NotImplementedError("copy the directory of a stopped worker")

    def reset_state(self) -> None:
        """Faust resets stores after a rebalance; there is none."""
