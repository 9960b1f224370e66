"""The session at the broker: through restarts of the broker and of the bridge, and with a rival of the same name."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.support.oracle import Verdict, duplicates_allowed, read, wait_until
from tests.support.other_brokers import HiveMQ
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

WINDOW = 100
RIVALRY_SECONDS = 5


def wait_for_a_direct_lane(bridge, publisher, topic):
    """Publish until messages go to Kafka without being stored, and thus acknowledged, on the way; return how many."""

    def passed():
        stored = bridge.total("connector_stored_total")
        publisher.publish_many([topic], 100)
        wait_for_total(bridge, "connector_delivered_total", sum(publisher.sent.values()))
        return bridge.total("connector_stored_total") == stored

    wait_until(passed, "100 messages that are not stored")
    return sum(publisher.sent.values())


def one_route(kafka, names):
    """Create the test's Kafka topic and return a mapping to it."""
    kafka.create_topic(names.kafka())
    return f"{names.mqtt('#')}:{names.kafka()}"


@pytest.mark.parametrize("qos", [1, 2])
def test_a_broker_that_is_restarted_with_a_full_queue_loses_nothing_it_acknowledged(qos, kafka, names, tmp_path):
    """P1, P2 and P3: it stops in order, keeps queue and window, and doubles no more than the window."""
    with (
        # Without it mosquitto holds small packets back for 40 ms, and QoS 2 has four a message.
        Mosquitto(tmp_path / "mosquitto", extra_configuration="set_tcp_nodelay true") as broker,
        Bridge(
            tmp_path / "bridge", broker.port, kafka.bootstrap, one_route(kafka, names), store_after_ms=60_000,
            mqtt_receive_maximum=WINDOW, mqtt_qos=qos,
        ) as bridge,
    ):  # fmt: skip
        with Publisher(broker.port, qos) as publisher:
            topics = [names.mqtt(str(device)) for device in range(5)]
            before = wait_for_a_direct_lane(bridge, publisher, topics[0])
            with frozen(kafka):
                publisher.publish_many(topics, 5_000)
                wait_until(lambda: bridge.total("connector_received_total") >= before + WINDOW, "a full window")
                broker.stop()
                wait_until(lambda: bridge.total("connector_mqtt_connected") == 0, "the end of the connection")
                # mosquitto 2.0.11 sends more than the receive maximum at times.
                unacknowledged = int(bridge.total("connector_received_total")) - before
                assert unacknowledged < 5_000, "the rest is in the broker's queue"
                broker.start()
        oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
        oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(connections_lost=1, window=unacknowledged))
        if qos == 2:
            assert oracle.duplicates() == 0, "what awaits PUBREL is known over the connection's end"
        assert "session resumed" in bridge.log_path.read_text()
        assert bridge.total("connector_mqtt_sessions_lost_total") == 0
        bridge.assert_balanced()


def test_a_broker_that_is_killed_without_persistence_costs_its_queue_and_nothing_else(kafka, names, tmp_path):
    """P1, P3 and P9: what was received arrives, once, although nobody can be told so any more."""
    with (
        Mosquitto(tmp_path / "mosquitto", persistence=False) as broker,
        Bridge(
            tmp_path / "bridge", broker.port, kafka.bootstrap, one_route(kafka, names), store_after_ms=60_000,
            mqtt_receive_maximum=WINDOW,
        ) as bridge,
    ):  # fmt: skip
        topic = names.mqtt("a")
        with Publisher(broker.port) as publisher:
            before = wait_for_a_direct_lane(bridge, publisher, topic)
            sent = publisher.sent
            with frozen(kafka):
                # Faster, and mosquitto 2.0.11 may send more than Receive Maximum.
                publisher.publish_many([topic], 1_000, 2_000)
                wait_for_total(bridge, "connector_received_total", before + WINDOW)
                broker.kill()
                wait_until(lambda: bridge.get("/health/ready")[0] == 503, "unready without a broker")
                broker.start()
                wait_until(lambda: bridge.get("/health/ready")[0] == 200, "the new session")
                assert bridge.total("connector_mqtt_sessions_lost_total") == 1
        with Publisher(broker.port) as publisher:
            publisher.sent = sent
            # Retained, so that it does not matter whether it comes before the subscription.
            publisher.publish(topic, retain=True)
            wait_for_total(bridge, "connector_delivered_total", before + WINDOW + 1)
            publisher.publish_many([topic], 1_000)
        oracle = read(kafka.bootstrap, [names.kafka()], before + WINDOW + 1_001)
        assert oracle.verdict(sent) == Verdict(lost=1_000 - WINDOW)
        assert oracle.numbers()[topic] == [*range(before + WINDOW), *range(before + 1_000, before + 2_001)]
        bridge.assert_balanced()


