"""Messages that are larger than the whole table, and dead letters than all may be: no other message pays for them."""

from __future__ import annotations

import json
import os

from tests.support.oracle import read, wait_until
from tests.support.system import Bridge, Publisher

LIMIT_BYTES = 1_048_576


def test_a_message_larger_than_the_table_stops_no_other_route_while_kafka_is_away(mosquitto, names, tmp_path):
    """P5 and P8: nothing could make it safe, so it is dropped, counted and named; the others are stored."""
    mappings = [f"{names.mqtt('large/#')}:large", f"{names.mqtt('small/#')}:small"]
    with (
        Bridge(
            tmp_path / names.client_id, mosquitto.port, "127.0.0.1:9", ",".join(mappings),
            undelivered_max_bytes=LIMIT_BYTES,
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        for _ in range(3):
            publisher.raw(names.mqtt("large/a"), os.urandom(2 * LIMIT_BYTES))
            publisher.publish_many([names.mqtt("small/a"), names.mqtt("large/b")], 200)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 600, "600 stored messages")
        assert bridge.metrics()["connector_dropped_total"] == {(mappings[0], "larger_than_table"): 3}
        wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "everything to be acknowledged")
        assert not any("the table" in reason for reason in json.loads(bridge.get("/health/ready")[1])["reasons"])
        bridge.assert_balanced()
        log = bridge.log_path.read_text()
        assert f"a message of {2 * LIMIT_BYTES} bytes for {mappings[0]} is dropped" in log
        assert f"(its MQTT topic: '{names.mqtt('large/a')}')" in log
        assert "the table is full" not in log


def test_a_message_larger_than_the_table_is_delivered_while_kafka_takes_it(mosquitto, kafka, names, tmp_path):
    """P2 and P5: from memory, in its order, and several in a row wait for each other."""
    large, small = names.kafka("large"), names.kafka("small")
    kafka.create_topic(large, max_message_bytes=10_000_000)
    kafka.create_topic(small)
    with (
        Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap,
            f"{names.mqtt('large/#')}:{large},{names.mqtt('small/#')}:{small}", undelivered_max_bytes=LIMIT_BYTES,
            kafka_producer_config='{"message.max.bytes": 10000000}',
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        wanted = []
        for number in range(6):
            payload = b"%d" % number + os.urandom(2 * LIMIT_BYTES if number % 3 else 100)
            wanted.append(payload)
            publisher.raw(names.mqtt("large/a"), payload)
        publisher.publish_many([names.mqtt("small/a")], 100)
        read(kafka.bootstrap, [small], 100).assert_each_once_in_order(publisher.sent)
        assert [record.value for record in read(kafka.bootstrap, [large], 6).records] == wanted
        wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "everything to be acknowledged")
        assert bridge.total("connector_dropped_total") == 0
        bridge.assert_balanced()


def test_a_dead_letter_larger_than_their_budget_pushes_no_other_one_out(mosquitto, kafka, names, tmp_path):
    """P6 and P8: a tenth of the table; what can never be kept there is counted and named, and goes alone."""
    topic = names.kafka()
    kafka.create_topic(topic, max_message_bytes=90_000)
    with (
        Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{topic}",
            undelivered_max_bytes=LIMIT_BYTES,
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        publisher.raw(names.mqtt("a"), os.urandom(95_000))
        wait_until(lambda: bridge.total("connector_dead_letter_messages") == 1, "a dead letter")
        publisher.raw(names.mqtt("a"), os.urandom(300_000))
        wait_until(lambda: bridge.total("connector_dead_letters_dropped_total") == 1, "a dropped dead letter")
        assert bridge.total("connector_dead_letter_messages") == 1
        assert bridge.total("connector_dead_lettered_total") == 2
        assert "a dead letter of 300000 bytes" in bridge.log_path.read_text()
        wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "everything to be acknowledged")
        bridge.assert_balanced()


def test_large_messages_that_come_faster_than_kafka_takes_them_do_not_go_by_the_disk(mosquitto, kafka, names, tmp_path):
    """While Kafka confirms, Connector receives no faster than that."""
    topic = names.kafka()
    kafka.create_topic(topic)
    with (
        Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{topic}",
            store_after_ms=30_000,  # a machine that stands still would have some stored
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        wanted = [b"%d" % number + os.urandom(262_144) for number in range(400)]
        for payload in wanted:
            publisher.raw(names.mqtt("a"), payload)
        assert [record.value for record in read(kafka.bootstrap, [topic], len(wanted)).records] == wanted
        assert bridge.total("connector_stored_total") == 0
