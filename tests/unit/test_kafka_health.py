"""Whether Kafka takes records: what is concluded from what librdkafka reports of the cluster."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from app.kafka.cluster import ASK_FOR_CODE, Cluster, Partition
from app.kafka.topics import Topics
from app.kafka.watch import Watch
from tests.support.dispatched import make_lane, make_message, seconds_ago

REFUSED = "Connect to ipv4#127.0.0.1:29407 failed: Connection refused (after 0ms in state CONNECT)"
UP, AWAY = {"state": "UP"}, {"state": "TRY_CONNECT"}


def told(brokers, partitions=None):
    """Return statistics as librdkafka writes them, as far as they are read."""
    nodes = {
        f"{name}/{node}": {
            "name": f"{name}/{node}", "nodeid": node, "nodename": name, "source": "learned",
            "state": "UP", "rxidle": 1000, "waitresp_cnt": 0, **values,
        }
        for node, (name, values) in brokers.items()
    }  # fmt: skip
    topics = {"records": {"topic": "records", "partitions": partitions or {}}}
    return json.dumps({"name": "x", "brokers": nodes, "topics": topics})


def failed(cluster, text=f"127.0.0.1:29407/1: {REFUSED}", code=KafkaError._TRANSPORT):
    cluster.note_error(KafkaError(code, text))


class Watched(list):
    """Lanes as they are watched."""

    def __init__(self, lanes, producer) -> None:
        super().__init__(lanes)
        self.producer, self.topics, self.is_stopping = producer, Topics(), False


# ---- is Kafka connected


def test_a_cluster_whose_advertised_address_refuses_is_not_connected_however_often_it_answers():
    """The bootstrap address comes and goes; what counts is where records would go to."""
    cluster = Cluster()
    cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP)}))
    assert cluster.connected, "nothing speaks against it yet"
    for _ in range(3):
        failed(cluster)
        cluster.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down"))
        assert not cluster.connected
        cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP)}))
        assert not cluster.connected
    assert "127.0.0.1:29407" in cluster.complaint
    assert "Connection refused" in cluster.complaint
    assert "advertised.listeners" in cluster.complaint
    cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP), 1: ("127.0.0.1:29407", UP)}))
    assert cluster.connected
    assert not cluster.complaint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafka-0.internal:9092/1: Failed to resolve 'kafka-0.internal:9092': Name or service not known", "resolve"),
        ("ssl://10.0.0.7:9093/1: SSL handshake failed: certificate verify failed", "certificate verify failed"),
        ("10.0.0.7:9092/1: Connection setup timed out in state CONNECT (after 30030ms in state CONNECT)", "timed out"),
        ("[::1]:9092/1: Connect to ipv6#[::1]:9092 failed: Network is unreachable", "Network is unreachable"),
    ],
)
def test_an_advertised_address_is_named_whatever_is_wrong_with_it(text, said):
    cluster = Cluster()
    cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP)}))
    failed(cluster, text)
    cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP)}))
    assert not cluster.connected
    assert said in cluster.complaint
    assert text.split("/1:")[0].split("//")[-1] in cluster.complaint


def test_a_kafka_that_is_away_as_a_whole_is_not_blamed_for_its_advertised_addresses():
    cluster = Cluster()
    cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP), 1: ("127.0.0.1:29407", UP)}))
    failed(cluster)
    failed(cluster, f"127.0.0.1:9092/bootstrap: {REFUSED}")
    cluster.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down"))
    assert not cluster.connected
    assert not cluster.complaint
    cluster.note_confirmed()
    assert cluster.connected


def test_one_node_of_several_that_is_away_leaves_kafka_connected():
    cluster = Cluster()
    failed(cluster)
    cluster.note_statistics(told({1: ("127.0.0.1:29407", AWAY), 2: ("127.0.0.1:29408", UP)}))
    assert cluster.connected
    assert not cluster.complaint


def test_a_kafka_that_ends_connections_which_nobody_uses_stays_connected_until_one_cannot_be_made():
    """It does so after ten minutes by itself; librdkafka says then that all nodes are down, and finds them again."""
    cluster = Cluster()
    all_down = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
    cluster.note_error(all_down)
    assert not cluster.connected, "it has not been so far"
    cluster.note_statistics(told({1: ("127.0.0.1:29407", UP)}))
    for _ in range(2):
        cluster.note_error(all_down)
        assert cluster.connected
        cluster.note_statistics(told({-1: ("127.0.0.1:9092", {"state": "INIT"})}))
        assert cluster.connected
        cluster.note_statistics(told({-1: ("127.0.0.1:9092", UP)}))
        assert cluster.connected
    cluster.note_error(all_down)
    failed(cluster, f"127.0.0.1:9092/bootstrap: {REFUSED}")
    assert not cluster.connected, "now it is away"
    cluster.note_statistics(told({-1: ("127.0.0.1:9092", {"state": "INIT"})}))
    assert not cluster.connected


# ---- why a lane stands still


HAS = {"msgq_cnt": 5}
REPEATED = f"node 1 (a:1) answers, is slow or has librdkafka repeat its requests, {ASK_FOR_CODE}"


@pytest.mark.parametrize(
    ("brokers", "partitions", "asked", "said"),
    [
        ({1: ("a:1", UP), 2: ("b:2", AWAY)}, {0: {"leader": 1}, 1: {"leader": 2, **HAS}}, {},
         "node 2 (b:2) is not connected: Connection refused"),
        ({1: ("a:1", {"rxidle": 9e6, "waitresp_cnt": 3})}, {0: {"leader": 1, **HAS}}, {},
         "node 1 (a:1) is connected and has not answered for 9 s"),
        ({1: ("a:1", UP)}, {0: {"leader": -1, **HAS}}, {}, "partition 0 has no leader"),
        ({1: ("a:1", UP)}, {0: {"leader": 1}}, {0: Partition(1, (1, 2, 3), 1)},
         "of the 3 nodes of partition 0 1 are in sync, and its topic wants 2 (min.insync.replicas)"),
        ({1: ("a:1", UP)}, {0: {"leader": 1}}, {0: Partition(1, (1,), 1)}, REPEATED),
        ({1: ("a:1", UP)}, {0: {"leader": 1}}, {0: Partition(-1, (2,), 0, "Broker: Leader not available")},
         "partition 0 has no leader; node 2 (b:2) is not connected: Connection refused; it should be on node 2 (b:2)"),
        ({1: ("a:1", UP)}, {0: {"leader": 1}}, {0: Partition(1, (1, 2), 2, "Broker: Disk error")},
         "partition 0: Broker: Disk error"),
        ({1: ("a:1", {"state": "INIT"})}, {0: {"leader": 1}}, {}, ""),
        ({1: ("a:1", UP)}, {0: {"leader": 1}}, {}, REPEATED),
        ({}, {}, {}, ""),
    ],
)  # fmt: skip
def test_why_records_do_not_land_names_the_node_or_the_partition(brokers, partitions, asked, said):
    cluster = Cluster()
    cluster.note_statistics(told(brokers, {**partitions, -1: {"leader": -1}}))
    failed(cluster, f"b:2/2: {REFUSED}")
    assert cluster.why_waiting("records", asked, 2) == said
    assert cluster.why_waiting("another", {}, 2) == ""


def test_a_node_that_librdkafka_has_given_up_is_still_named_with_its_address():
    cluster = Cluster()
    cluster.note_statistics(told({1: ("a:1", UP), 2: ("b:2", UP)}))
    cluster.note_statistics(told({1: ("a:1", UP)}, {0: {"leader": -1, **HAS}}))
    said = cluster.why_waiting("records", {0: Partition(-1, (2,), 0)}, 0)
    assert said == "partition 0 has no leader; it should be on node 2 (b:2)"


def test_a_lane_that_stands_still_is_said_until_it_flows_and_not_while_kafka_is_away(caplog):
    """It is judged by its oldest record, though newer ones are confirmed; an outage is no end of its trouble."""
    caplog.set_level(logging.INFO)
    lane = make_lane("records")
    (old, new) = (make_message(lane.destination, number) for number in (1, 2))
    lane.in_flight.admit([new], 2, time.monotonic())
    producer = SimpleNamespace(connected=True, complaint="", cluster=Cluster(), ask_partitions=lambda *_: {})
    lanes = Watched([lane], producer)
    watch = Watch(lanes, lambda: False)

    def look():
        asyncio.run(watch._look())
        return lanes.topics.stalled

    assert not look()
    lane.in_flight.admit([old], 2, seconds_ago(12))
    lane.in_flight.queue.rotate()
    (seconds,) = re.fullmatch(r"Kafka has not answered its oldest record for (\d+) s", look()["records"]).groups()
    assert 12 <= int(seconds) < 60
    producer.connected = False
    assert not look()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    producer.connected = True
    old.finished = True
    assert not look()
    assert caplog.messages[-1] == "the lane records flows again"


def test_a_kafka_of_which_nothing_was_heard_yet_is_not_said_to_be_away(caplog, monkeypatch):
    """At a start without messages the first statistics come after five seconds."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("app.kafka.watch.HELD_SECONDS", 0.0)
    cluster = Cluster()
    producer = SimpleNamespace(connected=False, complaint="", cluster=cluster)
    watch = Watch(Watched([], producer), lambda: False)
    watch._log_connected()
    assert not caplog.messages
    cluster.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    watch._log_connected()
    assert caplog.messages == ["Kafka is not reachable; messages wait in the table"]
    for producer.complaint in ("check the address", "check another address", "", "check the address"):
        watch._log_connected()
    assert caplog.messages[1:] == ["check the address; messages wait in the table"], "once it is known, and once"


def test_a_hundred_lanes_that_stand_still_are_a_few_lines_in_the_log(caplog):
    lanes = [make_lane(f"t{number:03}") for number in range(100)]
    for lane in lanes:
        lane.in_flight.admit([make_message(lane.destination, 1)], 1, seconds_ago(12))
    producer = SimpleNamespace(connected=True, complaint="", cluster=Cluster(), ask_partitions=lambda *_: {})
    watched = Watched(lanes, producer)
    watch = Watch(watched, lambda: False)
    for _ in range(3):
        asyncio.run(watch._look())
    assert len(watched.topics.stalled) == 100
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == "95 more lanes wait for an answer of Kafka; /status names them"
