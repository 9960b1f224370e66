"""What Kafka says of its topics' limits, and what it may not say; against the broker that librdkafka has."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from app.core.in_flight import SharedBounds
from app.kafka.cluster import Cluster
from app.kafka.learning import Learning
from app.kafka.producer import KafkaProducer
from app.kafka.topic_limits import Answer, TopicConfiguration, _note, ask_topics, configuration_of
from app.kafka.topics import Topics
from app.settings import LARGEST_BATCH_BYTES
from tests.support.oracle import wait_until

TIMES = 3
BATCH_BYTES = 65536


def threads():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.usefixtures("without_collector")
def test_asking_again_and_again_leaves_no_thread_and_no_connection_behind():
    """P6: a Kafka that never says it is asked for ever, each time by a client of its own."""
    broker = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    address = next(iter(broker.list_topics(timeout=10).brokers.values()))
    configuration = {"bootstrap.servers": f"{address.host}:{address.port}", "log_level": 0}
    producer = Producer(configuration)
    producer.produce("topic", b"")
    assert not producer.flush(10)
    before = threads()
    for _ in range(TIMES):
        with pytest.raises(KafkaException, match=r"controller|Timed out"):  # that broker has none
            ask_topics(configuration, {"topic"}, 0.1)
    wait_until(lambda: threads() <= before, "the end of the clients' threads")


@pytest.mark.usefixtures("without_collector")
def test_an_answer_that_may_not_be_read_is_not_held():
    """P6: without the right DescribeConfigs it comes every five minutes."""
    future: concurrent.futures.Future[object] = concurrent.futures.Future()
    future.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    answer = Answer(not_shown=set())
    _note(answer, "topic", future, 0)
    assert "Topic authorization failed" in answer.refused["topic"]
    held = weakref.ref(future)
    del future
    assert held() is None


def test_one_topic_that_is_odd_counts_for_itself_alone():
    """P5: whatever code Kafka refuses the question with, and whatever the others get."""
    answer = Answer(not_shown=set())
    for code in range(-1, 120):
        refused: concurrent.futures.Future[object] = concurrent.futures.Future()
        refused.set_exception(KafkaException(KafkaError(code or 1)))
        _note(answer, f"odd-{code}", refused, 0)
    told: concurrent.futures.Future[object] = concurrent.futures.Future()
    told.set_result({"max.message.bytes": SimpleNamespace(value="1048588")})
    _note(answer, "even", told, 0)
    assert answer.known == {"even": TopicConfiguration(limit_bytes=1048588)}
    assert len(answer.refused) + len(answer.unanswered) == 121
    assert set(answer.unanswered) == {f"odd-{KafkaError.REQUEST_TIMED_OUT}"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, TopicConfiguration()),
        ({"max.message.bytes": "", "retention.ms": None}, TopicConfiguration()),
        ({"max.message.bytes": "1000", "segment.bytes": "500"}, TopicConfiguration(limit_bytes=500)),
        ({"retention.ms": "-1"}, TopicConfiguration()),
        ({"retention.ms": "1000", "cleanup.policy": "compact"}, TopicConfiguration()),
        ({"retention.ms": "1000", "cleanup.policy": "compact,delete"}, TopicConfiguration(keeps_ms=1000)),
        ({"retention.ms": "1000", "message.timestamp.type": "LogAppendTime"}, TopicConfiguration()),
        ({"retention.ms": "1000", "message.timestamp.type": "CreateTime"}, TopicConfiguration(keeps_ms=1000)),
        ({"min.insync.replicas": "2"}, TopicConfiguration(in_sync_replicas=2)),
    ],
)
def test_what_a_topic_takes_and_keeps_is_read_from_whatever_kafka_names(values, expected):
    assert configuration_of(values) == expected


class Asked:
    """Lanes and a producer whose Kafka gives the same answer all the time.

    Attributes:
        batches: Each `batch.size` that it was changed to.
        linger_ms: Its `linger.ms`.
        remembered: What was to be remembered on disk.
    """

    def __init__(self, answer: Answer | KafkaException, in_flight_messages: int = 0) -> None:
        self.answer = answer
        self.batches: list[int] = []
        self.linger_ms = 1
        self.remembered: list[tuple[str, dict[str, int]]] = []
        self.producer = SimpleNamespace(
            connected=True, batch_size_bytes=BATCH_BYTES, largest_batch_bytes=BATCH_BYTES, ask_topics=self._ask,
            shrink_batches=self._shrink, would_linger=lambda linger_ms: linger_ms > self.linger_ms,
            fit_to_kafka=self._fit, cluster=Cluster(),
        )  # fmt: skip
        self.is_stopping = False
        self.bounds = SharedBounds()
        self.in_flight_messages = in_flight_messages
        self.topics = Topics()
        self.missing = SimpleNamespace(given_up=set())
        self.lanes = SimpleNamespace(
            lasting=frozenset(), note_learned=lambda *_: None, note_first_answer=lambda _: None
        )  # there are none

    def __iter__(self):
        return iter(())

    def _ask(self, _topics, _seconds):
        if isinstance(self.answer, KafkaException):
            raise self.answer
        return self.answer

    def _shrink(self, size_bytes):
        self.batches.append(size_bytes)
        self.producer.batch_size_bytes = size_bytes

    def _fit(self, size_bytes, linger_ms):
        self._shrink(size_bytes)
        self.linger_ms = max(self.linger_ms, linger_ms)

    def remember(self, name, value):
        self.remembered.append((name, value))

    def look_at_all(self):
        """Do nothing: no lane is behind."""

    def note_shown(self, _topics):
        """Do nothing: nothing was given up."""

    def learn(self, *topics):
        """Have the question asked once, and its answer heeded, however long a thread takes for that."""

        async def run():
            learning, heeded = Learning(self, topics, lambda: False), asyncio.Event()
            heed = learning._heed

            async def heed_and_tell(*arguments):
                try:
                    return await heed(*arguments)
                finally:
                    heeded.set()

            learning._heed = heed_and_tell
            asking = asyncio.ensure_future(learning.run())
            await asyncio.wait_for(heeded.wait(), 60)
            asking.cancel()

        asyncio.run(run())


def test_a_topic_of_which_kafka_says_nothing_gets_batches_and_is_named_once(caplog):
    """A refused question is an answer: nothing waits for it, and the operator is told what to set where."""
    asked = Asked(Answer(set(), {"even": TopicConfiguration(BATCH_BYTES)}, {"odd": "Broker: Unsupported version"}))
    asked.learn("odd", "even")
    asked.learn("odd", "even")
    assert asked.topics.learned == {"odd", "even"}
    (said,) = [line for line in caplog.messages if "does not say" in line]
    assert "topic odd takes (Broker: Unsupported version)" in said
    assert "set batch.size in KAFKA_PRODUCER_CONFIG" in said


def test_a_kafka_that_names_no_limit_is_said_without_a_warning(caplog):
    """Some brokers that speak Kafka's protocol have no such thing: it is so from the first day on."""
    caplog.set_level(logging.INFO)
    asked = Asked(Answer(set(), {"odd": TopicConfiguration()}))
    asked.learn("odd")
    (said,) = [record for record in caplog.records if "does not say" in record.message]
    assert said.levelno == logging.INFO
    assert asked.topics.unknown == {"odd": "it names no max.message.bytes"}


