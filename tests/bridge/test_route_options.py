"""What the routes of ROUTES_FILE have besides, between real brokers: QoS, tombstones, times, dead letters, room."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.oracle import read, wait_until
from tests.support.system import Publisher

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "routes.md").read_text(encoding="utf-8")
NOWHERE = "127.0.0.1:1"
randbytes = random.Random(7).randbytes  # nothing makes them smaller

NO_LISTS = {"topic_list": "", "wildcard_topic_list": ""}


def routes_file(tmp_path: Path, names, text: str) -> Path:
    """Write a file of routes, in which MQTT and KAFKA stand for names of the test."""
    path = tmp_path / "routes.yaml"
    path.write_text("routes:\n" + text.replace("MQTT", names.mqtt("options")).replace("KAFKA", names.kafka("options")))
    path.chmod(0o644)
    return path


def configure(kafka, topic: str, name: str, value: int) -> None:
    """Change a setting of a Kafka topic."""
    entry = ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
    admin = kafka.admin()  # until the answer is there
    changes = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
    for future in admin.incremental_alter_configs(changes).values():
        future.result(10)


def example(title: str) -> str:
    """Return the routes of an example of docs/routes.md."""
    found = re.search(rf"^### {re.escape(title)}\n.*?^```yaml\nroutes:\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_each_route_is_subscribed_to_with_its_own_qos(mosquitto, kafka, names, tmp_path, new_bridge):
    """A message comes with the QoS of its subscription at most; the third route has that of MQTT_QOS."""
    topic = names.kafka("options")
    kafka.create_topic(topic)
    file = routes_file(
        tmp_path,
        names,
        "  - {name: often, from: MQTT/often, to: KAFKA, qos: 0}\n"
        "  - {name: once, from: MQTT/once, to: KAFKA, qos: 2}\n"
        "  - {name: usual, from: MQTT/usual, to: KAFKA}\n",
    )
    with new_bridge(**NO_LISTS, routes_file=file) as bridge, Publisher(mosquitto.port, qos=2) as publisher:
        for what in ("often", "once", "usual"):
            publisher.publish(names.mqtt(f"options/{what}"))
        records = read(kafka.bootstrap, [topic], 3).records
        found = {record.headers["mqtt-topic"].decode().rpartition("/")[2]: record.headers for record in records}
        assert {what: headers["mqtt-qos"] for what, headers in found.items()} == {
            "often": b"0", "once": b"2", "usual": b"1",
        }  # fmt: skip
        wait_until(lambda: bridge.total("connector_delivered_total") == 3, "all confirmed")
        assert not bridge.status_page()["mqtt"]["granted"]


def test_the_last_value_of_each_device_is_deleted_by_its_tombstone_through_an_outage_and_a_restart(
    mosquitto, kafka, names, tmp_path, new_bridge
):
    """The example of docs/routes.md, its file changed at the restart: what is stored is what it was resolved to.

    A tombstone that goes nowhere is a dead letter, and one in DEAD_LETTER_TOPIC too.
    """
    topic, letters = names.kafka("options"), names.kafka("letters")
    kafka.create_topic(topic, cleanup_policy="compact")
    kafka.create_topic(letters)
    text = example("The last value of each device").replace("devices/", "MQTT/").replace("device-states", "KAFKA")
    nowhere = text.replace("{device}/state", "{site}/gone").replace("states", "gone").replace("KAFKA", "KAFKA.{site}")
    file = routes_file(tmp_path, names, text + nowhere.replace('"{device}"', "a"))
    settings = {**NO_LISTS, "routes_file": file, "dead_letter_topic": letters}
    with Publisher(mosquitto.port) as publisher:
        with new_bridge(kafka=NOWHERE, **settings) as bridge:
            publisher.raw(names.mqtt("options/d1/state"), b"on")
            publisher.raw(names.mqtt("options/d1/state"), b"")
            publisher.raw(names.mqtt("options//gone"), b"")
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 3, "all stored")
            wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "all acknowledged")
            bridge.kill()
        file.write_text(file.read_text().replace("tombstone", "value"))
        with new_bridge(**settings) as bridge:
            publisher.raw(names.mqtt("options/d2/state"), b"")
            records = read(kafka.bootstrap, [topic], 3).records
            assert [(record.key, record.value) for record in records] == [(b"d1", b"on"), (b"d1", None), (b"d2", b"")]
            assert records[1].headers["mqtt-topic"] == names.mqtt("options/d1/state").encode()
            (letter,) = read(kafka.bootstrap, [letters], 1).records
            assert (letter.value, letter.headers["dead-letter-reason"]) == (None, b"illegal_kafka_topic")
            bridge.assert_balanced()


def test_the_dead_letters_of_a_route_go_to_a_topic_of_their_own(mosquitto, kafka, names, tmp_path, new_bridge):
    """P5 and P8: those of the others go to DEAD_LETTER_TOPIC; each can be refused there, and is kept then."""
    topic, own, usual = (names.kafka(name) for name in ("options", "own", "usual"))
    kafka.create_topic(topic, max_message_bytes=1000)
    kafka.create_topic(own)
    kafka.create_topic(usual, max_message_bytes=1000)
    file = routes_file(
        tmp_path,
        names,
        f"  - {{name: own, from: MQTT/own, to: KAFKA, dead_letter_topic: {own}}}\n"
        "  - {name: usual, from: MQTT/usual, to: KAFKA}\n",
    )
    with (
        new_bridge(**NO_LISTS, routes_file=file, dead_letter_topic=usual) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        for what in ("own", "usual"):
            publisher.raw(names.mqtt(f"options/{what}"), randbytes(5000) + what.encode())
            publisher.publish(names.mqtt(f"options/{what}"))
        assert len(read(kafka.bootstrap, [topic], 2).records) == 2
        (record,) = read(kafka.bootstrap, [own], 1).records
        assert record.value.endswith(b"own") and record.headers["dead-letter-reason"] == b"too_large"
        letters = {("own", "too_large"): 1, ("usual", "too_large"): 1}
        wait_until(lambda: bridge.metrics()["connector_dead_lettered_total"] == letters, "both dead letters")
        assert bridge.status_page()["table"]["dead_letters"] == 1, "DEAD_LETTER_TOPIC did not take the other one"
        bridge.assert_balanced()


def with_time(time_ms: int | str) -> Properties:
    """Return the properties of a PUBLISH whose device says a time."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("time", str(time_ms))]
    return properties


