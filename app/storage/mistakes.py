"""What is sent by mistake: messages that belong to no route or have illegal topics, undecodable packets, and so on.

Kafka was never asked for them, and they may be a flood. They become dead letters as long as they take less than half
of the space of dead letters; beyond that they are dropped, so that they do not push out what Kafka refused. On a full
disk they are dropped as well.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.kafka.outcomes import (
    ILLEGAL_TOPIC,
    INVALID_MQTT_TOPIC,
    NO_KAFKA_TOPIC,
    POSSIBLE_COPY,
    TOO_MANY_KAFKA_TOPICS,
    UNDECODABLE,
)
from app.metrics import UNMAPPED
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.message import Message
    from tables.undelivered import UndeliveredTable

MISTAKES = {  # by their reason
    UNMAPPED: "messages that no route matches",
    UNDECODABLE: "packets that cannot be decoded",
    POSSIBLE_COPY: "messages that may be copies, and have too many properties to tell",
    INVALID_MQTT_TOPIC: "messages with an illegal MQTT topic",
    ILLEGAL_TOPIC: "messages whose MQTT topic makes no legal Kafka topic",
    NO_KAFKA_TOPIC: "messages whose MQTT topic makes a Kafka topic that there is not",
    TOO_MANY_KAFKA_TOPICS: "messages for more Kafka topics than ROUTES_MAX_TOPICS allows",
}
SHARE = 0.5  # of the space of dead letters


class Mistakes:
    """Decides which of them are kept; on the event loop."""

    def __init__(self, table: UndeliveredTable) -> None:
        """Take where they would stay."""
        self._table = table
        self._throttle = Throttle(logging.getLogger(__name__))

    def has_no_room_for(self, message: Message, limit_bytes: float) -> bool:
        """Tell whether to drop a dead letter instead of keeping it, and log it.

        Args:
            message: The dead letter.
            limit_bytes: What all dead letters may take.
        """
        if message.dead_reason not in MISTAKES:
            return False
        if self._table.dead_bytes < SHARE * limit_bytes and not self._table.check_disk_full():
            return False
        self._throttle.warning(
            message.dead_reason,
            "%s are dropped, as dead letters take half of their room already or the disk is full: look at those that "
            "are kept, and delete them",
            MISTAKES[message.dead_reason],
        )
        return True
