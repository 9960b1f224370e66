"""The limits and the retention of the topics, asked from Kafka: `batch.size` must stay below the limits.

An answer about a topic counts for that topic alone. A topic of which nothing can be learned, as Kafka refuses the
question (code 35, a missing right) or does not know it, is named with the reason; who asks decides what that means.

Each question has connections of its own: on those of the producer it would wait behind records that do not land.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from app.kafka.heard import LARGEST_INT32, LARGEST_INT64, whole
from app.kafka.replaced_files import check_files
from app.lines import short

# What would have an administrative client do more than ask. All else that the producer was told counts for it too, or
# it could not connect where the producer can.
NOT_FOR_ADMIN = frozenset({
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transactional.id",
    "statistics.interval.ms",
    "stats_cb",
    "error_cb",
    "throttle_cb",
    "debug",
})  # fmt: skip
# Critical: of a topic that nobody asked for librdkafka 2.16 writes the name into its log after it freed it, which ends
# the process. What else it would say of its connections the producer's client says too.
LOG_LEVEL = 2
# No answer to a question, while any other code is one: asked again soon, it may come.
NO_ANSWER = frozenset({
    KafkaError._TIMED_OUT,  # noqa: SLF001, librdkafka's own codes begin with _
    KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._DESTROY,  # noqa: SLF001
    KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip


# The shortest of some round trips counts: a Kafka that has just started takes long for one, and soon not for the next.
ROUND_TRIPS = 3
MEASURING_SECONDS = 0.2  # no further one is begun after so long

ANY_AGE_MS = LARGEST_INT64  # Kafka's default of message.timestamp.before.max.ms
# Below it not even an empty message fits: a batch's head takes 61 bytes, and the headers of a record that is ours more
# than 50, which no compression brings below 39.
NO_RECORD_FITS_BYTES = 100
# What Kafka does not show: there is none, or our user may not see it.
NOT_SHOWN = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
})  # fmt: skip


class TopicConfiguration(NamedTuple):
    """What Kafka said of a topic.

    Attributes:
        limit_bytes: The largest batch that it takes; None: Kafka names no limit.
        keeps_ms: How long it keeps a record, counted from the record's own time; None: for ever, or from its arrival.
        takes_age_ms: The greatest age of a record that it takes, by the record's own time; None: any.
        takes_ahead_ms: How far ahead of its own clock the time of a record may be that it takes; None: any.
        in_sync_replicas: How many must have a record; 0: Kafka names no number.
    """

    limit_bytes: int | None = None
    keeps_ms: int | None = None
    in_sync_replicas: int = 0
    takes_age_ms: int | None = None
    takes_ahead_ms: int | None = None


@dataclass
class Answer:
    """What came of the question.

    Attributes:
        not_shown: Topics that Kafka does not show.
        known: What it said of the others.
        refused: Those of which it says nothing, with the reason.
        unanswered: Those of which it said nothing in time, with the reason.
        round_trip_seconds: How long Kafka takes to answer a short question on an open connection; 0: not known.
    """

    not_shown: set[str]
    known: dict[str, TopicConfiguration] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    round_trip_seconds: float = 0.0

    @property
    def asked(self) -> set[str]:
        """All topics that were asked for."""
        return {*self.not_shown, *self.known, *self.refused, *self.unanswered}

    def note_failure(self, topics: set[str], error: KafkaError) -> None:
        """Take note of why nothing is known of topics."""
        failed = self.unanswered if error.code() in NO_ANSWER else self.refused
        failed |= dict.fromkeys(topics, short(error.str()))


def admin_client(configuration: Mapping[str, Any]) -> AdminClient:
    """Return a client that asks; it ends when nobody refers to it.

    Raises:
        UntrustedFileError: It would read a file that everybody may write to.
    """
    check_files(configuration)
    told = {name: value for name, value in configuration.items() if name not in NOT_FOR_ADMIN}
    return AdminClient({**told, "log_level": LOG_LEVEL})


def ask_topics(configuration: Mapping[str, Any], asked: set[str], timeout_seconds: float) -> Answer:
    """Ask what topics take and keep (blocks); see `KafkaProducer.ask_topics`.

    Only these are asked for: a cluster may have a million others, of which each answer would be an object.
    """
    admin = admin_client(configuration)
    existing = set(describe_topics(admin, asked, timeout_seconds))
    answer = Answer(not_shown=asked - existing)
    if not existing:
        return answer
    try:
        futures = admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in existing], request_timeout=timeout_seconds
        )
    except KafkaException as failure:
        answer.note_failure(existing, failure.args[0])
        return answer
    give_up_at = time.monotonic() + timeout_seconds + 1
    for resource, future in futures.items():
        _note(answer, resource.name, future, give_up_at)
    if answer.known:
        answer.round_trip_seconds = _round_trip_seconds(admin, next(iter(answer.known)), timeout_seconds)
    return answer


def _round_trip_seconds(admin: AdminClient, topic: str, timeout_seconds: float) -> float:
    """Return the shortest of some round trips; 0 if Kafka does not answer."""
    shortest_seconds, begun_at = timeout_seconds, time.monotonic()
    for _ in range(ROUND_TRIPS):
        asked_at = time.monotonic()
        try:
            describe_topics(admin, {topic}, timeout_seconds)
        except KafkaException:
            return 0.0
        shortest_seconds = min(shortest_seconds, time.monotonic() - asked_at)
        if time.monotonic() - begun_at > MEASURING_SECONDS:
            break
    return shortest_seconds


def describe_topics(admin: AdminClient, topics: set[str], timeout_seconds: float) -> dict[str, Any]:
    """Return librdkafka's descriptions of those topics that Kafka shows (blocks), None where it only names an error.

    Each is asked for by itself: an answer that leaves out one of several ends the process, by a null pointer in the
    Kafka client for Python.

    Raises:
        KafkaException: Kafka does not say in time which topics there are.
    """
    futures: dict[str, Any] = {}
    for topic in sorted(topics):
        futures |= admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_seconds)
    give_up_at = time.monotonic() + timeout_seconds + 1
    found: dict[str, Any] = {}
    for topic, future in futures.items():
        refusal = refusal_of(future, give_up_at)
        if refusal is None:
            found[topic] = future.result()
        elif refusal.code() in NO_ANSWER or refusal.code() < 0:
            raise KafkaException(refusal)
        elif refusal.code() not in NOT_SHOWN:
            found[topic] = None
    return found


def refusal_of(future: Any, give_up_at: float) -> KafkaError | None:
    """Return what Kafka refused a question with, None if it answered; see `_note` on exceptions."""
    try:
        failure = future.exception(max(0.0, give_up_at - time.monotonic()))
    except concurrent.futures.TimeoutError:
        return KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001
    if failure is None or isinstance(failure, KafkaException):
        return failure and failure.args[0]
    if isinstance(failure, RuntimeError):  # the client's word for an answer with nothing in it
        return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    return KafkaError(KafkaError._BAD_MSG, short(failure))  # noqa: SLF001


def _note(answer: Answer, topic: str, future: Any, give_up_at: float) -> None:
    """Take note of what Kafka said of one topic.

    The future's own exception is not raised or kept: with a traceback it would hold the admin client and its threads.
    """
    try:
        refusal = future.exception(max(0.0, give_up_at - time.monotonic()))
    except concurrent.futures.TimeoutError:
        answer.note_failure({topic}, KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
        return
    if refusal is None:
        answer.known[topic] = configuration_of({name: entry.value for name, entry in future.result().items()})
    elif isinstance(refusal, KafkaException):
        answer.note_failure({topic}, refusal.args[0])
    else:
        answer.refused[topic] = short(refusal)


def configuration_of(values: Mapping[str, str | None]) -> TopicConfiguration:
    """Return what matters of a topic's configuration; not every Kafka-compatible broker has all of it."""
    # A batch that is larger than a segment is refused as well.
    named = [whole(values.get(name), -1, LARGEST_INT32, -1) for name in ("max.message.bytes", "segment.bytes")]
    limits = [number for number in named if number >= 0]
    keeps_ms = _number(values.get("retention.ms"))
    by_arrival = values.get("message.timestamp.type") == "LogAppendTime"
    deletes = "delete" in (values.get("cleanup.policy") or "delete")
    return TopicConfiguration(
        limit_bytes=min(limits, default=None),
        keeps_ms=keeps_ms if keeps_ms >= 0 and deletes and not by_arrival else None,
        in_sync_replicas=whole(values.get("min.insync.replicas"), 0, LARGEST_INT32, 0),
        takes_age_ms=None if by_arrival else _limit(values.get("message.timestamp.before.max.ms")),
        takes_ahead_ms=None if by_arrival else _limit(values.get("message.timestamp.after.max.ms")),
    )


def _limit(value: str | None) -> int | None:
    """Return a limit in milliseconds that Kafka named, None if it is none."""
    limit_ms = _number(value)
    return limit_ms if 0 <= limit_ms < ANY_AGE_MS else None


def _number(value: str | None) -> int:
    """Return a number of milliseconds that Kafka named, -1 if it is none."""
    return whole(value, -1, LARGEST_INT64, -1)
