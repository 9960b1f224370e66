"""Filters at which the broker closes the connection, requests that it does not answer, what it grants less; no Kafka.

The search itself is tried against a broker that is a loop; the worker against a scripted one, as no real one can be
made to do it.
"""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from types import SimpleNamespace

import paho.mqtt.client as paho
import pytest
from failing_worker import FailingBridge
from oracle import wait_until
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from scripted_broker import CONNECT, PUBACK, SUBSCRIBE, ScriptedBroker
from system import UnreadyBridge

from app.mqtt import forbidden as module
from app.mqtt.control_packets import ANY_PACKET_BYTES
from app.mqtt.forbidden import AGAIN_SECONDS, Forbidden
from app.mqtt.granted import Asked, of_connack, unusable
from app.mqtt.packet_sizes import parts_of_unsubscribe, subscribe_bytes
from app.mqtt.requests import ANSWER_SECONDS, Requests
from clients.brokers.process import HOST, free_port

LOG = logging.getLogger(__name__)
SHORT_WAITS = "app.mqtt.thread:SEARCH_PAUSE_SECONDS=0.1"


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def connections_until_it_stays(search, filters, closing, *, loses_answers=False, reason=0):
    """Connect again and again to a broker that closes at some filters; return how often until a connection stays."""
    for connection in range(1, 200):
        answered, outstanding = set(), search.to_ask_first(filters) or search.to_ask_next()
        while outstanding:
            guilty = next((name for name in outstanding if name in closing), None)
            before = outstanding if guilty is None else outstanding[: outstanding.index(guilty)]
            if guilty is not None and loses_answers:
                before = []  # a reset throws away what was not read
            for name in before:
                search.on_answered(name)
            answered.update(before)
            if guilty is not None:
                search.on_ended([name for name in outstanding if name not in before], reason=reason)
                break
            outstanding = search.to_ask_next()
        else:
            assert answered == set(filters) - set(closing)
            return connection
    raise AssertionError("no connection stays")


# ---- the search


@pytest.mark.parametrize(("loses_answers", "most"), [(False, 5), (True, 14)])
def test_one_forbidden_filter_among_hundreds_is_found_in_few_connections(loses_answers, most):
    """Invariant 5: and no other is left out with it."""
    filters = [f"plant/{number}/#" for number in range(300)]
    for guilty in (filters[0], filters[150], filters[299]):
        search = Forbidden(Clock())
        assert connections_until_it_stays(search, filters, {guilty}, loses_answers=loses_answers) <= most
        assert search.left_out == [guilty]


def test_several_forbidden_filters_are_all_found_and_nothing_else_is_left_out():
    """Any of them, whether the answers before arrive or not."""
    lots = random.Random(10)
    for _ in range(50):
        filters = [f"plant/{number}" for number in range(lots.randrange(1, 40))]
        closing = set(lots.sample(filters, min(len(filters), lots.randrange(1, 5))))
        search = Forbidden(Clock())
        connections_until_it_stays(search, filters, closing, loses_answers=lots.random() < 0.5)
        assert set(search.left_out) == closing


def test_with_a_reason_that_speaks_of_a_filter_each_step_takes_one_connection():
    """MQTT 5: DISCONNECT says that it is not authorized."""
    search = Forbidden(Clock())
    assert connections_until_it_stays(search, ["a", "b", "c"], {"b"}, reason=0x87) == 3
    assert search.left_out == ["b"]


def test_a_connection_that_ends_once_while_filters_are_asked_for_blames_none():
    """A restart of the broker, a network that is lost, a client that takes the session."""
    search = Forbidden(Clock())
    for _ in range(5):
        search.on_ended(search.to_ask_first(["a", "b"]))
        for name in search.to_ask_first(["a", "b"]):
            search.on_answered(name)
        search.on_ended([])
    assert (search.left_out, search.is_searching) == ([], False)
    for _ in range(5):
        search.on_ended(search.to_ask_first(["a", "b"]), reason=0x8B)  # it shuts down
    assert not search.is_searching


def test_what_is_left_out_is_tried_again_alone_and_ever_more_rarely():
    """Each try that fails interrupts all others: after ten minutes, 20, 40, and at most four hours."""
    clock = Clock()
    search = Forbidden(clock)
    connections_until_it_stays(search, ["a", "b", "c"], {"b", "c"})
    waits = []
    for _ in range(7):
        began = clock.now
        while not (tried := search.to_ask_next()):
            clock.now += 30
        waits.append(clock.now - began)
        assert len(tried) == 1
        search.on_ended(tried)
        assert search.to_ask_first(["a", "b", "c"]) == ["a"]
    assert waits == [600, 1200, 2400, 4800, 9600, 14400, 14400]
    clock.now += AGAIN_SECONDS[1]
    for _ in range(2):  # both rights are granted: the second is asked for as soon as the first is answered
        search.on_answered(search.to_ask_next()[0])
    assert search.left_out == []


