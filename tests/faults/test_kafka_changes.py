"""Kafka changes under traffic: rights, topics and partitions come and go; and an outage longer than its own limits."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

from app.kafka.producer_defaults import BASE_CONFIGURATION
from tests.support.oracle import Verdict, parse, read, wait_until
from tests.support.system import Bridge, Publisher, Traffic, wait_for_total
from tools.brokers import Kafka


def wait_for_an_empty_table(bridge):
    wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
    wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "nothing in flight")
    bridge.assert_balanced()


def rule(kind, name, operation, permission):
    """Return an access rule for everybody."""
    return AclBinding(kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission)


# Without a rule for the cluster everybody may do everything there, with one nobody; the tests change these rules.
ALL_ELSE = rule(ResourceType.BROKER, "kafka-cluster", AclOperation.ALL, AclPermissionType.ALLOW)
NO_RIGHTS = [
    rule(ResourceType.TOPIC, "*", AclOperation.WRITE, AclPermissionType.DENY),
    # An idempotent producer needs this one, or to write to some topic, before anything else.
    rule(ResourceType.BROKER, "kafka-cluster", AclOperation.IDEMPOTENT_WRITE, AclPermissionType.DENY),
]


def take_rights(admin):
    for future in admin.create_acls([ALL_ELSE, *NO_RIGHTS]).values():
        future.result(10)


def give_rights(admin):
    filters = [
        AclBindingFilter(
            taken.restype, taken.name, taken.resource_pattern_type, taken.principal, taken.host, taken.operation,
            taken.permission_type,
        )
        for taken in NO_RIGHTS
    ]  # fmt: skip
    for future in admin.delete_acls(filters).values():
        future.result(10)


def test_without_any_right_to_write_everything_waits_and_flows_once_it_is_granted(mosquitto, names, tmp_path):
    """P2, P3, P5 and P8: an idempotent producer without rights fails for good; it is replaced, calmly."""
    with (
        Kafka(tmp_path / "kafka", acl=True) as kafka,
        Bridge(tmp_path / "bridge", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        kafka.create_topic("records")
        admin = kafka.admin()
        take_rights(admin)
        bridge.restart()
        process = bridge.pid
        with Traffic(publisher, names.prefix):
            wait_until(lambda: bridge.status_page()["lanes"]["records"]["trouble"], "a reason why the lane waits")
            wait_until(lambda: bridge.total("connector_undelivered_messages") > 3_000, "3,000 stored messages")
            assert bridge.total("connector_delivered_total") == 0
            assert bridge.get("/health/ready")[0] == 200
            log = bridge.log_path.read_text()
            assert "Cluster authorization failed" in log
            assert log.count("the Kafka producer failed for good and is replaced") < 20, "not again and again at once"
            give_rights(admin)
            bridge.wait_for_progress(3_000)
            take_rights(admin)
            wait_until(lambda: bridge.status_page()["lanes"]["records"]["trouble"], "a reason why the lane waits")
            stored = bridge.total("connector_undelivered_messages")
            wait_until(lambda: bridge.total("connector_undelivered_messages") > stored + 1_000, "stored messages")
            give_rights(admin)
            bridge.wait_for_progress(1_000)
        assert bridge.pid == process
        assert "the lane records flows again" in bridge.log_path.read_text()
        oracle = read(kafka.bootstrap, ["records"], sum(publisher.sent.values()))
        oracle.assert_each_once_in_order(publisher.sent)
        wait_for_an_empty_table(bridge)


def test_a_topic_that_is_deleted_and_created_again_goes_on_without_a_gap(mosquitto, kafka, names, tmp_path):
    """P2, P3, P5 and P8: what the old topic did not confirm is in the new one, once and in order."""
    topic = names.kafka()
    kafka.create_topic(topic)
    with (
        Bridge(tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{topic}") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        with Traffic(publisher, names.prefix):
            bridge.wait_for_progress()
            admin = kafka.admin()
            admin.delete_topics([topic])[topic].result(10)
            wait_until(lambda: bridge.status_page()["lanes"][topic]["trouble"], "a reason why the lane waits")
            wait_until(lambda: bridge.total("connector_undelivered_messages") > 1_000, "1,000 stored messages")
            kafka.create_topic(topic)
            bridge.wait_for_progress(2_000)
        sent = publisher.sent
        # The table is empty as well while the MQTT broker has not sent all of it yet.
        wait_for_total(bridge, "connector_delivered_total", sum(sent.values()))
        wait_for_an_empty_table(bridge)
    records = wait_until(lambda: sum(ends(kafka, topic)), "the end of the topic")
    for mqtt_topic, numbers in read(kafka.bootstrap, [topic], records).numbers().items():
        assert numbers == list(range(numbers[0], sent[mqtt_topic])), "consecutive, once, up to the last"


def ends(kafka, topic):
    """Return how many records each partition of a topic has had; none while not all of them have a leader."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "offsets", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1] for number in partitions]
    except KafkaException:
        return []
    finally:
        consumer.close()


