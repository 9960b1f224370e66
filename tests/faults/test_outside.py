"""What brokers and publishers may send and do, rightly or wrongly: packets, properties, payloads, sessions, quotas."""

from __future__ import annotations

import subprocess
import zlib

from confluent_kafka import Consumer, TopicPartition
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.oracle import read, wait_until
from tests.support.scripted_broker import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    ScriptedBroker,
    packet_of,
    publish_packet,
)
from tests.support.system import Publisher, UnreadyBridge
from tools.brokers import Mosquitto

# CONNACK of MQTT 5: no session, accepted, property Server Keep Alive (0x13) of 4 seconds. Half of it is how long the
# broker may take for PINGRESP, and how long it may stand still.
SERVER_KEEP_ALIVE = b"\x20\x06\x00\x00\x03\x13\x00\x04"


def headers_of(kafka, topic) -> list[tuple[str, bytes]]:
    """Return the headers of the first record of a topic, those of one name all of them."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "headers", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return wait_until(lambda: consumer.poll(0.2), "a record").headers()
    finally:
        consumer.close()


# ---- packets and properties


def test_packet_identifiers_begin_again_after_65535(kafka, names, new_bridge):
    """P3 and P9: the order of receipt is that of the acknowledgements, whatever the numbers are."""
    kafka.create_topic(names.kafka())
    identifiers = [*range(65_400, 65_536), *range(1, 140)]
    with ScriptedBroker() as broker, new_bridge(broker) as bridge:
        broker.wait_for_subscriptions(1)
        for _ in range(2):
            have = len(broker.received(PUBACK))
            for identifier in identifiers:
                broker.publish(names.mqtt("a"), b"%d" % identifier, 1, identifier)
            broker.wait_for(PUBACK, have + len(identifiers))
        assert broker.identifiers(PUBACK) == identifiers * 2
        assert broker.connections == 1
        records = read(kafka.bootstrap, [names.kafka()], 2 * len(identifiers)).records
        assert [int(record.value) for record in records] == identifiers * 2
        bridge.assert_balanced()


def test_what_a_broker_says_when_it_sends_us_away_is_in_the_log_with_the_server_that_it_names(names, tmp_path):
    """The operator needs the other address; it comes with a refusal as with the end of a connection."""
    added = b"\x1c\x00\x0aother:1883\x1f\x00\x0bmaintenance"  # server reference, reason string
    properties = bytes([len(added)]) + added
    with ScriptedBroker() as broker:
        broker.script.refusals.append(packet_of(CONNACK << 4, b"\x00\x9c" + properties))
        mapping = f"{names.mqtt('#')}:{names.kafka()}"
        with UnreadyBridge(tmp_path / "bridge", broker.port, "127.0.0.1:1", mapping) as bridge:
            broker.wait_for_subscriptions(1, connection=1)
            broker.send(packet_of(DISCONNECT << 4, b"\x9d" + properties))
            sentence = "%s: maintenance; it names another one for MQTT_BROKER_URL: other:1883"
            for reason in ("refused the connection: Use another server", "ended: Server moved"):
                wait_until(lambda reason=reason: sentence % reason in bridge.log_path.read_text(), reason)


def test_topics_that_no_publisher_may_use_hold_up_nothing(kafka, names, new_bridge):
    """P5, P8 and P9: none at all, also beside broken properties, an alias that we did not allow, the broker's own."""
    kafka.create_topic(names.kafka())
    mapping = f"#:{names.kafka()}"
    alias = packet_of(PUBLISH << 4 | 2, b"\x00\x00" + b"\x00\x02" + b"\x03\x23\x00\x01" + b"alias")
    broken = packet_of(PUBLISH << 4 | 2, b"\x00\x00" + b"\x00\x06" + b"\x01\x0b" + b"broken")
    with ScriptedBroker() as broker, new_bridge(broker, mappings=mapping) as bridge:
        broker.wait_for_subscriptions(1)
        broker.send(
            publish_packet("", b"none", 1, 1), alias, publish_packet("$SYS/broker/uptime", b"own", 1, 3),
            publish_packet("a\uffffb", b"odd", 1, 4), publish_packet("a", b"good", 1, 5), broken,
        )  # fmt: skip
        broker.wait_for(PUBACK, 6)
        assert broker.identifiers(PUBACK) == [1, 2, 3, 4, 5, 6]
        assert [record.value for record in read(kafka.bootstrap, [names.kafka()], 2).records] == [b"odd", b"good"]
        metrics = bridge.metrics()
        dead = {(mapping, "invalid_mqtt_topic"): 3, ("unmapped", "unmapped"): 1}
        assert metrics["connector_dead_lettered_total"] == dead
        assert sum(metrics["connector_dropped_total"].values()) == 0
        bridge.assert_balanced()


