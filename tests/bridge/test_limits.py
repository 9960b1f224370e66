"""What the network may make the bridge hold: packets, topics and properties at and above their limits."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.support.oracle import read, wait_until
from tests.support.scripted_broker import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    ScriptedBroker,
    packet_of,
    pubrel_packet,
)
from tests.support.scripted_broker import publish_packet as packet
from tests.support.system import Bridge, Publisher

MEBIBYTE = 1024 * 1024
SMALL_LIMIT = '{"message.max.bytes": 20000}'
MAXIMUM_PACKET_SIZE = 0x27
LARGE_BYTES = 100_000


def bridge_with(tmp_path, port, names, kafka, **settings) -> Bridge:
    """Return a bridge of one mapping, with a session of its own at the broker, not started."""
    kafka.create_topic(names.kafka())
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    return Bridge(tmp_path / names.client_id, port, kafka.bootstrap, mapping, **settings)


def values(kafka, names, at_least):
    return [record.value for record in read(kafka.bootstrap, [names.kafka()], at_least).records]


def dropped(bridge):
    return {reason: count for (_, reason), count in bridge.metrics()["connector_dropped_total"].items()}


@pytest.mark.parametrize(("config", "limit_bytes"), [("", 103_000_000), (SMALL_LIMIT, 20_000)])
def test_the_broker_is_told_the_largest_packet_that_kafka_could_take(config, limit_bytes, kafka, names, tmp_path):
    """MQTT 5: Maximum Packet Size in CONNECT is message.max.bytes of the Kafka client."""
    with (
        ScriptedBroker() as broker,
        bridge_with(tmp_path, broker.port, names, kafka, kafka_producer_config=config),
    ):
        (connect,) = broker.wait_for(CONNECT)
    assert bytes([MAXIMUM_PACKET_SIZE]) + limit_bytes.to_bytes(4, "big") in connect.body


def test_mosquitto_keeps_what_is_too_large_to_itself_and_the_rest_flows(mosquitto, kafka, names, tmp_path):
    """Neither session nor connection is lost, and what comes after it arrives once and in order."""
    with (
        bridge_with(tmp_path, mosquitto.port, names, kafka, kafka_producer_config=SMALL_LIMIT) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 50)
        publisher.raw(names.mqtt("large"), bytes(50_000))
        publisher.wait_for_acknowledgements()
        publisher.publish_many([names.mqtt("a")], 50)
        read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
        assert bridge.total("connector_received_total") == 100
        assert bridge.log_path.read_text().count("connected to the MQTT broker") == 1
        bridge.assert_balanced()


@pytest.mark.parametrize(("version", "qos"), [("3.1.1", 0), ("3.1.1", 1), ("5", 1), ("5", 2)])
def test_a_packet_that_is_too_large_is_read_past_acknowledged_in_its_turn_and_counted(
    version, qos, kafka, names, tmp_path
):
    """P8 and P9: in one piece with others, and in pieces; under MQTT 5, the broker disregards our limit."""
    large = names.mqtt("large")
    with (
        ScriptedBroker() as broker,
        bridge_with(
            tmp_path, broker.port, names, kafka, kafka_producer_config=SMALL_LIMIT, mqtt_version=version, mqtt_qos=qos
        ) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        level = broker.version

        def message(number, topic, size_bytes):
            return packet(topic, b"%d," % number + bytes(size_bytes), qos, number if qos else 0, version=level)

        sizes = [10, 19_000, 20_000, 10, 3 * MEBIBYTE, 10, 65_530, 10]
        broker.send(*(message(number, large, size) for number, size in enumerate(sizes, 1)))
        piecemeal = message(9, large, 100_000)
        for start in range(0, len(piecemeal), 7_001):
            broker.send(piecemeal[start : start + 7_001])
        broker.send(message(10, names.mqtt("after"), 10))
        numbers = [int(value.split(b",")[0]) for value in values(kafka, names, 6)]
        assert numbers == [1, 2, 4, 6, 8, 10]
        wait_until(lambda: dropped(bridge) == {"packet_too_large": 4}, "four dropped messages")
        bridge.assert_balanced()
        if qos == 1:
            broker.wait_for(PUBACK, 10)
            assert broker.identifiers(PUBACK) == list(range(1, 11))
        if qos == 2:
            broker.wait_for(PUBREC, 10)
            assert broker.identifiers(PUBREC) == list(range(1, 11))
            broker.send(pubrel_packet(3))
            assert broker.wait_for(PUBCOMP)[0].identifier == 3
        assert broker.connections == 1
        assert f"bytes for the MQTT topic {large!r} is dropped: at most" in bridge.log_path.read_text()


def test_a_packet_that_is_too_large_takes_no_memory_and_no_endless_loop(kafka, names, tmp_path):
    """The largest that MQTT knows, 256 MiB, on MQTT 3.1.1: it passes through, and the connection stays."""
    size_bytes = 268_435_455 - 2 - len(names.mqtt("large")) - 2
    with (
        ScriptedBroker() as broker,
        bridge_with(tmp_path, broker.port, names, kafka, mqtt_version="3.1.1") as bridge,
    ):
        broker.wait_for_subscriptions(1)
        before_bytes = psutil.Process(bridge.pid).memory_info().rss
        topic = names.mqtt("large").encode()
        broker.send(packet(topic, bytes(size_bytes), 1, 1, version=4))
        broker.wait_for(PUBACK)
        grown_bytes = psutil.Process(bridge.pid).memory_info().rss - before_bytes
        assert grown_bytes < 64 * MEBIBYTE, f"{grown_bytes} bytes more"
        assert dropped(bridge) == {"packet_too_large": 1}
        assert broker.connections == 1


@pytest.mark.parametrize("nonsense", ["no PUBLISH", "topic past the end", "QoS 3"])
def test_a_large_packet_that_is_wrong_costs_one_connection(nonsense, kafka, names, tmp_path):
    packets = {
        "no PUBLISH": packet_of(0x90, bytes(30_000)),
        "topic past the end": packet_of(0x30, b"\xff\xff" + bytes(30_000)),
        "QoS 3": packet(names.mqtt("a"), bytes(30_000), 3, 1),
    }
    with (
        ScriptedBroker() as broker,
        bridge_with(tmp_path, broker.port, names, kafka, kafka_producer_config=SMALL_LIMIT) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        broker.script.session_present = True
        broker.send(packets[nonsense])
        wait_until(lambda: len(broker.received(CONNECT)) == 2, "a new connection")
        wait_until(lambda: bridge.total("connector_mqtt_connected") == 1, "its acceptance")
        broker.publish(names.mqtt("a"), b"after", 1, 1)
        assert values(kafka, names, 1) == [b"after"]
        assert not broker.received(DISCONNECT)


def with_properties(topic: bytes, properties: bytes, identifier: int) -> bytes:
    length = bytearray()
    count = len(properties)
    while True:
        count, digit = divmod(count, 128)
        length.append(digit | (128 if count else 0))
        if not count:
            break
    body = len(topic).to_bytes(2, "big") + topic + identifier.to_bytes(2, "big") + bytes(length) + properties
    return packet_of(0x32, body + b"payload")


def text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def peak_bytes(bridge) -> int:
    """Return the most memory that the worker ever had."""
    lines = Path(f"/proc/{bridge.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@contextlib.contextmanager
def slowest_answer(bridge):
    """Ask for a page again and again while the body runs; yield a list of the seconds that each answer took.

    Of a wait in which the worker computed less, as a busy machine let it stand, only its processor time counts.
    """
    seconds, ended = [], threading.Event()
    worker = psutil.Process(bridge.pid)

    def ask():
        while not ended.wait(0.01):
            began, used = time.monotonic(), sum(worker.cpu_times()[:2])
            bridge.get("/health/live")
            seconds.append(min(time.monotonic() - began, sum(worker.cpu_times()[:2]) - used))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seconds
    finally:
        ended.set()
        asking.join()


def test_the_longest_topics_and_millions_of_properties_become_records_within_the_bounds(kafka, names, tmp_path):
    """P5, P6 and P8: nothing that MQTT allows ends the worker, fills its memory or holds up what follows."""
    short = names.mqtt("a").encode()
    long = (names.mqtt("").encode()).ljust(65_535, b"x")
    deep = (names.mqtt("").encode()).ljust(65_535, b"/")
    hostile = b"".join(
        b"\x26" + text(name) + text(name) for name in (b"", b"a\0b", b"\xff\xfe", b"\xed\xa0\x80", b"\n")
    )
    values = [random.Random(number).randbytes(65_535) for number in range(20)]
    incompressible = b"".join(b"\x26" + text(b"n") + text(value) for value in values)  # above 1 MiB
    packets = [
        with_properties(long, b"", 1),
        with_properties(deep, b"", 2),
        with_properties(short, b"\x08" + text(b"r" * 65_535), 3),
        with_properties(short, (b"\x26" + text(b"name") + text(b"value")) * 10_000, 4),
        with_properties(short, b"\x26" + text(b"n" * 65_535) + text(b"v" * 65_535), 5),
        with_properties(short, hostile, 6),
        with_properties(short, incompressible, 7),
        with_properties(short, b"\x26\0\0\0\0" * 2_400_000, 8),
        with_properties(short, b"\x26\0\0\0\0" * 800_000, 9),
        with_properties(short, b"", 10),
    ]
    with ScriptedBroker() as broker, bridge_with(tmp_path, broker.port, names, kafka) as bridge:
        broker.wait_for_subscriptions(1)
        before_bytes = peak_bytes(bridge)
        with slowest_answer(bridge) as seconds:
            broker.send(*packets)
            broker.wait_for(PUBACK, len(packets))
            records = read(kafka.bootstrap, [names.kafka()], len(packets)).records
        grown_bytes = peak_bytes(bridge) - before_bytes
        assert grown_bytes < 48 * MEBIBYTE, f"{grown_bytes} bytes more"
        assert max(seconds) < 1, "the pages go on"
        assert bridge.total("connector_properties_left_out_total") == 4
        bridge.assert_balanced()
        assert bridge.get("/health/ready")[0] == 200
    assert bridge.exit_status == 0
    assert [record.key for record in records[:2]] == [long, deep]
    assert records[2].headers["mqtt-response-topic"] == b"r" * 65_535
    assert {record.value for record in records} == {b"payload"}
    left_out = [record.headers.get("connector-left-out") for record in records]
    assert left_out == [None, None, None, b"9000", None, None, b"1", b"51428", b"51428", None]


def test_many_long_topics_are_not_all_remembered(kafka, names, tmp_path):
    """P6: memory does not grow with the number of topics that publishers think of, mapped or not."""
    wave, topic_bytes = 2_000, 60_000
    with (
        ScriptedBroker() as broker,
        bridge_with(tmp_path, broker.port, names, kafka, undelivered_max_bytes="200MB") as bridge,
    ):
        broker.wait_for_subscriptions(1)
        for first in (1, wave + 1):  # the first wave fills the buffers of the table, which has a bound
            before_bytes = psutil.Process(bridge.pid).memory_info().rss
            for number in range(first, first + wave):
                broker.publish(f"elsewhere/{number}/".encode().ljust(topic_bytes, b"x"), b"", 1, number)
            broker.wait_for(PUBACK, first + wave - 1)
        assert bridge.total("connector_dead_lettered_total") == 2 * wave
        grown_bytes = psutil.Process(bridge.pid).memory_info().rss - before_bytes
        assert grown_bytes < wave * topic_bytes / 2, f"{grown_bytes} bytes more"


def test_memory_does_not_hold_what_kafka_took_while_another_lane_waits_for_room_in_the_table(
    mosquitto, kafka, names, tmp_path
):
    """P6: the table is full of a lane whose topic is missing; the other lane's messages are asked for too."""
    kafka.create_topic(names.kafka("flows"))
    mappings = f"{names.mqtt('waits')}:{names.kafka('missing')},{names.mqtt('flows')}:{names.kafka('flows')}"
    settings = {"store_after_ms": 0, "undelivered_max_bytes": MEBIBYTE, "mqtt_qos": 0}
    with (
        Bridge(tmp_path, mosquitto.port, kafka.bootstrap, mappings, **settings) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("waits")], 1_300, size_bytes=1_000)
        wait_until(lambda: bridge.status_page()["table"]["full"], "a full table")
        before_bytes = psutil.Process(bridge.pid).memory_info().rss
        for enough in range(100, 2_001, 100):
            publisher.publish_many([names.mqtt("flows")], 100, size_bytes=LARGE_BYTES)
            wait_until(lambda enough=enough: bridge.total("connector_delivered_total") >= enough, f"{enough} in Kafka")
        grown_bytes = psutil.Process(bridge.pid).memory_info().rss - before_bytes
        assert grown_bytes < 1_000 * LARGE_BYTES
        bridge.assert_balanced()
