"""A librdkafka that no longer learns where Kafka is, as one that asks at KAFKA_BROKER again would, is replaced."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from app.kafka import stranded
from app.kafka.cluster import Cluster
from app.kafka.producer import KafkaProducer
from app.kafka.stranded import LONGEST_ASK_SECONDS, STRANDED_SECONDS, Stranded
from tests.support.oracle import wait_until
from tests.support.scripted_kafka import ScriptedKafka
from tools.brokers.process import free_port

NEW, OLD = "kafka.new:9092", "kafka.old:9092"


def knowing(*addresses: str, state: str = "TRY_CONNECT") -> Cluster:
    """Return a cluster whose statistics name these addresses of nodes."""
    cluster = Cluster()
    nodes = {
        name: {"name": name, "nodeid": number, "nodename": name, "source": "learned", "state": state}
        for number, name in enumerate(addresses, 1)
    }
    cluster.note_statistics(json.dumps({"brokers": nodes}))
    return cluster


class Lanes(list):
    """Lanes, one with a record that waits, and their producer."""

    is_stopping = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__([SimpleNamespace(topic="records", in_flight=SimpleNamespace(messages=1))])
        self.given_up = []
        self.producer = SimpleNamespace(cluster=cluster, is_fatal=False, mark_failed=self.given_up.append)


def judged(cluster: Cluster, told: set[str], seconds: float = STRANDED_SECONDS + 1) -> list:
    """Return with what a producer was given up for whom Kafka named the same addresses for some seconds."""
    lanes = Lanes(cluster)
    looks = Stranded(lanes, lambda: False)
    begin = cluster.told_at - seconds
    looks.judge(told, begin)
    looks.judge(told, begin + seconds)
    return lanes.given_up


@pytest.mark.parametrize(("known", "named"), [((OLD,), OLD), ((), "none")])
def test_a_producer_that_knows_no_address_of_kafkas_is_given_up_and_both_are_named(known, named):
    """It knows an old one, or none at all: a Kafka of one node that restarts names no node for a moment."""
    (error,) = judged(knowing(*known), {NEW})
    assert NEW in error.str()
    assert f"(it knows {named})" in error.str()


@pytest.mark.parametrize(
    ("cluster", "told", "seconds"),
    [
        (knowing(OLD), set(), 100),
        (knowing(OLD), {OLD}, 100),
        (knowing(OLD, NEW), {NEW, "kafka.other:9092"}, 100),
        (knowing("[::1]:9092"), {"::1:9092"}, 100),
        (knowing(OLD, state="UP"), {NEW}, 100),
        (knowing(OLD), {NEW}, STRANDED_SECONDS - 1),
    ],
    ids=["no answer", "the same", "one of two", "IPv6", "connected", "not for long"],
)
def test_a_producer_that_may_still_find_kafka_by_itself_is_kept(cluster, told, seconds):
    assert judged(cluster, told, seconds) == []


def test_an_advertised_address_that_cannot_be_reached_is_named_though_librdkafka_no_longer_asks_elsewhere():
    cluster = knowing(OLD)
    cluster.note_error(KafkaError(KafkaError._TRANSPORT, f"{OLD}/1: Connection refused"))
    cluster._failures[1] = cluster._failures[1]._replace(at=time.monotonic() - 100)
    assert not cluster.complaint
    assert judged(cluster, {OLD}) == []
    assert f"the address {OLD} that it advertises for node 1 cannot be reached" in cluster.complaint


def test_a_producer_is_not_judged_by_what_it_knew_before_kafka_was_asked():
    cluster = knowing(OLD)
    lanes = Lanes(cluster)
    looks = Stranded(lanes, lambda: False)
    for later in (1, 2 * STRANDED_SECONDS):
        looks.judge({NEW}, cluster.told_at + later)
    assert not lanes.given_up


def test_a_kafka_that_does_not_answer_is_asked_ever_more_rarely_and_one_for_whom_nothing_waits_is_not():
    lanes = Lanes(knowing(OLD))
    looks = Stranded(lanes, lambda: False)
    pauses = []
    for _ in range(4):
        looks.judge(set(), 0.0)
        pauses.append(looks._ask_at)
    assert pauses == [10.0, LONGEST_ASK_SECONDS, LONGEST_ASK_SECONDS, LONGEST_ASK_SECONDS]
    lanes[0].in_flight.messages = 0
    asyncio.run(looks.look())  # there is nothing to ask with


def test_records_flow_within_seconds_once_a_wrong_advertised_address_is_put_right(monkeypatch):
    """By `metadata.recovery.strategy` none librdkafka never begins anew; by itself it does not at times."""
    monkeypatch.setattr(stranded, "STRANDED_SECONDS", 0.5)
    monkeypatch.setattr(stranded, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(stranded, "ANSWER_SECONDS", 0.5)
    with ScriptedKafka(["records"]) as kafka:
        kafka.script.port = free_port()
        producer = KafkaProducer({
            "bootstrap.servers": kafka.bootstrap,
            "statistics.interval.ms": 100,
            "metadata.recovery.strategy": "none",
            "log_level": 0,
        })  # fmt: skip
        producer.open()
        lanes = Lanes(Cluster())
        lanes.producer = producer
        looks = Stranded(lanes, lambda: False)

        def look():
            producer.poll()
            asyncio.run(looks.look())
            return producer.is_fatal

        producer._producer.produce("records", b"x")
        wait_until(lambda: look() or producer.cluster.known_addresses, "the wrong address")
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            assert not look(), "as long as Kafka names it, librdkafka is not at fault"
        kafka.script.port = 0
        wait_until(look, "the producer to be given up")
        assert "librdkafka has not learned it" in producer._fatal_error.str()
        wait_until(lambda: producer.poll() or producer.give_back(), "what it holds")
        producer.replace()
        producer._producer.produce("records", b"x")
        wait_until(lambda: producer.poll() or kafka.taken["records"], "the record")
        producer.close()
