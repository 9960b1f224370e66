"""Whether Kafka takes records, and why a lane stands still: what is told of the cluster, and what the operator sees."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError
from frame_faults import answer_with_error
from oracle import read, wait_until
from proxied_protocols import METADATA, PRODUCE, TO_CLIENT
from system import Bridge, Publisher

from app.kafka.cluster import ASK_FOR_CODE, Cluster, Partition
from app.kafka.topics import Topics
from app.kafka.watch import Watch
from clients.brokers.process import free_port

NOT_ENOUGH_REPLICAS = 19
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
        self.producer, self.topics, self.stopping = producer, Topics(), False


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
    old, new = (SimpleNamespace(confirmed=False, handed_at=time.monotonic() - age) for age in (12, 0))
    lane = SimpleNamespace(topic="records", in_flight=[new], in_flight_messages=1)
    producer = SimpleNamespace(connected=True, complaint="", cluster=Cluster(), ask_partitions=lambda *_: {})
    lanes = Watched([lane], producer)
    watch = Watch(lanes, lambda: False)

    def look():
        asyncio.run(watch._look())
        return lanes.topics.stalled

    assert not look()
    lane.in_flight = [old, new]
    assert look() == {"records": "Kafka has not answered its oldest record for 12 s"}
    producer.connected = False
    assert not look()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    producer.connected, old.confirmed = True, True
    assert not look()
    assert caplog.messages[-1] == "the lane records flows again"


def test_a_kafka_of_which_nothing_was_heard_yet_is_not_said_to_be_away(caplog, monkeypatch):
    """At a start without messages the first statistics come after five seconds."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("app.kafka.watch.HELD_SECONDS", 0.0)
    cluster = Cluster()
    producer = SimpleNamespace(connected=False, complaint="", cluster=cluster)
    watch = Watch(Watched([], producer), lambda: False)
    watch._say_connected()
    assert not caplog.messages
    cluster.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    watch._say_connected()
    assert caplog.messages == ["Kafka is not reachable; messages wait in the table"]
    for producer.complaint in ("check the address", "check another address", "", "check the address"):
        watch._say_connected()
    assert caplog.messages[1:] == ["check the address; messages wait in the table"], "once it is known, and once"


def test_a_hundred_lanes_that_stand_still_are_a_few_lines_in_the_log(caplog):
    old = SimpleNamespace(confirmed=False, handed_at=time.monotonic() - 12)
    lanes = [SimpleNamespace(topic=f"t{number:03}", in_flight=[old], in_flight_messages=1) for number in range(100)]
    producer = SimpleNamespace(connected=True, complaint="", cluster=Cluster(), ask_partitions=lambda *_: {})
    watched = Watched(lanes, producer)
    watch = Watch(watched, lambda: False)
    for _ in range(3):
        asyncio.run(watch._look())
    assert len(watched.topics.stalled) == 100
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == "95 more lanes wait for an answer of Kafka; /status names them"


def test_a_lane_whose_records_librdkafka_repeats_in_silence_is_in_trouble_while_another_flows(
    mosquitto, proxied_kafka, names, tmp_path
):
    """Whatever the code: page, `/status`, metric and log name the lane and the node, and nothing is well."""
    kafka, proxy = proxied_kafka
    stuck, well = names.kafka("stuck"), names.kafka("well")
    for topic in (stuck, well):
        kafka.create_topic(topic)
    answer = answer_with_error(NOT_ENOUGH_REPLICAS)
    proxy.on(TO_CLIENT, PRODUCE, lambda it: answer(it) if stuck.encode() in it.data else it.data, times=None)
    mappings = f"{names.mqtt('stuck')}:{stuck},{names.mqtt('well')}:{well}"
    with Bridge(tmp_path, mosquitto.port, proxy.address, mappings) as bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish(names.mqtt("stuck"))

        def trouble():
            publisher.publish(names.mqtt("well"))
            return f"node 1 ({proxy.address}) answers" in bridge.status_page()["lanes"][stuck]["trouble"]

        wait_until(trouble, "the trouble of the lane")
        shown = bridge.status_page()
        assert shown["kafka"]["connected"]
        assert shown["findings"][0]["level"] == "trouble"
        assert f"The lane {stuck} waits: Kafka has not answered its oldest record" in shown["findings"][0]["text"]
        assert shown["lanes"][stuck]["oldest_in_flight_seconds"] >= 10
        assert not shown["lanes"][well]["trouble"]
        assert bridge.total("connector_oldest_in_flight_seconds") >= 10
        assert f"the lane {stuck} waits: Kafka has not answered" in bridge.log_path.read_text()
        proxy.pass_everything()
        read(kafka.bootstrap, [stuck], 1).assert_each_once_in_order({names.mqtt("stuck"): 1})
        wait_until(lambda: f"the lane {stuck} flows again" in bridge.log_path.read_text(), "the end of the trouble")


def test_an_advertised_address_that_refuses_is_named_and_kafka_does_not_come_and_go(
    mosquitto, proxied_kafka, names, tmp_path
):
    """The address to begin at answers all the time; messages wait, and flow once the other one does as well."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka())
    closed = free_port()
    proxy.on(
        TO_CLIENT,
        METADATA,
        lambda frame: frame.data.replace(proxy.port.to_bytes(4, "big"), closed.to_bytes(4, "big")),
        times=None,
    )
    config = json.dumps({"statistics.interval.ms": 300})
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    with (
        Bridge(tmp_path, mosquitto.port, proxy.address, mapping, kafka_producer_config=config) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: bridge.status_page()["kafka"]["trouble"], "what is wrong with Kafka")
        connected, end = set(), time.monotonic() + 4
        while time.monotonic() < end:
            connected.add(bridge.total("connector_kafka_connected"))
        assert connected == {0.0}
        shown = bridge.status_page()
        assert f"127.0.0.1:{closed}" in shown["findings"][0]["text"]
        assert "check advertised.listeners" in shown["findings"][0]["text"]
        wait_until(lambda: f"127.0.0.1:{closed} that it advertises" in bridge.log_path.read_text(), "the log's word")
        proxy.pass_everything()
        read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
        assert bridge.log_path.read_text().count("Kafka is reachable") <= 2
