"""Messages that are larger than the whole table (UNDELIVERED_MAX_BYTES): Kafka may take them, the table cannot.

Such a message is accepted while Kafka accepts what its lane sends, and goes to Kafka from memory. Otherwise it is
dropped, counted and logged: nothing could make it safe, and if it waited for Kafka, the acknowledgements of all routes
would wait behind it, as these are sent in the order of receipt.

One that was accepted and is not confirmed in time is *held*: it stays in memory, unacknowledged, and the later
messages of its lane with it, as they would overtake it after a crash. The other lanes are stored meanwhile. At a stop
the table may exceed its limit, and the message is stored like all others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from app.kafka.watch import oldest_in_flight_seconds
from app.logged_text import LoggedText
from app.metrics import LARGER_THAN_TABLE, accounts
from app.throttle import Throttle
from tables import layout
from tables.entry import expected_bytes

if TYPE_CHECKING:
    from app.core.destination import Destination
    from app.core.lane import Lane
    from app.core.message import Message
    from app.kafka.dispatcher import Dispatcher
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

# How many times larger than what its message counts for an entry may be: a property of five bytes becomes a header.
MOST_GROWTH = 8
# A record of 100 MB may take seconds. When the oldest message of the lane is older than this, Kafka counts as away.
PATIENCE_SECONDS = 5.0
LOOK_SECONDS = 0.05


class Oversize:
    """Decides about messages that the table cannot keep; on the event loop.

    Attributes:
        held: The messages that are held, by destination, in order.
    """

    def __init__(
        self, table: UndeliveredTable, dispatcher: Dispatcher, acknowledge: Callable[[Iterable[Message]], None]
    ) -> None:
        """Take the table, the lanes, and what acknowledges messages that are dropped."""
        self._table = table
        self._dispatcher = dispatcher
        self._acknowledge = acknowledge
        self._wait_until = 0.0
        self.held: dict[Destination, deque[Message]] = {}
        self._throttle = Throttle(log)

    # ---- at the router

    @property
    def harmless_bytes(self) -> int:
        """Messages that count for fewer bytes together, as they were routed, have none among them that is too large."""
        return self._table.limit_bytes // MOST_GROWTH

    async def find_out(self, lots: dict[Destination, list[Message]]) -> None:
        """Wait for Kafka's first answer if there is a message that is too large; for some seconds, once."""
        if not any(self._is_too_large(message) for messages in lots.values() for message in messages):
            return
        self._wait_until = self._wait_until or time.monotonic() + PATIENCE_SECONDS
        while not self._dispatcher.producer.connected and time.monotonic() < self._wait_until:
            await asyncio.sleep(LOOK_SECONDS)

    def admit(self, topic: str, messages: list[Message]) -> list[Message]:
        """Return the messages that can be kept or sent; drop the others, which are counted as in flight."""
        refused = list(filter(self._is_too_large, messages))
        if not refused or self._is_taking(self._dispatcher.lanes[topic]):
            return messages
        for message in refused:
            accounts[message.route].leave_memory(1)
            accounts[message.route].drop(LARGER_THAN_TABLE)
            self._throttle.error(
                (LARGER_THAN_TABLE, message.route),
                "a message of %d bytes for %s is dropped: Kafka does not take it now, and it is larger than the table, "
                "which may hold %d bytes; raise UNDELIVERED_MAX_BYTES (its MQTT topic: %r)",
                len(message.payload),
                message.route,
                self._table.limit_bytes,
                LoggedText(message.topic_text),
            )
        self._acknowledge(refused)
        return [message for message in messages if message not in refused]

    def _is_too_large(self, message: Message) -> bool:
        return expected_bytes(message) > self._table.limit_bytes

    def _is_taking(self, lane: Lane) -> bool:
        """Whether Kafka takes what the lane sends, and nothing of it has waited for long, on disk either."""
        if not self._dispatcher.producer.connected or lane.trouble:
            return False
        return max(oldest_in_flight_seconds(lane), self._oldest_stored_seconds(lane)) < PATIENCE_SECONDS

    def _oldest_stored_seconds(self, lane: Lane) -> float:
        """Return the age of the oldest message that the table has of a lane; 0 if Kafka's client has all of it."""
        if lane.is_direct:
            return 0.0
        first = self._table.data.value(layout.HEAD + lane.topic.encode())
        oldest = [] if first is None else self._table.read(lane.destination.prefix, first, 1, 1)
        return max((time.time() - message.timestamp_ms / 1000 for message in oldest), default=0.0)

    # ---- at the table writer

    def hold(self, message: Message, expected_bytes: int) -> bool:
        """Hold a message that the table cannot keep, or that is behind one in its lane; return whether it is."""
        is_too_large = expected_bytes > self._table.limit_bytes
        if self._dispatcher.is_stopping or not (is_too_large or message.destination in self.held):
            return False
        self.held.setdefault(message.destination, deque()).append(message)
        if is_too_large:
            self._throttle.warning(
                ("held", message.route),
                "a message of %d bytes for %s is larger than the table (UNDELIVERED_MAX_BYTES) and waits for Kafka in "
                "memory; what came after it is not acknowledged before Kafka has it",
                len(message.payload),
                message.route,
            )
        return True

    def release(self) -> Sequence[Message]:
        """Return what is held no more, in order: Kafka has the message that was too large, or the worker stops."""
        released: list[Message] = []
        for destination, held in list(self.held.items()):
            if self._dispatcher.is_stopping or held[0].finished or not self._is_too_large(held[0]):
                del self.held[destination]
                released += held
        return released
