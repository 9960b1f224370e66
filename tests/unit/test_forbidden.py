"""Filters at which the broker closes the connection, requests that it does not answer, what it grants less.

The search is tried against a broker that is a loop.
"""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from types import SimpleNamespace

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from app.mqtt import forbidden as module
from app.mqtt.control_packets import ANY_PACKET_BYTES
from app.mqtt.endings import Endings
from app.mqtt.forbidden import AGAIN_SECONDS, Forbidden
from app.mqtt.granted import Asked, of_connack, unusable
from app.mqtt.packet_sizes import parts_of_unsubscribe, subscribe_bytes
from app.mqtt.requests import ANSWER_SECONDS, UnansweredRequests
from app.throttle import Throttle
from tests.support.scripted_broker import connack_packet
from tests.unit.test_broker_rules import Wire

LOG = logging.getLogger(__name__)


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
    """P5: and no other is left out with it."""
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


# A DISCONNECT without a reason, with one that nobody knows; half a SUBACK; nothing.
@pytest.mark.parametrize("sent", [b"\xe0\x00", b"\xe0\x01\xf0", b"\x90\x04\x10", b""], ids=repr)
def test_however_a_broker_ends_connections_at_subscribe_it_is_searched_for_a_forbidden_filter(sent):
    """MQTT permits it to end them there, so that is no fault; the others flow once the one is found."""
    subscriptions = SimpleNamespace(forbidden=Forbidden(Clock()), withhold=lambda _names: None)
    endings = Endings(SimpleNamespace(host="host", port=1, client_id="c"), subscriptions, Throttle(LOG))
    for is_searching in (False, True):
        wire = Wire()
        wire.take(connack_packet(5))
        wire.conversation.subscriber.requests.filters = {"SUBSCRIBE": ["a/#", "b"], "UNSUBSCRIBE": []}.get
        wire.take(sent)
        assert not wire.client.ended_for_fault
        endings.judge(wire.conversation.end(1.0))
        assert subscriptions.forbidden.is_searching == is_searching


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
    """P1: what is mapped flows meanwhile."""
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
    requests = UnansweredRequests(Silent())
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
