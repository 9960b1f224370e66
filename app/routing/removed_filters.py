"""Filters that the session had and that no route has any more: messages by them may come until the session is lost.

What comes by them and matches no route is nobody's, and dropped. What matches a route as well may be a copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from app.mqtt.generations import FEW_FILTERS
from app.routes import Route, RouteTable, Template, filters_of

if TYPE_CHECKING:
    from app.mqtt.copies import Copies

FILTERS_AT_ONCE = 1_000  # a table of them takes some milliseconds; of more it is made in a thread


class RemovedFilters:
    """The removed filters, as they were when somebody looked last."""

    def __init__(self, copies: Copies) -> None:
        """Know of none yet; `copies` knows what there was, and the subscription identifiers."""
        self._copies = copies
        self._filters: list[str] = []
        self._table = RouteTable([])
        self._identifiers: set[int] | None = None  # once they are needed

    async def look(self, mapped: Collection[str]) -> None:
        """Find out which they are.

        Args:
            mapped: The filters of the routes.
        """
        filters = self._copies.removed_filters(mapped)
        count = len(filters)
        if filters != self._filters:
            is_quick = count <= FILTERS_AT_ONCE
            self._table = _table_of(filters) if is_quick else await asyncio.to_thread(_table_of, filters)
            self._filters = filters
        self._identifiers = None if count <= FEW_FILTERS else await asyncio.to_thread(self._copies.lives_of, filters)

    def matching(self, topic: str) -> tuple[str, ...]:
        """Return those that match a topic, in an order that is the same for all topics."""
        return filters_of(self._table.matches(topic)) if self._filters else ()

    def brought(self, topic: str, identifiers: Collection[int]) -> bool:
        """Tell whether a message that matches no route came by one of them, by its topic or by its identifiers."""
        if identifiers and self._identifiers is None:
            self._identifiers = self._copies.lives_of(self._filters)
        by_identifier = self._identifiers is not None and not self._identifiers.isdisjoint(identifiers)
        return by_identifier or bool(self.matching(topic))


def _table_of(filters: Sequence[str]) -> RouteTable:
    """Return a table of filters that lead nowhere."""
    return RouteTable([Route(name, name, Template("")) for name in filters])
