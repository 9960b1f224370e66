"""Connector with MQTT brokers of other families than Mosquitto: HiveMQ and mochi-mqtt."""

from __future__ import annotations

import contextlib
import random
import threading

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.oracle import duplicates_allowed, read, wait_until
from tests.support.other_brokers import HiveMQ, Mochi
from tests.support.system import Bridge, Publisher, frozen, wait_for_total

BROKERS = [HiveMQ, Mochi]
KILLS = 3
BURST_MESSAGES = 1_500


@contextlib.contextmanager
def running(kind, directory):
    """Run a broker; killed at the end, as its sessions are in memory and HiveMQ takes 4 seconds for a stop."""
    broker = kind(directory)
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.fixture(scope="module", params=BROKERS, ids=[kind.title for kind in BROKERS])
def broker(request, tmp_path_factory):
    """Return a running broker of each family."""
    with running(request.param, tmp_path_factory.mktemp(request.param.title)) as started:
        yield started


def bridge_with(tmp_path, broker, kafka, names, mappings="", **settings):
    """Return a bridge with a session of its own at the broker, not started."""
    if not mappings:
        kafka.create_topic(names.kafka())
        mappings = f"{names.mqtt('#')}:{names.kafka()}"
    return Bridge(tmp_path / names.client_id, broker.port, kafka.bootstrap, mappings, **settings)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_messages_of_every_qos_cross_once_in_order_with_their_bytes(version, broker, kafka, names, tmp_path):
    """P2, P3 and P8: with either version of MQTT; the broker's QoS is in the header."""
    payloads = [bytes(range(256)), b"", random.Random(7).randbytes(200_000)]
    sent = {}
    with bridge_with(tmp_path, broker, kafka, names, mqtt_qos=2, mqtt_version=version) as bridge:
        for qos in range(3):
            with Publisher(broker.port, qos) as publisher:
                topics = [names.mqtt(f"{qos}/{device}") for device in range(5)]
                # At QoS 0 HiveMQ drops what a client is too slow for.
                portion = 1_000 if qos else 100
                for number in range(portion, 1_001, portion):
                    publisher.publish_many(topics, portion, 2_000)
                    if qos == 0:
                        wait_for_total(bridge, "connector_received_total", number)
                sent |= publisher.sent
                for data in payloads:
                    publisher.raw(names.mqtt(f"raw/{qos}"), data)
                publisher.wait_for_acknowledgements()
        oracle = read(kafka.bootstrap, [names.kafka()], 3_009)
        wait_for_total(bridge, "connector_delivered_total", 3_009)
        bridge.assert_balanced()
    raw = {qos: [] for qos in (b"0", b"1", b"2")}
    for record in oracle.records:
        if record.headers["mqtt-topic"].startswith(names.mqtt("raw/").encode()):
            raw[record.headers["mqtt-qos"]].append(record)
        else:
            assert record.headers["mqtt-topic"].split(b"/")[1] == record.headers["mqtt-qos"]
    assert all([record.value for record in records] == payloads for records in raw.values())
    oracle.records = [record for record in oracle.records if not any(record in found for found in raw.values())]
    oracle.assert_each_once_in_order(sent)


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_published_while_the_bridge_is_dead_waits_and_arrives_in_order(qos, broker, kafka, names, tmp_path):
    """P1, P2 and P3: killed before it received anything, so that nothing at all may be doubled."""
    bridge = bridge_with(tmp_path, broker, kafka, names, mqtt_qos=qos, mqtt_receive_maximum=10_000)
    with bridge, Publisher(broker.port, qos) as publisher:
        bridge.kill()
        publisher.publish_many([names.mqtt(str(device)) for device in range(5)], 3_000)
        bridge.start()
        read(kafka.bootstrap, [names.kafka()], 3_000).assert_each_once_in_order(publisher.sent)
        assert "session resumed" in bridge.log_path.read_text()
        assert bridge.total("connector_mqtt_sessions_lost_total") == 0
        bridge.assert_balanced()


