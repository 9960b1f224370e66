"""The table of undelivered messages: a Faust table without a changelog topic, as it is needed when Kafka is away.

Constraints, each with a test:

- A message is in the table after its write, and safe after the next sync. Only the table writer changes the table, or a
  command while no worker runs.
- Entries are read per lane, in the order of receipt, from a cursor that the lane remembers, as a seek to the first
  entry would step over the tombstones of all removed ones.
- A removal is not synced by itself: when it is lost, a message is delivered twice, never lost.
- Counts and bytes per route change in the same write as the entries, so nothing is scanned at the start. Only the
  first entry of each lane is looked up. The counts of an empty table are set to zero.
- The writes are numbered, without gaps. After damage, the numbers that are missing show how much was lost; that is
  logged once, at the start (`tables.repair.damage`). The entries are counted anew only after damage, or where a count
  is below zero.
- `limit_bytes` bounds the undelivered messages; dead letters may take a tenth of it in addition, and then the oldest is
  dropped.
- The epoch grows with every start and is synced before it is used: no key is ever used twice.

Keys and values: `tables.layout`. A message as such a value: `tables.entry`. One write: `tables.write`. RocksDB:
`tables.engine`, and `tables.repair` for damaged files.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

from app.core.message import MESSAGE_OVERHEAD_BYTES, Message
from app.errors import DataDirectoryError, StoreError
from tables import layout
from tables.dead_letter import DeadLetter
from tables.dead_letters import DeadLetterEntries
from tables.engine.faust_mapping import QuietTable
from tables.engine.opening import refuse_newer
from tables.engine.store import Store
from tables.entry import unpack_entry
from tables.figures import Mark, SyncedMark, TableFigures, open_mark
from tables.metadata import MEMORY_LIMIT_BYTES, Metadata
from tables.repair import damage, start_check
from tables.upkeep import Upkeep
from tables.write import TableWrite

log = logging.getLogger(__name__)

DEAD_LETTER_SHARE = 0.1  # of the byte limit, on top of it


class UndeliveredTable(QuietTable):
    """The table; see the module's header.

    Attributes:
        limit_bytes: The byte limit in force.
        figures: What it counts, and its writes.
        metadata: Single values that it remembers.
        letters: The dead letters that it holds.
        upkeep: What it does by itself now and then.
        epoch: Of this start.
        lost_messages: Messages that damage to its files took, as found at the start.
    """

    mundane_level = "debug"

    def __init__(self, app: Any, *, directory: Path | None, limit_bytes: int | None, **kwargs: Any) -> None:
        """Declare the table; nothing is opened before it starts.

        Args:
            app: The Faust app.
            directory: Where its database is; None: in memory.
            limit_bytes: The byte limit; None: 30% of what is free when the database is made, 256 MB in memory.
            **kwargs: For `faust.Table`.
        """
        self._directory = directory
        self._wanted_limit_bytes = limit_bytes
        self.limit_bytes = limit_bytes or MEMORY_LIMIT_BYTES
        self.figures = TableFigures()
        self.metadata = Metadata(lambda: self.data)
        self.epoch = 0
        self.lost_messages = 0
        self._recount: damage.Recount | None = None
        self._mark: SyncedMark | None = None
        self.letters = DeadLetterEntries(self)
        self.upkeep = Upkeep(self)
        super().__init__(app, **kwargs)

    @property
    def total_messages(self) -> int:
        """Messages that it holds, without dead letters."""
        return self.figures.total_messages

    @property
    def total_bytes(self) -> int:
        """What they take."""
        return self.figures.total_bytes

    @property
    def dead_messages(self) -> int:
        """Dead letters that it holds."""
        return self.figures.letters.messages

    @property
    def dead_bytes(self) -> int:
        """What these take."""
        return self.figures.letters.size_bytes

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
        self.letters.count_at_start()
        self.add_future(self._guarded(self.upkeep.run()))
        self.add_future(self._guarded(self.letters.count_again_and_again()))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreError as error:
            await self.app.fail(error)  # type: ignore[attr-defined]  # ours, not Faust's

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
        refuse_newer(self._directory, self.metadata.value("format", layout.FORMAT_VERSION))
        mark, self._mark = open_mark(self._directory, read_only=read_only)
        found = start_check.check(self.data, self.metadata, self.figures, mark)
        self.lost_messages = found.lost_messages
        self._recount = found.recount or self._recount
        wanted = self._wanted_limit_bytes
        self.limit_bytes = self.metadata.limit_bytes(self._directory) if wanted is None else wanted

    def begin_epoch(self) -> None:
        """Begin the epoch of this start, durably."""
        recount, self._recount = self._recount, None
        # After damage, entries may be of a later epoch than the one that is noted.
        self.epoch = max(self.metadata.value("epoch", 0), recount.epoch if recount else 0) + 1
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
        mark = self.figures.mark
        self.data.sync_now()
        self._note_synced(mark)

    async def sync(self) -> None:
        """Wait until all writes so far are on disk; one at a time, as the caller sees to.

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        mark = self.figures.mark
        await self.data.sync()
        self._note_synced(mark)

    def _note_synced(self, mark: Mark) -> None:
        self.figures.note_synced(mark)
        if self._mark is not None and self._recount is None:  # until damage is put right, the old mark tells the loss
            self._mark.write(mark)

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
            messages.append(unpack_entry(key, value))
            size_bytes += messages[-1].size_bytes - MESSAGE_OVERHEAD_BYTES
            if len(messages) >= limit_messages or size_bytes >= limit_bytes:
                break  # here, as the next one may be large, and would be read for nothing
        return messages

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Iterate over the dead letters, oldest first."""
        return iter(self.letters)

    def has_room_for(self, size_bytes: int) -> bool:
        """Whether so much more fits under the byte limit."""
        return self.total_bytes + size_bytes <= self.limit_bytes

    def use_reserve(self) -> None:
        """Give up the ballast if the disk is full, for what must still be written at the stop."""
        if self.check_disk_full():
            self.data.use_reserve()

    def check_disk_full(self) -> bool:
        """Tell whether the disk has hardly any room left, whatever the limit says; see `tables.engine.ballast`."""
        return bool(self.data.check_disk_full())

    # ---- writing

    def begin(self) -> TableWrite:
        """Begin a write."""
        return TableWrite(self.data, self.figures)
