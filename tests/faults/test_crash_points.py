"""The worker kills itself at named places; what is repeated afterwards is predicted exactly, and nothing is lost.

Messages come one at a time, so that the place is reached by a message whose number is known. librdkafka waits before it
sends (`linger.ms`), so that what was only handed to it is certainly not in Kafka.
"""

from __future__ import annotations

import contextlib

import pytest

from tables import piece_keys
from tests.support.figures import note
from tests.support.oracle import Oracle, read, wait_until
from tests.support.stored_messages import opened
from tests.support.system import Bridge, Publisher
from tools.brokers import ProcessError

BEFORE, AFTER = 4, 5  # messages before the one at which it dies, and while it is dead
LAZY_PRODUCER = '{"linger.ms": 300}'
# Where it is handed more before it reaches the place, and has to reach that before these are sent.
LAZIER_PRODUCER = '{"linger.ms": 1500}'


def start_to_die(bridge: Bridge, place: str) -> None:
    """Start a worker that will kill itself, perhaps before it is ready."""
    bridge.settings["CONNECTOR_CRASH_POINT"] = place
    with contextlib.suppress(ProcessError):
        bridge.start()


def wait_for_death(bridge: Bridge) -> None:
    """Wait until it has killed itself, and clean up."""
    wait_until(lambda: not bridge.running, "a worker that killed itself")
    bridge.stop()
    assert bridge.exit_status == -9
    note("SIGKILL")
    del bridge.settings["CONNECTOR_CRASH_POINT"]


def publish_past(place: str, bridge: Bridge, publisher: Publisher, topic: str, done: str) -> None:
    """Publish one message after the other, each when the one before is `done`; then some while the worker is dead."""
    start_to_die(bridge, f"{place}:{BEFORE + 1}")
    for number in range(BEFORE + 1):
        publisher.publish(topic)
        publisher.wait_for_acknowledgements()
        wait_until(lambda count=number + 1: not bridge.running or bridge.total(done) >= count, f"{number + 1} {done}")
    wait_for_death(bridge)
    publisher.publish_many([topic], AFTER)


def judge(bridge: Bridge, bootstrap: str, topic: str, publisher: Publisher, duplicated: int) -> Oracle:
    """Let everything drain, and compare with the prediction."""
    oracle = read(bootstrap, [topic], BEFORE + 1 + AFTER + duplicated)
    assert oracle.assert_nothing_lost(publisher.sent, duplicated).duplicated == duplicated
    wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
    bridge.assert_balanced()
    return oracle


@pytest.mark.parametrize(
    ("place", "qos", "duplicated"),
    [
        ("after-receive", 1, 0),
        ("after-route", 1, 0),
        ("after-produce", 1, 0),
        ("before-reports", 1, 1),
        ("before-acknowledgement", 1, 1),
        ("after-acknowledgement", 1, 0),
        ("before-acknowledgement", 2, 1),
        ("before-completion", 2, 0),
    ],
)
def test_a_crash_on_the_way_to_kafka_repeats_only_what_kafka_has_and_mqtt_does_not_know(
    place, qos, duplicated, mosquitto, kafka, names, tmp_path
):
    """P1 and P3: before Kafka has it the message comes again, after the acknowledgement it does not."""
    kafka.create_topic(names.kafka())
    bridge = Bridge(
        tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}",
        mqtt_qos=qos, store_after_ms=60_000, kafka_producer_config=LAZY_PRODUCER,
    )  # fmt: skip
    with Publisher(mosquitto.port, qos) as publisher:
        publish_past(place, bridge, publisher, names.mqtt("a"), "connector_delivered_total")
        with bridge:
            judge(bridge, kafka.bootstrap, names.kafka(), publisher, duplicated)


