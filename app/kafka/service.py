"""The Kafka service: polls librdkafka from the event loop, and looks for messages that are late.

A thread of its own for the poll would double the cost of a message (the interpreter lock changes hands each time).
While nothing is in flight the service sleeps and polls only for librdkafka's own news.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from mode import Service

from app.errors import SettingsError
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.kafka.lanes import Lanes

log = logging.getLogger(__name__)

POLL_SECONDS = 0.002
SLOW_POLL_SECONDS = 0.01  # when nothing was reported for a while, as in an outage
IDLE_SECONDS = 0.5
OUTAGE_AFTER_SECONDS = 0.2
KAFKA_ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.1
FIRST_RENEWAL_SECONDS = 1.0  # between two replacements of the producer at first; it doubles up to INVOKE_LATENCY_SEC
LONGEST_PAUSE_SECONDS = 30.0
SHRINK_SECONDS = 3.0  # how long all lanes may wait for the records of one
SHRINK_AGAIN_SECONDS = 60.0
LEARN_SECONDS = 300.0  # how soon a changed max.message.bytes is seen without a refusal


class KafkaService(Service):
    """Runs the producer of the lanes."""

    mundane_level = "debug"

    def __init__(self, lanes: Lanes, topics: Iterable[str], **kwargs: object) -> None:
        """Make the service.

        Args:
            lanes: All lanes.
            topics: The mapped Kafka topics, to learn what they take.
            **kwargs: For `mode.Service`.
        """
        self.lanes = lanes
        self._topics = set(topics)
        self._throttle = Throttle(log)
        self._renew_at = 0.0
        self._renewal_seconds = FIRST_RENEWAL_SECONDS
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Start librdkafka; it need not reach Kafka.

        Raises:
            SettingsError: librdkafka refuses the configuration.
        """
        try:
            self.lanes.producer.open()
        except KafkaException as error:
            problem = f"KAFKA_PRODUCER_CONFIG: librdkafka refuses {_property_of(error)}; see its CONFIGURATION.md"
            raise SettingsError([problem]) from None
        self.add_future(self._poll())
        self.add_future(self._learn())

    async def on_stop(self) -> None:
        """End librdkafka; what it still holds is in the table."""
        self.lanes.producer.close()

    async def _poll(self) -> None:
        lanes, producer = self.lanes, self.lanes.producer
        look_every_seconds = max(0.005, lanes.store_after_seconds / 4)
        look_at = reported_at = 0.0
        was_connected = False
        while not self.should_stop:
            reports = producer.poll()
            now = time.monotonic()
            if reports:
                reported_at = now
                lanes.take_reports(reports)
            if producer.is_fatal and not lanes.stopping and producer.give_back() and now >= self._renew_at:
                self._renew(now)
            if now >= look_at:
                look_at = now + look_every_seconds
                lanes.store_what_is_late()
            if producer.connected != was_connected:
                was_connected = producer.connected
                lanes.look_at_all()
            await lanes.flush()
            if lanes.in_flight_messages:
                await asyncio.sleep(POLL_SECONDS if now - reported_at < OUTAGE_AFTER_SECONDS else SLOW_POLL_SECONDS)
            else:
                lanes.wake_poller.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(lanes.wake_poller.wait(), IDLE_SECONDS)
                reported_at = time.monotonic()

    def _renew(self, now: float) -> None:
        """Replace the producer; where the next one fails as well, as without any right to write, ever more rarely."""
        longest_seconds = self.lanes.longest_retry_seconds
        if now > self._renew_at + longest_seconds:
            self._renewal_seconds = FIRST_RENEWAL_SECONDS
        self._renew_at = now + self._renewal_seconds
        self._renewal_seconds = min(self._renewal_seconds * 2, longest_seconds)
        self.lanes.producer.renew()

    async def _learn(self) -> None:
        """Once Kafka answers, and whenever a lane wants to know, learn what the topics take."""
        lanes = self.lanes
        pause_seconds = LOOK_SECONDS
        while not (lanes.stopping or self.should_stop):
            if not lanes.producer.connected:
                await self.sleep(LOOK_SECONDS)
                continue
            lanes.learn_limits.clear()
            topics = self._topics | {lane.topic for lane in lanes}
            try:
                limit_bytes, missing = await asyncio.get_running_loop().run_in_executor(
                    None, lanes.producer.smallest_limit_bytes, topics, KAFKA_ANSWER_SECONDS
                )
            except KafkaException as error:
                self._throttle.warning("asked", "Kafka did not say what its topics take, it is asked again: %s", error)
                await self.sleep(pause_seconds)  # answers are large: asked all the time they would fill a slow network
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = LOOK_SECONDS
            self._throttle.end("asked", "Kafka said what its topics take")
            self._note_missing(missing)
            if limit_bytes is not None and not await self._shrink_batches(limit_bytes):
                await self.sleep(SHRINK_AGAIN_SECONDS)
                continue
            lanes.learned_topics |= topics - missing
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(lanes.learn_limits.wait(), LEARN_SECONDS)
            await self.sleep(LOOK_SECONDS)  # a topic that is not shown yet is not asked for all the time

    def _note_missing(self, missing: set[str]) -> None:
        """Log which topics are missing, and which of them have come."""
        before, self.lanes.missing_topics = self.lanes.missing_topics, missing
        if missing - before:
            log.warning("Kafka shows no topic named %s (yet); what goes there waits", ", ".join(sorted(missing)))
        if before - missing:
            log.info("Kafka shows the topic %s now", ", ".join(sorted(before - missing)))

    async def _shrink_batches(self, size_bytes: int) -> bool:
        """Have no batch larger than that: what is in flight lands first, while new messages go to the table.

        Returns:
            False if something stayed in flight, as a partition without a leader keeps it: the other lanes do not wait
            for that one, and topics that are not learned yet go on with single records.
        """
        lanes = self.lanes
        if size_bytes >= lanes.producer.batch_size_bytes:
            return True
        lanes.paused = True
        give_up_at = time.monotonic() + SHRINK_SECONDS
        while lanes.in_flight_messages and time.monotonic() < give_up_at and not (lanes.stopping or self.should_stop):
            await asyncio.sleep(POLL_SECONDS)
        if lanes.stopping or self.should_stop:
            return True  # the stop sequence ends librdkafka, and nothing more goes to it
        landed = not lanes.in_flight_messages
        if landed:
            lanes.producer.shrink_batches(size_bytes)
        else:
            log.warning("batch.size cannot be lowered to %d bytes yet: a lane has records that do not land", size_bytes)
        lanes.paused = False
        lanes.look_at_all()
        return landed


def _property_of(error: KafkaException) -> str:
    """Return the name of the property that librdkafka complains of; its text may repeat the value, a secret perhaps."""
    found = re.search(r'propert(?:y|ies):? "([a-z0-9._]+)"', str(error))
    return f"the property {found[1]}" if found else "the value of a property"