def test_records_have_the_times_of_their_devices_through_an_outage_and_a_restart_and_no_device_holds_up_the_others(
    mosquitto, kafka, names, tmp_path, new_bridge
):
    """The example of docs/routes.md. Kafka refuses the last time but one, as its topic takes no old ones any more."""
    topic = names.kafka("options")
    kafka.create_topic(topic)
    text = example("Devices' own time").replace("meters/", "MQTT/").replace("meter-values", "KAFKA")
    file = routes_file(tmp_path, names, text)
    began_ms = int(time.time() * 1000)
    times = {"good": began_ms - 3_600_000, "seconds": began_ms // 1000, "wrong": "noon", "ahead": began_ms + 86_400_000}
    with Publisher(mosquitto.port) as publisher:
        with new_bridge(kafka=NOWHERE, **NO_LISTS, routes_file=file) as bridge:
            publisher.raw(names.mqtt("options/stored"), b"stored", properties=with_time(began_ms - 7))
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 1, "it is stored")
            wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "it is acknowledged")
            bridge.kill()
        file.write_text(file.read_text().replace("property time", "received"))
        with new_bridge(**NO_LISTS, routes_file=file) as bridge:
            wait_until(lambda: bridge.total("connector_delivered_total") == 1, "what was stored")
        file.write_text(file.read_text().replace("received", "property time"))
        with new_bridge(**NO_LISTS, routes_file=file) as bridge:
            for meter, value in times.items():
                publisher.raw(names.mqtt(f"options/{meter}"), meter.encode(), properties=with_time(value))
            publisher.raw(names.mqtt("options/none"), b"none")
            wait_until(lambda: bridge.total("connector_delivered_total") == 5, "all confirmed")
            configure(kafka, topic, "message.timestamp.before.max.ms", 60_000)
            publisher.raw(names.mqtt("options/old"), b"old", properties=with_time(began_ms - 120_000))
            publisher.raw(names.mqtt("options/new"), b"new", properties=with_time(began_ms - 9))
            records = {record.key.decode(): record for record in read(kafka.bootstrap, [topic], 8).records}
            assert list(records) == ["stored", *times, "none", "old", "new"], "in order"
            own = {key for key, record in records.items() if "connector-received" in record.headers}
            assert own == {"stored", "good", "new"}
            assert [records[key].timestamp_ms for key in ("stored", "good", "new")] == [
                began_ms - 7, times["good"], began_ms - 9,
            ]  # fmt: skip
            assert all(record.timestamp_ms >= began_ms for key, record in records.items() if key not in own)
            assert int(records["good"].headers["connector-received"]) >= began_ms
            assert records["good"].headers["mqtt-user-time"] == str(times["good"]).encode()
            assert bridge.metrics()["connector_kafka_refusals_total"]["INVALID_TIMESTAMP",] > 0, "Kafka refused one"
            replaced = {
                reason: count for (_, reason), count in bridge.metrics()["connector_timestamps_replaced_total"].items()
            }
            assert replaced == {"unreadable": 2, "out_of_range": 1, "missing": 1}
            bridge.assert_balanced()


