"""The main job on real brokers: messages cross, wait while Kafka is away, and survive the bridge's death.

The numbers of messages and kills are those of the promises in docs/guarantees.md; the oracle reads Kafka only.
"""

from __future__ import annotations

import random
import threading
import time

import psutil
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.support.fault_proxy import FaultProxy
from tests.support.oracle import duplicates_allowed, read, wait_until
from tests.support.proxied_protocols import TO_SERVER
from tests.support.scripted_broker import PUBACK
from tests.support.system import Bridge, Publisher, wait_for_total
from tools.brokers import Kafka, Mosquitto


def test_100_000_messages_cross_each_once_in_order_with_their_bytes(mosquitto, kafka, names, tmp_path):
    """P1, P2, P3 and P8: every message once, in order, keys and headers right, and the accounts balance."""
    kafka.create_topic(names.kafka("a"), 3)
    kafka.create_topic(names.kafka("b"))
    topics = [names.mqtt(f"{area}/{device}") for area in ("a", "b") for device in range(25)]
    mappings = f"{names.mqtt('a/#')}:{names.kafka('a')},{names.mqtt('b/+')}:{names.kafka('b')}"
    with Bridge(tmp_path, mosquitto.port, kafka.bootstrap, mappings) as bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 100_000)
        oracle = read(kafka.bootstrap, [names.kafka("a"), names.kafka("b")], 100_000)

        oracle.assert_each_once_in_order(publisher.sent)
        ids = {record.headers["connector-id"] for record in oracle.records}
        assert len(ids) == 100_000
        for record in oracle.records:
            assert (record.headers["mqtt-qos"], record.headers["mqtt-retain"]) == (b"1", b"0")
            assert abs(time.time() * 1000 - record.timestamp_ms) < 120_000
        bridge.assert_balanced()
        wait_for_total(bridge, "connector_delivered_total", 100_000)  # it hears of the last ones after us, perhaps


@pytest.mark.slow
def test_kafka_is_away_for_20_seconds_and_nothing_is_lost_doubled_or_reordered(mosquitto, tmp_path, names):
    """P1, P2, P3, P6 and P8 through an outage, at 5,000 messages a second."""

    with (
        Kafka(tmp_path / "kafka") as kafka,
        Bridge(tmp_path / "bridge", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        kafka.create_topic("records", 3)
        topics = [names.mqtt(f"device/{number}") for number in range(20)]
        sender = threading.Thread(target=publisher.publish_many, args=(topics, 125_000, 5_000))
        sender.start()
        time.sleep(4)
        bridge.assert_balanced()
        memory_before = psutil.Process(bridge.pid).memory_info().rss
        kafka.kill()
        began = time.monotonic()
        # As long as a busy machine needs for so many.
        while time.monotonic() < began + 20 or bridge.total("connector_undelivered_messages") <= 50_000:
            assert time.monotonic() < began + 100, "50,000 messages"
            time.sleep(1)
            bridge.assert_balanced()
        memory_during = psutil.Process(bridge.pid).memory_info().rss
        assert bridge.get("/health/ready")[0] == 200, "Kafka being away is no reason to be unready"
        kafka.start()
        sender.join()
        oracle = read(kafka.bootstrap, ["records"], 125_000)

        oracle.assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()
        assert memory_during - memory_before < 80_000_000, "memory must not grow with the backlog"


def of_all(found, count):
    """Return what was found once it is all."""
    return found if len(found) == count else None


def test_50_000_messages_taken_while_kafka_is_down_survive_sigkill(mosquitto, tmp_path, names):
    """P1, P2 and P7: started without Kafka, killed, started again; no duplicate, as none was in flight."""

    kafka = Kafka(tmp_path / "kafka")
    proxy = FaultProxy(mosquitto.port)
    bridge = Bridge(tmp_path / "bridge", proxy.port, kafka.bootstrap, f"{names.mqtt('#')}:records")
    with proxy, bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt(str(number)) for number in range(10)], 50_000)
        wait_until(lambda: bridge.total("connector_store_seconds_count") == 50_000, "50,000 synced messages")
        # What is not acknowledged comes again, rightly.
        acknowledgements = wait_until(lambda: of_all(proxy.seen(TO_SERVER, PUBACK), 50_000), "50,000 acknowledgements")
        assert wait_until(lambda: all(frame.forwarded for frame in acknowledgements), "they are on the broker's side")
        bridge.kill()
        bridge.start()
        assert bridge.total("connector_recovered_total") == 50_000
        bridge.assert_balanced()
        with kafka:
            kafka.create_topic("records")
            oracle = read(kafka.bootstrap, ["records"], 50_000)

            oracle.assert_each_once_in_order(publisher.sent)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
            bridge.assert_balanced()


