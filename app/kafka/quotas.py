"""Quotas of Kafka's: for how long a node throttles Connector, as librdkafka tells it.

A node that is sent more than a quota allows takes it all the same. Its answer names a time, and for so long it reads
nothing more from that connection. So what is sent next has no answer for seconds, which would look like a node in
trouble. Nothing is lost by it: what waits is stored as well, and then acknowledged to MQTT.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from app.kafka.heard import LARGEST_INT32, whole
from app.throttle import Throttle

log = logging.getLogger(__name__)

LOGGED_MS = 1000  # at the edge of a quota there are shorter times all the time, and nobody notices them
KEPT_NODES = 200


class Quotas:
    """Which nodes throttle Connector."""

    def __init__(self) -> None:
        """Know of none."""
        self._throttled: dict[int, tuple[int, float]] = {}
        self._throttle = Throttle(log)

    def note(self, event: Any) -> None:
        """Note for how long a node throttles Connector, 0 if no longer, and log the longer times.

        Args:
            event: The `ThrottleEvent` of the Kafka client.
        """
        node = whole(event.broker_id, -1, LARGEST_INT32, -1)
        throttled_ms = whole(event.throttle_time * 1000, 0, LARGEST_INT32, 0)
        if len(self._throttled) >= KEPT_NODES:
            self._throttled.clear()
        self._throttled[node] = throttled_ms, time.monotonic() + throttled_ms / 1000
        if throttled_ms >= LOGGED_MS:
            self._throttle.warning(
                node,
                "Kafka's node %d throttles Connector for %.0f s: a quota of Kafka's, for its user or its client.id, is "
                "exceeded; messages wait in the table meanwhile",
                node,
                throttled_ms / 1000,
            )

    def throttled_seconds(self, node: int) -> float:
        """Return for how long a node throttles Connector, in all, not from now on; 0 if it does not, or no longer."""
        throttled_ms, until = self._throttled.get(node, (0, 0.0))
        return throttled_ms / 1000 if time.monotonic() < until else 0.0
