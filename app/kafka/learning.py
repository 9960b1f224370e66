"""Learns the topics' limits (size, age, retention): once Kafka answers, when a lane needs them, and now and then.

`batch.size` begins small. Once Kafka has named the limits of all topics it is raised to the smallest of them, as large
batches cost less and need fewer answers; it is lowered whenever Kafka names a smaller one. `linger.ms` is raised then
if Kafka is far away (`app.kafka.producer_defaults` says why). A topic of which Kafka says nothing gets batches like the
others, after some seconds at most, as one record at a time would be a hundred times slower; if it refuses such a batch
as too large, the batches are halved. Whatever Kafka answers about one topic never holds up another.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from app.kafka.asked_topics import LEARN_SECONDS, AskedTopics
from app.kafka.producer_defaults import BATCH_SIZE_BYTES, fitting_linger_ms
from app.kafka.standstill import change_when_landed
from app.kafka.topic_limits import Answer
from app.lines import short
from app.listed import first_of
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
FIRST_ANSWER_SECONDS = 3.0  # MQTT waits for it, unless librdkafka says that nobody is there
ROUND_TRIPS = 4  # of the first question with its connections: versions and metadata, versions and configuration
LOOK_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
SHRINK_SECONDS = 3.0  # how long all lanes may wait for the records of one
RAISE_SECONDS = 0.5  # the same where it is no need
SHRINK_AGAIN_SECONDS = 60.0
GIVEN_UP_SECONDS = 10.0  # how soon a derived topic is seen that was created after its messages became dead letters
NAMED_TOPICS = 10  # in a line of the log
UNNAMED = "it names no max.message.bytes"  # as some brokers that speak Kafka's protocol; no news to who runs one
SMALLEST_BATCH_BYTES = 1024  # smaller than that a batch is one record, for nearly all messages


class Learning:
    """Asks Kafka, and has the producer and the lanes heed what it says."""

    def __init__(self, dispatcher: Dispatcher, topics: Iterable[str], has_ended: Callable[[], bool]) -> None:
        """Take what it needs.

        Args:
            dispatcher: The lanes.
            topics: The Kafka topics that routes name, and DEAD_LETTER_TOPIC.
            has_ended: Tells that the service stops.
        """
        self._dispatcher = dispatcher
        self._asked = AskedTopics(topics)
        self._has_ended = has_ended
        self._may_fit = True
        self._throttle = Throttle(log)

    async def run(self) -> None:
        """Learn until the end."""
        dispatcher = self._dispatcher
        pause_seconds = LOOK_SECONDS
        try:
            answer = await self._ask_first()
            if answer is not None:
                pause_seconds = await self._learn(answer, dispatcher.topics.pop_refused_batches(), pause_seconds)
        finally:
            dispatcher.topics.is_asked.set()
        while not self._has_ended():
            if not dispatcher.producer.connected:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            dispatcher.topics.ask.clear()
            refused_batches = dispatcher.topics.pop_refused_batches()
            pause_seconds = await self._learn(await self._ask(ANSWER_SECONDS), refused_batches, pause_seconds)

    async def _ask_first(self) -> Answer | None:
        """Ask although it is not known whether Kafka is there, so that the first message finds the answer, if it is."""
        asked_at = time.monotonic()
        answer = await self._ask(FIRST_ANSWER_SECONDS)
        if answer.unanswered or not answer.asked:
            return None  # no answer; or there was no question, as no topic is known yet
        self._dispatcher.producer.cluster.note_answered()
        self._dispatcher.lanes.note_first_answer((time.monotonic() - asked_at) / ROUND_TRIPS)
        return answer

    async def _learn(self, answer: Answer, refused_batches: set[str], pause_seconds: float) -> float:
        """Heed an answer, and wait until it is time for the next question.

        Args:
            answer: What Kafka said.
            refused_batches: The topics that had refused a batch when it was asked.
            pause_seconds: How long to wait if it did not answer.

        Returns:
            How long to wait the next time if it does not answer then.
        """
        self._note(answer)
        topics = self._dispatcher.topics
        landed = await self._heed(answer, refused_batches)
        lanes = self._dispatcher.lanes
        topics.forget(topic for topic in answer.asked - self._asked.named if topic not in lanes)  # they ended meanwhile
        topics.is_asked.set()
        if not landed:
            await asyncio.sleep(SHRINK_AGAIN_SECONDS)
        elif answer.unanswered:
            await asyncio.sleep(pause_seconds)  # answers are large: asked all the time they fill a slow network
            return min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        else:
            await self._wait_for_questions()
            await asyncio.sleep(LOOK_SECONDS)  # a topic that is not shown yet is not asked for all the time
            return LOOK_SECONDS
        return pause_seconds

    async def _wait_for_questions(self) -> None:
        """Wait until somebody wants to know something, or until it is time to ask again."""
        if self._asked.are_more:
            return
        pause_seconds = GIVEN_UP_SECONDS if self._dispatcher.missing.given_up else LEARN_SECONDS
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._dispatcher.topics.ask.wait(), pause_seconds)

    async def _ask(self, timeout_seconds: float) -> Answer:
        known = self._dispatcher.topics
        self._asked.add_named(self._dispatcher.lanes.lasting)
        topics = self._asked.choose((lane.topic for lane in self._dispatcher), known, time.monotonic())
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(None, self._dispatcher.producer.ask_topics, topics, timeout_seconds)
        except Exception as failure:  # noqa: BLE001, an answer that cannot be read is none
            why = failure.args[0].str() if isinstance(failure, KafkaException) else repr(failure)
            answer = Answer(not_shown=known.not_shown & topics)
            answer.unanswered = dict.fromkeys(topics - answer.not_shown, short(why))
            return answer

    async def _heed(self, answer: Answer, refused_batches: set[str]) -> bool:
        """Fit the batches to the answer, and let the topics have them; False if that must be tried again."""
        dispatcher, producer = self._dispatcher, self._dispatcher.producer
        limits = {topic: known.limit_bytes for topic, known in answer.known.items() if known.limit_bytes is not None}
        # What takes less goes alone, record by record: one topic must not have all others wait for each record.
        # So does each of a topic that no route names: whoever publishes could have all batches shrink.
        named = self._asked.named
        dispatcher.topics.note_alone(refused_batches - named)
        refused_batches &= named
        own = {topic: limit for topic, limit in limits.items() if topic in named}
        are_open = any(topic in answer.refused or topic in answer.known.keys() - limits.keys() for topic in named)
        if self._may_fit and answer.known and not answer.unanswered:
            are_known = not are_open and not refused_batches
            await self._fit_to_kafka(own.values() if are_known else [0], answer.round_trip_seconds)
        wanted = [limit for limit in own.values() if limit >= SMALLEST_BATCH_BYTES]
        if any(limits.get(topic, producer.batch_size_bytes) >= producer.batch_size_bytes for topic in refused_batches):
            wanted.append(max(SMALLEST_BATCH_BYTES, producer.batch_size_bytes // 2))
        if are_open:
            wanted.append(BATCH_SIZE_BYTES)
        small = {topic for topic, limit in own.items() if limit < producer.batch_size_bytes} | refused_batches
        landed = await self._shrink_batches(min(wanted, default=producer.batch_size_bytes), ", ".join(sorted(small)))
        size_bytes = producer.batch_size_bytes
        fits = {topic for topic in answer.known if limits.get(topic, size_bytes) >= size_bytes}
        is_news = dispatcher.topics.note_answer(answer.known)
        self._note_singles(size_bytes)
        if is_news:
            dispatcher.remember("keeps", dict(dispatcher.topics.keeps_ms))
        dispatcher.topics.allow_batches(fits | answer.refused.keys())
        dispatcher.lanes.note_learned(answer.known, fits)
        return landed

    async def _fit_to_kafka(self, limits: Iterable[int], round_trip_seconds: float) -> None:
        """Have batches as large as all topics take them, and `linger.ms` fit how far away Kafka is; once."""
        self._may_fit = False
        producer = self._dispatcher.producer
        size_bytes = max(producer.batch_size_bytes, min([*limits, producer.largest_batch_bytes]))
        linger_ms = fitting_linger_ms(round_trip_seconds)
        if size_bytes > producer.batch_size_bytes or producer.would_linger(linger_ms):
            await self._when_landed(functools.partial(producer.fit_to_kafka, size_bytes, linger_ms), RAISE_SECONDS)

    async def _shrink_batches(self, size_bytes: int, names: str) -> bool:
        """Have no batch larger than that; return whether there is none.

        A partition without a leader keeps its records in flight: the other lanes do not wait for that one, and a topic
        that takes less goes on with single records.
        """
        producer = self._dispatcher.producer
        if size_bytes >= producer.batch_size_bytes:
            return True
        self._may_fit = False
        # Each time all lanes wait: a limit that is a little lower each time is met in a dozen steps.
        size_bytes = max(SMALLEST_BATCH_BYTES, min(size_bytes, producer.batch_size_bytes * 3 // 4))
        if await self._when_landed(functools.partial(producer.shrink_batches, size_bytes), SHRINK_SECONDS):
            return True
        log.warning(
            "batches cannot be lowered to %d bytes yet, which is what %s takes: a lane has records that Kafka does "
            "not answer (`/status` says which). Until then each record for %s goes alone",
            size_bytes,
            names,
            names,
        )
        return False

    async def _when_landed(self, change: Callable[[], None], wait_seconds: float) -> bool:
        return await change_when_landed(self._dispatcher, change, wait_seconds, self._has_ended)

    def _note_singles(self, size_bytes: int) -> None:
        """Note which topics take less than a batch, by all that Kafka said, and log it if it is news."""
        new = self._dispatcher.topics.note_singles(size_bytes)
        if new:
            self._throttle.warning(
                ("singles", frozenset(new)),
                "each record for %s goes alone, as it takes less than a batch of %d bytes: raise its max.message.bytes",
                ", ".join(f"{topic} ({limit_bytes} bytes)" for topic, limit_bytes in new.items()),
                size_bytes,
            )

    # ---- what is said of it

    def _note(self, answer: Answer) -> None:
        """Log what could not be learned, once, and that it could."""
        self._note_not_shown(answer)
        topics, unknown = self._dispatcher.topics, self._unknown(answer)
        before = topics.unknown
        topics.note_unknown(unknown, answer.asked - answer.unanswered.keys())
        if unknown.keys() - before.keys():
            self._log_unknown(unknown)
        elif before and not topics.unknown:
            log.info("Kafka says what its topics take now")
        if answer.unanswered:
            why = next(iter(answer.unanswered.values()))
            self._throttle.warning("asked", "Kafka did not say what its topics take, it is asked again: %s", why)
        else:
            self._throttle.end("asked", "Kafka said what its topics take")

    def _unknown(self, answer: Answer) -> dict[str, str]:
        """Return the topics that get batches although it is not known what they take, with the reasons."""
        unknown = {topic: UNNAMED for topic, known in answer.known.items() if known.limit_bytes is None}
        silent = {**answer.unanswered, **dict.fromkeys(answer.not_shown, "it is not shown")}
        unknown |= {topic: why for topic, why in silent.items() if self._dispatcher.topics.is_overdue(topic)}
        return unknown | answer.refused

    def _log_unknown(self, unknown: dict[str, str]) -> None:
        reasons = sorted(set(unknown.values()))
        self._throttle.log_at(
            logging.INFO if reasons == [UNNAMED] else logging.WARNING,
            ("unknown", frozenset(unknown)),
            "Kafka does not say what its topic %s takes (%s): it gets batches of up to %d bytes, which fit Kafka's "
            "default; if its max.message.bytes is smaller, set batch.size in KAFKA_PRODUCER_CONFIG to no more than "
            "that, or records may change their order when it refuses a batch",
            first_of(sorted(unknown), NAMED_TOPICS),
            ", ".join(reasons),
            self._dispatcher.producer.batch_size_bytes,
        )

    def _note_not_shown(self, answer: Answer) -> None:
        """Log which topics Kafka does not show, and which of them it shows now."""
        before = self._dispatcher.topics.note_not_shown(answer.not_shown, answer.asked)
        new, come = answer.not_shown - before, (before & answer.asked) - answer.not_shown
        if new:
            text = "Kafka shows no topic named %s (yet); what goes there waits"
            self._throttle.warning(("missing", frozenset(new)), text, first_of(sorted(new), NAMED_TOPICS))
        if come:
            log.info("Kafka shows the topic %s now", first_of(sorted(come), NAMED_TOPICS))
        self._dispatcher.note_shown(answer.asked - answer.not_shown - answer.unanswered.keys())
