"""Damage: what is missing in the table, found by the numbers of its writes, counted, told and put right.

Writes are numbered from 1, and each says how many messages were written before it and before which number all writes
were synced by then.
So a gap between two writes that are there tells how many messages it took, and which of two kinds it is:

- A later write says that the gap had been synced: damage. What can be read around it is kept.
- Otherwise those writes were never synced, as a power cut leaves them: the disk keeps some of what was not synced and
  not the rest. Nothing of it was acknowledged, and all of it comes again from MQTT. What follows the gap is dropped,
  or it would go to Kafka before what the gap took.

A log that was cut short leaves no gap. For that there is the *synced mark*, a file beside the database that is written
after each sync without being synced itself: a table that knows fewer writes than its mark has lost the difference.

Where blocks of table files are lost (tables.salvage), the numbers of writes may be among them. There the accounts of
the routes are compared with the entries that are left.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tables import layout

if TYPE_CHECKING:
    from tables.store import Store

log = logging.getLogger(__name__)

_MARK = struct.Struct(">QQ")


class Gap(NamedTuple):
    """Writes that are missing between two that are there."""

    first: int
    last: int
    messages: int


class Writes(NamedTuple):
    """What the table knows of its writes.

    Attributes:
        next_number: Of the next write.
        messages: Messages that were ever written.
        gaps: What is missing.
        synced_before: All writes before this one were synced when the last one was made.
    """

    next_number: int
    messages: int
    gaps: list[Gap]
    synced_before: int

    @property
    def lost(self) -> list[Gap]:
        """The gaps that had been synced."""
        return [gap for gap in self.gaps if gap.first < self.synced_before]

    @property
    def valid_before(self) -> int | None:
        """The first write that was never synced and is missing; what is from it on must go. None: there is none."""
        return min((gap.first for gap in self.gaps if gap.first >= self.synced_before), default=None)


class Recount(NamedTuple):
    """The table counted anew.

    Attributes:
        messages: Undelivered messages per route.
        size_bytes: What they take, per route.
        dead_messages: Dead letters.
        dead_bytes: What they take.
        heads: The first key of each lane, by Kafka topic; of a lane without entries, a key behind all that it had.
        epoch: The highest of any entry.
        dropped_keys: Entries that must go, as something before them was never synced.
    """

    messages: dict[str, int]
    size_bytes: dict[str, int]
    dead_messages: int
    dead_bytes: int
    heads: dict[str, bytes]
    epoch: int
    dropped_keys: list[bytes]


def read_writes(store: Store) -> Writes:
    """Look through the numbers of the writes."""
    gaps: list[Gap] = []
    next_number = messages = synced_before = 0
    for key, value in store.with_prefix(layout.WRITE):
        number = int.from_bytes(key[1:], "big")
        before, within, synced_before = layout.unpack(value)
        if next_number and number != next_number:
            gaps.append(Gap(next_number, number - 1, before - messages))
        next_number, messages = number + 1, before + within
    return Writes(next_number or 1, messages, gaps, synced_before)


def count(store: Store, writes: Writes, *, damaged: bool) -> Recount:
    """Count the entries anew, but for those that must go.

    Args:
        store: The database.
        writes: What it knows of its writes.
        damaged: Something that was synced is missing.
    """
    valid_before = writes.valid_before
    found = Recount({}, {}, 0, 0, {}, 0, [])
    epoch = dead_messages = dead_bytes = 0
    for key, message in store.items():
        epoch = max(epoch, layout.sequence(key)[0])
        if valid_before is not None and message.kept_since >= valid_before:
            found.dropped_keys.append(key)
            continue
        found.messages[message.route] = found.messages.get(message.route, 0) + 1
        found.size_bytes[message.route] = found.size_bytes.get(message.route, 0) + message.stored_bytes
        found.heads.setdefault(key[1 : -layout.SEQUENCE_BYTES - 1].decode(), key)
    for key, value in store.with_prefix(layout.DEAD_LETTER):
        epoch = max(epoch, layout.sequence(key)[0])
        dead_messages += 1
        dead_bytes += layout.entry_bytes(key, value)
    for key, value in store.with_prefix(layout.PACKET_IDENTIFIER):
        # After damage no identifier is trusted: one of a finished flow would swallow a new message.
        if damaged or (valid_before is not None and layout.unpack(value)[0] >= valid_before):
            found.dropped_keys.append(key)
    return found._replace(epoch=epoch, dead_messages=dead_messages, dead_bytes=dead_bytes)


def report_gaps(writes: Writes) -> int:
    """Tell what is missing; return how many messages are lost."""
    for gap in writes.lost:
        log.error(
            "the writes %d to %d are missing in the table: %d messages are lost by damage to its files",
            *gap,
        )
    if writes.valid_before is not None:
        log.warning(
            "from write %d on the table was not synced before it was cut off: nothing of that was acknowledged, and "
            "MQTT delivers it again",
            writes.valid_before,
        )
    return sum(gap.messages for gap in writes.lost)


def report_missing(expected: dict[str, int], found: dict[str, int]) -> int:
    """Tell what is missing of the entries that the routes' accounts name; return how many messages are lost."""
    lost = 0
    for route, messages in expected.items():
        missing = messages - found.get(route, 0)
        if missing > 0:
            log.error("%d messages of %s are lost by damage to the table's files", missing, route)
            lost += missing
    return lost


def report_tail(writes: Writes, mark: tuple[int, int]) -> int:
    """Tell what is missing at the end, where a log was cut short; return how many messages are lost."""
    synced_before, messages = mark
    if synced_before <= writes.next_number:
        return 0
    log.error(
        "the writes %d to %d are missing at the end of the table: %d messages are lost by damage to its files",
        writes.next_number,
        synced_before - 1,
        messages - writes.messages,
    )
    return messages - writes.messages


class SyncedMark:
    """Which writes, and how many messages, were synced, in a file beside the database; see the module's header."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where it is missing."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> tuple[int, int]:
        """Return the first write that was not synced, and how many messages were; zeros if that is not known."""
        data = os.pread(self._descriptor, _MARK.size + 4, 0)
        mark, checksum = data[: _MARK.size], data[_MARK.size :]
        if len(data) < _MARK.size + 4 or checksum != zlib.crc32(mark).to_bytes(4, "big"):
            return 0, 0
        synced_before, messages = _MARK.unpack(mark)
        return synced_before, messages

    def write(self, synced_before: int, messages: int) -> None:
        """Note what was synced."""
        mark = _MARK.pack(synced_before, messages)
        os.pwrite(self._descriptor, mark + zlib.crc32(mark).to_bytes(4, "big"), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
