"""Large payloads: written to the table and read from it in pieces, with other tasks running in between.

RocksDB holds the interpreter's lock while it writes or reads a value, so a payload of 100 MB in one value would hold up
the event loop, and the MQTT thread with it, for a third of a second.

The pieces of a payload are of one size, so that all of them are in RocksDB's files for large values: a short one among
the tables would hide behind those that a salvage cannot read there (`tables.repair.reading`).

They are written before the entry that names them, each by a write of its own that is not synced. The entry makes
them belong to a message, and its sync makes all of them durable, as RocksDB's log keeps the order. Until then a note
says that they were begun (`tables.layout`, B); after a crash the next start removes them.

While RocksDB flushes what was written into its files, a write may block, which would stop the event loop. So the next
piece is written after the flush.
"""

from __future__ import annotations

import asyncio
import io
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from app.pieces import BEGINNING_BYTES, Pieces
from tables import layout
from tables.piece_keys import piece_keys

if TYPE_CHECKING:
    from app.core.message import Message
    from tables.engine.store import Store
    from tables.undelivered import UndeliveredTable

FLUSHED_SECONDS = 2.0  # to wait for at most: then a write has to
LOOK_SECONDS = 0.002


async def others_turn(store: Store) -> None:
    """Let everything else have its turn, until RocksDB has brought to its files what was written."""
    await asyncio.sleep(0)
    give_up_at = time.monotonic() + FLUSHED_SECONDS
    while store.is_flushing and time.monotonic() < give_up_at:
        await asyncio.sleep(LOOK_SECONDS)


async def put(table: UndeliveredTable, message: Message, is_void: Callable[[], bool]) -> bool:
    """Write a message's payload in pieces, for an entry that is written next; not synced.

    Args:
        table: The table.
        message: The message; it has its pieces then, and its fingerprint, which is found on the way.
        is_void: Whether to stop, as there will be no entry.

    Returns:
        Whether all of it is written; if it was stopped, nothing of it is left.

    Raises:
        StoreError: Whether they are written is unknown.
    """
    payload = memoryview(message.in_memory)
    pieces = Pieces(message.key[-layout.SEQUENCE_BYTES :], len(payload), bytes(payload[:BEGINNING_BYTES]))
    fingerprint = message.first_fingerprint
    for number in range(pieces.number):
        piece = bytes(payload[number * pieces.each_bytes : (number + 1) * pieces.each_bytes])
        fingerprint = zlib.crc32(piece, fingerprint)
        write = table.begin()
        write.put_piece(pieces, number, piece)
        write.commit()
        await others_turn(table.data)
        if is_void():
            write = table.begin()
            write.drop_begun(pieces.name)
            write.commit()
            return False
    message.pieces, message.kept_fingerprint = pieces, fingerprint
    return True


async def read(store: Store, messages: Iterable[Message], is_void: Callable[[], bool]) -> None:
    """Read the payloads of those messages that have them in pieces.

    Args:
        store: The database.
        messages: As they were read from the table.
        is_void: Whether to stop, as nobody wants them any more; their pieces may be gone then.

    Raises:
        StoreError: A piece is missing or cannot be read; the next start counts the message as lost.
    """
    for message in messages:
        if is_void():
            return
        if isinstance(message.payload, Pieces):
            payload = io.BytesIO()
            for piece in _pieces(store, message.payload):
                payload.write(piece)
                await asyncio.sleep(0)
                if is_void():
                    return
            message.set_payload(payload)


def _pieces(store: Store, pieces: Pieces) -> Iterator[bytes]:
    """Iterate over the pieces; all of them, or there is an error."""
    size_bytes = 0
    for key in piece_keys(pieces):
        piece = store.value(key)
        if piece is None:
            raise store.missing(key)
        size_bytes += len(piece)
        yield piece
    if size_bytes != pieces.size_bytes:
        raise store.missing(piece_keys(pieces)[-1])
