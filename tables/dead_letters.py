"""The dead letters of the table: found by their ids, deleted, and counted anew.

An id has one form, 24 lower-case hexadecimal digits: else one dead letter had several names, and a command that names
it twice would count it twice. A command that names ids does all that it asks for or nothing: each id is looked for
before anything is changed.

Counts change in the write that changes the entries (`tables.write`). They are held against the entries all the same,
as what an older version or damage left wrong would stay so for ever: at the start, for two seconds at most, and after
it if that was too short, and once an hour. There entries of one moment are counted (a snapshot of RocksDB), in slices,
so that messages go on meanwhile; what the counts were wrong by at that moment is put right at the end. Where there are
large ones, which take long to read, that is done only when `dead-letters list` has found the counts to be wrong.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from app.errors import ConnectorError
from app.listed import first_of
from app.throttle import Progress
from tables import layout
from tables.dead_letter import DeadLetter
from tables.entry import entry_bytes
from tables.piece_keys import pieces_bytes

if TYPE_CHECKING:
    from tables.engine.store import Store
    from tables.figures import TableFigures
    from tables.write import TableWrite

log = logging.getLogger(__name__)

ID = re.compile(f"[0-9a-f]{{{2 * layout.SEQUENCE_BYTES}}}")
MOST_IDS = 1_000  # in one command, as all of it is done in one go: 30 ms
# Of those that are retried at once: memory holds them until they are stored. As many as in `app.core.memory_budget`.
RETRIED_BYTES, RETRIED_MESSAGES = 16 * 1024 * 1024, 5_000
SLICE_SECONDS, PAUSE_SECONDS = 0.002, 0.02  # of the event loop, a tenth of it while entries are counted
AGAIN_SECONDS = 3600.0
START_SECONDS = 2.0  # of a start, before anything is received


class Counts(NamedTuple):
    """Dead letters, and what they take."""

    messages: int
    size_bytes: int

    def and_one(self, key: bytes, value: bytes) -> Counts:
        """Return them with one entry more."""
        return Counts(self.messages + 1, self.size_bytes + entry_bytes(key, value))


class Table(Protocol):
    """The table, as its dead letters know it."""

    figures: TableFigures

    @property
    def data(self) -> Store:
        """Its database."""

    @property
    def should_stop(self) -> bool:
        """Whether the service stops."""

    def begin(self) -> TableWrite:
        """Begin a write."""

    async def wait_first(self, *awaitables: Any, timeout: float) -> Any:
        """Wait for the first of them, for so long at most, and no longer than the service runs."""


class DeadLetterEntries:
    """The dead letters of a table.

    Attributes:
        are_counted: Their counts were held against them since the start: only then the oldest may give way.
    """

    def __init__(self, table: Table) -> None:
        """Take the table; nothing is read yet."""
        self.are_counted = True
        self._table = table
        self._figures = table.figures.letters
        self._entries: Generator[tuple[bytes, bytes], None, None] | None = None
        self._wanted = asyncio.Event()

    def __iter__(self) -> Iterator[DeadLetter]:
        """Iterate over them, oldest first."""
        for key, value in self._table.data.with_prefix(layout.DEAD_LETTER):
            yield DeadLetter.unpack(key, value)

    def find(self, ids: Sequence[str]) -> dict[bytes, int]:
        """Return the keys of the dead letters with these ids, and the lengths of their values, without pieces.

        Raises:
            ConnectorError: An id has not the one form, is there twice, or there is no dead letter with it.
        """
        if len(ids) > MOST_IDS:
            raise ConnectorError(f"nothing was changed: {len(ids)} ids; name {MOST_IDS} in one command at most")
        wrong = [name for name in ids if not ID.fullmatch(name)]
        _refuse(wrong, "is no id (24 digits of 0-9 and a-f)", "are no ids (24 digits of 0-9 and a-f)")
        repeated = [name for name, times in Counter(ids).items() if times > 1]
        _refuse(repeated, "is named more than once", "are named more than once")
        keys = [layout.DEAD_LETTER + bytes.fromhex(name) for name in ids]
        values = ((key, self._table.data.value(key)) for key in keys)
        found = {key: len(value) for key, value in values if value is not None}
        missing = [key[1:].hex() for key in keys if key not in found]
        _refuse(missing, "is the id of no dead letter", "are the ids of no dead letters")
        return found

    def chosen(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        """Iterate over the dead letters with these ids, over all if there are no ids.

        Raises:
            ConnectorError: See `find`; or they take more than may be in memory. Raised before the first is given.
        """
        if not ids:
            yield from self
            return
        found = self.find(ids)
        size_bytes = sum(found.values()) + sum(map(self._figures.pieces_bytes, found))
        letters: list[DeadLetter] = []
        for key in found if size_bytes <= RETRIED_BYTES or len(found) == 1 else ():
            value = self._table.data.value(key)
            if value is not None:
                letters.append(DeadLetter.unpack(key, value))
                size_bytes += letters[-1].retried_bytes - len(value) - self._figures.pieces_bytes(key)
                if size_bytes > RETRIED_BYTES:  # with their headers: no more of them are made
                    break
        if len(found) > 1 and size_bytes > RETRIED_BYTES:
            raise ConnectorError(
                f"nothing was changed: these dead letters take {size_bytes} bytes of memory or more together; name "
                f"some that take {RETRIED_BYTES} at most, or one"
            )
        yield from letters

    def delete(self, ids: Sequence[str], spared: Collection[bytes] = ()) -> int:
        """Delete the dead letters with these ids, all but the spared if there are no ids; return how many.

        Raises:
            ConnectorError: See `find`; nothing is deleted.
        """
        write = self._table.begin()
        if ids:
            found = self.find(ids)
            for key, value_bytes in found.items():
                write.remove_dead_letter(key, value_bytes)
            count = len(found)
        else:
            count = self._figures.messages  # to look at a million of them would hold up the messages
            write.remove_all_dead_letters(spared)
            count -= self._figures.messages
        write.commit()
        return count

    # ---- counted anew

    def counted(self) -> Counts:
        """Return what the counts say."""
        return Counts(self._figures.messages, self._figures.size_bytes)

    def count_at_start(self) -> None:
        """Count for two seconds at most (blocks), before anything is received."""
        self.are_counted = self.count_now(Progress(lambda _: None), START_SECONDS)

    def count_now(self, progress: Progress, limit_seconds: float = math.inf) -> bool:
        """Count the entries (blocks), and put the counts right; return whether there was time for all of them."""
        before, found, give_up_at = self.counted(), self._of_pieces(), time.monotonic() + limit_seconds
        for key, value in self._table.data.with_prefix(layout.DEAD_LETTER):
            found = found.and_one(key, value)
            self._figures.note_size(len(value))
            progress.reached(found.messages)
            if time.monotonic() >= give_up_at:
                return False
        self._put_right(before, found)
        return True

    def _of_pieces(self) -> Counts:
        """Return what all pieces take, to which the entries are added."""
        return Counts(0, sum(map(pieces_bytes, self._figures.pieces.values())))

    def count_soon(self) -> int:
        """Have them counted in a moment, as somebody saw that the counts are wrong; return 0."""
        self._wanted.set()
        return 0

    async def count_again_and_again(self) -> None:
        """Hold the counts against the entries after the start, and then now and then."""
        while not self._table.should_stop:
            is_asked = self._wanted.is_set()
            self._wanted.clear()
            if is_asked or not self._figures.has_large:
                await self.count_beside(large_too=is_asked)
            self.are_counted = True
            await self._table.wait_first(self._wanted.wait(), timeout=AGAIN_SECONDS)  # or until the service stops

    async def count_beside(self, *, large_too: bool = True) -> None:
        """Count the entries in slices, beside everything else, and put the counts right; not if a large one is met."""
        before, found = self.counted(), self._of_pieces()
        slice_ends = time.monotonic() + SLICE_SECONDS
        self._entries = entries = self._table.data.entries_of_now(layout.DEAD_LETTER)
        for key, value in entries:
            found = found.and_one(key, value)
            self._figures.note_size(len(value))
            if self._figures.has_large and not large_too:
                self.stop_counting()
                return
            if time.monotonic() >= slice_ends:
                await asyncio.sleep(PAUSE_SECONDS)
                slice_ends = time.monotonic() + SLICE_SECONDS
        if self._entries is entries:  # else the table was closed meanwhile
            self._put_right(before, found)
            self._entries = None

    def stop_counting(self) -> None:
        """Let go of the entries of one moment, which would hold the database open."""
        if self._entries is not None:
            self._entries.close()
            self._entries = None

    def _put_right(self, before: Counts, found: Counts) -> None:
        """Add to the counts what they lacked when the counting began."""
        if before == found:
            return
        log.warning(
            "the table counted %d dead letters of %d bytes, and held %d of %d: the counts are put right",
            *before,
            *found,
        )
        write = self._table.begin()
        write.correct_dead_counts(found.messages - before.messages, found.size_bytes - before.size_bytes)
        write.commit()


def _refuse(names: Sequence[str], is_what: str, are_what: str) -> None:
    """Refuse a command for the sake of some of its ids, of one or of several."""
    if names:
        what = is_what if len(names) == 1 else are_what
        shown = first_of([repr(name) for name in names], 3)
        raise ConnectorError(f"nothing was changed: {shown} {what}; `dead-letters list` shows the ids")
