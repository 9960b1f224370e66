"""What a start does before the first message can come: read what the table has, and learn of the Kafka topics."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from mode import Service

from app.metrics import accounts
from app.settings import origin_of_settings

if TYPE_CHECKING:
    from agents.router import Router
    from app.kafka.dispatcher import Dispatcher
    from app.memory import PacketLimit
    from app.mqtt.session import Session
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

WAIT_SECONDS = 3.0
LOOK_SECONDS = 0.02


class FirstAnswer(Service):
    """Waits until Kafka has said what its topics take, so that the first messages go in batches.

    It does not wait where nobody answers: Connector starts without Kafka.
    """

    mundane_level = "debug"

    def __init__(self, dispatcher: Dispatcher, **kwargs: Any) -> None:
        """Make the service; it only acts when it starts."""
        self._dispatcher = dispatcher
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Wait."""
        cluster, asked = self._dispatcher.producer.cluster, self._dispatcher.topics.is_asked
        give_up_at = time.monotonic() + WAIT_SECONDS
        while not asked.is_set() and not self.should_stop and time.monotonic() < give_up_at:
            if cluster.is_judged and not cluster.connected:
                break
            await asyncio.sleep(LOOK_SECONDS)


class Recovery(Service):
    """Passes on to the other parts what the table has from earlier starts."""

    mundane_level = "debug"

    def __init__(
        self,
        table: UndeliveredTable,
        dispatcher: Dispatcher,
        router: Router,
        session: Session,
        packets: PacketLimit,
        danger: str,
        **kwargs: Any,
    ) -> None:
        """Make the service; it only acts when it starts.

        Args:
            table: The table.
            dispatcher: The lanes.
            router: To be told the number of this start.
            session: The MQTT session.
            packets: The largest packet that is accepted.
            danger: What else memory may not carry; empty if it does.
            **kwargs: For `mode.Service`.
        """
        self._table = table
        self._dispatcher = dispatcher
        self._router = router
        self._session = session
        self._packets = packets
        self._danger = danger
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Pass on the counts, the lanes, the epoch, and the state of the MQTT session."""
        table = self._table
        self._router.begin_epoch(table.epoch)
        self._dispatcher.bounds.stay_below(table.limit_bytes)
        for route, messages in table.figures.messages.items():
            accounts[route].recover(messages, table.figures.bytes[route])
        for topic, first in table.lanes():
            self._dispatcher.resume(topic, first)
        metadata = table.metadata
        self._session.subscriptions.recover(
            metadata.filters(),
            metadata.generations(),
            left=metadata.left_filters(),
            granted_at=metadata.granted_at(),
            asked_qos=metadata.asked_qos(),
            left_out=metadata.left_out(),
            on_disk=table.is_durable,
        )
        self._session.qos2.recover(metadata.packet_identifiers())
        # Not of derived topics for which nothing waits: in a year there are many.
        kept = {topic: ms for topic, ms in metadata.kept_by_topics().items() if topic in self._dispatcher.lanes}
        self._dispatcher.topics.keeps_ms.update(kept)
        if not table.is_durable:
            log.warning("DB_PERSIST_PATH is not set: what waits for Kafka is in memory, and lost when the process ends")
        log.info("the settings were read from %s", origin_of_settings())
        self._log_memory()
        if table.total_messages:
            log.info("the table holds %d messages that wait for Kafka", table.total_messages)

    def _log_memory(self) -> None:
        packets = self._packets
        log.info("packets of up to %d bytes are accepted: the limit is %s", packets.size_bytes, packets.reason)
        for danger in filter(None, (packets.danger, self._danger)):
            log.warning("%s", danger)
