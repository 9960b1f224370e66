"""What became of the messages of each route: noted on the path of a message, and counted when somebody reads it.

With thousands of routes most messages of a batch are alone in theirs, and to look for the account of each would cost a
fourth of all that a message costs. So of several messages of different routes it is only noted which routes they were,
and how large each was. They are counted when somebody reads an account, or when many are noted: then each account is
looked for once for many of them. What is of one route is counted at once.

All of it is on the event loop alone. Whoever reads all accounts before other tasks have a turn sees them at one moment.
Then, per route:

    received + recovered = delivered + undelivered + dead-lettered + dropped + in flight
"""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import TypeVar

MISCOUNTED = "miscounted"  # the reason of messages that the table counted and did not hold
NOTED_MESSAGES = 100_000  # so many are counted at once, which takes some 20 ms with 10,000 routes

_NONE: Counter[str] = Counter()  # for copies, which nobody changes
Value = TypeVar("Value")
RoutesAndSizes = tuple[Sequence[str], Sequence[int]]  # of messages, in the same order


def numbers_of(values: Sequence[Value]) -> Iterable[tuple[Value, int]]:
    """Return how often each value is there; most often all are the same."""
    if are_one(values):
        return ((values[0], len(values)),)
    return Counter(values).items()


def are_one(values: Sequence[Value]) -> bool:
    """Tell whether all values are the same one; for none it is untrue."""
    return bool(values) and values[0] == values[-1] and values.count(values[0]) == len(values)


def sums_by_route(batches: Sequence[RoutesAndSizes]) -> Iterable[tuple[str, int, int]]:
    """Return route, number and bytes of messages, for each route that there is among them."""
    numbers: Counter[str] = Counter()
    for routes, _ in batches:
        if are_one(routes):
            numbers[routes[0]] += len(routes)
        else:
            numbers.update(routes)
    sums_bytes = dict.fromkeys(numbers, 0)  # a plain dictionary, as that is the fastest in the loop over all messages
    for routes, sizes_bytes in batches:
        if are_one(routes):
            sums_bytes[routes[0]] += sum(sizes_bytes)
        else:
            for route, size_bytes in zip(routes, sizes_bytes, strict=True):
                sums_bytes[route] += size_bytes
    return zip(numbers, numbers.values(), sums_bytes.values(), strict=True)


@dataclass(slots=True)
class Account:
    """What became of the messages of one route, since the start."""

    received: int = 0
    received_bytes: int = 0
    recovered: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    stored: int = 0
    replayed: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    undelivered: int = 0
    undelivered_bytes: int = 0
    in_flight: int = 0
    properties_left_out: int = 0
    timestamps_replaced: Counter[str] = field(default_factory=Counter)

    @property
    def imbalance(self) -> int:
        """Messages that are not accounted for."""
        done = self.delivered + sum(self.dead_lettered.values()) + sum(self.dropped.values())
        return self.received + self.recovered - done - self.undelivered - self.in_flight

    def copy(self) -> Account:
        """Return it as it is now, only to be read; field by field, which is fast, as there may be ten thousand."""
        return Account(
            self.received,
            self.received_bytes,
            self.recovered,
            self.delivered,
            self.delivered_bytes,
            self.stored,
            self.replayed,
            self.dead_lettered.copy() if self.dead_lettered else _NONE,
            self.dropped.copy() if self.dropped else _NONE,
            self.undelivered,
            self.undelivered_bytes,
            self.in_flight,
            self.properties_left_out,
            self.timestamps_replaced.copy() if self.timestamps_replaced else _NONE,
        )

    def receive(self, messages: int, payload_bytes: int = 0) -> None:
        """Count messages that were received, and are in memory alone."""
        self.received += messages
        self.received_bytes += payload_bytes
        self.in_flight += messages

    def receive_and_drop(self, reason: str, payload_bytes: int = 0) -> None:
        """Count a message that was received, and of which nothing becomes."""
        self.received += 1
        self.received_bytes += payload_bytes
        self.dropped[reason] += 1

    def recover(self, messages: int, size_bytes: int) -> None:
        """Count messages that the table held at the start."""
        self.recovered += messages
        self.undelivered += messages
        self.undelivered_bytes += size_bytes

    def revive(self) -> None:
        """Count a dead letter that is to be sent once more; it was accounted for as dead-lettered before."""
        self.recovered += 1
        self.in_flight += 1

    def deliver(self, messages: int, payload_bytes: int = 0) -> None:
        """Count messages that Kafka has."""
        self.delivered += messages
        self.delivered_bytes += payload_bytes

    def deliver_from_memory(self, messages: int, payload_bytes: int = 0) -> None:
        """Count messages that Kafka has, and that were in memory alone until then."""
        self.delivered += messages
        self.delivered_bytes += payload_bytes
        self.in_flight -= messages

    def leave_memory(self, messages: int) -> None:
        """Count messages that are no longer in memory alone."""
        self.in_flight -= messages

    def store(self, messages: int, size_bytes: int) -> None:
        """Count messages that were in memory alone and are in the table."""
        self.in_flight -= messages
        self.stored += messages
        self.enter_table(size_bytes, messages)

    def replay(self, messages: int) -> None:
        """Count messages that were handed over from the table."""
        self.replayed += messages

    def dead_letter(self, reason: str) -> None:
        """Count a message that is a dead letter."""
        self.dead_lettered[reason] += 1

    def drop(self, reason: str, messages: int = 1) -> None:
        """Count messages that were given up."""
        self.dropped[reason] += messages

    def enter_table(self, size_bytes: int, messages: int = 1) -> None:
        """Count entries of so many bytes among the undelivered."""
        self.undelivered += messages
        self.undelivered_bytes += size_bytes

    def leave_table(self, size_bytes: int, messages: int = 1) -> None:
        """Count entries of so many bytes out of the undelivered."""
        self.undelivered -= messages
        self.undelivered_bytes -= size_bytes

    def take_out_miscounted(self, messages: int, size_bytes: int) -> None:
        """Count out of the undelivered what the table counted, too many or too few, and did not hold."""
        self.leave_table(size_bytes, messages)
        if messages > 0:
            self.dropped[MISCOUNTED] += messages
        else:
            self.recovered -= messages