def test_an_unsubscribe_that_ends_two_connections_waits():
    """Invariant 1: what is mapped flows meanwhile."""
    clock = Clock()
    search = Forbidden(clock)
    search.on_ended([], unsubscribing=True)
    assert search.may_unsubscribe
    search.on_ended([], unsubscribing=True)
    assert not search.may_unsubscribe
    clock.now += AGAIN_SECONDS[0]
    assert search.may_unsubscribe


# ---- deadlines


class Silent:
    """A client whose broker does not answer."""

    def __init__(self):
        self.number = 0

    def expect_answer(self, *_arguments):
        pass

    def subscribe(self, *_arguments, **_options):
        self.number += 1
        return 0, self.number


def test_time_without_an_answer_counts_only_while_the_socket_is_read(monkeypatch):
    """A table that is full stops the reading: that is no fault of the broker's."""
    clock = Clock()
    monkeypatch.setattr("app.mqtt.requests.time.monotonic", clock)
    requests = Requests(Silent())
    requests.subscribe("a", 1, version5=False, identifier=0)
    clock.now += ANSWER_SECONDS
    assert not requests.check_overdue(reading=False)
    assert not requests.check_overdue(reading=True)
    waits = []
    for _ in range(5):
        began = clock.now
        while not requests.check_overdue(reading=True):
            clock.now += 1
        waits.append(clock.now - began)
        requests.subscribe("a", 1, version5=False, identifier=0)
    assert waits == [10, 20, 40, 60, 60]
    assert requests.filters("SUBSCRIBE") == ["a"]
    assert requests.answered("SUBSCRIBE", 3) == ["a"]
    assert not requests, "what was asked for twice is answered by either"
    assert requests.answered("SUBSCRIBE", 1) == []


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
    """Invariant 5: the others flow; a restart of the worker tries it once; the right is granted later."""
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
            assert "has not answered SUBSCRIBE with QoS 2 to 'a', 'b/+'" in readiness(bridge)[1]
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


def test_a_broker_that_takes_no_acknowledgement_is_told_from_one_that_can_be_used():
    for size_bytes, said in (
        (1, "no packet of more than 1 bytes"),
        (3, "raise its limit"),
        (4, ""),
        (ANY_PACKET_BYTES, ""),
    ):
        found = unusable(SimpleNamespace(MaximumPacketSize=size_bytes), is_shared=False)
        assert said in found and bool(said) == bool(found)


def test_packets_are_as_long_as_they_are_said_to_be():
    """Held against what paho writes."""
    filters = ["a", "b" * 121, "c" * 40, "ä" * 60, "d" * 16_400, "e", "f" * 60_000]
    for identifier in (0, 1, 127, 128, 16_384, 268_435_455):
        for name in filters:
            assert written(subscribe=(name, identifier)) == subscribe_bytes(name, identifier)
    for most_bytes in (1, 8, 20, 130, 131, 16_500, 70_000, ANY_PACKET_BYTES):
        parts = list(parts_of_unsubscribe(filters, most_bytes))
        assert [name for part in parts for name in part] == filters
        assert all(len(part) == 1 or written(unsubscribe=part) <= most_bytes for part in parts)
        for part, following in pairwise(parts):
            assert written(unsubscribe=[*part, following[0]]) > most_bytes


def written(*, subscribe=None, unsubscribe=()):
    """Return how many bytes paho makes of a packet."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    if subscribe is None:
        client._send_unsubscribe(False, [name.encode() for name in unsubscribe])
    else:
        properties = Properties(PacketTypes.SUBSCRIBE)
        if subscribe[1]:
            properties.SubscriptionIdentifier = subscribe[1]
        client._send_subscribe(False, [(subscribe[0].encode(), SubscribeOptions(1))], properties)
    return len(client._out_packet.popleft()["packet"])


def test_a_connack_that_grants_all_says_nothing():
    """Absent properties mean what was asked for, and all features; so with MQTT 3.1.1."""
    assert of_connack(Asked(3600, 30), ["a/#", "b"], object()) == []
    assert module.ENDS_TO_LEAVE_OUT == 2