@pytest.mark.parametrize(
    ("place", "qos", "duplicated"),
    [
        ("before-write", 1, 0),
        ("after-write", 1, 1),  # a SIGKILL leaves what was written, synced or not; a power cut would not
        ("after-sync", 1, 1),
        ("after-acknowledgement", 1, 0),
        ("before-write", 2, 0),
        ("after-write", 2, 0),  # the packet identifier is stored with the message
        ("after-sync", 2, 0),
        ("before-completion", 2, 0),
    ],
)
def test_a_crash_on_the_way_to_the_disk_repeats_only_what_the_disk_has_and_mqtt_does_not_know(
    place, qos, duplicated, mosquitto, kafka, names, tmp_path
):
    """P1 and P3: the topic is missing, so every message is stored; QoS 2 repeats none of them."""
    bridge = Bridge(
        tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}", mqtt_qos=qos, store_after_ms=0
    )
    with Publisher(mosquitto.port, qos) as publisher:
        publish_past(place, bridge, publisher, names.mqtt("a"), "connector_store_seconds_count")
        kafka.create_topic(names.kafka())
        with bridge:
            judge(bridge, kafka.bootstrap, names.kafka(), publisher, duplicated)


def test_a_crash_between_the_pieces_of_a_payload_and_its_entry_leaves_nothing_of_them_and_repeats_nothing(
    mosquitto, kafka, names, tmp_path
):
    """P1 and P3: the message was not acknowledged, comes again, and its pieces are written anew."""
    bridge = Bridge(
        tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}", mqtt_qos=2, store_after_ms=0
    )
    with Publisher(mosquitto.port, 2) as publisher:
        start_to_die(bridge, "after-pieces:1")
        for size_bytes in (1_500_000, 3_000_000, 100):
            publisher.publish(names.mqtt("a"), size_bytes)
        wait_for_death(bridge)
        with bridge:
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 3, "stored messages")
            held_bytes = bridge.total("connector_undelivered_bytes")
            kafka.create_topic(names.kafka(), max_message_bytes=10_000_000)
            oracle = read(kafka.bootstrap, [names.kafka()], 3)
            oracle.assert_nothing_lost(publisher.sent, 0)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
            bridge.assert_balanced()
    assert 4_500_000 < held_bytes < 4_510_000
    with opened(tmp_path / "data") as table:
        assert not list(table.data.with_prefix(piece_keys.PIECE))


@pytest.mark.parametrize(
    ("place", "duplicated"),
    [("after-produce", 0), ("before-reports", 1), ("before-remove", 1), ("after-remove", 0)],
)
def test_a_crash_while_the_table_drains_repeats_only_what_it_had_not_removed_and_under_the_same_id(
    place, duplicated, mosquitto, kafka, names, tmp_path
):
    """P1, P2 and P3: what Kafka has and the table still holds is sent again with the `connector-id` it had."""
    bridge = Bridge(
        tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}",
        store_after_ms=0, kafka_producer_config=LAZIER_PRODUCER,
    )  # fmt: skip
    with Publisher(mosquitto.port) as publisher:
        with bridge:
            publisher.publish_many([names.mqtt("a")], BEFORE + 1)
            wait_until(lambda: bridge.total("connector_store_seconds_count") == BEFORE + 1, "stored messages")
            publisher.publish_many([names.mqtt("a")], AFTER)
            wait_until(lambda: bridge.total("connector_store_seconds_count") == BEFORE + 1 + AFTER, "stored messages")
        kafka.create_topic(names.kafka())
        start_to_die(bridge, f"{place}:1")
        wait_for_death(bridge)
        with bridge:
            oracle = judge(bridge, kafka.bootstrap, names.kafka(), publisher, duplicated)
    identifiers = {record.headers["connector-id"] for record in oracle.records}
    assert len(identifiers) == BEFORE + 1 + AFTER


def test_an_unknown_place_is_refused_with_the_list_of_places(mosquitto, names, tmp_path):
    """Bad input gets a clear error; nothing was connected."""
    bridge = Bridge(tmp_path, mosquitto.port, "127.0.0.1:1", f"{names.mqtt('#')}:a", connector_crash_point="nowhere:1")
    with pytest.raises(ProcessError, match="ended with status 2"):
        bridge.start()
    assert "'nowhere' is no place; there are after-receive, " in bridge.log_path.read_text()