def test_a_kafka_that_does_not_answer_is_asked_again_and_said_once_a_lane_waited_long_enough(caplog, monkeypatch):
    asked = Asked(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
    asked.learn("silent")
    assert not asked.topics.learned
    assert not asked.topics.unknown
    assert not asked.topics.takes_batches("silent")
    monkeypatch.setattr("app.kafka.topics.PATIENCE_SECONDS", 0.0)
    assert asked.topics.takes_batches("silent")
    assert not asked.topics.takes_batches("newer"), "its patience begins with its first record"
    asked.learn("silent")
    assert set(asked.topics.unknown) == {"silent"}
    assert any("topic silent takes (Local: Timed out)" in line for line in caplog.messages)


def test_what_topics_keep_is_remembered_when_it_changes_and_stays_while_kafka_says_nothing():
    asked = Asked(Answer(set(), {"a": TopicConfiguration(keeps_ms=1000), "b": TopicConfiguration()}))
    asked.learn("a", "b")
    asked.learn("a", "b")
    asked.answer = Answer(set(), {"b": TopicConfiguration(keeps_ms=5)}, {"a": "why"})
    asked.learn("a", "b")
    asked.answer = Answer(set(), {"a": TopicConfiguration()})
    asked.learn("a", "b")
    assert asked.remembered == [("keeps", {"a": 1000}), ("keeps", {"a": 1000, "b": 5}), ("keeps", {"b": 5})]


def test_a_batch_that_is_refused_halves_the_batches_where_no_limit_explains_it():
    """For a topic of which nothing is known, and for one that takes less than it says."""
    asked = Asked(Answer(set(), {"even": TopicConfiguration(BATCH_BYTES)}, {"odd": "why"}))
    for times, topic in enumerate(("odd", "even"), 1):
        asked.topics.refused_batches = {topic}
        asked.learn("odd", "even")
        assert asked.producer.batch_size_bytes == BATCH_BYTES >> times
    asked.learn("odd", "even")
    assert asked.batches == [BATCH_BYTES >> 1, BATCH_BYTES >> 2], "once for each refusal"


def test_batches_that_cannot_be_made_smaller_yet_hold_up_only_the_topic_that_takes_less(monkeypatch, caplog):
    """P5: a partition without a leader and a small topic leave the other topics at full rate."""
    monkeypatch.setattr("app.kafka.learning.SHRINK_SECONDS", 0.02)
    known = {"small": TopicConfiguration(2000), "large": TopicConfiguration(BATCH_BYTES)}
    asked = Asked(Answer(set(), known, {"odd": "why"}), in_flight_messages=1)
    asked.learn("small", "large", "odd")
    assert asked.topics.learned == {"large", "odd"}
    assert not asked.bounds.is_closed
    assert "which is what small takes" in caplog.text
    assert "Until then each record for small goes alone" in caplog.text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(set(), {"a": TopicConfiguration(1_000_000), "b": TopicConfiguration(300_000)}), [300_000]),
        (Answer(set(), {"a": TopicConfiguration(1_000_000)}), [LARGEST_BATCH_BYTES]),
        (Answer({"b"}, {"a": TopicConfiguration(1_000_000)}), [LARGEST_BATCH_BYTES]),
        (Answer(set(), {"a": TopicConfiguration(1_000_000)}, {"b": "why"}), []),
        (Answer(set(), {"a": TopicConfiguration(1_000_000), "b": TopicConfiguration()}), []),
        (Answer(set(), {"a": TopicConfiguration(BATCH_BYTES)}), []),
    ],
    ids=["the smallest", "the largest", "one is missing", "one is refused", "one is unnamed", "one takes no more"],
)
def test_batches_become_as_large_as_all_topics_take_them_once_kafka_says_it(answer, expected):
    asked = Asked(answer)
    asked.producer.largest_batch_bytes = LARGEST_BATCH_BYTES
    asked.learn("a", "b")
    assert asked.batches == expected


