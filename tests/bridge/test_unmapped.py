"""Messages that come under a topic which no route matches: a scripted broker does what rewriting brokers do.

Kafka is away: what belongs to a mapping waits in the table, under the mapping's name.
"""

from __future__ import annotations

import os

import pytest

from tests.bridge.test_start import run, said
from tests.support.oracle import wait_until
from tests.support.scripted_broker import PUBACK, ScriptedBroker
from tests.support.system import KAFKA_AWAY, Bridge


def bridge_with(tmp_path, broker, names, *levels, **settings):
    mappings = ",".join(f"{names.mqtt(level)}:{names.kafka()}" for level in levels)
    settings = {"mqtt_client_id": names.client_id, **settings}
    return Bridge(tmp_path / "bridge", broker.port, KAFKA_AWAY, mappings, **settings)


def waiting(bridge, names):
    """Return how many messages wait for Kafka, by the filter of their mapping, below the test's topic."""
    ending = f":{names.kafka()}"
    found = bridge.metrics()["connector_undelivered_messages"].items()
    return {
        route.removeprefix(f"{names.prefix}/").removesuffix(ending): int(count) for (route,), count in found if count
    }


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_what_comes_under_a_topic_that_no_mapping_matches_is_kept_and_can_be_retried_once_one_does(
    version, names, tmp_path
):
    """P8: with an identifier it belongs to the mapping; without, it is a dead letter; nothing is dropped."""
    carries = version == "5"
    with ScriptedBroker() as broker:
        broker.script.session_present = True
        with bridge_with(tmp_path, broker, names, "a.d", mqtt_version=version) as bridge:
            (made,) = broker.wait_for_subscriptions(1)
            how = {"subscriptions": (made.identifier,)} if carries else {}
            broker.publish(names.mqtt("a/b"), b"rewritten", 1, 1, **how)
            broker.publish(names.mqtt("b/c"), b"unmapped", 1, 2)
            broker.publish(names.mqtt("a.d"), b"plain", 1, 3, **how)
            broker.wait_for(PUBACK, 3)
            mapped, unmapped = (2, 1) if carries else (1, 2)
            wait_until(lambda: bridge.total("connector_dead_lettered_total") == unmapped, "the dead letters")
            wait_until(lambda: waiting(bridge, names) == {"a.d": mapped}, "the messages of the mapping")
            assert set(bridge.metrics()["connector_dead_lettered_total"]) >= {("unmapped", "unmapped")}
            assert bridge.total("connector_dropped_total") == 0
            bridge.assert_balanced()
            listed = run(bridge, "dead-letters", "list")
            assert f"unmapped  (no route)  '{names.mqtt('b/c')}'" in said(listed)
            refused = run(bridge, "dead-letters", "retry")
            assert refused.returncode == 1, said(refused)
            assert "no route matches the MQTT topic" in said(refused)
            log = bridge.log_path.read_text()
            first = names.mqtt("b/c" if carries else "a/b")
            assert f"becomes a dead letter: unmapped, MQTT topic '{first}' (no route matches it" in log
        refused = run(bridge, "dead-letters", "retry")
        assert "no route matches the MQTT topic" in said(refused), "without a worker as well"
        with bridge_with(tmp_path, broker, names, "a.d", "b/+", mqtt_version=version) as bridge:
            assert "1 dead letters are sent once more" in said(run(bridge, "dead-letters", "retry"))
            wait_until(lambda: waiting(bridge, names) == {"a.d": mapped, "b/+": 1}, "the message at its mapping")
            bridge.assert_balanced()


def test_what_comes_for_a_filter_that_was_removed_is_dropped_as_it_is_wanted_no_more(names, tmp_path):
    """P8: the broker's queue may hold much of it."""
    with ScriptedBroker() as broker:
        with bridge_with(tmp_path, broker, names, "kept", "old/+"):
            old = {found.topic_filter: found.identifier for found in broker.wait_for_subscriptions(2)}
        broker.script.session_present = True
        with bridge_with(tmp_path, broker, names, "kept") as bridge:
            broker.wait_for_subscriptions(1, connection=1)
            broker.publish(names.mqtt("old/x"), b"1", 1, 1, subscriptions=(old[names.mqtt("old/+")],))
            broker.publish(names.mqtt("rewritten"), b"2", 1, 2, subscriptions=(old[names.mqtt("old/+")],))
            broker.publish(names.mqtt("old/x"), b"3", 1, 3)
            broker.wait_for(PUBACK, 3)
            assert bridge.metrics()["connector_dropped_total"]["unmapped", "unmapped"] == 3
            assert bridge.total("connector_dead_lettered_total") == 0
            bridge.assert_balanced()


def test_a_filter_that_was_removed_and_added_again_has_a_new_identifier_and_its_old_copies_are_kept(names, tmp_path):
    """P4: what the broker queued when it was the only one has no other copy."""
    first, second = names.mqtt("a/b"), names.mqtt("a/+")
    with ScriptedBroker() as broker:
        for number, levels in enumerate((["a/b"], ["a/b", "a/+"], ["a/+"], ["a/b", "a/+"])):
            with bridge_with(tmp_path, broker, names, *levels) as bridge:
                made = {it.topic_filter: it.identifier for it in broker.wait_for_subscriptions(len(levels), number)}
                if number == 0:
                    old = made[first]
                if number < 3:
                    wait_until(lambda: bridge.get("/health/ready")[0] == 200, "what the broker answered")
                    broker.script.session_present = True
                    continue
                assert made[first] != old
                broker.publish(first, b"alone", 1, 1, subscriptions=(old,))
                broker.publish(first, b"both", 1, 2, subscriptions=(made[first],))
                broker.publish(first, b"both", 1, 3, subscriptions=(made[second],))
                broker.wait_for(PUBACK, 3)
                assert waiting(bridge, names) == {"a/b": 2}, "alone and both"
                bridge.assert_balanced()


def test_a_flood_of_what_no_mapping_matches_pushes_out_no_message_that_kafka_refused(kafka, names, tmp_path):
    """P6 and P8: what a broker sends by mistake has half of the dead letters' room, and is counted beyond."""
    topic = names.kafka()
    kafka.create_topic(topic, max_message_bytes=20_000)
    mapping = f"{names.mqtt('a')}:{topic}"
    with (
        ScriptedBroker() as broker,
        Bridge(
            tmp_path / "bridge", broker.port, kafka.bootstrap, mapping, mqtt_client_id=names.client_id,
            undelivered_max_bytes=1_048_576,
        ) as bridge,
    ):  # fmt: skip
        broker.wait_for_subscriptions(1)
        broker.publish(names.mqtt("a"), os.urandom(25_000), 1, 1)
        wait_until(lambda: bridge.total("connector_dead_letter_messages") == 1, "the record that is too large")
        for number in range(100):
            broker.publish(names.mqtt("b"), bytes(5_000), 1, 2 + number)
        broker.wait_for(PUBACK, 101)
        listed = said(run(bridge, "dead-letters", "list"))
        assert "too_large" in listed
        assert "unmapped" in listed
        kept, dropped = (bridge.total(f"connector_dead_letter{name}") for name in ("_messages", "s_dropped_total"))
        assert kept + dropped == 101
        assert 0 < kept < 12
        assert "messages that no route matches are dropped" in bridge.log_path.read_text()
        bridge.assert_balanced()