@pytest.mark.parametrize(("version", "connections"), [("5", 1), ("3.1.1", 4)])
def test_retained_messages_come_once_however_often_the_session_is_resumed(version, connections, kafka, names, tmp_path):
    """P3: after a restart of the bridge, its death, and a restart of the broker.

    With MQTT 3.1.1 a filter is asked for again on the first day of its subscription, which brings them each time.
    """
    with Mosquitto(tmp_path / "mosquitto", extra_configuration=LOGS_ALL) as broker:
        with Publisher(broker.port) as publisher:
            for device in range(20):
                publisher.publish(names.mqtt(str(device)), retain=True)
            publisher.wait_for_acknowledgements()
        bridge = Bridge(
            tmp_path / "bridge", broker.port, kafka.bootstrap, one_route(kafka, names), mqtt_version=version
        )
        with bridge:
            wait_for_total(bridge, "connector_delivered_total", 20)
            again = 20 if connections > 1 else 0
            bridge.restart()
            wait_for_total(bridge, "connector_delivered_total", again)
            wait_until_acknowledged(broker, 20 + again)
            broker.save()
            bridge.kill()
            bridge.start()
            wait_for_total(bridge, "connector_delivered_total", again)
            wait_until_acknowledged(broker, 20 + 2 * again)
            broker.restart()
            wait_until(lambda: bridge.log_path.read_text().count("session resumed") == 3, "the third resumed session")
            wait_for_total(bridge, "connector_delivered_total", 2 * again)
            with Publisher(broker.port) as publisher:
                publisher.publish(names.mqtt("after"))
                oracle = read(kafka.bootstrap, [names.kafka()], 20 * connections + 1)
                retained = [record.headers["mqtt-retain"] for record in oracle.records]
                assert retained == [b"1"] * 20 * connections + [b"0"]
            wait_for_total(bridge, "connector_received_total", 2 * again + 1)
            bridge.assert_balanced()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_that_resumes_a_session_from_before_the_newest_mapping_is_subscribed_to_again(version, tmp_path):
    """P1: mosquitto saves sessions every half hour; killed before, it has not the filter that was added."""
    nobody = f"127.0.0.1:{free_port()}"
    with Mosquitto(tmp_path / "mosquitto", extra_configuration="autosave_interval 1800") as broker:
        bridge = Bridge(tmp_path / "bridge", broker.port, nobody, "old:records", mqtt_version=version)
        with bridge, contextlib.ExitStack() as stack:
            broker.save()
            bridge.stop()
            bridge.settings["TOPIC_LIST"] = "old:records,new:records"
            bridge.start()
            for times in (1, 2):  # also while the worker lives
                broker.kill()
                broker.start()
                resumed = 1 + times
                wait_until(
                    lambda resumed=resumed: bridge.log_path.read_text().count("session resumed") == resumed,
                    "the session of before",
                )
                wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a bridge that is ready")
                publisher = stack.enter_context(Publisher(broker.port))
                publisher.publish("new")
                wait_for_total(bridge, "connector_undelivered_messages", times)


@pytest.mark.parametrize(
    ("kind", "explanation"),
    [
        (Mosquitto, "does another client use the client id"),  # it closes without a word; the third time is telling
        (HiveMQ, "another client connected to the MQTT broker with our client id"),
    ],
    ids=["mosquitto", "hivemq"],
)
def test_two_bridges_with_one_client_id_say_so_and_lose_nothing(kind, explanation, kafka, names, tmp_path):
    """P1: they take the session from each other ever more rarely; when one goes, the other has it."""
    mapping = one_route(kafka, names)
    settings = {"mqtt_client_id": names.client_id}
    with (
        kind(tmp_path / "broker") as broker,
        UnreadyBridge(tmp_path / "first", broker.port, kafka.bootstrap, mapping, **settings) as first,
        Publisher(broker.port) as publisher,
    ):
        wait_until(lambda: first.get("/health/ready")[0] == 200, "the first bridge's session")
        second = UnreadyBridge(tmp_path / "second", broker.port, kafka.bootstrap, mapping, **settings)
        with second:
            began = time.monotonic()
            publisher.publish_many([names.mqtt("a")], 1_000)
            wait_until(lambda: explanation in first.log_path.read_text() + second.log_path.read_text(), "a log line")
            wait_until(lambda: time.monotonic() > began + RIVALRY_SECONDS, "some rivalry")
            logs = first.log_path.read_text() + second.log_path.read_text()
            connections = logs.count("connected to the MQTT broker, session")
            assert connections <= 14, (
                "pauses of 1, 2 and 4 seconds, each cut by half at most, between those of a bridge"
            )
        wait_until(lambda: first.get("/health/ready")[0] == 200, "the first bridge's session", 90)
        publisher.publish_many([names.mqtt("a")], 1_000)
        oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
        # Both write at the same time, so the order between them is not one that anybody promised.
        assert oracle.lost(publisher.sent) == 0
        assert oracle.duplicates() <= duplicates_allowed(connections_lost=connections)
        first.assert_balanced()