@pytest.mark.parametrize("qos", [1, 2])
def test_sigkills_under_load_lose_nothing(qos, broker, kafka, names, tmp_path):
    """P1, P2 and P3: nothing lost, in order, and no more doubled than was unacknowledged and in flight."""
    seed = random.randrange(1_000_000)
    print("seed", seed)
    moments = random.Random(seed)
    topics = [names.mqtt(str(device)) for device in range(5)]
    # So many that mochi never has to hold messages back, as newer ones then pass them.
    bridge = bridge_with(tmp_path, broker, kafka, names, mqtt_qos=qos, mqtt_receive_maximum=KILLS * BURST_MESSAGES)
    with bridge, Publisher(broker.port, qos) as publisher:
        for _ in range(KILLS):
            sender = threading.Thread(target=publisher.publish_many, args=(topics, BURST_MESSAGES, 1_500))
            sender.start()
            enough = moments.randrange(100, 1_000)
            wait_until(lambda enough=enough: bridge.total("connector_received_total") > enough, "messages under way")
            bridge.kill()
            if not broker.resumes_under_load:
                sender.join()
            bridge.start()
            sender.join()
            if not broker.resumes_under_load:
                wait_until(lambda: not read(kafka.bootstrap, [names.kafka()], 1).lost(publisher.sent), "all so far")
        oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent, settle_seconds=2)
        bound = duplicates_allowed(crashes=KILLS, window=BURST_MESSAGES, in_flight=1_000)
        print(oracle.assert_nothing_lost(publisher.sent, bound))
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_overlapping_filters_give_one_record_at_the_first_match(version, broker, kafka, names, tmp_path):
    """P4: these brokers send one copy for all filters, with all subscription identifiers under MQTT 5."""
    levels = ["a/b", "a/+", "a/#"]
    for number in range(3):
        kafka.create_topic(names.kafka(str(number)))
    mappings = ",".join(f"{names.mqtt(level)}:{names.kafka(str(number))}" for number, level in enumerate(levels))
    with (
        bridge_with(tmp_path, broker, kafka, names, mappings, mqtt_version=version) as bridge,
        Publisher(broker.port) as publisher,
    ):
        publisher.publish_many([names.mqtt(topic) for topic in ("a/b", "a/c", "a/d/e")], 900)
        wait_for_total(bridge, "connector_delivered_total", 900)
        for number, topic in enumerate(("a/b", "a/c", "a/d/e")):
            oracle = read(kafka.bootstrap, [names.kafka(str(number))], 300)
            oracle.assert_each_once_in_order({names.mqtt(topic): 300})
        assert bridge.total("connector_received_total") == 900
        bridge.assert_balanced()


@pytest.mark.parametrize("kind", BROKERS, ids=[kind.title for kind in BROKERS])
def test_a_broker_that_lost_our_session_is_subscribed_to_anew(kind, kafka, names, tmp_path):
    """P7 and P9: counted; a message of before is not acknowledged in place of one with the same identifier."""
    with (
        running(kind, tmp_path / "broker") as broker,
        bridge_with(tmp_path, broker, kafka, names, store_after_ms=60_000) as bridge,
    ):
        with frozen(kafka):
            with Publisher(broker.port) as publisher:
                publisher.raw(names.mqtt("a"), b"old")
                wait_for_total(bridge, "connector_received_total", 1)
            broker.kill()
            broker.start()
            wait_for_total(bridge, "connector_mqtt_sessions_lost_total", 1)
            with Publisher(broker.port) as publisher:
                # Retained, so that it does not matter whether it comes before the subscription.
                publisher.raw(names.mqtt("a"), b"new", retain=True)
                wait_for_total(bridge, "connector_received_total", 2)
        values = [record.value for record in read(kafka.bootstrap, [names.kafka()], 2).records]
        assert values == [b"old", b"new"]
        assert bridge.get("/health/ready")[0] == 200
        assert bridge.total("connector_mqtt_sessions_lost_total") == 1
        bridge.assert_balanced()
    assert "unknown acknowledgement" not in broker.log_path.read_text(), "mochi says so, HiveMQ is silent"


class Watcher:
    """A second subscriber, which sees the packet identifiers that the broker gives."""

    def __init__(self, port, topic, qos):
        self.identifiers = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_message = lambda _client, _data, message: self.identifiers.append(message.mid)
        granted = threading.Event()
        self._client.on_subscribe = lambda *_: granted.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topic, qos)
        self._client.loop_start()
        assert granted.wait(10)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_message = None  # in a circle with this it would wait for the collector


@pytest.mark.parametrize("qos", [1, 2])
def test_equal_messages_with_the_same_packet_identifier_are_as_many_records(qos, kafka, names, tmp_path):
    """P1: HiveMQ gives the lowest free identifier, so here each message has that of the one before."""
    topic = names.mqtt("a")
    with (
        running(HiveMQ, tmp_path / "broker") as broker,
        bridge_with(tmp_path, broker, kafka, names, mqtt_qos=qos) as bridge,
        Publisher(broker.port, qos) as publisher,
        contextlib.closing(Watcher(broker.port, topic, qos)) as watcher,
    ):
        for count in range(1, 21):
            publisher.raw(topic, b"always the same")
            wait_for_total(bridge, "connector_delivered_total", count)
            wait_until(lambda count=count: len(watcher.identifiers) == count, "the watcher's copy")
        # A client that acknowledges late has the next identifier at times.
        assert watcher.identifiers.count(1) > 10, "otherwise this test shows nothing"
        records = read(kafka.bootstrap, [names.kafka()], 20).records
        assert [record.value for record in records] == [b"always the same"] * 20
        bridge.assert_balanced()
