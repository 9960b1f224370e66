"""A large payload that is not in memory, but in the table, in pieces.

A `Pieces` takes the place of the payload in a message, and has its length and its first bytes. Code that needs the
payload itself reads it first (`tables.pieces`).
"""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024
# Part of the table's format: a larger payload is in as few equal pieces as there can be of this size at most. RocksDB
# holds the interpreter's lock while it writes a value, for some 3 ms per MiB.
PIECE_BYTES = MEBIBYTE
BEGINNING_BYTES = 64


@dataclass(frozen=True, slots=True)
class Pieces:
    """A payload in the table.

    Attributes:
        name: What the keys of its pieces begin with, behind their letter.
        size_bytes: The length of the payload.
        beginning: How it begins.
    """

    name: bytes
    size_bytes: int
    beginning: bytes

    def __len__(self) -> int:
        """Return the length of the payload, as the payload itself would."""
        return self.size_bytes

    @property
    def number(self) -> int:
        """How many pieces there are."""
        return -(-self.size_bytes // PIECE_BYTES)

    @property
    def each_bytes(self) -> int:
        """The length of each piece but the last, which may be a little shorter."""
        return -(-self.size_bytes // self.number)
