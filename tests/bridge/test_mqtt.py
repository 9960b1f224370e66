"""The MQTT side, against Mosquitto where it can do what is needed, else against a broker that follows a script.

Every test has a real worker and a real Kafka.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections import Counter

import pytest
import trustme
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.failing_worker import FailingBridge
from tests.support.oracle import read, wait_until
from tests.support.scripted_broker import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    ScriptedBroker,
    packet_of,
    publish_packet,
    pubrel_packet,
)
from tests.support.system import (
    LOGS_ALL,
    Bridge,
    Publisher,
    UnreadyBridge,
    frozen,
    wait_for_total,
    wait_until_acknowledged,
)
from tools.brokers import Mosquitto, free_port
from tools.brokers.process import HOST

LIVE, READY = "/health/live", "/health/ready"


def one_route(kafka, names, levels="#"):
    """Create the test's Kafka topic and return a mapping to it."""
    kafka.create_topic(names.kafka())
    return f"{names.mqtt(levels)}:{names.kafka()}"


def values(kafka, names, at_least, topic="records"):
    """Return the values in the test's Kafka topic, in order."""
    return [record.value for record in read(kafka.bootstrap, [names.kafka(topic)], at_least).records]


def wait_for_log(bridge, text):
    wait_until(lambda: text in bridge.log_path.read_text(), f"{text!r} in the log")


def reasons(bridge):
    return json.loads(bridge.get(READY)[1])["reasons"]


# --- what a broker must not send


def test_messages_with_illegal_topics_become_dead_letters_and_hold_up_nothing(kafka, names, tmp_path):
    """P5 and P9: set aside with their reason, acknowledged in their turn, and the next ones cross."""
    prefix = names.mqtt("").encode()
    topics = [b"good", b"\xff\xfe", b"with\0nul", b"with#hash", b"with+plus", b"good"]
    mapping = one_route(kafka, names)
    with ScriptedBroker() as broker, Bridge(tmp_path, broker.port, kafka.bootstrap, mapping) as bridge:
        broker.wait_for_subscriptions(1)
        for identifier, topic in enumerate(topics, 1):
            broker.publish(prefix + topic, b"%d" % identifier, 1, identifier)
        broker.wait_for(PUBACK, len(topics))
        assert broker.identifiers(PUBACK) == [1, 2, 3, 4, 5, 6]
        wait_for_total(bridge, "connector_delivered_total", 2)
        assert bridge.metrics()["connector_dead_lettered_total"] == {(mapping, "invalid_mqtt_topic"): 4}
        bridge.assert_balanced()
        assert values(kafka, names, 2) == [b"1", b"6"]


MALFORMED = {
    "QoS 3": publish_packet("a", b"", 3, 1),
    "packet identifier 0": publish_packet("a", b"", 1, 0),
    "remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01" + bytes(10),
    "packet type 0": b"\x00\x00",
    "packet type 15": b"\xf0\x00",
    "topic past the end": packet_of(0x30, b"\xff\xffa"),
    "properties past the end": packet_of(0x30, b"\x00\x01a\x7f"),
    "SUBACK without identifier": packet_of(0x90, b""),
    "empty PUBREL": packet_of(0x62, b""),
    "cut off": publish_packet("a", bytes(1000))[:500],
    "random bytes": random.Random(31).randbytes(4096),
    "more random bytes": random.Random(47).randbytes(100_000),
}