def test_batches_become_small_again_where_a_topic_appears_of_which_nothing_is_known():
    asked = Asked(Answer(set(), {"a": TopicConfiguration(1_000_000)}))
    asked.producer.largest_batch_bytes = LARGEST_BATCH_BYTES
    learning = Learning(asked, ["a", "b"], lambda: False)
    asyncio.run(learning._heed(asked.answer, set()))
    for _ in range(2):  # by steps
        asyncio.run(learning._heed(Answer(set(), asked.answer.known, {"b": "why"}), set()))
    asyncio.run(learning._heed(asked.answer, set()))
    assert asked.batches == [LARGEST_BATCH_BYTES, BATCH_BYTES], "and they do not change to and fro"


def test_batches_stay_as_they_are_where_records_do_not_land_at_once():
    """To have larger ones is no need: no lane waits for that."""
    asked = Asked(Answer(set(), {"a": TopicConfiguration(1_000_000)}, round_trip_seconds=0.3), in_flight_messages=1)
    asked.producer.largest_batch_bytes = LARGEST_BATCH_BYTES
    asked.learn("a")
    assert (asked.batches, asked.linger_ms, asked.bounds.is_closed) == ([], 1, False)


@pytest.mark.parametrize(
    ("round_trip_seconds", "linger_ms"), [(0.0, 1), (0.004, 1), (0.05, 60), (0.3, 360), (5.0, 500)]
)
def test_records_wait_for_each_other_as_long_as_a_kafka_that_is_far_away_takes_to_answer(round_trip_seconds, linger_ms):
    """Else a thread of librdkafka takes a whole core to ask whether they may be sent."""
    asked = Asked(Answer(set(), {"a": TopicConfiguration(BATCH_BYTES)}, round_trip_seconds=round_trip_seconds))
    asked.learn("a")
    assert asked.linger_ms == linger_ms


@pytest.mark.parametrize(("name", "value"), [("linger.ms", 1), ("linger.ms", 0.5), ("queue.buffering.max.ms", 1)])
def test_a_linger_that_the_user_has_set_stays(name, value):
    assert KafkaProducer({}).would_linger(60)
    assert not KafkaProducer({name: value}).would_linger(60)


def test_batches_never_become_larger_than_the_user_has_set():
    assert KafkaProducer({"batch.size": 1000}).batch_size_bytes == 1000
    assert KafkaProducer({"batch.size": 200_000}).largest_batch_bytes == 200_000
    assert KafkaProducer({"batch.size": 200_000}).batch_size_bytes == BATCH_BYTES, "until it is known what topics take"
