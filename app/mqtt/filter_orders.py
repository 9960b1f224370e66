"""Other filters for a running worker: from the event loop, which orders them, to the MQTT thread, which takes them up.

It does so at its next turn, or with its next connection. Only the last order counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class FilterOrder(NamedTuple):
    """Filters that the worker is to have.

    Attributes:
        filters: All of them, in the order of precedence.
        anew: Those to be subscribed to once more, as their QoS is another one.
    """

    filters: tuple[str, ...]
    anew: frozenset[str]


class FilterOrders:
    """What was ordered and is not done."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._orders: deque[FilterOrder] = deque()  # one at most; what is put in and taken out is never seen in part
        self._is_taking_up = False

    @property
    def is_ordered(self) -> bool:
        """Whether there is an order that the MQTT thread has not taken up yet."""
        return bool(self._orders)

    @property
    def is_under_way(self) -> bool:
        """Whether there is one that is not done: the broker has not answered all that was asked for it."""
        return self.is_ordered or self._is_taking_up

    def order(self, filters: Sequence[str], anew: Iterable[str] = ()) -> None:
        """Have other filters, see `FilterOrder` (event loop)."""
        before = self._pop()
        self._orders.append(FilterOrder(tuple(filters), (before.anew if before else frozenset()).union(anew)))

    def take_up(self) -> FilterOrder | None:
        """Return what is ordered; None if nothing is (MQTT thread)."""
        if not self._orders:
            return None
        self._is_taking_up = True  # before it is taken out, so that one of the two is true all the time
        return self._pop()

    def note_done(self) -> None:
        """Note that the broker has answered everything (MQTT thread)."""
        self._is_taking_up = False

    def _pop(self) -> FilterOrder | None:
        try:
            return self._orders.pop()
        except IndexError:  # the other thread has it
            return None
