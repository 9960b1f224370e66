"""Every metric: its name, what it means, and what to do about it; and the accounts that they are read from.

The path of a message counts in plain integers, per route, on the event loop alone; a scrape reads them all at one
moment, so that at every scrape, per route:

    received + recovered = delivered + undelivered + dead-lettered + dropped + in flight

`connector_imbalance_messages` is the difference of the two sides, and anything but 0 is a bug in Connector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.characters import visible

# Their counts come from the table, where an older version may have left them too low, until it is empty once.
NEVER_NEGATIVE = {"undelivered", "undelivered_bytes"}
MISCOUNTED = "miscounted"  # the reason of messages that the table counted and did not hold
PACKET_TOO_LARGE = "packet_too_large"  # the reason of messages that were not held, as Kafka could not take them
LARGER_THAN_TABLE = "larger_than_table"  # the reason of messages that neither Kafka took nor the table can hold
UNMAPPED = "unmapped"  # the route label of messages that belong to no mapping; also the reason why they go nowhere
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0)


@dataclass(slots=True)
class Account:
    """What became of the messages of one route, since the start."""

    received: int = 0
    recovered: int = 0
    delivered: int = 0
    stored: int = 0
    replayed: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    undelivered: int = 0
    undelivered_bytes: int = 0
    in_flight: int = 0
    properties_left_out: int = 0

    @property
    def imbalance(self) -> int:
        """Messages that are not accounted for."""
        settled = self.delivered + sum(self.dead_lettered.values()) + sum(self.dropped.values())
        return self.received + self.recovered - settled - self.undelivered - self.in_flight

    def enter_table(self, size_bytes: int, messages: int = 1) -> None:
        """Count entries of so many bytes among the undelivered."""
        self.undelivered += messages
        self.undelivered_bytes += size_bytes

    def leave_table(self, size_bytes: int, messages: int = 1) -> None:
        """Count entries of so many bytes out of the undelivered."""
        self.undelivered -= messages
        self.undelivered_bytes -= size_bytes


class Accounts(dict[str, Account]):
    """The accounts by route; a route that is new (from an earlier configuration, say) gets one when first named."""

    def __missing__(self, route: str) -> Account:
        account = self[route] = Account()
        return account


class Histogram:
    """Seconds in fixed buckets, cheap enough for every message."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a duration, `times` times."""
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += times
        self.sum_seconds += seconds * times

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        """Return the histogram as Prometheus wants it."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, BUCKETS_SECONDS), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self.sum_seconds)


# name: (type, labels, what it means, what to do). docs/metrics.md is made from it; counters count since the start.
METRICS: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "connector_received_total": (
        "counter",
        ("route",),
        "Messages received, with those of QoS 1 that came again after a reconnect, without further copies of one",
        "",
    ),
    "connector_recovered_total": (
        "counter",
        ("route",),
        "Messages that the table held at the start, and dead letters that were retried",
        "",
    ),
    "connector_delivered_total": (
        "counter",
        ("route",),
        "Messages that Kafka confirmed",
        "It stands still while messages are received: see `trouble` in `/status`",
    ),
    "connector_stored_total": (
        "counter",
        ("route",),
        "Messages written to the table",
        "It grows while Kafka is there: Kafka is slower than STORE_AFTER_MS",
    ),
    "connector_replayed_total": (
        "counter",
        ("route",),
        "Messages handed to the Kafka client from the table, again after a refusal too",
        "",
    ),
    "connector_dead_lettered_total": (
        "counter",
        ("route", "reason"),
        "Messages set aside: `too_large`, `invalid_record`, `illegal_kafka_topic`, `invalid_mqtt_topic`, "  # noqa: ISC004
        "`undecodable`, `moved_by_operator`, `perhaps_copy`, `unmapped`",
        "`faust -A app.main dead-letters list`",
    ),
    "connector_dropped_total": (
        "counter",
        ("route", "reason"),
        "Messages given up: `unmapped` (filter removed), `table_full` (the oldest, with `drop_oldest`), "  # noqa: ISC004
        "`packet_too_large`, `larger_than_table` (it came while Kafka did not take it), `miscounted` (the table "
        "counted more than it held)",
        "Map the topic, enlarge the table, send smaller messages",
    ),
    "connector_properties_left_out_total": (
        "counter",
        ("route",),
        "Messages with more MQTT 5 properties than become headers, the record has `connector-left-out`; or broken ones",
        "The log names an MQTT topic: repair its publisher",
    ),
    "connector_undelivered_messages": (
        "gauge",
        ("route",),
        "Messages in the table that Kafka has not confirmed",
        "It grows: is Kafka reachable? `/status` names each lane's trouble",
    ),
    "connector_undelivered_bytes": ("gauge", ("route",), "What they take of UNDELIVERED_MAX_BYTES", ""),
    "connector_dead_letter_messages": (
        "gauge",
        (),
        "Dead letters kept in the table",
        "Retry or delete them before the oldest gives way",
    ),
    "connector_dead_letters_dropped_total": (
        "counter",
        (),
        "Dead letters that were dropped, as they may take a tenth of UNDELIVERED_MAX_BYTES",
        "Retry or delete dead letters in time, or set DEAD_LETTER_TOPIC",
    ),
    "connector_store_limit_bytes": ("gauge", (), "UNDELIVERED_MAX_BYTES in force", ""),
    "connector_in_flight_messages": (
        "gauge",
        ("route",),
        "Messages held in memory alone: not yet confirmed by Kafka and not yet in the table",
        "",
    ),
    "connector_imbalance_messages": ("gauge", ("route",), "Messages not accounted for", "0, or a bug: please report"),
    "connector_oldest_in_flight_seconds": (
        "gauge",
        (),
        "How long the Kafka client has had its oldest record that Kafka did not answer, 0 if it has none",
        "It grows with Kafka there: a node or a partition does not answer, `/status` says which",
    ),
    "connector_oldest_undelivered_age_seconds": (
        "gauge",
        (),
        "Age of the oldest message in the table, since its receipt, 0 if there is none",
        "It grows with Kafka there: one lane waits, `/status` says which and why",
    ),
    "connector_store_full_seconds": (
        "gauge",
        (),
        "Time to a full table at the present inflow, 0 while it is full; +Inf while it does not grow",
        "Act before it is 0: with `block`, receiving stops then",
    ),
    "connector_drain_seconds": (
        "gauge",
        (),
        "Time to an empty table at the present outflow, new messages going on; +Inf while it does not shrink",
        "",
    ),
    "connector_retention_exceeded_messages": (
        "gauge",
        (),
        "Messages in the table that are older than what their Kafka topic keeps (`retention.ms`), of many an estimate",
        "Kafka deletes them soon after it has them: raise the topic's `retention.ms` before",
    ),
    "connector_ready": (
        "gauge",
        (),
        "1 while messages can be accepted and kept, as `/health/ready` says",
        "0: `/health/ready` names the reasons",
    ),
    "connector_mqtt_connected": (
        "gauge",
        (),
        "1 while the MQTT broker is connected",
        "0: the log says why each attempt failed",
    ),
    "connector_mqtt_connections_total": (
        "counter",
        (),
        "Connections that the MQTT broker has accepted since the start",
        "If it grows by itself, the log says why each one ended",
    ),
    "connector_mqtt_sessions_lost_total": (
        "counter",
        (),
        "How often the MQTT broker had lost our session",
        "What it kept for us is lost: check persistence and session expiry of the broker",
    ),
    "connector_mqtt_faults_total": (
        "counter",
        (),
        "Connections that ended as the MQTT broker did what MQTT does not allow, or let nothing move any more",
        "`/status` (`mqtt.last_fault`) and the log say what; report it to the broker's makers",
    ),
    "connector_kafka_connected": (
        "gauge",
        (),
        "1 while Kafka is connected, under the addresses that it advertises",
        "0: messages wait in the table; see connector_store_full_seconds for how long they can",
    ),
    "connector_kafka_refusals_total": (
        "counter",
        ("code",),
        "Records that Kafka or its client refused, for now or for good, each time; `code` names why",
        "It grows: `/status` names the lane that waits, and what to do",
    ),
    "connector_tls_weakened": (
        "gauge",
        ("way",),
        "1 for each way in which the settings weaken TLS, or send a secret over a network without it",
        "1: the log of the start says what to set; so does `/status`",
    ),
    "connector_store_durable": ("gauge", (), "1 when the table is on disk", "0: set DB_PERSIST_PATH"),
    "connector_lost_messages": (
        "gauge",
        (),
        "Messages that damage to the table's files took at most, as found at this start; Kafka may have some of them",
        "Look at the disk; the damaged files are kept in DB_PERSIST_PATH",
    ),
    "connector_web_refusals_total": (
        "counter",
        ("reason",),
        "Requests that the pages refused and connections that they cut: `malformed`, `too_slow`, `unread` (a client "  # noqa: ISC004
        "does not read), `too_many`, `no_files`, `host` (a name that is not listed), `other_site`, `failed`",
        "`host`: set WEB_ALLOWED_HOSTS. `too_many`: who can reach the port? `failed`: please report it",
    ),
    "connector_build_info": ("info", ("version", "format"), "Version, and version of the table's format", ""),
    "connector_delivery_seconds": ("histogram", (), "From receipt to Kafka's confirmation", ""),
    "connector_store_seconds": (
        "histogram",
        (),
        "How long syncs of the table took, counted once per message",
        "Large values: a slow disk",
    ),
}


class Gauges:
    """Values that another room knows; each is a function that a scrape calls."""

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
        """Return the value now; 0 before the room that knows it is open."""
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
                    family.add_metric([visible(label) for label in label_values], value)
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