def test_a_message_that_expires_while_it_waits_is_delivered_with_all_that_its_publisher_said(
    mosquitto, kafka, names, new_bridge
):
    """P1: accepted is accepted, however late; properties of one name stay apart, the payload is not judged."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = 1
    properties.PayloadFormatIndicator = 1  # it says that the payload is UTF-8, which it is not
    properties.UserProperty = [("unit", "m"), ("unit", "s"), ("unit", "m")]
    with new_bridge() as bridge:
        with Publisher(mosquitto.port) as publisher:
            publisher.raw(names.mqtt("a"), b"\xff\xfe", properties=properties)
            publisher.wait_for_acknowledgements()
        wait_until(lambda: bridge.total("connector_oldest_undelivered_age_seconds") > 1.5, "an expired message")
        kafka.create_topic(names.kafka())
        (record,) = read(kafka.bootstrap, [names.kafka()], 1).records
    assert record.value == b"\xff\xfe"
    units = [value for name, value in headers_of(kafka, names.kafka()) if name == "mqtt-user-unit"]
    assert units == [b"m", b"s", b"m"]


def test_hostile_payloads_are_bytes_and_nothing_else(mosquitto, kafka, names, new_bridge):
    """P2: nobody parses, unpacks, formats or logs them; they arrive as they were sent."""
    kafka.create_topic(names.kafka())
    payloads = [
        b"[" * 500_000, zlib.compress(bytes(50_000_000)), b"%s%n{0.__class__}" * 100, b"\r\nERROR forged\x1b[2J",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"", b"\0" * 1_000,
    ]  # fmt: skip
    with new_bridge(log_lvl="trace") as bridge:
        with Publisher(mosquitto.port) as publisher:
            for data in payloads:
                publisher.raw(names.mqtt("a"), data)
            publisher.wait_for_acknowledgements()
        records = read(kafka.bootstrap, [names.kafka()], len(payloads)).records
        assert [record.value for record in records] == payloads
        bridge.assert_balanced()
        assert "forged" not in bridge.log_path.read_text()


# ---- what a broker does


def test_the_keepalive_is_the_brokers_where_it_names_one(new_bridge):
    """P9: else it would take us for dead, and deliver again what was not acknowledged [MQTT-3.2.2-21]."""
    with ScriptedBroker() as broker:
        broker.script.refusals.append(SERVER_KEEP_ALIVE)
        with new_bridge(broker, mqtt_keepalive_sec=600):
            broker.wait_for_subscriptions(1)
            broker.wait_for(PINGREQ, 2)
            assert broker.connections == 1


def test_a_session_that_expired_while_we_were_away_is_said_and_counted(kafka, names, tmp_path, new_bridge):
    """What it held is lost, which no bridge can know; that it may have held something is said (P8)."""
    kafka.create_topic(names.kafka())
    with Mosquitto(tmp_path / "mosquitto") as broker, Publisher(broker.port) as publisher:
        bridge = new_bridge(broker, mqtt_session_expiry_sec=1)
        with bridge:
            publisher.publish_many([names.mqtt("a")], 100)
            read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
            assert bridge.total("connector_mqtt_sessions_lost_total") == 0
        wait_until(lambda: "Expiring client bridge-" in broker.log_path.read_text(), "the end of the session", 90)
        with bridge:
            assert bridge.total("connector_mqtt_sessions_lost_total") == 1
            assert "the MQTT broker had lost our session" in bridge.log_path.read_text()
            publisher.publish_many([names.mqtt("a")], 100)
            read(kafka.bootstrap, [names.kafka()], 200).assert_each_once_in_order(publisher.sent)


def test_a_quota_of_kafka_makes_it_slower_and_loses_nothing(mosquitto, kafka, names, new_bridge):
    """P1, P2, P3 and P5: what Kafka holds back is late, so it is stored and acknowledged; nothing is given up."""
    kafka.create_topic(names.kafka())
    command = [
        *kafka._java(), "kafka.admin.ConfigCommand", "--bootstrap-server", kafka.bootstrap, "--alter",
        "--add-config", "producer_byte_rate=100000", "--entity-type", "clients", "--entity-name", names.client_id,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with (
        new_bridge(kafka_compression="none", kafka_producer_config=f'{{"client.id": "{names.client_id}"}}') as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        publisher.publish_many([names.mqtt("a")], 1_500, size_bytes=1_000)
        read(kafka.bootstrap, [names.kafka()], 1_500).assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        assert bridge.total("connector_stored_total") > 0, "the quota was felt"
        bridge.assert_balanced()
