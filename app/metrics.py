"""The values of the metrics: the accounts, histograms and gauges that a scrape reads.

Which metrics there are and what they mean: `app.metric_definitions`.

What became of the messages of each route is in `app.core.accounts`. A scrape (`app.pages.exposition`) reads all of that
at one moment; `connector_imbalance_messages` says by how much an account is wrong. Anything but 0 is a bug.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from prometheus_client.core import HistogramMetricFamily

from app.core.accounts import Accounts, numbers_of

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


accounts = Accounts()
gauges = Gauges()
delivery_seconds = Histogram()
store_seconds = Histogram()