def test_partitions_that_are_added_are_used_and_nothing_is_lost(mosquitto, kafka, names, tmp_path):
    """P1, P2 and P3: keys move to other partitions; within each one the order stays."""
    topic = names.kafka()
    kafka.create_topic(topic)
    with (
        Bridge(tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{topic}") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        with Traffic(publisher, names.prefix):
            bridge.wait_for_progress()
            admin = kafka.admin()
            admin.create_partitions([NewPartitions(topic, 8)])[topic].result(10)
            # It is librdkafka that asks for a topic's partitions from time to time.
            wait_until(lambda: sum(end > 0 for end in ends(kafka, topic)) > 1, "records in new partitions")
            bridge.wait_for_progress()
        sent = publisher.sent
        oracle = read(kafka.bootstrap, [topic], sum(sent.values()))
        verdict = oracle.verdict(sent)
        assert verdict == Verdict(reordered=verdict.reordered), "the reader mixes the partitions"
        wait_for_an_empty_table(bridge)
    found = {}
    for record in oracle.records:
        mqtt_topic, number = parse(record.value)
        found.setdefault((mqtt_topic, record.partition), []).append(number)
    assert all(numbers == sorted(numbers) for numbers in found.values())
    assert len({partition for _, partition in found}) > 1


@pytest.mark.slow
def test_no_message_is_given_up_in_an_outage_of_40_seconds(mosquitto, names, tmp_path, request):
    """P1, P2, P3 and P8: no record has a time limit, where librdkafka's own one is 5 minutes.

    To see more than these pass: `--outage-seconds 330 -o timeout=900`.
    """
    outage_seconds = request.config.getoption("--outage-seconds")
    with (
        Kafka(tmp_path / "kafka") as kafka,
        Bridge(
            tmp_path / "bridge", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records", log_lvl="debug",
            kafka_producer_config='{"debug": "conf"}',
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        kafka.create_topic("records")
        with Traffic(publisher, names.prefix):
            bridge.wait_for_progress()
            kafka.kill()
            began = time.monotonic()
            assert BASE_CONFIGURATION["message.timeout.ms"] == 0
            assert "message.timeout.ms = " in bridge.log_path.read_text(), "librdkafka has it from there"
            while time.monotonic() < began + outage_seconds:
                bridge.assert_balanced()
                trouble = bridge.status_page()["lanes"]["records"]["trouble"]
                assert trouble in ("", "Kafka is not reachable"), "no message failed"
                time.sleep(1)
            waiting = int(bridge.total("connector_undelivered_messages"))
            kafka.start()
            bridge.wait_for_progress(waiting)
        oracle = read(kafka.bootstrap, ["records"], sum(publisher.sent.values()))
        oracle.assert_each_once_in_order(publisher.sent)
        wait_for_an_empty_table(bridge)
