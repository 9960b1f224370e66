"""The keys of a large payload's pieces, and what they count for."""

from __future__ import annotations

from app.pieces import BEGINNING_BYTES, PIECE_BYTES, Pieces

PIECE = b"P"
NAME_BYTES = 12  # the sequence of the message for which they were written
# What RocksDB adds to an entry (its own header, index and filter share), by guess; the byte limit is of our bytes.
ENTRY_OVERHEAD_BYTES = 24
PIECE_OVERHEAD_BYTES = len(PIECE) + NAME_BYTES + 4 + ENTRY_OVERHEAD_BYTES


def piece_key(name: bytes, number: int) -> bytes:
    """Return the key of one piece."""
    return PIECE + name + number.to_bytes(4, "big")


def piece_keys(pieces: Pieces) -> list[bytes]:
    """Return the keys of all pieces of a payload."""
    return [piece_key(pieces.name, number) for number in range(pieces.number)]


def after_pieces(name: bytes) -> bytes:
    """Return a key that is larger than those of all pieces with a name, and smaller than all others."""
    return PIECE + name + b"\xff" * 5


def pieces_bytes(pieces: Pieces) -> int:
    """Return what pieces count for in the byte limit."""
    return pieces.size_bytes + pieces.number * PIECE_OVERHEAD_BYTES


def most_overhead_bytes(payload_bytes: int) -> int:
    """Return what pieces add to a payload at most: to the entry that names them, and for themselves."""
    return NAME_BYTES + BEGINNING_BYTES + 16 + (payload_bytes // PIECE_BYTES + 1) * PIECE_OVERHEAD_BYTES
