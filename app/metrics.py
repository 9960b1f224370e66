"""The values of the metrics: the accounts, histograms and gauges that a scrape reads.

Which metrics there are and what they mean: `app.metric_definitions`.

The path of a message counts in plain integers, per route, on the event loop alone; a scrape reads them all at one
moment, so that at every scrape, per route:

    received + recovered = delivered + undelivered + dead-lettered + dropped + in flight

`connector_imbalance_messages` is the difference of the two sides, and anything but 0 is a bug in Connector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.lines import names
from app.metric_definitions import METRICS

# Their counts come from the table, where an older version may have left them too low, until it is empty once.
NEVER_NEGATIVE = {"undelivered", "undelivered_bytes"}
MISCOUNTED = "miscounted"  # the reason of messages that the table counted and did not hold
PACKET_TOO_LARGE = "packet_too_large"  # the reason of messages that were not held, as Kafka could not take them
LARGER_THAN_TABLE = "larger_than_table"  # the reason of messages that neither Kafka took nor the table can hold
UNMAPPED = "unmapped"  # the route label of messages that belong to no route; also the reason why they go nowhere
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0)


Value = TypeVar("Value")


def numbers_of(values: Sequence[Value]) -> Iterable[tuple[Value, int]]:
    """Return how often each value is there; most often all are the same."""
    if are_one(values):
        return ((values[0], len(values)),)
    return Counter(values).items()


def are_one(values: Sequence[Value]) -> bool:
    """Tell whether all values are the same one; for none it is untrue."""
    return bool(values) and values.count(values[0]) == len(values)


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
        settled = self.delivered + sum(self.dead_lettered.values()) + sum(self.dropped.values())
        return self.received + self.recovered - settled - self.undelivered - self.in_flight

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


class Accounts(dict[str, Account]):
    """The accounts by route; a route that is new (from an earlier configuration, say) gets one when first named.

    `receive`, `deliver` and `leave_memory` count the messages of a batch together where they are of one route, and each
    by itself where they are of several: with thousands of routes, most messages of a batch are alone in theirs.
    """

    def __missing__(self, route: str) -> Account:
        account = self[route] = Account()
        return account

    def receive(self, routes: Sequence[str], payload_bytes: Sequence[int]) -> None:
        """Count messages of these routes and sizes that were received, and are in memory alone."""
        if are_one(routes):
            self[routes[0]].receive(len(routes), sum(payload_bytes))
            return
        for route, size_bytes in zip(routes, payload_bytes, strict=True):
            self[route].receive(1, size_bytes)

    def deliver(self, routes: Sequence[str], payload_bytes: Sequence[int]) -> None:
        """Count messages of these routes and sizes that Kafka has."""
        if are_one(routes):
            self[routes[0]].deliver(len(routes), sum(payload_bytes))
            return
        for route, size_bytes in zip(routes, payload_bytes, strict=True):
            self[route].deliver(1, size_bytes)

    def leave_memory(self, routes: Sequence[str]) -> None:
        """Count messages of these routes that are no longer in memory alone."""
        if are_one(routes):
            self[routes[0]].leave_memory(len(routes))
            return
        for route in routes:
            self[route].leave_memory(1)

    def replay(self, routes: Sequence[str]) -> None:
        """Count messages of these routes that were handed over from the table."""
        for route, messages in numbers_of(routes):
            self[route].replay(messages)


class Histogram:
    """Seconds in fixed buckets, cheap enough for every message."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a duration, `times` times."""
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += times
        self.sum_seconds += seconds * times

    def observe_since(self, timestamps_ms: Sequence[int], now_ms: int) -> None:
        """Count the time that has passed since each of these times."""
        for timestamp_ms, times in numbers_of(timestamps_ms):
            self.observe(max(0, now_ms - timestamp_ms) / 1000, times)

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        """Return the histogram as Prometheus wants it."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, BUCKETS_SECONDS), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self.sum_seconds)


class Gauges:
    """Values that another module knows; each is a function that a scrape calls."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], float]] = {}
        self._labelled: dict[str, Callable[[], Mapping[str, float]]] = {}

    def register_labelled(self, **sources: Callable[[], Mapping[str, float]]) -> None:
        """Name functions that return values by the value of the metric's one label."""
        self._labelled.update({f"connector_{name}": source for name, source in sources.items()})

    def read_labelled(self, name: str) -> Mapping[str, float] | None:
        """Return the values now by label value; None if the metric is no such one."""
        source = self._labelled.get(name)
        return source() if source else None

    def register(self, **sources: Callable[[], float]) -> None:
        """Name the functions; the keys are metric names without `connector_`."""
        self._sources.update({f"connector_{name}": source for name, source in sources.items()})

    def read(self, name: str) -> float:
        """Return the value now; 0 before the module that knows it has started."""
        source = self._sources.get(name)
        return float(source()) if source else 0.0


class ConnectorCollector(Collector):
    """Reads accounts, gauges and histograms at a scrape."""

    def __init__(
        self, accounts: Accounts, gauges: Gauges, histograms: dict[str, Histogram], build: dict[str, str]
    ) -> None:
        self._accounts = accounts
        self._gauges = gauges
        self._histograms = histograms
        self._build = build

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of `METRICS`, in its order."""
        for name, (kind, labels, meaning, _) in METRICS.items():
            if kind == "histogram":
                yield self._histograms[name].family(name, meaning)
            elif kind == "info":
                yield InfoMetricFamily(name.removesuffix("_info"), meaning, value=self._build)  # it adds the suffix
            else:
                family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, meaning, labels=labels)
                for label_values, value in self._values(name, labels):
                    family.add_metric([names.shown(label) for label in label_values], value)
                yield family

    def _values(self, name: str, labels: tuple[str, ...]) -> Iterable[tuple[list[str], float]]:
        if not labels:
            yield [], self._gauges.read(name)
            return
        labelled = self._gauges.read_labelled(name)
        if labelled is not None or "route" not in labels:
            yield from (([label], value) for label, value in (labelled or {}).items())
            return
        field_name = name.removeprefix("connector_").removesuffix("_total").removesuffix("_messages")
        for route, account in self._accounts.items():
            value = getattr(account, field_name)
            if isinstance(value, Counter):
                for reason, count in value.items():
                    yield [route, reason], count
            else:
                yield [route], value if field_name not in NEVER_NEGATIVE else max(0, value)


accounts = Accounts()
gauges = Gauges()
delivery_seconds = Histogram()
store_seconds = Histogram()
