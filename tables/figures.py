"""The figures of a table: what it counts and the numbers of its writes, in memory and, once synced, in a small file.

They change with each write (`tables.write`), which stores them together with the entries. A start reads them, and puts
them right after damage (`tables.repair.damage`).

The file is the *synced mark*: it has the number of the last synced write, in case damage takes the end of the log. It
is written after each sync without being synced itself; `tables.repair.damage` uses it.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.core.accounts import sums_by_route
from app.own_files import open_own, read_own
from app.throttle import Throttle
from tables import layout
from tables.piece_keys import pieces_bytes

if TYPE_CHECKING:
    from app.core.message import Message
    from app.pieces import Pieces

log = logging.getLogger(__name__)

LARGE_LETTER_BYTES = 1024 * 1024  # to read one of 60 MB takes half a second on a machine that is busy
_MARK = struct.Struct(">QQQ")


class Counted(NamedTuple):
    """Stored messages of one route.

    Attributes:
        route: Its name.
        messages: How many there are.
        size_bytes: What they take in the table.
    """

    route: str
    messages: int
    size_bytes: int


class LetterFigures:
    """What is known of the dead letters without reading them.

    Attributes:
        messages: How many there are.
        size_bytes: What they take.
        pieces: Where the payloads are of those that have them in pieces, by key.
        has_large: There is one that takes long to read.
    """

    def __init__(self) -> None:
        """Know of none."""
        self.messages = self.size_bytes = 0
        self.pieces: dict[bytes, Pieces] = {}
        self.has_large = False

    def read(self, counts: tuple[int, int], pieces: Iterable[tuple[bytes, Pieces]]) -> None:
        """Go on with what the table says at a start."""
        self.messages, self.size_bytes = counts
        self.pieces = dict(pieces)

    def count(self, messages: int, size_bytes: int) -> None:
        """Count so many more."""
        self.messages += messages
        self.size_bytes += size_bytes

    def note_size(self, value_bytes: int) -> None:
        """Note how large one is."""
        self.has_large = self.has_large or value_bytes > LARGE_LETTER_BYTES

    def pieces_bytes(self, key: bytes) -> int:
        """Return what the pieces of one take, 0 if it has none."""
        pieces = self.pieces.get(key)
        return 0 if pieces is None else pieces_bytes(pieces)


class TableFigures:
    """What the table holds, by what it counts; and its writes.

    Attributes:
        messages: Undelivered messages per route.
        bytes: What they take, per route.
        total_messages: Undelivered messages of all routes.
        total_bytes: What they take.
        letters: The dead letters.
        write_number: Of the next write.
        written_messages: Messages that were ever written.
        synced_before: All writes before this one are synced.
        lanes: Undelivered messages per Kafka topic, without those that were there at the start.
        last_writes: By Kafka topic, the number of the last write that stored messages, since the start.
        known_heads: The lanes of which the table has a head, as far as that was looked up.
    """

    def __init__(self) -> None:
        """Begin with an empty table that was never written."""
        self.messages: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self.total_messages = self.total_bytes = 0
        self.letters = LetterFigures()
        self.lanes: dict[str, int] = {}
        self.last_writes: dict[str, int] = {}
        self.write_number = self.synced_before = 1
        self.written_messages = 0
        self.known_heads: set[bytes] = set()

    @property
    def mark(self) -> Mark:
        """What is synced, when a sync that begins now has ended."""
        return Mark(self.write_number, self.written_messages, self.total_messages)

    @property
    def lowest(self) -> int:
        """The lowest of all counts, 0 at most."""
        return min(0, *self.messages.values(), *self.bytes.values(), 0)

    @property
    def are_zero(self) -> bool:
        """Whether nothing undelivered is counted."""
        return {0}.issuperset(self.messages.values()) and {0}.issuperset(self.bytes.values())

    def read(self, counts: Mapping[str, tuple[int, int]], *, next_write: int, written: int, synced_before: int) -> None:
        """Go on with what the table says at a start: messages and bytes per route, and its writes."""
        self._set({route: messages for route, (messages, _) in counts.items()}, {
            route: size_bytes for route, (_, size_bytes) in counts.items()
        })  # fmt: skip
        self.write_number, self.written_messages, self.synced_before = next_write, written, synced_before
        self.known_heads = set()

    def put_right(self, messages: Mapping[str, int], size_bytes: Mapping[str, int], *, next_write: int) -> None:
        """Go on with what was counted anew, and with a number that no write has; routes that have nothing count 0."""
        self._set(dict.fromkeys(self.messages, 0) | dict(messages), dict.fromkeys(self.bytes, 0) | dict(size_bytes))
        self.write_number = max(self.write_number, next_write)

    def clear(self) -> None:
        """Count nothing, for every route."""
        self._set(dict.fromkeys(self.messages, 0), dict.fromkeys(self.messages, 0))

    def _set(self, messages: dict[str, int], size_bytes: dict[str, int]) -> None:
        self.messages, self.total_messages = messages, sum(messages.values())
        self.bytes, self.total_bytes = size_bytes, sum(size_bytes.values())

    def count(self, messages: Sequence[Message], sign: int) -> Sequence[Counted]:
        """Count messages into the table (1) or out of it (-1); return what they are, by route."""
        counted = by_route(messages)
        for route, number, size_bytes in counted:
            self.messages[route] = self.messages.get(route, 0) + sign * number
            self.bytes[route] = self.bytes.get(route, 0) + sign * size_bytes
            self.total_messages += sign * number
            self.total_bytes += sign * size_bytes
        for prefix, number in Counter([message.key[: -layout.SEQUENCE_BYTES] for message in messages]).items():
            topic = prefix[1:-1].decode()
            self.lanes[topic] = self.lanes.get(topic, 0) + sign * number
            if sign > 0:
                self.last_writes[topic] = self.write_number
        return counted

    def forget_lane(self, topic: str) -> None:
        """Forget a lane that has nothing in the table."""
        self.known_heads.discard(topic.encode())
        self.lanes.pop(topic, None)
        self.last_writes.pop(topic, None)

    def note_write(self, messages: int) -> None:
        """Note that a write was made, of so many messages."""
        self.write_number += 1
        self.written_messages += messages

    def note_synced(self, mark: Mark) -> None:
        """Note what is synced now."""
        self.synced_before = mark.synced_before


def by_route(messages: Sequence[Message]) -> list[Counted]:
    """Return what stored messages are, for each route that there is among them."""
    batch = [message.route for message in messages], [message.stored_bytes for message in messages]
    return [Counted(*sums) for sums in sums_by_route([batch])]


class Mark(NamedTuple):
    """What is known to be synced: all writes before one, what they wrote ever, and what the table held then."""

    synced_before: int = 0
    written_messages: int = 0
    undelivered_messages: int = 0


def read_mark(path: Path) -> Mark:
    """Return what the synced mark says; zeros if that is not known."""
    try:
        data = read_own(path, _MARK.size + 5)
    except OSError:
        return Mark()
    fields, checksum = data[: _MARK.size], data[_MARK.size :]
    if len(data) != _MARK.size + 4 or checksum != zlib.crc32(fields).to_bytes(4, "big"):
        return Mark()
    return Mark(*_MARK.unpack(fields))


def open_mark(directory: Path | None, *, read_only: bool) -> tuple[Mark, SyncedMark | None]:
    """Return what the synced mark in a directory says, and the mark for what is synced from now on.

    Args:
        directory: Where the database is; None: in memory, where nothing is synced.
        read_only: Nothing will be synced.
    """
    if directory is None:
        return Mark(), None
    path = directory / "synced-mark"
    return read_mark(path), None if read_only else SyncedMark(path)


class SyncedMark:
    """The file of the synced mark, see the module's header; without it the table works all the same."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where it is missing."""
        self._descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        self._throttle = Throttle(log)
        self._failed = False

    def write(self, mark: Mark) -> None:
        """Note what was synced."""
        fields = _MARK.pack(*mark)
        try:
            os.pwrite(self._descriptor, fields + zlib.crc32(fields).to_bytes(4, "big"), 0)
        except OSError as error:
            self._failed = True
            self._throttle.warning("mark", "the synced mark cannot be written: %s", error.strerror)
        else:
            if self._failed:
                self._failed = False
                self._throttle.end("mark", "the synced mark is written again")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
