"""What a start takes up from the table, and what a stop leaves in it.

`Recovery` runs when the table is open and before the first message can come. `Settlement` is the middle of the stop
sequence: it makes everything that was received safe, with Kafka or on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from mode import Service

from app.application import app
from app.metrics import accounts

if TYPE_CHECKING:
    from agents.router import Router
    from app.kafka.lanes import Lanes
    from app.memory import PacketLimit
    from app.messages import Flow
    from app.mqtt.session import Session
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.002
# Kafka is taken for away when it confirmed nothing for so long; a record in flight takes milliseconds otherwise.
KAFKA_SILENT_SECONDS = 1.0


class Recovery(Service):
    """Hands each room what the table knows of earlier starts."""

    mundane_level = "debug"

    def __init__(
        self,
        table: UndeliveredTable,
        lanes: Lanes,
        router: Router,
        session: Session,
        packets: PacketLimit,
        **kwargs: Any,
    ) -> None:
        """Make the service; it only acts when it starts."""
        self._table = table
        self._lanes = lanes
        self._router = router
        self._session = session
        self._packets = packets
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Take up counts, lanes, epoch, and the broker's session."""
        table = self._table
        self._router.epoch = table.epoch
        self._lanes.stay_below(table.limit_bytes)
        for route, messages in table.figures.messages.items():
            account = accounts[route]
            account.recovered = account.undelivered = messages
            account.undelivered_bytes = table.figures.bytes[route]
        for topic, first in table.lanes():
            lane = self._lanes[topic]
            lane.fall_behind(first)
            self._lanes.look_at(lane)
        metadata = table.metadata
        self._session.subscriptions.recover(
            metadata.filters(),
            metadata.generations(),
            left=metadata.left_filters(),
            granted_at=metadata.granted_at(),
            left_out=metadata.left_out(),
        )
        self._session.qos2.recover(metadata.packet_identifiers())
        self._lanes.topics.keeps_ms.update(metadata.kept_by_topics())
        if not table.is_durable:
            log.warning("DB_PERSIST_PATH is not set: what waits for Kafka is in memory, and lost when the process ends")
        self._say_largest_packet()
        if table.total_messages:
            log.info("the table holds %d messages that wait for Kafka", table.total_messages)

    def _say_largest_packet(self) -> None:
        packets = self._packets
        log.info("packets of up to %d bytes are accepted: the limit is %s", packets.size_bytes, packets.reason)
        if packets.danger:
            log.warning("%s", packets.danger)


class Settlement:
    """Makes everything that was received safe, within a budget."""

    def __init__(
        self, table: UndeliveredTable, lanes: Lanes, router: Router, flow: Flow, budget_seconds: float
    ) -> None:
        """Take what it looks at, and STOP_BUDGET_SEC."""
        self._table = table
        self._lanes = lanes
        self._router = router
        self._flow = flow
        self._budget_seconds = budget_seconds

    async def settle(self) -> None:
        """Wait for Kafka while it confirms, then store the rest and wait for the sync."""
        lanes = self._lanes
        give_up_at = time.monotonic() + self._budget_seconds
        lanes.stopping = True
        while self._router.routed_messages < self._flow.received_messages and self._may_wait(give_up_at):
            await asyncio.sleep(LOOK_SECONDS)
        began = time.monotonic()
        store_at = give_up_at - self._budget_seconds / 4
        while lanes.in_flight_messages and time.monotonic() < store_at:
            if time.monotonic() - max(began, lanes.reported_at) > KAFKA_SILENT_SECONDS:
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._table.use_reserve()
        lanes.store_everything()
        lanes.ask_to_store([])  # what waits for room in the table is stored now
        await lanes.flush()
        while self._flow.messages and self._may_wait(give_up_at):
            await asyncio.sleep(LOOK_SECONDS)
        if self._flow.messages:
            log.error(
                "%d messages are neither with Kafka nor on disk; the broker keeps those of QoS 1 and 2",
                self._flow.messages,
            )
        log.info("stopped receiving; %d messages are with librdkafka, not confirmed", lanes.in_flight_messages)
        await self._end_kafka()
        log.info("stopped: %d messages wait in the table for the next start", self._table.total_messages)

    @staticmethod
    def _may_wait(until: float) -> bool:
        return time.monotonic() < until and app.first_error is None

    async def _end_kafka(self) -> None:
        """End librdkafka while the keeper still works, so that what Kafka confirmed last is removed from the table."""
        self._lanes.paused = True
        self._lanes.producer.close()
        self._lanes.take_reports(self._lanes.producer.poll())
        await self._lanes.flush()