@pytest.mark.parametrize("nonsense", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_packet_costs_one_connection_only(nonsense, kafka, names, tmp_path):
    """What was received before it is kept, and the next connection works; the log says what was wrong."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names)) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        broker.script.session_present = True
        topic = names.mqtt("a")
        broker.publish(topic, b"before", 1, 1)
        broker.wait_for(PUBACK)
        with contextlib.suppress(OSError):  # the bridge may have closed the connection before it took all of it
            broker.send(nonsense)
        if nonsense in (MALFORMED["cut off"], MALFORMED["random bytes"], MALFORMED["more random bytes"]):
            broker.close_connection()  # such bytes may be the beginning of a packet that never ends
        else:
            wait_for_log(bridge, "the MQTT broker sent what MQTT does not allow")
        wait_until(lambda: len(broker.received(CONNECT)) == 2, "a new connection")
        assert bridge.get(LIVE)[0] == 200
        broker.publish(topic, b"after", 1, 1)
        broker.wait_for(PUBACK, connection=1)
        assert values(kafka, names, 2) == [b"before", b"after"]
        bridge.assert_balanced()


# --- refused connections


@pytest.mark.parametrize("refusal", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"], ids=["CONNACK 1", "CONNACK 0x84"])
def test_a_broker_without_mqtt_5_gets_3_1_1(refusal, kafka, names, tmp_path):
    """The version is lowered for what says that it is too high, at once."""
    pause = "app.mqtt.thread:BACK_OFF_SECONDS=60,60"  # by half at most it is shorter
    with ScriptedBroker() as broker:
        broker.script.refusals.append(refusal)  # and the broker leaves the connection open
        with FailingBridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), constants=pause):
            lowered = broker.wait_for_subscriptions(1, connection=1)
            connects = broker.received(CONNECT)
            assert [packet.body[6] for packet in connects] == [5, 4]
            assert connects[1].at - connects[0].at < 20, "it knows what to do, so it does not wait"
            assert lowered[0].options == 1
            broker.publish(names.mqtt("a"), b"crossed", 1, 9)
            broker.wait_for(PUBACK)
            assert values(kafka, names, 1) == [b"crossed"]


def test_a_broker_that_takes_neither_version_gets_mqtt_5_as_soon_as_it_takes_that(tmp_path):
    """One refusal, as of a broker that is just being replaced, must not keep us on a version that it never takes."""
    with ScriptedBroker() as broker:
        broker.script.refusals.extend([b"\x20\x03\x00\x84\x00", b"\x20\x02\x00\x01"])
        with UnreadyBridge(tmp_path, broker.port, f"127.0.0.1:{free_port()}", "a/#:a"):
            broker.wait_for_subscriptions(1, connection=2)
    assert [packet.body[6] for packet in broker.received(CONNECT)] == [5, 4, 5]


def test_a_refused_password_is_tried_again_with_the_same_version_and_never_logged(kafka, names, tmp_path):
    """Only CONNACK 1 and 0x84 lower the version: under 3.1.1, messages would lose their properties for good."""
    refusals = [b"\x20\x03\x00\x86\x00", b"\x20\x03\x00\x88\x00"]
    with ScriptedBroker() as broker:
        broker.script.refusals.extend(refusals)
        bridge = Bridge(
            tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names),
            mqtt_user_name="bridge", mqtt_user_password="opensesame", log_lvl="trace",
        )  # fmt: skip
        with bridge:
            connects = broker.wait_for(CONNECT, 3)
            assert [packet.body[6] for packet in connects] == [5, 5, 5]
            assert all(packet.data.endswith(b"\x00\x06bridge\x00\x0aopensesame") for packet in connects)
            broker.wait_for_subscriptions(1, connection=2)
            broker.publish(names.mqtt("a"), b"crossed", 1, 1)
            broker.wait_for(PUBACK)
    log = bridge.log_path.read_text()
    assert "Bad user name or password" in log
    assert "opensesame" not in log


def test_a_broker_that_does_not_answer_connect_is_tried_again_and_named(kafka, names, tmp_path):
    """Some brokers without MQTT 5 are silent: the log says which setting helps."""
    with (
        ScriptedBroker(answers_connect=False) as broker,
        UnreadyBridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names)) as bridge,
    ):
        wait_for_log(bridge, "MQTT_VERSION=3.1.1")
        assert bridge.get(READY)[0] == 503
        assert bridge.get(LIVE)[0] == 200
        broker.script.answers_connect = True
        broker.wait_for_subscriptions(1, connection=1)
        assert broker.version == 5
        broker.publish(names.mqtt("a"), b"crossed", 1, 1)
        broker.wait_for(PUBACK)


# --- acknowledgements


def test_acknowledgements_are_in_the_order_of_receipt_whatever_each_lane_does(kafka, names, tmp_path):
    """P9: a lane that waits for its topic is stored, and thus safe, later than those that flow."""
    for topic in ("x", "y"):
        kafka.create_topic(names.kafka(topic))
    lanes = ("x", "missing", "y")
    mappings = ",".join(f"{names.mqtt(lane)}:{names.kafka(lane)}" for lane in lanes)
    with ScriptedBroker() as broker, Bridge(tmp_path, broker.port, kafka.bootstrap, mappings) as bridge:
        broker.wait_for_subscriptions(3)
        lots = random.Random(5)
        expected = list(range(1, 901))
        for identifier in expected:
            broker.publish(names.mqtt(lots.choice(lanes)), b"payload", 1, identifier)
        broker.wait_for(PUBACK, 900)
        assert broker.identifiers(PUBACK) == expected
        assert bridge.total("connector_undelivered_messages") > 200, "the missing topic's messages are on disk"


@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_acknowledged_that_memory_alone_holds(qos, kafka, names, tmp_path):
    """P1: with Kafka hanging and the write to the disk far away there is no acknowledgement."""
    with (
        ScriptedBroker() as broker,
        Bridge(
            tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), store_after_ms=60_000, mqtt_keepalive_sec=5
        ) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        with frozen(kafka):
            # One only: a lane that begins has one record in flight, and stores at once what comes behind it.
            broker.publish(names.mqtt("a"), b"payload", qos, 1)
            wait_for_total(bridge, "connector_received_total", 1)
            pings = len(broker.received(PINGREQ))
            broker.wait_for(PINGREQ, pings + 1)  # a whole keepalive interval
            assert not broker.received(PUBACK) + broker.received(PUBREC)
        kind = PUBACK if qos == 1 else PUBREC
        broker.wait_for(kind)
        assert broker.identifiers(kind) == [1]


def test_what_is_on_disk_is_acknowledged_while_kafka_hangs(kafka, names, tmp_path):
    """P1: an outage does not withhold acknowledgements; the broker's queue is small."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), store_after_ms=100) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        with frozen(kafka):
            for identifier in range(1, 11):
                broker.publish(names.mqtt("a"), b"%d" % identifier, 1, identifier)
            broker.wait_for(PUBACK, 10)
            assert bridge.total("connector_store_seconds_count") == 10
            assert bridge.total("connector_undelivered_messages") == 10
        assert values(kafka, names, 10) == [b"%d" % identifier for identifier in range(1, 11)]


def test_an_old_acknowledgement_is_not_sent_on_a_new_connection(kafka, names, tmp_path):
    """P9: there the identifier means another message, which would be lost."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), store_after_ms=60_000) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        with frozen(kafka):
            broker.publish(names.mqtt("a"), b"old", 1, 3)
            wait_for_total(bridge, "connector_received_total", 1)
            broker.close_connection()
            broker.wait_for_subscriptions(1, connection=1)
        wait_for_total(bridge, "connector_delivered_total", 1)
        # Whatever was sent for the old one comes before the acknowledgement of this one, and shows by its identifier.
        broker.publish(names.mqtt("a"), b"new", 1, 4)
        broker.wait_for(PUBACK)
        assert [(packet.connection, packet.identifier) for packet in broker.received(PUBACK)] == [(1, 4)]
        assert values(kafka, names, 2) == [b"old", b"new"]


def test_a_redelivery_on_the_same_connection_is_forwarded_once(kafka, names, tmp_path):
    """P3: DUP with an identifier that is not acknowledged yet is the same message."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), store_after_ms=60_000) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        with frozen(kafka):
            broker.publish(names.mqtt("a"), b"1", 1, 1)
            broker.publish(names.mqtt("a"), b"1", 1, 1, dup=True)
            broker.publish(names.mqtt("a"), b"2", 1, 2)
            wait_for_total(bridge, "connector_received_total", 2)
        broker.wait_for(PUBACK, 2)
        assert values(kafka, names, 2) == [b"1", b"2"]
        assert broker.identifiers(PUBACK) == [1, 2]


# --- QoS 2


def test_a_qos_2_message_is_forwarded_once_until_its_pubrel(kafka, names, tmp_path):
    """P1 and P3: PUBREC when safe, again for a redelivery; PUBCOMP for any PUBREL; then a new message."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_qos=2),
    ):
        assert broker.wait_for_subscriptions(1)[0].options & 3 == 2
        topic = names.mqtt("a")
        broker.publish(topic, b"first", 2, 7)
        broker.wait_for(PUBREC)
        broker.publish(topic, b"first", 2, 7, dup=True)
        broker.wait_for(PUBREC, 2)
        broker.send(pubrel_packet(99), pubrel_packet(7))
        broker.wait_for(PUBCOMP, 2)
        assert broker.identifiers(PUBCOMP) == [99, 7]
        broker.publish(topic, b"second", 2, 7)
        broker.wait_for(PUBREC, 3)
        assert broker.identifiers(PUBREC) == [7, 7, 7]
        assert values(kafka, names, 2) == [b"first", b"second"]


def test_a_qos_2_message_that_comes_again_on_a_new_connection_is_forwarded_once(kafka, names, tmp_path):
    """P3 and P9: what awaits PUBREL survives the connection; its PUBREC goes out on the new one only."""
    with (
        ScriptedBroker() as broker,
        Bridge(
            tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_qos=2, store_after_ms=60_000
        ) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        topic = names.mqtt("a")
        with frozen(kafka):
            broker.publish(topic, b"first", 2, 7)
            wait_for_total(bridge, "connector_received_total", 1)
            broker.script.session_present = True
            broker.close_connection()
            wait_until(lambda: len(broker.received(CONNECT)) == 2, "a new connection")
            broker.publish(topic, b"first", 2, 7, dup=True)
            assert not broker.received(PUBREC)
        broker.publish(topic, b"second", 2, 8)
        broker.wait_for(PUBREC, 2)
        assert [(packet.connection, packet.identifier) for packet in broker.received(PUBREC)] == [(1, 7), (1, 8)]
        broker.send(pubrel_packet(7), pubrel_packet(8))
        broker.wait_for(PUBCOMP, 2)
        assert values(kafka, names, 2) == [b"first", b"second"]


def test_a_stored_qos_2_message_is_not_doubled_by_a_crash_before_pubrel(kafka, names, tmp_path):
    """P3: its identifier is stored with it, and outlives it until PUBREL."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_qos=2) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        topic = names.mqtt("a")
        with frozen(kafka):
            broker.publish(topic, b"first", 2, 7)
            broker.wait_for(PUBREC)
            bridge.kill()
            broker.script.session_present = True
            bridge.start()
            broker.publish(topic, b"first", 2, 7, dup=True)
            broker.wait_for(PUBREC, connection=1)
        wait_for_total(bridge, "connector_undelivered_messages", 0)
        # The message has left the table; its identifier must be known all the same.
        bridge.restart()
        broker.publish(topic, b"first", 2, 7, dup=True)
        broker.wait_for(PUBREC, connection=2)
        broker.send(pubrel_packet(7))
        broker.wait_for(PUBCOMP)
        broker.publish(topic, b"second", 2, 7)
        broker.wait_for(PUBREC, 2, connection=2)
        assert values(kafka, names, 2) == [b"first", b"second"]


def test_a_lost_session_frees_the_stored_qos_2_identifiers(kafka, names, tmp_path):
    """P1: in a new session, DUP or not, the identifier is another message's, which must not be swallowed."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_qos=2) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        topic = names.mqtt("a")
        with frozen(kafka):
            broker.publish(topic, b"first", 2, 7)
            broker.wait_for(PUBREC)
        bridge.restart()
        broker.wait_for_subscriptions(1, connection=1)
        broker.publish(topic, b"second", 2, 7, dup=True)
        broker.wait_for(PUBREC, connection=1)
        assert values(kafka, names, 2) == [b"first", b"second"]
        assert bridge.total("connector_mqtt_sessions_lost_total") == 1


# --- what a record carries


def test_mqtt_5_properties_become_headers_that_cannot_forge_ours(mosquitto, kafka, names, tmp_path):
    """The record is the message: properties, an empty payload, and whether it was retained."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.ResponseTopic = "answers/here"
    properties.CorrelationData = b"\x00\xff1"
    properties.UserProperty = [("unit", "°C"), ("connector-id", "forged"), ("mqtt-topic", "forged")]
    properties.MessageExpiryInterval = 3600
    before_ms = time.time_ns() // 1_000_000
    with Publisher(mosquitto.port) as publisher:
        publisher.raw(names.mqtt("retained"), b"old", retain=True)
        publisher.wait_for_acknowledgements()
        with Bridge(tmp_path, mosquitto.port, kafka.bootstrap, one_route(kafka, names)) as bridge:
            wait_for_total(bridge, "connector_delivered_total", 1)
            publisher.raw(names.mqtt("properties"), b"{}", properties=properties)
            publisher.raw(names.mqtt("empty"), b"")
            oracle = read(kafka.bootstrap, [names.kafka()], 3)
    retained, decorated, empty = oracle.records
    assert (retained.value, retained.headers["mqtt-retain"]) == (b"old", b"1")
    assert empty.value == b"", "an empty payload is no tombstone"
    ours = decorated.headers.pop("connector-id")
    assert ours.startswith(f"bridge-{tmp_path.name}/".encode())
    expiry_ms = int(decorated.headers.pop("mqtt-message-expiry"))
    # A broker counts in whole seconds what is left of the interval, and its clock and ours may be a second apart.
    assert before_ms + 3_598_000 <= expiry_ms <= decorated.timestamp_ms + 3_600_000
    assert decorated.headers == {
        "mqtt-topic": names.mqtt("properties").encode(),
        "mqtt-qos": b"1",
        "mqtt-retain": b"0",
        "mqtt-content-type": b"application/json",
        "mqtt-response-topic": b"answers/here",
        "mqtt-correlation-data": b"\x00\xff1",
        "mqtt-user-unit": "°C".encode(),
        "mqtt-user-connector-id": b"forged",
        "mqtt-user-mqtt-topic": b"forged",
    }


def test_an_event_of_cloudevents_is_one_in_kafka_and_the_trace_goes_on(mosquitto, kafka, names, tmp_path):
    """Its bindings for MQTT and for Kafka name the same attributes in different ways."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    trace = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=b")]
    event = [("specversion", "1.0"), ("id", "17"), ("source", "/plant"), ("type", "reading"), ("unit", "K")]
    properties.UserProperty = [*event, *trace, ("Not-An-Attribute", "x")]
    with (
        Publisher(mosquitto.port) as publisher,
        Bridge(tmp_path, mosquitto.port, kafka.bootstrap, one_route(kafka, names)),
    ):
        publisher.raw(names.mqtt("event"), b"{}", properties=properties)
        (record,) = read(kafka.bootstrap, [names.kafka()], 1).records
    others = {name: value for name, value in record.headers.items() if not name.startswith(("connector-", "mqtt-"))}
    expected = {**{f"ce_{name}": value for name, value in event}, **dict(trace), "content-type": "application/json"}
    assert others == {name: value.encode() for name, value in expected.items()}
    assert record.headers["mqtt-user-Not-An-Attribute"] == b"x"
    assert record.headers["mqtt-content-type"] == b"application/json"


# --- overlapping filters


def overlapping(names, *levels):
    """Return mappings of filters to Kafka topics `0`, `1`, ..., in this order."""
    return ",".join(f"{names.mqtt(level)}:{names.kafka(str(number))}" for number, level in enumerate(levels))


def test_overlapping_filters_give_one_record_at_the_first_match(mosquitto, kafka, names, tmp_path):
    """P4: Mosquitto sends a copy per subscription; one warning per pair of mappings, not per message."""
    for number in range(3):
        kafka.create_topic(names.kafka(str(number)))
    mappings = overlapping(names, "a/b", "a/+", "a/#")
    with (
        Bridge(tmp_path, mosquitto.port, kafka.bootstrap, mappings) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt(topic) for topic in ("a/b", "a/c", "a/d/e")], 3_000)
        wait_for_total(bridge, "connector_delivered_total", 3_000)
        for number, topic in enumerate(("a/b", "a/c", "a/d/e")):
            oracle = read(kafka.bootstrap, [names.kafka(str(number))], 1_000)
            oracle.assert_each_once_in_order({names.mqtt(topic): 1_000})
        assert bridge.total("connector_received_total") == 3_000, "a suppressed copy is not received"
        bridge.assert_balanced()
        warnings = [line for line in bridge.log_path.read_text().splitlines() if "several routes match" in line]
        assert Counter(names.mqtt(topic) in line for line in warnings for topic in ("a/b'", "a/c'"))[True] == 2
        assert len(warnings) == 2


def test_a_filter_added_while_messages_wait_at_the_broker_loses_none(mosquitto, kafka, names, tmp_path):
    """P4: what waits has no copy for the new filter; at most one record is doubled for it."""
    for number in range(3):
        kafka.create_topic(names.kafka(str(number)))
    topic = names.mqtt("a/b")
    before = f"{names.mqtt('a/+')}:{names.kafka('1')},{names.mqtt('a/#')}:{names.kafka('2')}"
    with Publisher(mosquitto.port) as publisher:
        with Bridge(tmp_path, mosquitto.port, kafka.bootstrap, before) as bridge:
            publisher.publish_many([topic], 100)
            wait_for_total(bridge, "connector_delivered_total", 100)
        publisher.publish_many([topic], 3_000)
        after = overlapping(names, "a/b", "a/+", "a/#")
        with Bridge(tmp_path, mosquitto.port, kafka.bootstrap, after) as bridge:
            publisher.publish_many([topic], 3_000)
            oracle = read(kafka.bootstrap, [names.kafka(str(number)) for number in range(3)], publisher.sent)
            assert oracle.lost(publisher.sent) == 0
            assert oracle.duplicates() <= 1
            assert {record.topic for record in oracle.records} == {names.kafka("0"), names.kafka("1")}
            bridge.assert_balanced()


@pytest.mark.parametrize(
    "restarted",
    [
        False,
        True,
    ],
)
def test_a_copy_that_was_queued_before_a_filter_was_added_is_kept(restarted, kafka, names, tmp_path):
    """P4: also when the worker starts again before the broker has sent all that waited."""
    for number in range(2):
        kafka.create_topic(names.kafka(str(number)))
    before, after = f"{names.mqtt('a/+')}:{names.kafka('1')}", overlapping(names, "a/b", "a/+")
    with ScriptedBroker() as broker:
        with Bridge(tmp_path, broker.port, kafka.bootstrap, before):
            old = broker.wait_for_subscriptions(1)[0].identifier
        broker.script.session_present = True
        with Bridge(tmp_path, broker.port, kafka.bootstrap, after) as bridge:
            broker.wait_for_subscriptions(2, connection=1)
            if restarted:
                bridge.restart()
                broker.wait_for_subscriptions(2, connection=2)
            broker.publish(names.mqtt("a/b"), b"waited", 1, 1, subscriptions=(old,))
            broker.wait_for(PUBACK)
            assert bridge.total("connector_received_total") == 1
            assert values(kafka, names, 1, "0") == [b"waited"]


def test_a_qos_0_message_that_overtakes_does_not_cost_a_queued_one(kafka, names, tmp_path):
    """P4: MQTT keeps the order per QoS only, so a filter's first QoS 0 copy says nothing of QoS 1."""
    for number in range(2):
        kafka.create_topic(names.kafka(str(number)))
    before, after = f"{names.mqtt('a/+')}:{names.kafka('1')}", overlapping(names, "a/b", "a/+")
    with ScriptedBroker() as broker:
        with Bridge(tmp_path, broker.port, kafka.bootstrap, before):
            old = broker.wait_for_subscriptions(1)[0].identifier
        broker.script.session_present = True
        with Bridge(tmp_path, broker.port, kafka.bootstrap, after) as bridge:
            (added,) = {found.identifier for found in broker.wait_for_subscriptions(2, connection=1)} - {old}
            broker.publish(names.mqtt("a/b"), b"overtook", 0, subscriptions=(added,))
            broker.publish(names.mqtt("a/b"), b"overtook", 0, subscriptions=(old,))
            broker.publish(names.mqtt("a/b"), b"waited", 1, 1, subscriptions=(old,))
            broker.wait_for(PUBACK)
            assert bridge.total("connector_received_total") == 2
            assert values(kafka, names, 2, "0") == [b"overtook", b"waited"]


# --- subscriptions


def test_the_next_start_subscribes_to_new_filters_and_unsubscribes_from_removed_ones(kafka, names, tmp_path):
    """P4: identifiers stay the same, retained messages do not come again; one refused filter is its own."""
    kept, removed, added = (names.mqtt(levels) for levels in ("kept/#", "removed", "added/+"))
    topic = names.kafka()
    kafka.create_topic(topic)
    with ScriptedBroker() as broker:
        with Bridge(tmp_path, broker.port, kafka.bootstrap, f"{kept}:{topic},{removed}:{topic}"):
            first = broker.wait_for_subscriptions(2)
            assert [subscription.topic_filter for subscription in first] == [removed, kept], "exact ones come first"
            assert {subscription.retain_handling for subscription in first} == {1}
            assert all(subscription.identifier for subscription in first)
            broker.publish(names.mqtt("kept/a"), b"after SUBACK", 1, 1, subscriptions=(first[1].identifier,))
            broker.wait_for(PUBACK)
        assert len(broker.wait_for(DISCONNECT)) == 1
        broker.script.session_present = True
        broker.script.refused_filters[added] = 0x87
        with UnreadyBridge(tmp_path, broker.port, kafka.bootstrap, f"{added}:{topic},{kept}:{topic}") as bridge:
            second = broker.wait_for_subscriptions(2, connection=1)
            assert [subscription.topic_filter for subscription in second] == [kept, added], "the oldest first"
            assert {subscription.retain_handling for subscription in second} == {1}
            assert second[0].identifier == first[1].identifier
            assert second[1].identifier not in {subscription.identifier for subscription in first}
            wait_until(lambda: broker.unsubscriptions == [removed], "UNSUBSCRIBE of the removed filter")
            wait_until(lambda: any(added in reason for reason in reasons(bridge)), "a reason that names the filter")
            assert bridge.get(READY)[0] == 503
            broker.publish(names.mqtt("kept/a"), b"flows", 1, 1, subscriptions=(second[0].identifier,))
            broker.wait_for(PUBACK, 2)
            assert values(kafka, names, 2) == [b"after SUBACK", b"flows"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_connection_that_ends_before_suback_costs_no_subscription(version, kafka, names, tmp_path):
    """P1: the session is there but not its subscriptions; without them nothing would ever come."""
    with (
        ScriptedBroker(answers_subscribe=False) as broker,
        UnreadyBridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_version=version) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        assert bridge.get(READY)[0] == 503, "it is ready when SUBSCRIBE is answered"
        broker.script.session_present = True
        broker.script.answers_subscribe = True
        broker.close_connection()
        again = broker.wait_for_subscriptions(1, connection=1)
        assert [subscription.topic_filter for subscription in again] == [names.mqtt("#")]
        wait_until(lambda: bridge.get(READY)[0] == 200, "a bridge that is ready")
        broker.close_connection()
        wait_until(lambda: len(broker.received(CONNECT)) == 3, "a third connection")
        broker.publish(names.mqtt("a"), b"crossed", 1, 1)
        broker.wait_for(PUBACK)
        assert len(broker.subscriptions) == 3, "and it is asked for again: the broker may have an older session"


def test_a_filter_that_is_refused_for_the_moment_is_asked_for_again_within_seconds(kafka, names, tmp_path):
    """P5: that a packet identifier is in use is no lasting refusal; mochi-mqtt says so of its own ones."""
    with ScriptedBroker() as broker:
        broker.script.refused_filters[names.mqtt("#")] = 0x91
        with UnreadyBridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names)) as bridge:
            broker.wait_for_subscriptions(2)
            assert any("Packet identifier in use" in reason for reason in reasons(bridge))
            broker.script.refused_filters.clear()
            # A lasting refusal is asked for again after 30 seconds only.
            wait_until(lambda: bridge.get(READY)[0] == 200, "a bridge that is ready", 20)
            broker.publish(names.mqtt("a"), b"crossed", 1, 1)
            broker.wait_for(PUBACK)
            assert values(kafka, names, 1) == [b"crossed"]


