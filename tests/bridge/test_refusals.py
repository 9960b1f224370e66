"""What a real Kafka refuses: records that are too large, too old or without a key; and what is done by hand."""

from __future__ import annotations

import random

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.bridge.test_kafka import run
from tests.bridge.test_sessions import wait_for_a_direct_lane
from tests.support.mock_kafka import MockKafka
from tests.support.oracle import payload, read, wait_until
from tests.support.scripted_broker import ScriptedBroker
from tests.support.system import Bridge, Publisher, wait_for_total

MEBIBYTE = 1024 * 1024
OLDEST_MS = 1500
FLOOD_MESSAGES = 20_000


def incompressible(size_bytes: int) -> bytes:
    return random.Random(1).randbytes(size_bytes)


def configure(kafka, topic: str, name: str, value: int) -> None:
    """Change a setting of a Kafka topic."""
    entry = ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
    changes = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
    admin = kafka.admin()  # until the answer is there
    for future in admin.incremental_alter_configs(changes).values():
        future.result(10)


def dead_reasons(bridge: Bridge) -> dict[str, float]:
    """Return how many dead letters there are for each reason."""
    return {reason: count for (_, reason), count in bridge.metrics()["connector_dead_lettered_total"].items()}


def lane(bridge: Bridge, topic: str) -> dict:
    return bridge.status_page()["lanes"][topic]


# ---- too large, without a key


def test_a_record_larger_than_a_segment_is_a_dead_letter_and_those_behind_it_flow(mosquitto, kafka, names, new_bridge):
    """Code 18: what `max.message.bytes` would allow is larger than `segment.bytes`."""
    kafka.create_topic(names.kafka(), 1, **{"segment.bytes": MEBIBYTE, "max.message.bytes": 10 * MEBIBYTE})
    with (
        new_bridge(kafka_compression="none") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.raw(names.mqtt("large"), incompressible(2 * MEBIBYTE))
        publisher.wait_for_acknowledgements()
        publisher.publish_many([names.mqtt("a")], 10)
        read(kafka.bootstrap, [names.kafka()], 10).assert_each_once_in_order(publisher.sent)
        wait_until(lambda: dead_reasons(bridge) == {"too_large": 1}, "the dead letter, which is written meanwhile")
        assert bridge.metrics()["connector_kafka_refusals_total"]["RECORD_LIST_TOO_LARGE",] >= 1
        log = bridge.log_path.read_text()
        assert f"becomes a dead letter: too_large, MQTT topic '{names.mqtt('large')}' (Broker:" in log
        assert "(18). Raise segment.bytes of the topic and retry the dead letter" in log
        wait_until(lambda: not lane(bridge, names.kafka())["trouble"], "a lane that flows")
        bridge.assert_balanced()


def test_a_topic_that_takes_nothing_at_all_keeps_its_messages_and_no_other_lane(mosquitto, kafka, names, new_bridge):
    """`max.message.bytes=0` is legal, also after a start; what waits is neither lost nor a dead letter."""
    odd, even = names.kafka("odd"), names.kafka("even")
    kafka.create_topic(odd, 1, **{"max.message.bytes": 0})
    kafka.create_topic(even, 1)
    mappings = f"{names.mqtt('odd')}:{odd},{names.mqtt('even')}:{even}"
    with (
        new_bridge(mappings=mappings, invoke_latency_sec=0.5) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("even")], 10)
        wait_until(lambda: f"each record for {odd} (0 bytes) goes alone" in bridge.log_path.read_text(), "its limit")
        publisher.publish_many([names.mqtt("odd"), names.mqtt("even")], 100)
        wait_until(lambda: "takes no record at all" in lane(bridge, odd)["trouble"], "the lane's trouble")
        wait_until(lambda: bridge.total("connector_delivered_total") == 60, "what goes to the other topic")
        assert dead_reasons(bridge) == {}
        configure(kafka, odd, "max.message.bytes", 100_000)
        read(kafka.bootstrap, [odd, even], 110).assert_each_once_in_order(publisher.sent)
        bridge.assert_balanced()
    assert bridge.exit_status == 0


