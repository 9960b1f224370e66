"""The table of undelivered messages: a Faust table that sends no changelog, as its Kafka is the one that is away.

Constraints, each with a test:

- A message is in the table from the write that holds it, and safe from the sync after it. Its one writer is the
  keeper, or a command while no worker runs.
- Entries are read per lane, in the order of receipt, from a cursor that their reader remembers: to seek to the head
  after many removals would be slow.
- A removal is not synced by itself: when it is lost, a message is delivered twice, never lost.
- Counts and bytes per route change in the same write as the entries, so nothing is scanned at the start. Only the
  head of each lane is looked up. Counts below zero are impossible, and counted anew at the start; an empty table that
  counts anything is put right.
- Every write has a number, one after the other. What damage took is counted by them, told once and put right at the
  start (`tables.damage`). Then, and only then, the entries are counted anew.
- `limit_bytes` bounds the undelivered messages; dead letters have a tenth of it on top, and the oldest gives way.
- The epoch grows with every start and is synced before it is used: no key is ever used twice.

What is stored how: `tables.layout`. RocksDB: `tables.store`, and `tables.opening` for when it cannot be opened. One
write: `tables.write`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import faust

from app.errors import DataDirectoryError, StoreError
from app.messages import MESSAGE_OVERHEAD_BYTES, Message
from app.throttle import Progress
from tables import counts, damage, layout
from tables.ballast import free_bytes
from tables.dead_letter import DeadLetter
from tables.dead_letters import START_SECONDS, DeadLetterEntries
from tables.opening import refuse_newer
from tables.shapes import is_counts, is_two_numbers
from tables.store import Store
from tables.synced_mark import Mark, SyncedMark, read_mark
from tables.write import TableWrite

log = logging.getLogger(__name__)

DEAD_LETTER_SHARE = 0.1  # of the byte limit, on top of it
FREE_SPACE_SHARE = 0.6
GIVE_BACK_SECONDS, GIVE_BACK_BYTES = 20.0, 16 * 1024 * 1024
MEMORY_LIMIT_BYTES = 256 * 1000 * 1000


class UndeliveredTable(faust.Table):
    """The table; see the module's header.

    Attributes:
        limit_bytes: The byte limit in force.
        messages: Messages per route that the table holds.
        bytes: What they take, per route.
        letters: The dead letters that it holds.
        dead_messages: How many these are.
        dead_bytes: What they take.
        epoch: Of this start.
        lost_messages: Messages that damage to its files took, as found at the start.
        write_number: Of the next write.
        written_messages: Messages that were ever written.
        synced_before: All writes before this one are synced.
    """

    mundane_level = "debug"

    def __init__(self, app: Any, *, directory: Path | None, limit_bytes: int | None, **kwargs: Any) -> None:
        """Declare the table; nothing is opened before it starts.

        Args:
            app: The Faust app.
            directory: Where its database is; None: in memory.
            limit_bytes: The byte limit; None: 60% of what is free when the database is made, 256 MB in memory.
            **kwargs: For `faust.Table`.
        """
        self._directory = directory
        self._wanted_limit_bytes = limit_bytes
        self.limit_bytes = limit_bytes or MEMORY_LIMIT_BYTES
        self.messages: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self.total_messages = self.total_bytes = 0
        self.dead_messages = self.dead_bytes = 0
        self.epoch = 0
        self.lost_messages = 0
        self.known_heads: set[bytes] = set()
        self.write_number = self.synced_before = 1
        self.written_messages = 0
        self._flushed_before = 0
        self._recount: damage.Recount | None = None
        self._mark: SyncedMark | None = None
        self.letters = DeadLetterEntries(self)
        super().__init__(app, **kwargs)

    @property
    def is_durable(self) -> bool:
        """Whether it survives the process."""
        return self._directory is not None

    def _new_store(self) -> Store:
        return Store(
            "rocksdb://", self.app, self, directory=self._directory, table_name=self.name, loop=None, options=None
        )

    async def on_start(self) -> None:
        """Open the database, and begin a new epoch."""
        self.open_to_write()
        self.letters.are_counted = self.letters.count_now(Progress(lambda _: None), START_SECONDS)
        self.add_future(self._guarded(self._give_back_again_and_again()))
        self.add_future(self._guarded(self.letters.count_again_and_again()))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreError as error:
            await self.app.fail(error)  # type: ignore[attr-defined]  # ours, not Faust's

    async def _give_back_again_and_again(self) -> None:
        while not self.should_stop:
            await self.sleep(GIVE_BACK_SECONDS)  # it ends early when the service stops
            if self.data.is_open:
                counts.check_empty(self)
                await self.give_back()

    async def give_back(self) -> None:
        """Let RocksDB give back what removed entries take on disk, if that is much or all."""
        used_bytes = self.total_bytes + self.dead_bytes
        unused_bytes = self.data.file_bytes - used_bytes
        if self._flushed_before < self.write_number and (
            not used_bytes or unused_bytes > max(GIVE_BACK_BYTES, used_bytes)
        ):
            self._flushed_before = self.write_number
            await self.data.flush()

    async def on_stop(self) -> None:
        """Sync and close the database."""
        self.close()

    # ---- opening and closing

    def open_to_write(self) -> None:
        """Open, and begin a new epoch; damage that shows meanwhile is salvaged at once.

        Raises:
            DataDirectoryError: It cannot be used, is of a newer version, or holds what none wrote.
            StoreError: It cannot be read or written, for another reason than damage.
        """
        try:
            self.open()
            self.begin_epoch()
        except DataDirectoryError:
            self._abandon()
            raise
        except StoreError as error:
            if not self.data.found_damage:
                raise
            log.error("%s", error)  # noqa: TRY400, the traceback says nothing more
            traceback.clear_frames(error.__traceback__)  # an iterator in one of them would hold the database open
            self._abandon()
        else:
            return
        self.open()
        self.begin_epoch()

    def open(self, *, read_only: bool = False) -> None:
        """Open the database and read its counts.

        Raises:
            DataDirectoryError: It cannot be used, is of a newer version, or holds what none wrote.
        """
        self.data.open(read_only=read_only)
        try:
            self._read_counts(read_only=read_only)
        except DataDirectoryError:
            self._abandon()
            raise

    def _read_counts(self, *, read_only: bool) -> None:
        self.messages, self.bytes, self.known_heads = {}, {}, set()
        refuse_newer(self._directory, self._meta("format", layout.FORMAT_VERSION))
        for key, value in self.data.with_prefix(layout.ACCOUNT):
            route = layout.name_in(key)
            self.messages[route], self.bytes[route] = layout.unpack(key, value, is_counts)
        self.dead_messages, self.dead_bytes = self._meta("dead", (0, 0))
        self.letters.read_pieces()
        self._look_for_damage(read_only=read_only)
        self.total_messages, self.total_bytes = sum(self.messages.values()), sum(self.bytes.values())
        self.limit_bytes = self._limit()

    def _limit(self) -> int:
        if self._wanted_limit_bytes is not None:
            return self._wanted_limit_bytes
        if self._directory is None:
            return MEMORY_LIMIT_BYTES
        return int(self._meta("limit", free_bytes(self._directory) * FREE_SPACE_SHARE))

    def begin_epoch(self) -> None:
        """Begin the epoch of this start, durably."""
        recount, self._recount = self._recount, None
        # After damage, entries may be of a later epoch than the one that is noted.
        self.epoch = max(self._meta("epoch", 0), recount.epoch if recount else 0) + 1
        write = self.begin()
        write.set_meta("epoch", self.epoch)
        write.set_meta("format", layout.FORMAT_VERSION)
        if self._wanted_limit_bytes is None:
            write.set_meta("limit", self.limit_bytes)
        if recount is not None:
            write.put_right(recount)
        for key, _ in self.data.with_prefix(layout.BEGUN):
            write.drop_begun(layout.begun_name(key))
        write.commit()
        self.sync_now()
        self.data.note_format()
        if recount is not None:  # further damage to the log must not bring back what was put right
            self.data.database.flush()

    def close(self) -> None:
        """Sync and close; harmless if it is not open."""
        try:
            if self._data is not None and self.data.is_open:
                self.sync_now()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Close without a sync; harmless if it is not open."""
        self.letters.stop_counting()
        if self._data is not None:
            self.data.close()
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def sync_now(self) -> None:
        """Wait until all writes so far are on disk (blocks).

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        written = Mark(self.write_number, self.written_messages, self.total_messages)
        self.data.sync_now()
        self._note_synced(written)

    async def sync(self) -> None:
        """Wait until all writes so far are on disk; one at a time, as the caller sees to.

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        written = Mark(self.write_number, self.written_messages, self.total_messages)
        await self.data.sync()
        self._note_synced(written)

    def _note_synced(self, written: Mark) -> None:
        self.synced_before = written.synced_before
        if self._mark is not None and self._recount is None:  # until damage is put right, the old mark is its witness
            self._mark.write(written)

    def _meta(self, name: str, default: Any) -> Any:
        key = layout.META + name.encode()
        value = self.data.value(key)
        return default if value is None else layout.unpack_single(key, value)

    def _look_for_damage(self, *, read_only: bool) -> None:
        """Count what damage took, and everything that is left if there was any."""
        mark = Mark()
        if self._directory is not None:
            path = self._directory / "synced-mark"
            mark = read_mark(path)
            if not read_only:
                self._mark = SyncedMark(path)
        first = self._meta("first_write", (1, 0))
        writes = damage.read_writes(self.data, tuple(first), mark)
        self.write_number, self.written_messages = writes.next_number, writes.messages
        self.synced_before = writes.synced_before
        reach = self._meta("salvaged", None)
        if reach:
            recount = damage.count(self.data, None, damaged=True)
            tail_is_missing = mark.synced_before > max(writes.next_number, recount.last_write + 1)
            is_older = tail_is_missing or reach == layout.IN_ACCOUNTS
            self.lost_messages = damage.report_missing(self.messages, recount.messages, mark, is_older=is_older)
            self.lost_messages += damage.report_missing_dead_letters(self.dead_messages, recount.dead_messages)
        else:
            self.lost_messages = damage.report_tail(writes, mark) + damage.report_gaps(writes)
            tail_is_missing = mark.synced_before > writes.next_number
            lowest = min(0, *self.messages.values(), *self.bytes.values(), 0)
            if reach is None and not writes.gaps and not tail_is_missing and lowest == 0:
                return
            damaged = bool(tail_is_missing or writes.lost)
            recount = damage.count(self.data, writes.valid_before, damaged=damaged)
            self.lost_messages += damage.report_torn(recount.torn)
        self._take_up(recount, mark)

    def _take_up(self, recount: damage.Recount, mark: Mark) -> None:
        """Go on with what was counted anew; it is stored when the epoch begins."""
        self._recount = recount
        self.messages = {**dict.fromkeys(self.messages, 0), **recount.messages}
        self.bytes = {**dict.fromkeys(self.bytes, 0), **recount.size_bytes}
        self.dead_messages, self.dead_bytes = recount.dead_messages, recount.dead_bytes
        self.letters.note_pieces(recount.letter_pieces)
        # No number is used twice, or an entry would be taken for one of a later write.
        self.write_number = max(self.write_number, mark.synced_before, recount.last_write + 1)

    # ---- reading

    def lanes(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over the Kafka topics that have entries, and the key of the first entry of each."""
        for key, head in self.data.with_prefix(layout.HEAD):
            topic = layout.name_in(key)
            first = next(self.data.entries(head), None)
            if first is not None and first[0].startswith(layout.undelivered_prefix(topic)):
                yield topic, first[0]

    def read(self, prefix: bytes, first: bytes, limit_messages: int, limit_bytes: int) -> list[Message]:
        """Return entries of a lane, in order, from the key `first` on; payloads that are in pieces are not read.

        Args:
            prefix: What the lane's keys begin with.
            first: The first key wanted.
            limit_messages: The most entries to return.
            limit_bytes: No further entry once they take this much.
        """
        messages: list[Message] = []
        size_bytes = 0
        for key, value in self.data.entries(first):
            if not key.startswith(prefix):
                break
            messages.append(layout.unpack_entry(key, value))
            size_bytes += messages[-1].size_bytes - MESSAGE_OVERHEAD_BYTES
            if len(messages) >= limit_messages or size_bytes >= limit_bytes:
                break  # here, as the next one may be large, and would be read for nothing
        return messages

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Iterate over the dead letters, oldest first."""
        return iter(self.letters)

    def chosen_dead_letters(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        """Iterate over the dead letters with these ids; see `DeadLetterEntries.chosen`."""
        return self.letters.chosen(ids)

    def delete_dead_letters(self, ids: Sequence[str], spared: Collection[bytes] = ()) -> int:
        """Delete the dead letters with these ids; see `DeadLetterEntries.delete`."""
        return self.letters.delete(ids, spared)

    def count_dead_letters(self, messages: int, size_bytes: int) -> None:
        """Count so many more."""
        self.dead_messages += messages
        self.dead_bytes += size_bytes

    def packet_identifiers(self) -> dict[int, int]:
        """Return the packet identifiers of stored QoS 2 messages that await PUBREL, with the messages' fingerprints."""
        found = self.data.with_prefix(layout.PACKET_IDENTIFIER)
        return {int.from_bytes(key[1:], "big"): layout.unpack(key, value, is_two_numbers)[1] for key, value in found}

    def filters(self) -> list[str] | None:
        """Return the filters that the broker's session had, None if that is unknown."""
        found: list[str] | None = self._meta("filters", None)
        return found

    def left_filters(self) -> list[str]:
        """Return the filters that the session had when a drain began which nothing was subscribed to since."""
        found: list[str] = self._meta("left", [])
        return found

    def generations(self) -> dict[str, int]:
        """Return when each subscription was made, by filter."""
        found: dict[str, int] = self._meta("generations", {})
        return found

    def kept_by_topics(self) -> dict[str, int]:
        """Return how many milliseconds Kafka topics keep a record, as far as it was known last."""
        found: dict[str, int] = self._meta("keeps", {})
        return found

    def granted_at(self) -> dict[str, float]:
        """Return when each subscription was granted first (Unix seconds), by filter."""
        found: dict[str, float] = self._meta("granted_at", {})
        return found

    def left_out(self) -> list[str]:
        """Return the filters at which the broker closes the connection."""
        found: list[str] = self._meta("left_out", [])
        return found

    def has_room_for(self, size_bytes: int) -> bool:
        """Whether so much more fits under the byte limit."""
        return self.total_bytes + size_bytes <= self.limit_bytes

    def use_reserve(self) -> None:
        """Give up the ballast if the disk is full, for what must still be written at the stop."""
        if self.check_disk_full():
            self.data.use_reserve()

    def check_disk_full(self) -> bool:
        """Tell whether the disk has hardly any room left, whatever the limit says; see `tables.ballast`."""
        return bool(self.data.check_disk_full())

    # ---- writing

    def begin(self) -> TableWrite:
        """Begin a write."""
        return TableWrite(self)

    def on_key_set(self, key: bytes, value: Any) -> None:
        """Leave it to the store to refuse an assignment; Faust would send a changelog, and count in its monitor."""

    def on_key_del(self, key: bytes) -> None:
        """See `on_key_set`."""
