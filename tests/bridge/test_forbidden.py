"""Filters at which the broker closes the connection: a worker against a scripted broker, as no real one can be made to
do it. No Kafka.
"""

from __future__ import annotations

import pytest

from tests.support.failing_worker import FailingBridge
from tests.support.oracle import wait_until
from tests.support.scripted_broker import CONNECT, PUBACK, SUBSCRIBE, ScriptedBroker
from tests.support.system import UnreadyBridge
from tools.brokers.process import HOST, free_port

SHORT_WAITS = "app.mqtt.thread:SEARCH_PAUSE_SECONDS=0.1"


# ---- the worker


def bridge_of(tmp_path, broker, mappings, constants=SHORT_WAITS, **settings):
    """Return a bridge to a scripted broker, not started; it counts as started when it lives."""
    bridge = FailingBridge(
        tmp_path / "bridge", broker.port, f"{HOST}:{free_port()}", mappings, constants=constants, **settings
    )
    bridge.ready = lambda: UnreadyBridge.ready(bridge)
    return bridge


def log_of(bridge):
    return bridge.log_path.read_text()


def readiness(bridge):
    return bridge.get("/health/ready")


def assert_it_flows(broker, topic, identifier=7, connection=None):
    """Fail unless a message is taken."""
    broker.publish(topic, b"flows", 1, identifier)
    broker.wait_for(PUBACK, connection=connection)


def filters_of_last_connection(broker):
    """Return what was subscribed to on it, some of it perhaps twice: an identifier may have to be renewed."""
    return {each.topic_filter for each in broker.subscriptions if each.connection == broker.connections - 1}


@pytest.mark.parametrize(("version", "reason"), [("5", 0x87), ("3.1.1", 0)])
def test_a_filter_at_which_the_broker_closes_the_connection_is_left_out_and_named(version, reason, tmp_path):
    """P5: the others flow; a restart of the worker tries it once; the right is granted later."""
    mappings = "a:records,b:records,c/+:records"
    with ScriptedBroker(closing_filters={"b": reason}) as broker:
        bridge = bridge_of(tmp_path, broker, mappings, mqtt_version=version)
        with bridge:
            wait_until(lambda: "filter 'b': it is left out" in log_of(bridge), "its name")
            broker.script.session_present = True
            wait_until(lambda: broker.connected and "'b'" not in readiness(bridge)[1], "a connection")
            wait_until(lambda: filters_of_last_connection(broker) == {"a", "c/+"}, "the others")
            assert_it_flows(broker, "a")
            assert readiness(bridge)[0] == 503
            assert "refused the filter b: it closes the connection" in readiness(bridge)[1]
            assert "does another client use the client id" not in log_of(bridge)
            why = "Not authorized" if reason else "the broker or the network closed it, without a reason"
            assert f"the connection to the MQTT broker ended: {why}" in log_of(bridge)
            connections = broker.connections
            assert connections <= 6
            bridge.stop()
            broker.script.closing_filters.clear()
            bridge.start()
            wait_until(lambda: readiness(bridge)[0] == 200, "the right that was granted")
            assert broker.subscriptions[-1].topic_filter == "b", "it comes last, when all others are answered"
            assert broker.connections == connections + 1


def test_a_broker_that_never_answers_subscribe_makes_the_worker_not_ready_and_is_named(tmp_path):
    """Ready is said after SUBACK; what is not answered is asked for again, with QoS 1 in the end."""
    short = "app.mqtt.requests:ANSWER_SECONDS=1"
    with ScriptedBroker(unanswered_qos=2) as broker:
        bridge = bridge_of(tmp_path, broker, "a:records,b/+:records", short, mqtt_qos=2, mqtt_keepalive_sec=5)
        with bridge:
            broker.wait_for(SUBSCRIBE, 2)
            assert readiness(bridge)[0] == 503
            unanswered = "has not answered SUBSCRIBE with QoS 2 to 'a', 'b/+'"
            wait_until(lambda: unanswered in readiness(bridge)[1], unanswered)
            wait_until(lambda: "try MQTT_QOS=1" in log_of(bridge), "the sentence that says what to do")
            wait_until(lambda: readiness(bridge)[0] == 200, "QoS 1")
            assert "QoS 1 is asked for, as QoS 2 is not answered; set MQTT_QOS=1" in log_of(bridge)
            assert [each["granted"] for each in bridge.status_page()["mqtt"]["granted"]] == ["1"]
            assert broker.connections == 1, "messages of other filters may flow there"
            assert_it_flows(broker, "a")