# --- the broker goes away


def test_a_broker_that_lost_our_session_is_subscribed_to_anew(kafka, names, tmp_path):
    """P7 and P8: messages cross again, and the loss is counted."""
    with (
        Mosquitto(tmp_path / "mosquitto", persistence=False) as broker,
        Bridge(tmp_path / "bridge", broker.port, kafka.bootstrap, one_route(kafka, names)) as bridge,
    ):
        with Publisher(broker.port) as publisher:
            publisher.raw(names.mqtt("a"), b"before")
            wait_for_total(bridge, "connector_delivered_total", 1)
        assert bridge.total("connector_mqtt_sessions_lost_total") == 0
        broker.kill()
        wait_until(lambda: bridge.get(READY)[0] == 503, "unready without a broker")
        broker.start()
        with Publisher(broker.port) as publisher:
            # Retained, so that it does not matter whether it comes before the subscription.
            publisher.raw(names.mqtt("a"), b"after", retain=True)
            wait_for_total(bridge, "connector_delivered_total", 2)
        assert bridge.total("connector_mqtt_sessions_lost_total") == 1
        wait_until(lambda: bridge.get(READY)[0] == 200, "a bridge that is ready")
        assert values(kafka, names, 2) == [b"before", b"after"]


def test_a_broker_that_kept_our_session_loses_nothing(kafka, names, tmp_path):
    """P3 and P7: the session is resumed, and what came meanwhile is delivered, once."""
    with (
        Mosquitto(tmp_path / "mosquitto", extra_configuration=LOGS_ALL) as broker,
        Bridge(tmp_path / "bridge", broker.port, kafka.bootstrap, one_route(kafka, names)) as bridge,
    ):
        topic = names.mqtt("a")
        with Publisher(broker.port) as publisher:
            publisher.publish_many([topic], 500)
            wait_for_total(bridge, "connector_delivered_total", 500)
            wait_until_acknowledged(broker, 500)
            sent = publisher.sent
        broker.restart()
        with Publisher(broker.port) as publisher:
            publisher.sent = sent
            publisher.publish_many([topic], 500)  # the bridge still waits before it connects again
        read(kafka.bootstrap, [names.kafka()], 1_000).assert_each_once_in_order({topic: 1_000})
        assert bridge.total("connector_mqtt_sessions_lost_total") == 0
        assert "session resumed" in bridge.log_path.read_text()


