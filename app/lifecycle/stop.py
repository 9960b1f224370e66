"""The middle of the stop sequence: everything that was received becomes safe, with Kafka or on disk.

The MQTT source calls it after it has stopped reading, while everything else still runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from app.application import app

if TYPE_CHECKING:
    from agents.router import Router
    from app.core.memory_budget import MemoryBudget
    from app.kafka.dispatcher import Dispatcher
    from app.kafka.reports import Reports
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.002
# When Kafka has confirmed nothing for this long, it counts as away; otherwise a record in flight takes milliseconds.
KAFKA_SILENT_SECONDS = 1.0


class SafeStop:
    """Makes everything that was received safe, within a budget."""

    def __init__(
        self,
        table: UndeliveredTable,
        dispatcher: Dispatcher,
        reports: Reports,
        router: Router,
        budget: MemoryBudget,
        budget_seconds: float,
    ) -> None:
        """Take what it looks at, and STOP_BUDGET_SEC."""
        self._table = table
        self._dispatcher = dispatcher
        self._reports = reports
        self._router = router
        self._budget = budget
        self._budget_seconds = budget_seconds

    async def make_safe(self) -> None:
        """Wait for Kafka while it confirms, then store the rest and wait for the sync."""
        dispatcher = self._dispatcher
        give_up_at = time.monotonic() + self._budget_seconds
        dispatcher.stop_replaying()
        while self._router.routed_messages < self._budget.received_messages and self._may_wait(give_up_at):
            await asyncio.sleep(LOOK_SECONDS)
        began = time.monotonic()
        store_at = give_up_at - self._budget_seconds / 4
        while dispatcher.in_flight_messages and time.monotonic() < store_at:
            if time.monotonic() - max(began, self._reports.last_at) > KAFKA_SILENT_SECONDS:
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._table.use_reserve()
        dispatcher.store_everything()
        while self._budget.held_messages and self._may_wait(give_up_at):
            await asyncio.sleep(LOOK_SECONDS)
        if self._budget.held_messages:
            log.error(
                "%d messages are neither with Kafka nor on disk; the broker keeps those of QoS 1 and 2",
                self._budget.held_messages,
            )
        log.info("stopped receiving; %d messages are with librdkafka, not confirmed", dispatcher.in_flight_messages)
        self._end_kafka()
        log.info("stopped: %d messages wait in the table for the next start", self._table.total_messages)

    @staticmethod
    def _may_wait(until: float) -> bool:
        return time.monotonic() < until and app.first_error is None

    def _end_kafka(self) -> None:
        """End librdkafka while the table writer still works, so that what Kafka has is removed from the table."""
        self._dispatcher.bounds.close()
        self._dispatcher.producer.close()
        self._reports.on_reports(self._dispatcher.producer.poll())