def test_a_suback_that_never_comes_is_waited_for_and_said_while_messages_flow(tmp_path):
    """The page does not say that all is well, and nothing that comes is lost."""
    short = "app.mqtt.requests:ANSWER_SECONDS=1"
    with ScriptedBroker(answers_subscribe=False) as broker:
        bridge = bridge_of(tmp_path, broker, "a:records", short)
        with bridge:
            broker.wait_for(SUBSCRIBE, 2)
            found = bridge.status_page()["findings"][0]
            assert (found["level"], "has not answered SUBSCRIBE" in found["text"]) == ("trouble", True)
            assert_it_flows(broker, "a")
            broker.script.answers_subscribe = True
            wait_until(lambda: readiness(bridge)[0] == 200, "the answer to a later try")
            assert len(broker.received(CONNECT)) == 1


def test_what_the_broker_grants_less_is_said_with_both_values(tmp_path):
    """Session expiry and keepalive in CONNACK, QoS in SUBACK; once for a connection."""
    less = b"\x11\x00\x00\x0e\x10\x13\x00\x3c\x25\x00"  # expiry 3600 s, keepalive 60 s, no retained messages
    with ScriptedBroker(connack_properties=less, refused_filters={"a": 0}) as broker:
        bridge = bridge_of(tmp_path, broker, "a:records,b:records")
        with bridge:
            wait_until(lambda: readiness(bridge)[0] == 200, "a bridge that is ready")
            shown = {each["what"]: (each["asked"], each["granted"]) for each in bridge.status_page()["mqtt"]["granted"]}
            assert shown == {
                "session expiry": ("604800 s", "3600 s"), "keepalive": ("30 s", "60 s"),
                "retained messages": ("yes", "no"), "for 'a' QoS": ("1", "0"),
            }  # fmt: skip
            assert log_of(bridge).count("grants less than was asked for") == 1
            assert "session expiry 3600 s instead of 604800 s" in log_of(bridge)
            assert bridge.total("connector_mqtt_connections_total") == 1


def test_filters_with_wildcards_are_not_asked_for_where_the_broker_has_none(tmp_path):
    """It would be a protocol error, which ends the connection for all."""
    with (
        ScriptedBroker(connack_properties=b"\x28\x00") as broker,
        bridge_of(tmp_path, broker, "a:records,b/+:records") as bridge,
    ):
        wait_until(lambda: "no wildcard subscriptions" in readiness(bridge)[1], "the reason")
        assert_it_flows(broker, "a")
        assert [each.topic_filter for each in broker.subscriptions] == ["a"]


def test_nothing_is_sent_that_is_longer_than_the_broker_takes(tmp_path):
    """It would end the connection for all: a filter that is too long is left out, and named with both numbers."""
    long_filter = "a-filter/" + "x" * 40
    with (
        ScriptedBroker(connack_properties=b"\x27\x00\x00\x00\x10") as broker,
        bridge_of(tmp_path, broker, f"a:records,b:records,{long_filter}:records") as bridge,
    ):
        wait_until(lambda: "no packet of more than 16 bytes" in readiness(bridge)[1], "the reason")
        assert f"the filter {long_filter}: it accepts no packet" in readiness(bridge)[1]
        assert "SUBSCRIBE for this has 62; raise the limit of the broker" in readiness(bridge)[1]
        assert_it_flows(broker, "a")
        assert [each.topic_filter for each in broker.subscriptions] == ["a", "b"]
        assert len(broker.received(CONNECT)) == 1