def test_a_broker_that_stops_answering_pings_is_left(kafka, names, tmp_path):
    """A dead connection is noticed within two keepalive intervals."""
    with (
        ScriptedBroker(answers_pings=False) as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_keepalive_sec=5),
    ):
        broker.wait_for_subscriptions(1)
        wait_until(lambda: len(broker.received(CONNECT)) == 2, "a new connection", 20)
        assert broker.received(PINGREQ, 0)


def test_a_full_bridge_keeps_its_connection_while_it_does_not_read(names, tmp_path):
    """P6: memory and table are full, so reading stops; PINGREQ goes on and a missing PINGRESP is no matter."""
    with (
        ScriptedBroker() as broker,
        Bridge(
            tmp_path, broker.port, f"{HOST}:{free_port()}", f"{names.mqtt('#')}:records",
            undelivered_max_bytes=1_048_576, mqtt_keepalive_sec=5, mqtt_qos=0, stop_budget_sec=1,
        ) as bridge,
    ):  # fmt: skip
        broker.wait_for_subscriptions(1)
        packet = publish_packet(names.mqtt("a"), bytes(20_000))
        sent = broker.send_until_blocked(packet)
        assert 24_000_000 < sent * len(packet) < 80_000_000
        assert bridge.get(READY)[0] == 503
        assert any("UNDELIVERED_MAX_BYTES" in reason for reason in reasons(bridge))
        broker.script.answers_pings = False
        pings = len(broker.received(PINGREQ))
        first, *_, last = broker.wait_for(PINGREQ, pings + 3)[pings:]
        assert last.at - first.at > 8
        assert broker.connections == 1
        assert broker.connected
        assert bridge.get(LIVE)[0] == 200
        bridge.assert_balanced()