def test_a_compacted_topic_refuses_records_without_a_key_one_by_one(mosquitto, kafka, names, new_bridge):
    """Code 87, said of whole batches too; messages of the other topic flow meanwhile."""
    compacted, ordinary = names.kafka("compacted"), names.kafka("ordinary")
    kafka.create_topic(compacted, 1, **{"cleanup.policy": "compact"})
    kafka.create_topic(ordinary)
    mappings = f"{names.mqtt('c')}:{compacted},{names.mqtt('o')}:{ordinary}"
    with (
        new_bridge(mappings=mappings, record_key="") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("c"), names.mqtt("o")], 100)
        wait_until(lambda: dead_reasons(bridge) == {"invalid_record": 50}, "fifty dead letters")
        assert read(kafka.bootstrap, [ordinary], 50).numbers() == {names.mqtt("o"): list(range(50))}
        bridge.assert_balanced()


# ---- too old


def flow_in_time(bridge: Bridge, publisher: Publisher, kafka, names) -> None:
    """Publish until the last record keeps its time of receipt; on a busy machine it may be too old when it arrives."""

    def in_time():
        publisher.publish_many([names.mqtt("a")], 50)
        sent = sum(publisher.sent.values())
        wait_for_total(bridge, "connector_delivered_total", sent)
        last = read(kafka.bootstrap, [names.kafka()], sent).records[-1]
        return "connector-received" not in last.headers

    wait_until(in_time, "a record with its time of receipt")


