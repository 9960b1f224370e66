"""The status: what the pages show, read from the other modules at each request, and from what was noted before."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from app import metrics
from app.application import app, settings
from app.kafka.watch import oldest_in_flight_seconds
from app.lines import escaped
from app.pages.lanes import lanes_as_dictionary
from app.pages.retention import LANES_AT_ONCE
from app.pages.samples import Samples
from app.pages.verdict import Finding, Picture, findings, refusals
from app.settings import weaknesses
from tables import layout

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.memory import PacketLimit
    from app.mqtt.session import Session
    from app.mqtt.source import MqttSource
    from app.storage.writer import TableWriter
    from tables.undelivered import UndeliveredTable

STALLED_SECONDS = 30.0
LATELY_SECONDS = 3600.0  # what was lost longer ago is in the list, and no headline any more


class Status:
    """What the pages say.

    Attributes:
        samples: What is noted every second.
    """

    def __init__(
        self,
        *,
        source: MqttSource,
        session: Session,
        dispatcher: Dispatcher,
        writer: TableWriter,
        table: UndeliveredTable,
        packets: PacketLimit,
        kafka_topic_of: Callable[[str], str | None],
    ) -> None:
        """Take the parts to look into, and what returns the Kafka topic of a route."""
        self._source = source
        self._session = session
        self._dispatcher = dispatcher
        self._writer = writer
        self._table = table
        self._packets = packets
        self._weaknesses = weaknesses(settings)
        self.samples = Samples(source, session, dispatcher, table, kafka_topic_of)

    @property
    def is_alive(self) -> bool:
        """Whether the MQTT thread moves; that this runs at all shows that the event loop does."""
        return time.monotonic() - self._source.moved_at < STALLED_SECONDS

    def reasons_not_ready(self) -> list[str]:
        """Why messages cannot be accepted and kept; empty if they can."""
        reasons = []
        if self._source.stopping:
            reasons.append("stopping")
        if app.first_error is not None:
            reasons.append(f"the worker ends: {app.first_error}")
        if not self._source.connected:
            reasons.append("the MQTT broker is not connected")
        if self._session.unsubscribing.has_begun:
            reasons.append(self._session.unsubscribing.reason)
        elif self._session.standing.unanswered:
            reasons.append(f"the MQTT broker has not answered {self._session.standing.unanswered}")
        reasons += refusals(self._session.subscriptions.refused)
        if self._writer.is_full or self.samples.disk_is_full:
            reasons.append(self._writer.fullness.reason)
        return reasons

    @staticmethod
    def _waits() -> bool:
        """Tell whether a message is undelivered, at the very moment at which the count of them says so."""
        return any(account.undelivered for account in metrics.accounts.values())

    def oldest_age_seconds(self) -> float:
        """Return the age of the oldest message that waits, 0 if none does.

        What Kafka has confirmed counts no more as undelivered, and leaves the table a moment later: it has no age.
        """
        oldest_ms = None
        if not self._waits():
            return 0.0
        for topic, first in itertools.islice(self._table.lanes(), LANES_AT_ONCE):
            for message in self._table.read(layout.undelivered_prefix(topic), first, 1, 1):
                oldest_ms = min(oldest_ms or message.timestamp_ms, message.timestamp_ms)
        return max(0.0, time.time() - oldest_ms / 1000) if oldest_ms is not None else 0.0

    def oldest_in_flight_seconds(self) -> float:
        """Return the age of the oldest record that the Kafka client has, of any lane."""
        return max(map(oldest_in_flight_seconds, self._dispatcher), default=0.0)

    def full_seconds(self) -> float:
        """Return the time to a full table at the present inflow, 0 if it is full."""
        room_bytes = self._table.limit_bytes - self._table.total_bytes
        # With drop_oldest a full table goes up and down below its limit; `fullness` lasts until it rests.
        is_full = self._writer.is_full or self._writer.fullness.is_logged or self.samples.disk_is_full
        if is_full or room_bytes < self._table.limit_bytes / 100:
            return 0.0
        rate = self.samples.bytes_trend.per_second
        return room_bytes / rate if rate > 0 else float("inf")

    def drain_seconds(self) -> float:
        """Return the time to an empty table at the present outflow, what still comes in counted against it."""
        if not self._waits():
            return 0.0
        rate = -self.samples.messages_trend.per_second
        return self._table.total_messages / rate if rate > 0 else float("inf")

    def _findings(self, table: dict[str, Any], lanes: dict[str, Any]) -> list[Finding]:
        """Return what is to be said of this, in the order of `app.pages.verdict`."""
        idle = {topic for topic, lane in lanes.items() if not (lane["waiting_messages"] or lane["with_kafka_client"])}
        return findings(
            Picture(
                ends_because=str(app.first_error or ""),
                stopping=self._source.stopping,
                leaving=self._session.unsubscribing.reason,
                full_reason=self._writer.fullness.reason if self._writer.is_full or self.samples.disk_is_full else "",
                mqtt_connected=self._source.connected,
                mqtt_fault=escaped(self._session.standing.last_fault),
                mqtt_address=f"{settings.mqtt_host}:{settings.mqtt_port}",
                unanswered=self._session.standing.unanswered,
                is_overdue=self._session.standing.is_overdue,
                less_granted=[str(each) for each in self._session.standing.less_granted],
                refused_filters=dict(self._session.subscriptions.refused),
                kafka_connected=self._dispatcher.producer.connected,
                kafka_judged=self._dispatcher.producer.cluster.is_judged,
                kafka_complaint=self._dispatcher.producer.complaint,
                lane_troubles={
                    topic: lane["trouble"] for topic, lane in lanes.items() if lane["trouble"] and topic not in idle
                },
                outlived=[found.sentence(topic) for topic, found in sorted(self.samples.retention.outlived.items())],
                clock_is_wrong=self.samples.retention.clock_is_wrong,
                lanes_not_shown=self._dispatcher.topics.not_shown - idle,
                topics_not_shown=self._dispatcher.topics.not_shown & idle,
                waiting_messages=table["messages"],
                oldest_age_seconds=table["oldest_age_seconds"],
                dead_letters=table["dead_letters"],
                lost_lately=self.samples.losses.since(time.time() - LATELY_SECONDS),
                durable=table["durable"],
                weaknesses=self._weaknesses,
            )
        )

    def headline(self) -> str:
        """Return the first of what is to be said, in a sentence."""
        return self._findings(self._table_as_dictionary(), self._lanes_as_dictionary())[0].text

    def as_dictionary(self) -> dict[str, Any]:
        """Return everything, for `/status`; the routes as an iterator, as there may be ten thousand."""
        table, lanes = self._table_as_dictionary(), self._lanes_as_dictionary()
        reasons = self.reasons_not_ready()
        return {
            "now_seconds": time.time(),
            "started_seconds": self.samples.started_seconds,
            "findings": [finding._asdict() for finding in self._findings(table, lanes)],
            "ready": not reasons,
            "reasons": reasons,
            "mqtt": {
                "connected": self._source.connected,
                "sessions_lost": self._session.lost,
                "connections": self._source.connections,
                "faults": self._session.standing.faults,
                "last_fault": escaped(self._session.standing.last_fault),
                "granted": [each.as_dictionary() for each in self._session.standing.less_granted],
                "address": f"{settings.mqtt_host}:{settings.mqtt_port}",
                "client_id": settings.mqtt_client_id,
                "since_seconds": self.samples.mqtt_since.unix_seconds,
                "largest_packet_bytes": self._packets.size_bytes,
                "largest_packet_reason": self._packets.danger or self._packets.reason,
            },
            "kafka": {
                "connected": self._dispatcher.producer.connected,
                "trouble": self._dispatcher.producer.complaint,
                "address": settings.kafka_broker,
                "since_seconds": self.samples.kafka_since.unix_seconds,
            },
            "table": table,
            "lanes": lanes,
            "lanes_left_out": sum(1 for _ in self._dispatcher) - len(lanes),
            "routes": self._routes(),
            "possible_losses": self.samples.losses.as_list(),
            "tls_weakened": {weakness.way: f"{weakness.text}. {weakness.advice}." for weakness in self._weaknesses},
        }

    def _lanes_as_dictionary(self) -> dict[str, Any]:
        return lanes_as_dictionary(self._dispatcher, self.samples.waiting_by_topic())

    def _table_as_dictionary(self) -> dict[str, Any]:
        return {
            "messages": self._table.total_messages,
            "bytes": self._table.total_bytes,
            "limit_bytes": self._table.limit_bytes,
            "full": self._writer.is_full,
            "fullest_route": self._writer.fullness.fullest_route,
            "oldest_age_seconds": round(self.oldest_age_seconds(), 3),
            "full_seconds": _finite(self.full_seconds()),
            "drain_seconds": _finite(self.drain_seconds()),
            "retention_exceeded": self.samples.retention.messages,
            "dead_letters": self._table.dead_messages,
            "durable": self._table.is_durable,
        }

    def _routes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for route in list(metrics.accounts):  # a new one may come between two turns
            account = metrics.accounts[route]  # as it is now: what was noted since the last turn is counted with that
            received_per_second, delivered_per_second = self.samples.flows.per_second(route)
            yield (
                route,
                {
                    "received": account.received,
                    "recovered": account.recovered,
                    "delivered": account.delivered,
                    "undelivered": account.undelivered,
                    "in_flight": account.in_flight,
                    "dead_lettered": dict(account.dead_lettered),
                    "dropped": dict(account.dropped),
                    "received_per_second": received_per_second,
                    "delivered_per_second": delivered_per_second,
                },
            )


def _finite(seconds: float) -> float | None:
    """Return what JSON can say: it has no infinity."""
    return round(seconds, 3) if math.isfinite(seconds) else None