# --- TLS


class Files:
    """An authority, and certificates of it for the server and a client, as files."""

    def __init__(self, directory):
        directory.mkdir()
        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self.certificate_file, self.key_file = self._issue(authority, directory, "127.0.0.1")
        self.client_certificate_file, self.client_key_file = self._issue(authority, directory, "bridge.example")

    @staticmethod
    def _issue(authority, directory, name):
        issued = authority.issue_cert(name)
        certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
        certificate_file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key_file)
        return certificate_file, key_file


def test_messages_cross_over_tls_with_a_client_certificate(kafka, names, tmp_path):
    """Messages cross encrypted, in order, over many TLS records; the broker asks for our certificate."""
    files = Files(tmp_path / "files")
    with (
        Mosquitto(tmp_path / "mosquitto", certificates=files, extra_configuration="require_certificate true") as broker,
        Bridge(
            tmp_path / "bridge", broker.tls_port, kafka.bootstrap, one_route(kafka, names), mqtt_tls=True,
            mqtt_ca_file=files.ca_file, mqtt_cert_file=files.client_certificate_file,
            mqtt_key_file=files.client_key_file,
        ),
        Publisher(broker.port) as publisher,
    ):  # fmt: skip
        publisher.publish_many([names.mqtt("a")], 2_000, size_bytes=2_000)
        read(kafka.bootstrap, [names.kafka()], 2_000).assert_each_once_in_order(publisher.sent)


