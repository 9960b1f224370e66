"""The values of the metrics: the accounts, histograms and gauges that a scrape reads.

Which metrics there are and what they mean: `app.metric_definitions`.

What became of the messages of each route is in `app.core.accounts`. A scrape reads all accounts at one moment;
`connector_imbalance_messages` says by how much one of them is wrong, and anything but 0 is a bug in Connector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.core.accounts import Accounts, numbers_of
from app.lines import names
from app.metric_definitions import METRICS

# Their counts come from the table, where an older version may have left them too low, until it is empty once.
NEVER_NEGATIVE = {"undelivered", "undelivered_bytes"}
PACKET_TOO_LARGE = "packet_too_large"  # the reason of messages that were not held, as Kafka could not take them
LARGER_THAN_TABLE = "larger_than_table"  # the reason of messages that neither Kafka took nor the table can hold
UNMAPPED = "unmapped"  # the route label of messages that belong to no route; also the reason why they go nowhere
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0)


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
