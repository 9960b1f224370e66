"""The check at a start: the figures of the table, what damage took, and what was counted anew because of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tables import layout
from tables.entry import unpack_pieces
from tables.repair import damage
from tables.shapes import is_counts

if TYPE_CHECKING:
    from tables.engine.store import Store
    from tables.figures import Mark, TableFigures
    from tables.metadata import Metadata


class Found(NamedTuple):
    """What was found.

    Attributes:
        lost_messages: Messages that damage took.
        recount: What was counted anew, which the table does not say yet; None: nothing was wrong.
    """

    lost_messages: int
    recount: damage.Recount | None


def check(store: Store, metadata: Metadata, figures: TableFigures, mark: Mark) -> Found:
    """Read the figures; count what damage took, and everything that is left if there was any.

    Raises:
        DataDirectoryError: The table holds what none wrote.
    """
    writes = _read(store, metadata, figures, mark)
    reach = metadata.value("salvaged", None)
    if reach:
        recount = damage.count(store, None, damaged=True)
        tail_is_missing = mark.synced_before > max(writes.next_number, recount.last_write + 1)
        is_older = tail_is_missing or reach == layout.IN_ACCOUNTS
        lost_messages = damage.report_missing(figures.messages, recount.messages, mark, is_older=is_older)
        lost_messages += damage.report_missing_dead_letters(figures.letters.messages, recount.dead_messages)
    else:
        lost_messages = damage.report_tail(writes, mark) + damage.report_gaps(writes)
        tail_is_missing = mark.synced_before > writes.next_number
        if reach is None and not writes.gaps and not tail_is_missing and figures.lowest == 0:
            return Found(lost_messages, None)
        damaged = bool(tail_is_missing or writes.lost)
        recount = damage.count(store, writes.valid_before, damaged=damaged)
        lost_messages += damage.report_torn(recount.torn)
    # No number is used twice, or an entry would be taken for one of a later write.
    next_write = max(mark.synced_before, recount.last_write + 1)
    figures.put_right(recount.messages, recount.size_bytes, next_write=next_write)
    figures.letters.read((recount.dead_messages, recount.dead_bytes), recount.letter_pieces.items())
    return Found(lost_messages, recount)


def _read(store: Store, metadata: Metadata, figures: TableFigures, mark: Mark) -> damage.Writes:
    """Read the figures as the table says them, right or not; return its writes."""
    accounts = store.with_prefix(layout.ACCOUNT)
    counts = {layout.name_in(key): layout.unpack(key, value, is_counts) for key, value in accounts}
    dead = metadata.value("dead", (0, 0))
    pieces = store.with_prefix(layout.LETTER_PIECES)
    figures.letters.read(dead, [(layout.DEAD_LETTER + key[1:], unpack_pieces(key, value)) for key, value in pieces])
    writes = damage.read_writes(store, tuple(metadata.value("first_write", (1, 0))), mark)
    figures.read(counts, next_write=writes.next_number, written=writes.messages, synced_before=writes.synced_before)
    return writes
