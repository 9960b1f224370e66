"""What Prometheus reads at a scrape: accounts, gauges and histograms, as text.

All values are read at one moment, in one go, so that the accounts balance. Of ten thousand routes that takes some
milliseconds; to make the text of them takes half a second, so it is made in pieces.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from app.core.accounts import Account, Accounts
from app.lines import names
from app.metric_definitions import METRICS
from app.metrics import Gauges, Histogram

# Their counts come from the table, where an older version may have left them too low, until it is empty once.
NEVER_NEGATIVE = {"undelivered", "undelivered_bytes"}
SAMPLES_AT_ONCE = 200  # in about a millisecond

Values = Iterable[tuple[list[str], float]]


class Scraped(NamedTuple):
    """All values at one moment.

    Attributes:
        accounts: The accounts by route, copied.
        values: The values of each other metric by its name, with their labels.
        whole: Metrics that are complete: the histograms, and what is known of the build.
    """

    accounts: dict[str, Account]
    values: dict[str, Values]
    whole: dict[str, Metric]


class ConnectorCollector(Collector):
    """Reads accounts, gauges and histograms at a scrape."""

    def __init__(
        self, accounts: Accounts, gauges: Gauges, histograms: Mapping[str, Histogram], build: dict[str, str]
    ) -> None:
        """Take where the values are, and what is said of the build."""
        self._accounts = accounts
        self._gauges = gauges
        self._histograms = histograms
        self._build = build

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of `METRICS`, in its order."""
        return _families(self._read(), sys.maxsize)

    def collect_in_pieces(self) -> Iterator[Metric]:
        """Yield the same, of a metric with many samples some at a time; the values are those of the call."""
        return _families(self._read(), SAMPLES_AT_ONCE)

    def _read(self) -> Scraped:
        values: dict[str, Values] = {}
        whole: dict[str, Metric] = {}
        for name, (kind, labels, meaning, _) in METRICS.items():
            if kind == "histogram":
                whole[name] = self._histograms[name].family(name, meaning)
            elif kind == "info":  # the family adds `_info` to its name
                whole[name] = InfoMetricFamily(name.removesuffix("_info"), meaning, value=self._build)
            elif not labels:
                values[name] = [([], self._gauges.read(name))]
            elif (labelled := self._gauges.read_labelled(name)) is not None or "route" not in labels:
                values[name] = [([label], value) for label, value in (labelled or {}).items()]
        # Last: a gauge may have an account made.
        return Scraped({route: account.copy() for route, account in self._accounts.items()}, values, whole)


def _families(scraped: Scraped, samples_at_once: int) -> Iterator[Metric]:
    for name, (kind, labels, meaning, _) in METRICS.items():
        if name in scraped.whole:
            yield scraped.whole[name]
            continue
        family_of = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        values = iter(scraped.values[name] if name in scraped.values else values_of_routes(scraped.accounts, name))
        is_first = True
        while (some := list(islice(values, samples_at_once))) or is_first:
            family, is_first = family_of(name, meaning, labels=labels), False
            for label_values, value in some:
                family.add_metric([names.shown(label) for label in label_values], value)
            yield family


def values_of_routes(accounts: Mapping[str, Account], name: str) -> Iterator[tuple[list[str], float]]:
    """Yield the values of a metric of the routes, with their labels."""
    field_name = name.removeprefix("connector_").removesuffix("_total").removesuffix("_messages")
    for route, account in accounts.items():
        value = getattr(account, field_name)
        if isinstance(value, Counter):
            for reason, count in value.items():
                yield [route, reason], count
        else:
            yield [route], value if field_name not in NEVER_NEGATIVE else max(0, value)


class _One(Collector):
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Sequence[Metric]:
        """Return it."""
        return [self._metric]


def exposition(ours: ConnectorCollector, others: Sequence[Collector]) -> Iterator[str]:
    """Return the text in pieces; everything of ours is read at the call of this function.

    Args:
        ours: The metrics of Connector, of which some have very many samples.
        others: Those of the process; they come first, and have few.
    """
    metrics = [metric for collector in others for metric in collector.collect()]
    return _texts(metrics, ours.collect_in_pieces())


def _texts(few: Iterable[Metric], many: Iterable[Metric]) -> Iterator[str]:
    name = ""
    for metric in few:
        yield generate_latest(_One(metric)).decode()
    for metric in many:
        text = generate_latest(_One(metric)).decode()
        yield text.split("\n", 2)[2] if metric.name == name else text  # HELP and TYPE stand before the first alone
        name = metric.name
