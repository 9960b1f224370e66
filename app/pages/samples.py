"""What is noted every second, for the pages: how full the table and its disk are, what flows and what was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app import metrics
from app.metrics import UNMAPPED
from app.pages.history import Flows, History, Reading, Totals
from app.pages.lanes import waiting_by_topic
from app.pages.losses import Losses
from app.pages.retention import Retention
from app.pages.trend import Trend

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.mqtt.session import Session
    from app.mqtt.source import MqttSource
    from tables.undelivered import UndeliveredTable


class Since:
    """When a state became what it is."""

    def __init__(self) -> None:
        self._state: bool | None = None
        self.unix_seconds = time.time()

    def look(self, *, state: bool) -> None:
        """Compare with the last look."""
        if state is not self._state:
            self._state, self.unix_seconds = state, time.time()


class Samples:
    """What was noted; `sample` notes more.

    Attributes:
        started_seconds: When the worker started (Unix seconds).
        disk_is_full: The disk of the table was full when it was looked at last.
        messages_trend: How many messages the table had.
        bytes_trend: How many bytes.
        history: The last hour.
        flows: What flowed in the last seconds, by route.
        losses: When messages may have been lost.
        retention: Messages that are older than what their topics keep.
        mqtt_since: When the connection to the MQTT broker became what it is.
        kafka_since: When that to Kafka did.
    """

    def __init__(
        self,
        source: MqttSource,
        session: Session,
        dispatcher: Dispatcher,
        table: UndeliveredTable,
        kafka_topic_of: Callable[[str], str | None],
    ) -> None:
        """Take the parts to look into, and what returns the Kafka topic of a route."""
        self._source = source
        self._session = session
        self._dispatcher = dispatcher
        self._table = table
        self._kafka_topic_of = kafka_topic_of
        self.started_seconds = time.time()
        self.disk_is_full = False
        self.messages_trend = Trend()
        self.bytes_trend = Trend()
        self.history = History()
        self.flows = Flows()
        self.losses = Losses(self.started_seconds)
        self.retention = Retention(table, dispatcher.topics.keeps_ms)
        self.mqtt_since, self.kafka_since = Since(), Since()

    def sample(self) -> None:
        """Note how full the table and its disk are, what flows and what was lost; called every second."""
        self._note_flow()
        self.mqtt_since.look(state=self._source.connected)
        self.kafka_since.look(state=self._dispatcher.producer.connected)
        self.losses.look(time.time(), connected=self._source.connected, counts=self._lost())
        self.retention.look(self.waiting_by_topic())
        self.disk_is_full = self._table.check_disk_full()
        self.messages_trend.sample(self._table.total_messages)
        self.bytes_trend.sample(self._table.total_bytes)

    def waiting_by_topic(self) -> dict[str, int]:
        """Return how many messages wait, by Kafka topic."""
        return waiting_by_topic(self._dispatcher, self._table.figures.lanes, self._kafka_topic_of)

    def _note_flow(self) -> None:
        accounts = metrics.accounts.items()
        received = {route: account.received for route, account in accounts}
        delivered = {route: account.delivered for route, account in accounts}
        at = time.monotonic()
        self.flows.note(Totals(at, received, delivered))
        sums = sum(received.values()), sum(delivered.values())
        self.history.note(Reading(at, time.time(), *sums, self._table.total_messages))

    def _lost(self) -> dict[tuple[str, str], int]:
        """Return what was lost since the start, by kind and subject."""
        lost = {
            ("dropped", f"{route}: {reason}" if route != UNMAPPED else UNMAPPED): count
            for route, account in metrics.accounts.items()
            for reason, count in account.dropped.items()
        }
        lost["session_lost", ""] = self._session.lost
        lost["damage", ""] = self._table.lost_messages
        lost["dead_letters_dropped", ""] = int(metrics.gauges.read("connector_dead_letters_dropped_total"))
        return lost