def test_an_untrusted_broker_is_refused(kafka, names, tmp_path):
    """Nothing is sent to it, and the log says why."""
    files, others = Files(tmp_path / "files"), Files(tmp_path / "others")
    with (
        Mosquitto(tmp_path / "mosquitto", certificates=files) as broker,
        UnreadyBridge(
            tmp_path / "bridge", broker.tls_port, kafka.bootstrap, one_route(kafka, names), mqtt_tls=True,
            mqtt_ca_file=others.ca_file,
        ) as bridge,
    ):  # fmt: skip
        wait_for_log(bridge, "certificate verify failed")
        assert bridge.get(READY)[0] == 503
        assert bridge.total("connector_mqtt_connected") == 0
        assert f"bridge-{bridge.directory.name}" not in broker.log_path.read_text()


def test_with_tls_nothing_is_ever_sent_in_plain_text(kafka, names, tmp_path):
    """A broker that does not speak TLS sees a handshake, and neither client id nor password."""
    with socket.create_server((HOST, 0)) as listener:
        settings = {"mqtt_tls": True, "mqtt_user_name": "bridge", "mqtt_user_password": "opensesame"}
        with UnreadyBridge(
            tmp_path, listener.getsockname()[1], kafka.bootstrap, one_route(kafka, names), **settings
        ) as bridge:
            listener.settimeout(10)
            for _ in range(2):
                connection = listener.accept()[0]
                with connection:
                    seen = connection.recv(65536)
                    assert seen[0] == 0x16, "the first byte of a TLS handshake"
                    assert b"opensesame" not in seen
                    assert b"MQTT" not in seen
                    connection.sendall(b"\x20\x02\x00\x00")
            assert bridge.get(READY)[0] == 503
