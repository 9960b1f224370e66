"""Whatever Kafka says, in numbers, names and texts: the worker goes on, and so do the other lanes.

Kafka is a script (`scripted_kafka`), and the librdkafka that reads it is the real one.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from app.core.lane_states import State
from app.kafka.cluster import KEPT_NODES, KEPT_PARTITIONS, Cluster, Partition, partitions_of
from app.kafka.contained import contained
from app.kafka.heard import LARGEST_INT32, LARGEST_INT64, whole
from app.kafka.learning import Learning
from app.kafka.log_filters import LINES_A_MINUTE, OncePerMinute
from app.kafka.outcomes import KEPT_CODES, OTHER_CODES, Meaning, Outcome, Refusals
from app.kafka.producer import KafkaProducer
from app.kafka.service import KafkaService
from app.kafka.statistics import Statistics, read_statistics
from app.kafka.topic_limits import Answer, TopicConfiguration, configuration_of
from app.kafka.topics import Topics
from app.lines import LONGEST_WORDS_CHARACTERS, LineFormatter, short
from tables import layout
from tests.support.dispatched import POLICY, Dispatched, never_held_up
from tests.support.scripted_kafka import METADATA, PRODUCE, Script, ScriptedKafka
from tests.unit.test_topic_limits import BATCH_BYTES, Asked

UNREADABLE = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
NO_NUMBERS = ["", " ", "one", "1e3", "0x10", "1.5", "NaN", "1_0", "\u0663", "9" * 5000, "-", "\0", None, {}, [], True]


NAMES = ("max.message.bytes", "segment.bytes", "retention.ms", "min.insync.replicas", "message.timestamp.before.max.ms")


# ---- numbers and texts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0), ("-1", 0), ("7", 7), (" +7 ", 7), ("2147483648", 100), ("9223372036854775808", 100), ("-9" * 2, 50),
        ("000000000000000000000000000007", 7), (7, 7), (2**70, 100), (-(2**70), 0), (1e300, 100), (float("inf"), 100),
        (float("nan"), 50), *((value, 50) for value in NO_NUMBERS),
    ],
)  # fmt: skip
def test_a_number_of_kafkas_is_within_its_bounds_or_none(value, expected):
    assert whole(value, 0, 100, 50) == expected


def test_a_text_of_kafkas_is_a_short_one():
    assert short("x" * 10**6) == "x" * LONGEST_WORDS_CHARACTERS + "..."
    assert short("Broker: Disk error") == "Broker: Disk error"


@pytest.mark.parametrize("value", ["0", "-1", "-2147483649", "2147483648", "9" * 19, "9" * 40, *NO_NUMBERS[:12]])
def test_each_number_of_a_topic_is_one_that_the_table_and_librdkafka_can_hold(value):
    """The time that a topic keeps records is stored on disk, where a number has 64 bits."""
    found = configuration_of(dict.fromkeys(NAMES, value))
    assert layout.unpack(b"keeps", layout.pack(found.keeps_ms), lambda _: True) == found.keeps_ms
    assert found.limit_bytes is None or 0 <= found.limit_bytes <= LARGEST_INT32
    assert found.keeps_ms is None or 0 <= found.keeps_ms <= LARGEST_INT64
    assert 0 <= found.in_sync_replicas <= LARGEST_INT32


# ---- what topics take


@pytest.mark.parametrize("limit_bytes", [0, 1, 61, 1023])
def test_a_topic_that_takes_next_to_nothing_leaves_the_batches_of_the_others_alone(limit_bytes, caplog):
    """Its own records go one by one, and the log says why; they did so for all topics, or the worker ended."""
    known = {"odd": TopicConfiguration(limit_bytes), "even": TopicConfiguration(BATCH_BYTES)}
    asked = Asked(Answer(set(), known))
    asked.learn("odd", "even")
    assert asked.batches == []
    assert asked.topics.takes_batches("even")
    assert not asked.topics.ask.is_set(), "what is known is not asked for again and again"
    assert not asked.topics.takes_batches("odd")
    assert f"each record for odd ({limit_bytes} bytes) goes alone" in caplog.text
    asked.answer = Answer(set(), {"odd": TopicConfiguration(BATCH_BYTES)})
    asked.learn("odd", "even")
    assert asked.topics.takes_batches("odd"), "somebody raised it"


def test_messages_for_a_topic_that_takes_nothing_at_all_wait_and_none_is_a_dead_letter():
    """It is the topic that is at fault: as dead letters they would soon push each other out."""
    dispatcher = Dispatched()
    topics = dispatcher.topics
    topics.known = {"odd": TopicConfiguration(limit_bytes=0)}
    message = dispatcher.send(dispatcher.message("odd", 1))
    dispatcher.producer.report(dispatcher, [message], TOO_LARGE)
    assert (dispatcher.requests.set_aside, dispatcher.lanes["odd"].state) == ([], State.BEHIND)
    assert "The topic takes no record at all: raise its max.message.bytes" in dispatcher.lanes["odd"].trouble
    assert topics.ask.is_set(), "it is seen when somebody does"
    topics.known = {"odd": TopicConfiguration(limit_bytes=1000)}
    meaning = topics.meaning_of(dispatcher.message("odd", 2, 2000), TOO_LARGE)
    assert meaning.outcome is Outcome.NEVER, "one that is too large for a topic that takes others is a dead letter"
    topics.known = {"odd": TopicConfiguration(limit_bytes=0)}
    dead = dispatcher.message("odd", 3)
    dead.name_dead("too_large")
    assert topics.meaning_of(dead, TOO_LARGE).outcome is Outcome.NEVER, "it stays with the dead letters"


def test_a_topic_that_refuses_less_than_it_says_is_asked_about_every_few_seconds_at_most(monkeypatch):
    monkeypatch.setattr("app.kafka.topics.ASK_AGAIN_SECONDS", 600.0)
    topics = Topics()
    topics.known = {"odd": TopicConfiguration(limit_bytes=1000)}
    message = SimpleNamespace(destination=SimpleNamespace(topic="odd"), dead_reason="", payload=b"x")
    for asked in (True, False):
        topics.ask.clear()
        topics.meaning_of(message, TOO_LARGE)
        assert topics.ask.is_set() is asked


def test_a_topic_that_takes_a_record_though_it_was_said_to_take_none_is_asked_about_at_once():
    """Somebody raised its limit: what waited would go record by record until it is asked about for another reason."""
    topics = Topics()
    topics.singles = {"odd", "small"}
    topics.known = {"odd": TopicConfiguration(limit_bytes=0), "small": TopicConfiguration(limit_bytes=500)}
    assert (topics.takes_batches("small"), topics.ask.is_set()) == (False, False)
    assert (topics.takes_batches("odd"), topics.ask.is_set()) == (False, True)


def test_a_metric_has_few_labels_whatever_codes_kafka_answers_with():
    refusals = Refusals()
    for code in range(-32768, 32768):
        refusals.note(Meaning(f"CODE_{code}", Outcome.AGAIN, ""))
    assert len(refusals) == KEPT_CODES + 1
    assert refusals[OTHER_CODES] == 65536 - KEPT_CODES


# ---- what cannot be read


@pytest.mark.parametrize(
    "failure", [UNREADABLE, KafkaException(KafkaError(KafkaError._FATAL)), MemoryError(), TypeError()]
)
def test_an_answer_about_topics_that_cannot_be_read_is_none_and_the_next_one_counts(failure):
    asked = Asked(Answer(set()))
    # The first question is asked although nobody may be there, and the next one counts in any case.
    answers = iter([failure, failure, Answer(set(), {"a": TopicConfiguration(BATCH_BYTES)})])

    def ask(_topics, _seconds):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    asked.producer.ask_topics = ask
    asked.learn("a")
    assert asked.topics.learned == set()
    asked.learn("a")
    assert asked.topics.learned == {"a"}


def test_what_listens_to_kafka_begins_anew_after_an_error_that_nobody_expected(caplog, monkeypatch):
    """In the service itself: what learns of topics and the watch fail, and the third try of each holds."""
    monkeypatch.setattr("app.kafka.contained.FIRST_PAUSE_SECONDS", 0.01)
    tries = {"learning": 0, "watch": 0}
    lanes = SimpleNamespace(is_stopping=False, policy=POLICY, topics=Topics())

    def failing(name):
        async def run():
            tries[name] += 1
            if tries[name] < 3:
                raise UNREADABLE
            while not lanes.is_stopping:
                await asyncio.sleep(0.01)

        return run

    async def scene():
        lanes.producer = SimpleNamespace(open=lambda: None, close=lambda: None)
        service = KafkaService(lanes, SimpleNamespace(poll=lambda *_: failing("poll")()), [], never_held_up())
        service._learning.run, service._watch.run = failing("learning"), failing("watch")
        tries["poll"] = 3
        await service.start()
        give_up_at = time.monotonic() + 60
        while min(tries.values()) < 3 and time.monotonic() < give_up_at:
            await asyncio.sleep(0.01)
        assert not service.crashed
        lanes.is_stopping = True
        await service.stop()

    asyncio.run(scene())
    assert (tries["learning"], tries["watch"]) == (3, 3)
    assert "what learns of Kafka's topics met what nobody expected and begins anew" in caplog.text
    assert "the watch met what nobody expected" in caplog.text


def test_what_has_ended_does_not_begin_anew():
    started = []

    async def run():
        started.append(1)

    asyncio.run(contained("it", run, lambda: False))
    asyncio.run(contained("it", run, lambda: True))
    assert len(started) == 1


def test_every_lane_goes_on_when_batches_cannot_be_made_smaller(monkeypatch):
    """While the producer is replaced no lane hands anything over; that ends whatever happens."""
    asked = Asked(Answer(set(), {"odd": TopicConfiguration(2000)}))

    def fail(_size):
        raise UNREADABLE

    asked.producer.shrink_batches = fail
    with pytest.raises(UnicodeDecodeError):
        asyncio.run(Learning(asked, ["odd"], lambda: False)._heed(asked.answer, set()))
    assert not asked.bounds.is_closed


def test_callbacks_that_fail_for_ever_neither_end_the_poll_nor_keep_it(caplog):
    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    calls = []

    def poll(_seconds):
        calls.append(1)
        raise UNREADABLE

    producer._producer = SimpleNamespace(poll=poll)
    assert producer.poll() == []
    assert 1 < len(calls) <= 100
    assert caplog.text.count("cannot be read and is left out") == 1


def test_a_limit_that_is_a_little_lower_each_time_does_not_stop_the_lanes_each_time():
    """To make batches smaller, all lanes wait until nothing is in flight."""
    asked = Asked(Answer(set()))
    learning = Learning(asked, ["odd"], lambda: False)
    for limit_bytes in range(BATCH_BYTES - 1, 0, -500):
        asyncio.run(learning._heed(Answer(set(), {"odd": TopicConfiguration(limit_bytes)}), set()))
        assert asked.topics.takes_batches("odd") == (limit_bytes >= asked.producer.batch_size_bytes)
    assert len(asked.batches) < 20
    assert asked.batches[-1] == 1024


def test_nodes_with_a_new_name_each_time_are_a_bounded_number_of_lines_in_the_log(caplog):
    lines = OncePerMinute()
    said = [
        record
        for number in range(5000)
        if lines.filter(
            record := logging.LogRecord("l", logging.ERROR, "", 0, f"FAIL [thrd:{'x' * number}]: no", (), None)
        )
    ]
    assert len(said) == LINES_A_MINUTE
    assert "(more of this kind are left out until " in LineFormatter().format(said[-1])


# ---- statistics


BROKEN_STATISTICS = [
    "", "{", "null", "[]", "1", '"x"', '{"brokers": []}', '{"brokers": {"a": 1}}', '{"brokers": {"a": {"nodeid": {}}}}',
    '{"topics": {"records": []}}', '{"topics": {"records": {"partitions": {"x": {}, "' + "9" * 5000 + '": {}}}}}',
    '{"topics": {"records": {"partitions": {"0": {"leader": "x", "msgq_cnt": []}}}}}', '{"brokers": {"a"b": {}}}',
    '{"brokers": {"a": {"rxidle": 1e400, "waitresp_cnt": "9", "state": 5, "nodeid": 1}}}',
    "[" * 100_000, " " * 5_000_000,
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN_STATISTICS, ids=range(len(BROKEN_STATISTICS)))
def test_statistics_into_which_a_nodes_name_wrote_nonsense_are_read_as_far_as_they_go(text):
    assert isinstance(read_statistics(text), Statistics)
    cluster = Cluster()
    cluster.note_statistics(text)
    assert isinstance(cluster.why_waiting("records", {0: Partition(2**31 - 1, (-1, 7), 0)}, LARGEST_INT32), str)


@pytest.mark.parametrize(
    "text",
    [
        "a/" + "9" * 5000 + ": x",
        "x" * 30_000 + "/1: " + "y" * 30_000,
        "a/1: ",
        "/1: x",
        "",
        "a/-5: x",
        "a/bootstrap: \n",
    ],
)
def test_an_error_with_a_nodes_name_that_is_none_is_a_short_one_or_none(text):
    cluster = Cluster()
    cluster.note_error(KafkaError(KafkaError._TRANSPORT, text))
    assert all(len(failure.text) + len(failure.address) < 1000 for failure in cluster._failures.values())


def test_nodes_and_partitions_without_number_take_a_bounded_part_of_memory():
    cluster = Cluster()
    for start in range(0, 1000, 100):
        nodes = ", ".join(
            f'"nodeid": {node}, "nodename": "{"h" * 1000}", "source": "learned", "state": "UP"'
            for node in range(start, start + 100)
        )
        cluster.note_statistics(nodes)
    assert len(cluster._addresses) <= 2 * KEPT_NODES
    assert max(map(len, cluster._addresses.values())) <= LONGEST_WORDS_CHARACTERS + 3
    node = SimpleNamespace(id=1)
    many = [SimpleNamespace(id=number, leader=node, replicas=[node] * 500, isr=[node]) for number in range(2000)]
    many[1900].leader = None
    found = partitions_of(SimpleNamespace(partitions=many))
    assert len(found) == KEPT_PARTITIONS
    assert found[1900].leader == -1, "those in trouble first"
    assert len(found[0].replicas) == KEPT_NODES


# ---- the whole of it, read by librdkafka

NONSENSE = {
    "no limit at all": Script(configuration={"max.message.bytes": "0", "segment.bytes": "14"}),
    "numbers too large": Script(configuration=dict.fromkeys(NAMES, "9" * 30)),
    "no numbers": Script(configuration={"max.message.bytes": "lots", "retention.ms": "", "": None, "x" * 30000: "y"}),
    "the other numbers of nodes": Script(
        more_nodes=[(LARGEST_INT32, b"127.0.0.1", 0), (-1, b"127.0.0.1", LARGEST_INT32), (-(2**31), b"127.0.0.1", -1)]
    ),
    "names that break json": Script(more_nodes=[(5, b'a"b\\', 1), (6, b'x","state":"UP","nodeid":5,"a":"', 1)]),
    "names like errors": Script(more_nodes=[(7, b"a/" + b"9" * 5000, 1), (8, b"h" * 30000, 1), (9, b"\r\n\x1b[2", 1)]),
    "a cluster that is no text": Script(cluster_id=b"\xff\xfe" * 100),
    "a question refused with a code that there is not": Script(describe_error=(32767, b"\xff" * 30_000)),
    "an answer to wait for 24 days": Script(throttle_ms=LARGEST_INT32),
    "an answer to wait for less than nothing": Script(throttle_ms=-(2**31)),
    "nodes that there are not": Script(replicas=(-1, LARGEST_INT32, -(2**31)) * 50),
    "many partitions": Script(partitions=3000),
    "topics that nobody asked for": Script(more_topics=[b"", b"x" * 30_000, b"topic"]),
}  # fmt: skip
UNREADABLE_ANSWERS = {"topics that nobody asked for"}  # librdkafka says so; Kafka is asked again later
SECONDS = 60.0


def test_records_arrive_whatever_kafka_says_besides(caplog):
    """One producer for each nonsense, side by side, each with its questions and its statistics."""
    caplog.set_level(logging.ERROR)
    brokers = [ScriptedKafka(["topic"], script) for script in NONSENSE.values()]
    producers = []
    for broker in brokers:
        broker.__enter__()
        producer = KafkaProducer({"bootstrap.servers": broker.bootstrap, "statistics.interval.ms": 100, "log_level": 0})
        producer.open()
        producer._producer.produce("topic", b"x")
        producers.append(producer)
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not all(broker.taken["topic"] for broker in brokers):
            for producer in producers:
                producer.poll()
            time.sleep(0.01)
        assert [name for name, broker in zip(NONSENSE, brokers, strict=True) if not broker.taken["topic"]] == []
        assert {name: asked(producer) for name, producer in zip(NONSENSE, producers, strict=True)} == {
            name: name not in UNREADABLE_ANSWERS for name in NONSENSE
        }
        for producer in producers:
            producer.poll()
            assert isinstance(producer.cluster.why_waiting("topic", {}, 0), str)
            assert producer.connected
    finally:
        for producer, broker in zip(producers, brokers, strict=True):
            producer.close()
            broker.__exit__()
    requests = [broker.requests[METADATA] + broker.requests[PRODUCE] for broker in brokers]
    assert max(requests) < 100, "none of it makes the client ask all the time"


ASK = """
import sys
from confluent_kafka import KafkaException
from app.kafka.producer import KafkaProducer
producer = KafkaProducer({"bootstrap.servers": sys.argv[1]})
producer.open()
topics = sys.argv[2:]
for _ in range(3):
    try:
        answer = producer.ask_topics(topics, 20.0)
        print(sorted(answer.known), sorted(answer.not_shown), sorted(producer.ask_partitions(topics, 20.0)))
    except KafkaException as failure:
        print(failure.args[0].name())
"""


@pytest.mark.parametrize(
    ("shown", "more", "answers"),
    [
        (["out"], [], ["['out'] ['left'] ['out']"] * 3),
        (["left", "out"], [b"foreign"], ["_BAD_MSG"] * 3),
        (["left", "out"], [b"left"], ["_BAD_MSG"] * 3),
    ],
    ids=["one left out", "one that nobody asked for", "one twice"],
)
def test_a_topic_too_many_or_too_few_in_an_answer_ends_no_process(shown, more, answers):
    """In a process of its own, as it is one that ends: by SIGSEGV, in the Kafka client."""
    with ScriptedKafka(shown, Script(more_topics=more)) as broker:
        command = [sys.executable, "-c", ASK, broker.bootstrap, "left", "out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.splitlines()) == (0, answers)


def asked(producer):
    """Ask for all that is asked for; return whether there was an answer that librdkafka could read."""
    try:
        answer = producer.ask_topics({"topic"}, 20.0)
        partitions = producer.ask_partitions({"topic"}, 20.0)
    except KafkaException:
        return False
    return set(answer.known) | set(answer.refused) == set(partitions) == {"topic"}
