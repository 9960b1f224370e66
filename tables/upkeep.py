"""What a table does by itself from time to time: it gives space back, and corrects counts.

Counts may be wrong because of an older version or damage. The entries are not counted again for that, as there may be
millions. But when there are none, the counts are set to 0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from app.metrics import accounts

if TYPE_CHECKING:
    from tables.engine.store import Store
    from tables.figures import TableFigures
    from tables.write import TableWrite

log = logging.getLogger(__name__)

EVERY_SECONDS = 20.0
GIVE_BACK_BYTES = 16 * 1024 * 1024


class Table(Protocol):
    """The table, as far as it is needed here."""

    figures: TableFigures

    @property
    def data(self) -> Store:
        """Its database."""

    @property
    def should_stop(self) -> bool:
        """Whether the service stops."""

    def lanes(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over the lanes that have entries."""

    def begin(self) -> TableWrite:
        """Begin a write."""

    async def sleep(self, n: float) -> Any:
        """Sleep, no longer than the service runs."""


class Upkeep:
    """Runs for as long as the table does."""

    def __init__(self, table: Table) -> None:
        """Take the table; nothing is read yet."""
        self._table = table
        self._flushed_before = 0

    async def run(self) -> None:
        """Look every 20 seconds."""
        while not self._table.should_stop:
            await self._table.sleep(EVERY_SECONDS)
            if self._table.data.is_open:
                self.check_empty()
                await self.give_back()

    def check_empty(self) -> None:
        """See that an empty table counts nothing; else put its counts and the accounts right."""
        figures = self._table.figures
        if figures.are_zero or next(self._table.lanes(), None) is not None:
            return
        log.warning(
            "the table counted %d undelivered messages, and is empty: the counts are put right", figures.total_messages
        )
        for route, messages in figures.messages.items():
            accounts[route].take_out_miscounted(messages, figures.bytes[route])
        write = self._table.begin()
        write.clear_counts()
        write.commit()

    async def give_back(self) -> None:
        """Let RocksDB give back what removed entries take on disk, if that is much or all."""
        store, figures = self._table.data, self._table.figures
        used_bytes = figures.total_bytes + figures.letters.size_bytes
        is_much = store.file_bytes - used_bytes > max(GIVE_BACK_BYTES, used_bytes)
        if self._flushed_before < figures.write_number and (is_much or not used_bytes):
            self._flushed_before = figures.write_number
            await store.flush()