def test_records_that_grew_too_old_in_an_outage_arrive_in_order_with_the_current_time(
    mosquitto, proxied_kafka, names, new_bridge
):
    """Code 32: none is lost or doubled, each old one has its time of receipt in a header, and the lane flows again."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka(), 1, **{"message.timestamp.before.max.ms": OLDEST_MS})
    with (
        new_bridge(kafka=proxy.address) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        flow_in_time(bridge, publisher, kafka, names)
        before = sum(publisher.sent.values())
        proxy.refuse()
        publisher.publish_many([names.mqtt("a")], 600, rate=200)
        proxy.pass_everything()
        wait_for_total(bridge, "connector_delivered_total", before + 600)
        wait_until(lambda: not lane(bridge, names.kafka())["behind"], "a direct lane")
        flow_in_time(bridge, publisher, kafka, names)
        oracle = read(kafka.bootstrap, [names.kafka()], sum(publisher.sent.values()))
        oracle.assert_each_once_in_order(publisher.sent)
        bridge.assert_balanced()
    old = [record for record in oracle.records[before:] if "connector-received" in record.headers]
    assert len(old) >= 100
    assert all(record.timestamp_ms - int(record.headers["connector-received"]) >= OLDEST_MS / 4 for record in old)


# ---- by hand


def test_the_first_message_of_a_waiting_lane_is_moved_by_hand_and_the_others_flow(mosquitto, kafka, names, new_bridge):
    """The head alone, by the name of its lane; what it is told says which message, and the rest arrives in order."""
    late, there = names.kafka("late"), names.kafka("there")
    kafka.create_topic(there)
    mappings = f"{names.mqtt('late')}:{late},{names.mqtt('there')}:{there}"
    with (
        new_bridge(mappings=mappings) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("late"), names.mqtt("there")], 40)
        wait_for_total(bridge, "connector_delivered_total", 20)
        # Before that the reason may be that Kafka has not answered yet.
        wait_until(lambda: lane(bridge, late)["trouble"], "a reason why it waits")
        wait_until(lambda: not lane(bridge, there)["behind"], "the other lane, which waits no more")
        refused = run(bridge, "dead-letters", "move", there)
        assert refused.returncode == 1
        assert f"nothing is moved: the lane {there} does not wait" in refused.stderr
        assert f"Lanes that wait: {late}" in refused.stderr
        moved = run(bridge, "dead-letters", "move", late)
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert f"moved out of the lane {late}: a message of 100 bytes from '{names.mqtt('late')}'" in moved.stdout
        wait_until(lambda: dead_reasons(bridge) == {"moved_by_operator": 1}, "a dead letter")
        listed = run(bridge, "dead-letters", "list").stdout
        assert listed.split()[0] in moved.stdout
        bridge.assert_balanced()
        kafka.create_topic(late)
        assert read(kafka.bootstrap, [late], 19).numbers() == {names.mqtt("late"): list(range(1, 20))}
        assert run(bridge, "dead-letters", "retry").returncode == 0
        assert read(kafka.bootstrap, [late], 20).numbers() == {names.mqtt("late"): [*range(1, 20), 0]}
        bridge.assert_balanced()
    without = run(bridge, "dead-letters", "move", late)
    assert without.returncode == 1
    assert "no worker runs" in without.stderr


def test_a_lane_whose_records_the_client_tries_by_itself_is_not_touched(names, new_bridge):
    """NOT_ENOUGH_REPLICAS: Kafka may have the record already, so moving it could double it."""
    with MockKafka() as kafka, ScriptedBroker() as broker:
        kafka.create_topics([names.kafka()])
        with new_bridge(broker, kafka) as bridge:
            broker.wait_for_subscriptions(1)
            broker.publish(names.mqtt("a"), payload(names.mqtt("a"), 0))
            wait_for_total(bridge, "connector_delivered_total", 1)
            kafka.answer({names.kafka(): 19}, 40)
            broker.publish(names.mqtt("a"), payload(names.mqtt("a"), 1))
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 1, "a stored message")
            done = run(bridge, "dead-letters", "move", names.kafka())
            assert done.returncode == 1
            assert "its records are with the Kafka client, which tries them itself" in done.stderr
            assert bridge.total("connector_dead_lettered_total") == 0


# ---- the topic of dead letters


def test_a_dead_letter_that_its_topic_refuses_too_is_retried_to_its_own_topic(mosquitto, kafka, names, new_bridge):
    """It stays in the table with its first reason; after the cause is mended a retry delivers it as it was."""
    topic, graveyard = names.kafka(), names.kafka("dead")
    kafka.create_topic(topic, 1, **{"max.message.bytes": 20_000})
    kafka.create_topic(graveyard, 1, **{"max.message.bytes": 20_000})
    data = incompressible(50_000)
    with (
        new_bridge(dead_letter_topic=graveyard) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.raw(names.mqtt("large"), data)
        wait_for_total(bridge, "connector_dead_letter_messages", 1)
        assert f"too_large  {topic}  " in run(bridge, "dead-letters", "list").stdout
        configure(kafka, topic, "max.message.bytes", 200_000)
        assert run(bridge, "dead-letters", "retry").returncode == 0
        (record,) = read(kafka.bootstrap, [topic], 1).records
        assert record.value == data
        assert not [name for name in record.headers if name.startswith("dead-letter")]
        wait_for_total(bridge, "connector_dead_letter_messages", 0)
        assert read(kafka.bootstrap, [graveyard], 0).records == []
        bridge.assert_balanced()


# ---- how many messages may be restored at once


def test_a_flood_is_not_stored_because_few_messages_may_be_restored_at_once(mosquitto, kafka, names, new_bridge):
    """INVOKE_MAX_GOROUTINE and INVOKE_MIN_GOROUTINE bound what comes from the table, by whichever name they are set."""
    kafka.create_topic(names.kafka())
    limits = {"replay_max_in_flight": 1000, "invoke_min_goroutine": 50, "store_after_ms": 20_000}
    with (
        new_bridge(**limits) as bridge,
        Publisher(mosquitto.port, qos=0) as publisher,
    ):
        # Until it is learned what the topic takes, its lane has one record at a time, and stores what is behind it.
        before = wait_for_a_direct_lane(bridge, publisher, names.mqtt("a"))
        stored = bridge.total("connector_stored_total")
        publisher.publish_many([names.mqtt("a")], FLOOD_MESSAGES)
        wait_for_total(bridge, "connector_delivered_total", before + FLOOD_MESSAGES)
        assert bridge.total("connector_stored_total") - stored < FLOOD_MESSAGES / 20
        bridge.assert_balanced()
