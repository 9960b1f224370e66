"""The drain: the worker unsubscribes, and sends everything that it has to Kafka (`connector drain`).

    UNSUBSCRIBE -> UNSUBACK -> what the broker has queued still comes in -> quiet -> table empty, nothing in flight

The command asks through `app.control`, again and again: the first request begins the drain, and each answer has its
progress. From then on the worker is subscribed to nothing and not ready, until its next start; everything else goes on.
A drain cannot be cancelled: a filter that was unsubscribed from and is subscribed to again would have a gap.

The MQTT thread unsubscribes (`app.mqtt.unsubscribing` has the phases). This module only observes the rest.

MQTT has no packet that says that a session's queue is empty. A broker sends what it has at once, as long as it is
acknowledged. So the queue counts as empty when nothing came for `QUIET_SECONDS`, nothing was unacknowledged, and the
broker answered a packet in that time: otherwise a broker that hangs or is cut off would look like an empty one.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypedDict

from app.errors import ConnectorError
from app.metrics import accounts
from app.mqtt.unsubscribing import Phase

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.mqtt.source import MqttSource
    from tables.undelivered import UndeliveredTable

QUIET_SECONDS = 2.0

log = logging.getLogger(__name__)


class DrainProgress(TypedDict):
    """How far a drain is, as the command is answered.

    Attributes:
        drained: Kafka has everything, and the broker seems to have no more.
        unsubscribed: The broker has ended all subscriptions.
        waits_for: What holds it up, for the terminal; empty if nothing does.
        waiting_messages: Messages that Kafka has not confirmed, in the table and in memory.
        delivered_messages: Messages that Kafka confirmed since the worker's start.
        dead_letters: How many stay in the table.
    """

    drained: bool
    unsubscribed: bool
    waits_for: str
    waiting_messages: int
    delivered_messages: int
    dead_letters: int


class Drain:
    """Begins the drain, and tells how far it is; on the event loop."""

    def __init__(self, source: MqttSource, dispatcher: Dispatcher, table: UndeliveredTable) -> None:
        """Take what it looks at."""
        self._source = source
        self._unsubscribing = source.session.unsubscribing
        self._dispatcher = dispatcher
        self._table = table
        self._received_messages = -1
        self._busy_at = time.monotonic()
        self._logged = False

    def ask(self) -> DrainProgress:
        """Begin the drain unless it is under way, and return how far it is.

        Raises:
            ConnectorError: The worker stops.
        """
        if self._source.stopping:
            raise ConnectorError("the worker stops; what its table holds is sent after its next start")
        if not self._unsubscribing.has_begun:
            log.info("drain: unsubscribing from everything; the next start subscribes again")
            self._unsubscribing.begin()
            self._source.wake()
        drained = self._is_drained()
        if drained and not self._logged:
            self._logged = True
            log.info("drained: Kafka has everything that was received")
        return {
            "drained": drained,
            "unsubscribed": self._unsubscribing.phase is Phase.UNSUBSCRIBED,
            "waits_for": self._waits_for(),
            "waiting_messages": self._waiting_messages,
            "delivered_messages": sum(account.delivered for account in accounts.values()),
            "dead_letters": self._table.dead_messages,
        }

    @property
    def _waiting_messages(self) -> int:
        """Messages that Kafka has not confirmed, in the table and in memory."""
        return self._table.total_messages + sum(account.in_flight for account in accounts.values())

    def _is_drained(self) -> bool:
        """Tell whether the broker has sent what it had, and Kafka has all of it."""
        now, received = time.monotonic(), self._source.budget.received_messages
        is_idle = self._source.connected and not self._waiting_messages and not self._source.budget.held_messages
        if received != self._received_messages or not is_idle:
            self._received_messages, self._busy_at = received, now
        unsubscribing = self._unsubscribing
        if unsubscribing.phase is not Phase.UNSUBSCRIBED:
            return False
        if not unsubscribing.has_answered_since(self._busy_at, now):
            self._source.wake()
            return False
        return now - max(self._busy_at, unsubscribing.unsubscribed_at) >= QUIET_SECONDS

    def _waits_for(self) -> str:
        """Say what holds it up, for the terminal; empty if nothing does."""
        if not self._source.connected:
            return "the MQTT broker is not connected"
        if self._unsubscribing.kept:
            return f"the MQTT broker does not end these subscriptions: {self._unsubscribing.kept}"
        if self._unsubscribing.phase is not Phase.UNSUBSCRIBED:
            return "the MQTT broker has not confirmed the end of the subscriptions"
        if not self._dispatcher.producer.connected:
            return "Kafka is not reachable"
        stalled = self._dispatcher.topics.stalled
        why = {lane.topic: lane.trouble or stalled.get(lane.topic, "") for lane in self._dispatcher}
        troubles = [f"{topic}: {reason}" for topic, reason in why.items() if reason]
        if not troubles and not self._waiting_messages and self._unsubscribing.answered_at < self._busy_at:
            return "the MQTT broker has not answered yet"
        return "; ".join(troubles)
