"""Checks whether each lane moves, and logs when Kafka comes and goes.

A lane is judged by the oldest record that librdkafka has of it, not by the last that Kafka confirmed: where one
partition of many stands still, or librdkafka repeats a request without a word, the others go on. Only when a lane does
not move, the reason is looked up: in librdkafka's statistics, and by asking Kafka for the partitions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.kafka.cluster import Partition
from app.kafka.topics import STALLED_SECONDS
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.kafka.dispatcher import Dispatcher

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
ASK_SECONDS = 15.0  # between two questions why
ANSWER_SECONDS = 3.0
ASKED_TOPICS = 5  # at once; where more topics stand still, they have one reason in common
LOGGED_LANES = 5
HELD_SECONDS = 3.0  # how long a state must last to be logged


def oldest_in_flight_seconds(lane: Lane) -> float:
    """Return the age of the oldest record of a lane that librdkafka has, 0 if there is none."""
    handed_at = lane.in_flight.oldest_handed_at
    return 0.0 if handed_at is None else max(0.0, time.monotonic() - handed_at)


class Watch:
    """Tells the topics and the log what stands still; see the module's header."""

    def __init__(self, dispatcher: Dispatcher, has_ended: Callable[[], bool]) -> None:
        """Take the lanes' dispatcher, and what tells that the service stops."""
        self._dispatcher = dispatcher
        self._has_ended = has_ended
        self._throttle = Throttle(log)
        self._partitions: dict[str, dict[int, Partition]] = {}
        self._ask_at = 0.0
        self._logged: set[str] = set()
        self._logged_connected: bool | None = None
        self._logged_why = False
        self._is_connected = False
        self._since = time.monotonic()

    async def run(self) -> None:
        """Look until the end."""
        while not self._has_ended():
            self._log_connected()
            await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _log_connected(self) -> None:
        """Log whether Kafka is reachable, at the start and at each change, once the state has lasted."""
        connected, now = self._dispatcher.producer.connected, time.monotonic()
        if connected is not self._is_connected:
            self._is_connected, self._since = connected, now
        held = now - self._since >= HELD_SECONDS and (connected or self._dispatcher.producer.cluster.is_judged)
        complaint = "" if connected else self._dispatcher.producer.complaint
        found_why = self._logged_connected is False and complaint and not self._logged_why
        if not found_why and (
            connected is self._logged_connected or not (held or (connected and self._logged_connected is None))
        ):
            return
        self._logged_connected, self._logged_why = connected, bool(complaint)
        if connected:
            log.info("Kafka is reachable")
        elif complaint:
            log.warning("%s; messages wait in the table", complaint)
        else:
            log.warning("Kafka is not reachable; messages wait in the table")

    async def _look(self) -> None:
        dispatcher = self._dispatcher
        if not dispatcher.producer.connected:
            # That Kafka is away is logged already, and it does not mean that a lane flows again.
            dispatcher.topics.note_oldest({}, self._why)
            return
        ages = {lane.topic: oldest_in_flight_seconds(lane) for lane in dispatcher}
        stalled = {topic: age for topic, age in ages.items() if age >= STALLED_SECONDS}
        if stalled and time.monotonic() >= self._ask_at:
            await self._ask(sorted(stalled, key=lambda topic: -stalled[topic])[:ASKED_TOPICS])
        dispatcher.topics.note_oldest(ages, self._why)
        self._log_stalled(dispatcher.topics.stalled)

    def _log_stalled(self, stalled: dict[str, str]) -> None:
        """Log which lanes stand still, and which flow again; of many only a few by name, as they share a reason."""
        for topic in self._logged - stalled.keys():
            self._throttle.end(topic, "the lane %s flows again", topic)
        self._logged = set(stalled)
        for topic in list(stalled)[:LOGGED_LANES]:
            self._throttle.warning(topic, "the lane %s waits: %s", topic, stalled[topic])
        if len(stalled) > LOGGED_LANES:
            more = len(stalled) - LOGGED_LANES
            self._throttle.warning("more", "%d more lanes wait for an answer of Kafka; /status names them", more)

    async def _ask(self, topics: list[str]) -> None:
        """Ask Kafka for the partitions of topics; without an answer the statistics must do."""
        self._ask_at = time.monotonic() + ASK_SECONDS
        self._dispatcher.topics.ask.set()  # the topics' configuration may be what has changed
        loop = asyncio.get_running_loop()
        try:
            self._partitions = await loop.run_in_executor(
                None, self._dispatcher.producer.ask_partitions, topics, ANSWER_SECONDS
            )
        except Exception as failure:  # noqa: BLE001, an answer that cannot be read is none
            self._partitions = {}
            log.debug("Kafka does not say how the partitions of %s are: %s", ", ".join(topics), failure)

    def _why(self, topic: str) -> str:
        known = self._dispatcher.topics.known.get(topic)
        replicas = known.in_sync_replicas if known else 0
        return self._dispatcher.producer.cluster.why_waiting(topic, self._partitions.get(topic, {}), replicas)
