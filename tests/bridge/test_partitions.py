"""In which partition a key falls: where producers in Java put it, so that records of both can be joined."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.oracle import read
from tests.support.system import KAFKA_AWAY, Publisher

PARTITIONS = 12
PRODUCER = Path(__file__).resolve().parents[1] / "support" / "KeyedProducer.java"
LEVELS = [
    "",
    "a",
    "A",
    " ",
    "0",
    "temperature",
    "Füllstand",
    "温度",
    "x" * 300,
    *(f"line-{number}" for number in range(30)),
]


def by_java(kafka, topic, keys):
    """Write records with Kafka's client for Java; return the partitions of each key."""
    command = [*kafka._java(), str(PRODUCER), kafka.bootstrap, topic]
    lines = "".join(f"{key}\n" for key in keys)
    done = subprocess.run(command, input=lines.encode(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return partitions(kafka, topic, len(keys))


def partitions(kafka, topic, count):
    """Return the partitions in which the records of each key are."""
    found = {}
    for record in read(kafka.bootstrap, [topic], count).records:
        found.setdefault(record.key, set()).add(record.partition)
    return found


def test_a_key_goes_where_java_puts_it_and_an_empty_key_is_a_key(kafka, mosquitto, names, new_bridge):
    """P2: also from the table, where half of the messages wait before Kafka can be reached."""
    ours, javas = names.kafka(), names.kafka("java")
    for topic in (ours, javas):
        kafka.create_topic(topic, PARTITIONS)
    expected = by_java(kafka, javas, LEVELS)
    assert len(expected[b""]) == 1
    topics = [f"{names.mqtt('k')}/{level}" for level in LEVELS]
    level = topics[0].count("/") + 1
    bridge = new_bridge(kafka=KAFKA_AWAY, record_key=f"{{{level}}}", store_after_ms=0)
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 2 * len(topics))
    bridge.settings["KAFKA_BROKER"] = kafka.bootstrap
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 2 * len(topics))
        assert partitions(kafka, ours, 4 * len(topics)) == expected


@pytest.mark.parametrize(("partitioner", "spread"), [("murmur2_random", True), ("murmur2", False)])
def test_records_without_a_key_are_spread_unless_the_partitioner_knows_no_chance(
    partitioner, spread, kafka, mosquitto, names, new_bridge
):
    kafka.create_topic(names.kafka(), PARTITIONS)
    settings = {"record_key": "", "kafka_partitioner": partitioner}
    with new_bridge(**settings) as bridge, Publisher(mosquitto.port) as publisher:
        assert bridge.running
        for _ in range(30):
            publisher.publish_many([names.mqtt("a")], 20)
        found = partitions(kafka, names.kafka(), 600)
    assert list(found) == [None]
    assert (len(found[None]) > 1) == spread