def test_a_route_loses_its_oldest_messages_above_its_limit_and_the_others_lose_nothing(
    mosquitto, kafka, names, tmp_path, new_bridge
):
    """P6 and P8: with `block`, in an outage of Kafka in which the table has no room for all; through a kill as well."""
    limited, other = names.kafka("options.limited"), names.kafka("options.other")
    kafka.create_topic(limited)
    kafka.create_topic(other)
    file = routes_file(
        tmp_path,
        names,
        "  - {name: limited, from: MQTT/limited, to: KAFKA.limited, drop_oldest_above: 1MiB}\n"
        "  - {name: other, from: MQTT/other, to: KAFKA.other}\n",
    )
    topics = [names.mqtt(f"options/{what}") for what in ("limited", "other")]
    settings = {**NO_LISTS, "routes_file": file, "undelivered_max_bytes": 6_000_000}
    with Publisher(mosquitto.port) as publisher:
        with new_bridge(kafka=NOWHERE, **settings) as bridge:
            wait_until(lambda: bridge.total("connector_mqtt_connected") == 1, "its subscriptions")
            publisher.publish_many(topics, 6_000, size_bytes=1_000)
            wait_until(lambda: bridge.total("connector_received_total") == 6_000, "all received: the table is not full")
            wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "all stored")
            dropped = bridge.metrics()["connector_dropped_total"]
            assert set(dropped) == {("limited", "route_full")}
            kept = 3_000 - int(dropped["limited", "route_full"])
            assert 300 < kept < 3_000 and bridge.metrics()["connector_undelivered_messages"]["limited",] == kept
            assert bridge.log_path.read_text().count("route limited: it takes more of the table") == 1
            bridge.assert_balanced()
            bridge.kill()
        with new_bridge(**settings) as bridge:
            numbers = read(kafka.bootstrap, [limited, other], kept + 3_000).numbers()
            newest = range(3_000 - kept + 1, 3_000)
            assert numbers[topics[0]] == [0, *newest], "what librdkafka had, and the newest, in order"
            assert numbers[topics[1]] == list(range(3_000))
            bridge.assert_balanced()
