"""Damage: what is missing in the table, found by the numbers of its writes, counted, told and put right.

Writes are numbered from 1, and each says how many messages were written before it and before which number all writes
were synced by then.
So a gap between two writes that are there tells how many messages it took, and which of two kinds it is:

- A later write, or the synced mark, says that the gap had been synced: damage. What can be read around it is kept.
- Otherwise those writes were never synced, as a power cut leaves them: the disk keeps some of what was not synced and
  not the rest. Nothing of it was acknowledged, and all of it comes again from MQTT. What follows the gap is dropped,
  or it would go to Kafka before what the gap took.

A log that was cut short leaves no gap. For that there is the *synced mark*, a file beside the database that is written
after each sync without being synced itself: a table that knows fewer writes than its mark has lost the difference.
What a gap wrote is what is lost at most: some of it may have been with Kafka already.

Where blocks of table files are lost (`salvage`), the numbers of writes may be among them. There the accounts of the
routes are compared with the entries that are left.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from app.errors import DataDirectoryError
from app.throttle import Progress
from tables import layout
from tables.dead_letter import DeadLetter
from tables.entry import entry_bytes
from tables.figures import Mark
from tables.piece_keys import PIECE
from tables.shapes import is_three_numbers, is_two_numbers

if TYPE_CHECKING:
    from app.core.message import Message
    from app.pieces import Pieces
    from tables.engine.store import Store

log = logging.getLogger(__name__)


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
        synced_before: All writes before this one were synced, by the last one or the synced mark.
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
        heads: The first key of each lane that has entries, by Kafka topic.
        epoch: The highest of any entry.
        last_write: The highest number of a write that any entry names.
        dropped_keys: Entries and packet identifiers that must go.
        torn: Messages of which pieces are missing; they are among those that must go.
        letter_pieces: The pieces of dead letters, by key.
        dropped_pieces: The names of pieces that no entry has.
    """

    messages: dict[str, int]
    size_bytes: dict[str, int]
    dead_messages: int
    dead_bytes: int
    heads: dict[str, bytes]
    epoch: int
    last_write: int
    dropped_keys: list[bytes]
    torn: int
    letter_pieces: dict[bytes, Pieces]
    dropped_pieces: list[bytes]


class _PiecesThere:
    """The pieces that there are."""

    def __init__(self, store: Store) -> None:
        self._size_bytes: dict[bytes, int] = {}
        self._wanted: set[bytes] = set()
        for key, value in store.with_prefix(PIECE):
            name = key[1:-4]
            self._size_bytes[name] = self._size_bytes.get(name, 0) + len(value)

    def has_all_of(self, message: Message) -> bool:
        """Whether nothing of a message's payload is missing; its pieces are wanted then."""
        if not message.is_in_pieces:
            return True
        pieces = message.pieces
        if self._size_bytes.get(pieces.name) != pieces.size_bytes:
            return False
        self._wanted.add(pieces.name)
        return True

    @property
    def unwanted(self) -> list[bytes]:
        """The names of those that nobody wants."""
        return sorted(self._size_bytes.keys() - self._wanted)


def read_writes(store: Store, first: tuple[int, int], mark: Mark) -> Writes:
    """Look through the numbers of the writes.

    Args:
        store: The database.
        first: The first write that must be there, and how many messages were written before it.
        mark: What is known to be synced.
    """
    gaps: list[Gap] = []
    next_number, messages = first
    synced_before = 0
    for key, value in store.with_prefix(layout.WRITE):
        number = int.from_bytes(key[1:], "big")
        before, within, synced_before = layout.unpack(key, value, is_three_numbers)
        if number > next_number:
            gaps.append(Gap(next_number, number - 1, before - messages))
        next_number, messages = number + 1, before + within
    return Writes(next_number, messages, gaps, max(synced_before, mark.synced_before))


def count(store: Store, valid_before: int | None, *, damaged: bool) -> Recount:
    """Count the entries anew, but for those that must go.

    Args:
        store: The database.
        valid_before: Entries kept since this write or a later one must go; None: all are valid.
        damaged: Something that was synced is missing.
    """
    found = Recount({}, {}, 0, 0, {}, 0, 0, [], 0, {}, [])
    epoch = last_write = torn = 0
    there = _PiecesThere(store)
    heads = {layout.UNDELIVERED + key[1:] + b"\0": head for key, head in store.with_prefix(layout.HEAD)}
    progress = Progress(lambda entries: log.warning("%d messages of the table are counted so far", entries))
    for entries, (key, message) in enumerate(store.items()):
        progress.reached(entries)
        epoch = max(epoch, layout.sequence(key)[0])
        last_write = max(last_write, message.kept_since)
        was_delivered = key < heads.get(key[: -layout.SEQUENCE_BYTES], b"")  # the removal is lost, and the head is not
        if was_delivered or (valid_before is not None and message.kept_since >= valid_before):
            found.dropped_keys.append(key)
            continue
        if not there.has_all_of(message):
            torn += 1
            found.dropped_keys.append(key)
            continue
        found.messages[message.route] = found.messages.get(message.route, 0) + 1
        found.size_bytes[message.route] = found.size_bytes.get(message.route, 0) + message.stored_bytes
        found.heads.setdefault(layout.name_in(key[: -layout.SEQUENCE_BYTES - 1]), key)
    found, letters_epoch = _count_dead_letters(store, found._replace(torn=torn), there)
    for key, value in store.with_prefix(layout.PACKET_IDENTIFIER):
        # After damage no identifier is trusted: one of a finished flow would swallow a new message.
        if damaged or (valid_before is not None and layout.unpack(key, value, is_two_numbers)[0] >= valid_before):
            found.dropped_keys.append(key)
    return found._replace(epoch=max(epoch, letters_epoch), last_write=last_write, dropped_pieces=there.unwanted)


