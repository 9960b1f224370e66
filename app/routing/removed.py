"""The filters that were ours, and of which messages may still come.

What comes by one of them, and matches no route, is wanted no more: it is dropped, and is no dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from app.routes import Route, RouteTable, Template, filters_of, topic_text

if TYPE_CHECKING:
    from app.mqtt.copies import Copies

FILTERS_AT_ONCE = 1_000  # what is needed of them takes some milliseconds; of more it is made in a thread


class RemovedFilters:
    """Filters that the session had or has, and that no route has any more."""

    def __init__(self, copies: Copies) -> None:
        """Know of none yet; `copies` knows what there was."""
        self._copies = copies
        self._filters: list[str] = []
        self._table = RouteTable([])
        self._lives: set[int] | None = None  # their identifiers, once they are needed

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._filters)

    async def look(self, mapped: Collection[str]) -> None:
        """Find out which they are.

        Args:
            mapped: The filters of the routes.
        """
        filters = self._copies.removed_filters(mapped)
        few = len(filters) <= FILTERS_AT_ONCE
        if filters != self._filters:
            self._table = _table_of(filters) if few else await asyncio.to_thread(_table_of, filters)
            self._filters = filters
        self._lives = None if few else await asyncio.to_thread(self._copies.lives_of, filters)

    def matching(self, topic: bytes) -> tuple[str, ...]:
        """Return those that match a topic."""
        return filters_of(self._table.matches(topic_text(topic))) if self._filters else ()

    def have(self, topic: bytes, identifiers: tuple[int, ...]) -> bool:
        """Tell whether a message came by one of them, as its subscription identifiers say, or its topic."""
        if identifiers and self._lives is None:
            self._lives = self._copies.lives_of(self._filters)
        by_identifier = self._lives is not None and not self._lives.isdisjoint(identifiers)
        return by_identifier or bool(self.matching(topic))


def _table_of(filters: Sequence[str]) -> RouteTable:
    """Return a table of filters that lead nowhere."""
    return RouteTable([Route(name, name, Template("")) for name in filters])