@pytest.mark.slow
@pytest.mark.parametrize("qos", [1, 2])
def test_ten_sigkills_under_load_lose_nothing(qos, tmp_path, names):
    """P1, P2 and P3 through crashes: nothing lost, in order, no more doubled than was in flight."""
    for name in ("mosquitto", "kafka", "bridge"):
        (tmp_path / name).mkdir()
    seed = random.randrange(1_000_000)
    print("seed", seed)
    moments = random.Random(seed)
    with (
        # Without it mosquitto holds small packets back for 40 ms, and QoS 2 has four a message.
        Mosquitto(tmp_path / "mosquitto", extra_configuration="set_tcp_nodelay true") as mosquitto,
        Kafka(tmp_path / "kafka") as kafka,
        Bridge(
            tmp_path / "bridge", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records", mqtt_qos=qos
        ) as bridge,
        Publisher(mosquitto.port, qos) as publisher,
    ):
        kafka.create_topic("records", 3)
        topics = [names.mqtt(str(number)) for number in range(10)]
        messages = 50_000 if qos == 1 else 20_000
        sender = threading.Thread(target=publisher.publish_many, args=(topics, messages, 3_000))
        sender.start()
        for _ in range(10):
            time.sleep(moments.uniform(0.5, 1.2))
            bridge.kill()
            bridge.start()
        sender.join()
        oracle = read(kafka.bootstrap, ["records"], publisher.sent, settle_seconds=2)

        oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(crashes=10, in_flight=1000))
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()


@pytest.mark.slow
def test_a_forbidden_topic_and_a_record_too_large_do_not_stop_the_others(mosquitto, tmp_path, names):
    """P5: one lane's trouble is its own; the record that Kafka will never take becomes a dead letter."""
    for name in ("kafka", "bridge"):
        (tmp_path / name).mkdir()
    mappings = ",".join(f"{names.mqtt(name)}:{name}" for name in ("good", "forbidden", "missing", "small"))
    with (
        Kafka(tmp_path / "kafka", acl=True) as kafka,
        Bridge(tmp_path / "bridge", mosquitto.port, kafka.bootstrap, mappings) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        for topic in ("good", "forbidden"):
            kafka.create_topic(topic)
        kafka.create_topic("small", 1, **{"max.message.bytes": 20_000})
        rule = AclBinding(
            ResourceType.TOPIC, "forbidden", ResourcePatternType.LITERAL, "User:ANONYMOUS", "*",
            AclOperation.WRITE, AclPermissionType.DENY,
        )  # fmt: skip
        admin = kafka.admin()
        for future in admin.create_acls([rule]).values():
            future.result(10)
        topics = [names.mqtt(name) for name in ("good", "forbidden", "missing", "small")]
        publisher.publish_many(topics, 4_000)
        publisher.raw(names.mqtt("small"), random.Random(1).randbytes(40_000))
        publisher.publish_many(topics, 4_000)

        good = read(kafka.bootstrap, ["good"], 2_000)
        good.assert_each_once_in_order({names.mqtt("good"): 2_000})
        small = read(kafka.bootstrap, ["small"], 2_000)
        small.assert_each_once_in_order({names.mqtt("small"): 2_000})
        wait_until(lambda: bridge.total("connector_dead_lettered_total") == 1, "one dead letter")
        for lane, reason in (("forbidden", "authoriz"), ("missing", "")):
            trouble = lambda lane=lane: bridge.status_page()["lanes"][lane]["trouble"]  # noqa: E731
            wait_until(lambda trouble=trouble, reason=reason: trouble() and reason in trouble().lower(), "a reason")
        bridge.assert_balanced()

        kafka.create_topic("missing")
        for future in admin.delete_acls([rule_filter(rule)]).values():
            future.result(10)
        read(kafka.bootstrap, ["forbidden"], 2_000).assert_each_once_in_order({names.mqtt("forbidden"): 2_000})
        read(kafka.bootstrap, ["missing"], 2_000).assert_each_once_in_order({names.mqtt("missing"): 2_000})
        bridge.assert_balanced()


def rule_filter(rule):
    """Return the filter that matches an access rule."""
    return AclBindingFilter(
        rule.restype, rule.name, rule.resource_pattern_type, rule.principal, rule.host, rule.operation,
        rule.permission_type,
    )  # fmt: skip


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_sigterm_with_kafka_down_loses_nothing_and_takes_less_than_ten_seconds(qos, mosquitto, tmp_path, names):
    """P10: all that was received before the stop is on disk, QoS 0 included."""

    kafka = Kafka(tmp_path / "kafka")
    bridge = Bridge(
        tmp_path / "bridge", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records", store_after_ms=60_000,
        mqtt_qos=qos,
    )  # fmt: skip
    with bridge, Publisher(mosquitto.port, qos) as publisher:
        publisher.publish_many([names.mqtt("a")], 300)
        wait_until(lambda: bridge.total("connector_received_total") == 300, "300 received messages")
        began = time.monotonic()
        bridge.stop()
        assert time.monotonic() - began < 10
        assert bridge.exit_status == 0
        with kafka:
            kafka.create_topic("records")
            bridge.start()
            read(kafka.bootstrap, ["records"], 300).assert_each_once_in_order(publisher.sent)