def _count_dead_letters(store: Store, found: Recount, there: _PiecesThere) -> tuple[Recount, int]:
    """Count the dead letters, too; return the highest epoch of them as well.

    None is dropped but for missing pieces: the message may have been safe in its lane before. At worst it is there
    twice.
    """
    epoch = messages = size_bytes = torn = 0
    for key, value in store.with_prefix(layout.DEAD_LETTER):
        epoch = max(epoch, layout.sequence(key)[0])
        letter = _readable(key, value)
        if letter is not None and not there.has_all_of(letter.message):
            torn += 1
            found.dropped_keys.append(key)
            continue
        if letter is not None and letter.message.is_in_pieces:
            found.letter_pieces[key] = letter.message.pieces
        messages += 1
        size_bytes += entry_bytes(key, value) if letter is None else letter.entry_bytes
    return found._replace(dead_messages=messages, dead_bytes=size_bytes, torn=found.torn + torn), epoch


def _readable(key: bytes, value: bytes) -> DeadLetter | None:
    """Return a dead letter; None if no version wrote it, which whoever wants to see it is told."""
    try:
        return DeadLetter.unpack(key, value)
    except DataDirectoryError:
        return None


def report_torn(messages: int) -> int:
    """Tell of how many messages parts are missing, and return it."""
    if messages:
        log.error(
            "%d large messages are lost by damage to the table's files: parts of their payloads are missing", messages
        )
    return messages


def report_gaps(writes: Writes) -> int:
    """Tell what is missing between writes; return how many messages are lost at most."""
    for gap in writes.lost:
        log.error(
            "the writes %d to %d are missing in the table: %d messages are lost by damage to its files, but for those "
            "of them that Kafka had",
            *gap,
        )
    if writes.valid_before is not None:
        log.warning(
            "from write %d on the table was not synced before it was cut off: nothing of that was acknowledged, and "
            "MQTT delivers it again",
            writes.valid_before,
        )
    return sum(gap.messages for gap in writes.lost)


def report_tail(writes: Writes, mark: Mark) -> int:
    """Tell what is missing at the end, where a log was cut short; return how many messages are lost at most."""
    if mark.synced_before <= writes.next_number:
        return 0
    messages = mark.written_messages - writes.messages
    log.error(
        "the writes %d to %d are missing at the end of the table: %d messages are lost by damage to its files, but for "
        "those of them that Kafka had",
        writes.next_number,
        mark.synced_before - 1,
        messages,
    )
    return messages


def report_missing(expected: dict[str, int], found: dict[str, int], mark: Mark, *, is_older: bool) -> int:
    """Tell what is missing of the entries that the routes' accounts name; return how many messages are lost.

    Where an account is lost itself, or is older than that, the number of entries at the last sync stands in.

    Args:
        expected: Messages by route, as the accounts say.
        found: Messages by route, as they are.
        mark: What is known to be synced.
        is_older: The accounts may be those of an earlier write than the last that was synced.
    """
    lost = max(0, mark.undelivered_messages - sum(found.values()))
    if not expected or found.keys() - expected.keys():
        if lost:
            log.error(
                "about %d messages are lost by damage to the table's files; of which routes is not known, as the "
                "counts are lost with them",
                lost,
            )
        return lost
    if is_older and lost > sum(max(0, messages - found.get(route, 0)) for route, messages in expected.items()):
        log.error("about %d messages are lost by damage to the table's files, and accounts of later writes", lost)
        return lost
    lost = 0
    for route, messages in expected.items():
        missing = messages - found.get(route, 0)
        if missing > 0:
            log.error("%d messages of %s are lost by damage to the table's files", missing, route)
            lost += missing
    return lost


def report_missing_dead_letters(expected: int, found: int) -> int:
    """Tell how many dead letters are missing, and return it."""
    if expected <= found:
        return 0
    log.error("%d dead letters are lost by damage to the table's files", expected - found)
    return expected - found
