"""Finds a librdkafka that no longer learns where Kafka is, and has its producer replaced.

librdkafka asks the nodes that it knows where the nodes are. When none of them can be reached it begins anew at
KAFKA_BROKER. An answer that comes in that very moment makes it forget to (as of librdkafka 2.16): it tries addresses
that nobody uses any more, or none, for minutes or for ever, while Kafka waits for it. A Kafka of one node answers like
that when it restarts, and any Kafka whose `advertised.listeners` are put right.

So when records wait and no node is connected, a client of its own asks at KAFKA_BROKER. If Kafka names addresses of
which librdkafka knows none, and that stays so, the producer is replaced like one that failed for good: what is not
confirmed is sent once more, in order. Where Kafka does not answer, or names what librdkafka knows, nothing is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
ASK_SECONDS, LONGEST_ASK_SECONDS = 5.0, 20.0  # between two questions; each makes a connection, so they become rare
ANSWER_SECONDS = 3.0
# librdkafka tries each second, and tells what it knows every five: by then it would know.
STRANDED_SECONDS = 8.0
NAMED_ADDRESSES = 3


class Stranded:
    """Looks for as long as it runs; see the module's header."""

    def __init__(self, dispatcher: Dispatcher, has_ended: Callable[[], bool]) -> None:
        """Take the lanes' dispatcher, and what tells that the service stops."""
        self._dispatcher = dispatcher
        self._has_ended = has_ended
        self._since: float | None = None  # Kafka names nodes of which librdkafka knows none
        self._ask_at, self._pause_seconds = 0.0, ASK_SECONDS

    async def run(self) -> None:
        """Look until the end."""
        while not self._has_ended():
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask Kafka if there is a reason to."""
        producer, now = self._dispatcher.producer, time.monotonic()
        waiting = next((lane.topic for lane in self._dispatcher if lane.in_flight.messages), None)
        if waiting is None or producer.is_fatal or producer.cluster.has_a_node:
            self._since, self._ask_at, self._pause_seconds = None, now + ASK_SECONDS, ASK_SECONDS
        elif now >= self._ask_at:
            loop = asyncio.get_running_loop()
            told = await loop.run_in_executor(None, producer.ask_addresses, waiting, ANSWER_SECONDS)
            self.judge(told, time.monotonic())

    def judge(self, told: set[str], now: float) -> None:
        """Compare the addresses that Kafka told with those that librdkafka knows."""
        producer = self._dispatcher.producer
        cluster = producer.cluster
        if told:
            cluster.note_answer(told)
        self._pause_seconds = ASK_SECONDS if told else min(2 * self._pause_seconds, LONGEST_ASK_SECONDS)
        self._ask_at = now + self._pause_seconds
        if not told or cluster.has_a_node or told & cluster.known_addresses:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= STRANDED_SECONDS and cluster.told_at > self._since + STRANDED_SECONDS / 2:
            self._since = None
            known = ", ".join(sorted(cluster.known_addresses)[:NAMED_ADDRESSES]) or "none"
            names = ", ".join(sorted(told)[:NAMED_ADDRESSES])
            text = f"Kafka is at {names}, and librdkafka has not learned it (it knows {known})"
            producer.mark_failed(KafkaError(KafkaError._TRANSPORT, text))  # noqa: SLF001, librdkafka's own codes