class Accounts:
    """The accounts by route; a route that is new (from an earlier configuration, say) gets one when first named."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._noted_messages = 0
        # What is in no account yet.
        self._received: list[RoutesAndSizes] = []
        self._delivered: list[RoutesAndSizes] = []
        self._delivered_from_memory: list[RoutesAndSizes] = []

    def receive(self, routes: Sequence[str], payload_bytes: Sequence[int]) -> None:
        """Count messages of these routes and sizes that were received, and are in memory alone."""
        if are_one(routes):
            self._account(routes[0]).receive(len(routes), sum(payload_bytes))
        else:
            self._note(self._received, routes, payload_bytes)

    def deliver(self, routes: Sequence[str], payload_bytes: Sequence[int]) -> None:
        """Count messages of these routes and sizes that Kafka has."""
        if are_one(routes):
            self._account(routes[0]).deliver(len(routes), sum(payload_bytes))
        else:
            self._note(self._delivered, routes, payload_bytes)

    def deliver_from_memory(self, routes: Sequence[str], payload_bytes: Sequence[int]) -> None:
        """Count messages of these routes and sizes that Kafka has, and that were in memory alone until then."""
        if are_one(routes):
            self._account(routes[0]).deliver_from_memory(len(routes), sum(payload_bytes))
        else:
            self._note(self._delivered_from_memory, routes, payload_bytes)

    def _note(self, noted: list[RoutesAndSizes], routes: Sequence[str], payload_bytes: Sequence[int]) -> None:
        noted.append((routes, payload_bytes))
        self._noted_messages += len(routes)
        if self._noted_messages >= NOTED_MESSAGES:
            self._count_noted()

    def _count_noted(self) -> None:
        """Count what was noted."""
        for route, messages, payload_bytes in sums_by_route(self._received):
            self._account(route).receive(messages, payload_bytes)
        for route, messages, payload_bytes in sums_by_route(self._delivered):
            self._account(route).deliver(messages, payload_bytes)
        for route, messages, payload_bytes in sums_by_route(self._delivered_from_memory):
            self._account(route).deliver_from_memory(messages, payload_bytes)
        self._forget_noted()

    def _forget_noted(self) -> None:
        self._noted_messages = 0
        for noted in (self._received, self._delivered, self._delivered_from_memory):
            noted.clear()

    def replay(self, routes: Sequence[str]) -> None:
        """Count messages of these routes that were handed over from the table."""
        for route, messages in numbers_of(routes):
            self._account(route).replay(messages)

    def __getitem__(self, route: str) -> Account:
        self._bring_up_to_date()
        return self._account(route)

    def __iter__(self) -> Iterator[str]:
        self._bring_up_to_date()
        return iter(self._accounts)

    def items(self) -> ItemsView[str, Account]:
        """Return routes and accounts."""
        self._bring_up_to_date()
        return self._accounts.items()

    def values(self) -> ValuesView[Account]:
        """Return the accounts of all routes."""
        self._bring_up_to_date()
        return self._accounts.values()

    def clear(self) -> None:
        """Forget everything, as a start of the process does."""
        self._accounts.clear()
        self._forget_noted()

    def _bring_up_to_date(self) -> None:
        if self._noted_messages:
            self._count_noted()

    def _account(self, route: str) -> Account:
        account = self._accounts.get(route)
        if account is None:
            account = self._accounts[route] = Account()
        return account
