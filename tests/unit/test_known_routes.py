"""What is kept of MQTT topics: few bytes of each, and the right route for each message; no brokers are needed."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from app.core.message import Message
from app.routes import Route, RouteTable, Template
from app.routing import known_routes
from app.routing.derived_topics import DerivedTopics
from app.routing.route_cache import RouteCache
from tests.unit.test_kinds import LANES, cache_of, destination_of, router_of

TOPICS = 3_000  # just after the dictionary has grown, which is when it takes most of each
IDENTIFIER = b"\x0b\x01"  # as MQTT 5 brokers add to each message
CONTENT_TYPE = b"\x03\x00\x04text"
ROUTED = ((b"a/1", 2), (b"b/1", 2), (b"b/2", 11))  # topics and flags


def message(topic: bytes, flags: int = 2, properties: bytes = IDENTIFIER) -> Message:
    """Return a message that shares nothing with others, like those that come from the network."""
    return Message(bytes(bytearray(topic)), b"", flags >> 1 & 3, flags, 1, bytes(bytearray(properties)), 0, None)


def cache_with_key(template: str) -> RouteCache:
    """Return a route cache with a template for record keys."""
    _, session = cache_of("a/#")
    routes = RouteTable([Route.of("a/#", "k0")])
    return RouteCache(routes, Template(template), destination_of, DerivedTopics(1000, LANES), session.copies)


def kept_bytes_each(template: str | RouteCache, properties: bytes = IDENTIFIER, flags: tuple[int, ...] = (2,)) -> float:
    """Return what one of many topics takes once its messages are gone."""
    cache = cache_with_key(template) if isinstance(template, str) else template
    tracemalloc.start()
    try:
        began_bytes = tracemalloc.get_traced_memory()[0]
        for number in range(TOPICS):
            for each in flags:
                cache.find(message(b"a/device-%d/state" % number, each, properties.replace(b"N", b"%05d" % number)))
        return (tracemalloc.get_traced_memory()[0] - began_bytes) / TOPICS
    finally:
        tracemalloc.stop()


def test_a_remembered_topic_takes_little_more_than_its_text():
    """P6: there may be hundreds of thousands; it was 670 bytes before what they have in common was shared."""
    assert kept_bytes_each("{topic}") < 150


@pytest.mark.parametrize("template", ["", "plant", "{1}"])
def test_topics_with_the_same_record_key_share_what_they_lead_to(template):
    """P6: also where that is not the topic."""
    assert kept_bytes_each(template) < 150


def test_routes_that_add_no_header_share_those_that_all_records_have():
    """P6: with ten thousand routes, what each has of its own would not stay in the processor's cache."""
    cache, _ = cache_of("a/#", "b/#")
    one, other, repeated = (cache.find(message(topic, flags)).headers for topic, flags in ROUTED)
    assert one is other and dict(one) == {"mqtt-qos": b"1", "mqtt-retain": b"0"}
    assert dict(repeated) == {"mqtt-qos": b"1", "mqtt-retain": b"1", "mqtt-dup": b"1"}


def test_what_is_counted_of_a_topic_is_what_it_takes():
    """P6: with a record key or properties of its own, or with two kinds of messages, it takes more."""
    topic_bytes = len(b"a/device-10000/state")
    one = known_routes.TOPIC_BYTES + topic_bytes
    own = one + known_routes.ROUTE_BYTES
    alone = own + known_routes.ALIKE_BYTES
    assert kept_bytes_each("{topic}") < one
    assert kept_bytes_each("{2}") < own
    assert kept_bytes_each("{topic}", b"\x03\x00\x0atype-N") < alone + 3 * len(CONTENT_TYPE)
    assert kept_bytes_each("{topic}", flags=(2, 3)) < one + known_routes.OTHER_BYTES + topic_bytes


def test_the_same_records_by_other_routes_that_match_as_well_are_not_kept_once_more():
    """P6: a topic may match many sets of overlapping filters, whose first route is the same."""
    filters = ["a/#", *(f"a/{'+/' * depth}x/#" for depth in range(6))]
    properties = b"".join(b"\x26\x00\x01%c\x00\x00" % (65 + number) for number in range(40))
    cache, _ = cache_of(*filters)
    tracemalloc.start()
    try:
        began_bytes = tracemalloc.get_traced_memory()[0]
        for levels in itertools.product(b"xy", repeat=6):
            for number in range(20):
                kind = properties + CONTENT_TYPE[:-2] + b"%02d" % number
                cache.find(message(b"a/" + b"/".join([b"%c" % level for level in levels]), properties=kind))
        assert tracemalloc.get_traced_memory()[0] - began_bytes < cache.known._kept_bytes
    finally:
        tracemalloc.stop()


def test_messages_of_one_topic_with_other_flags_or_properties_have_their_own_headers():
    """In any order, known already or not."""
    cache, _ = cache_of("a/#")
    router = router_of(cache)
    kinds = [(2, b""), (3, b""), (2, CONTENT_TYPE), (10, b""), (2, b""), (3, b""), (10, b""), (2, CONTENT_TYPE)]
    messages = [message(b"a/b", *kind) for kind in kinds]
    router._address(messages)
    names = [[name for name, _ in each.headers] for each in messages]
    dup, content = ["mqtt-dup"], ["mqtt-content-type"]
    ours = ["connector-id", "mqtt-topic", "mqtt-qos", "mqtt-retain"]
    assert names == [ours + more for more in ([], [], content, dup, [], [], dup, content)]
    retain = [dict(each.headers)["mqtt-retain"] for each in messages]
    assert retain == [b"0", b"1", b"0", b"0", b"0", b"1", b"0", b"0"]


def test_a_known_topic_is_not_worked_out_again(monkeypatch):
    """Whichever kinds of messages it has: also when they take turns."""
    cache, _ = cache_of("a/#")
    router = router_of(cache)
    kinds = [(2, b""), (3, b""), (2, CONTENT_TYPE)]
    router._address([message(b"a/%d" % number, *kind) for number in range(3) for kind in kinds])
    monkeypatch.setattr(cache, "_work_out", None)
    again = [message(b"a/%d" % number, *kind) for kind in kinds for number in range(3)]
    router._address(again)
    assert [each.record_key for each in again] == [each.topic for each in again]


@pytest.mark.parametrize(("template", "key"), [("", None), ("{topic}", b"a/b"), ("{2}", b"b"), ("x-{1}", b"x-a")])
def test_the_record_key_is_the_one_of_the_template_from_the_first_message_on(template, key):
    """Whether it is kept with the topic, shared, or the topic itself."""
    router = router_of(cache_with_key(template))
    messages = [message(topic) for topic in (b"a/b", b"a/c", b"a/b")]
    router._address(messages)
    assert [messages[0].record_key, messages[2].record_key] == [key, key]


def expiring(topic: bytes, seconds: int, flags: int = 2, received_ms: int = 0, more: bytes = b"") -> Message:
    """Return a message of which so much of its message expiry interval is left."""
    properties = IDENTIFIER + b"\x02" + seconds.to_bytes(4, "big") + more
    return Message(bytes(bytearray(topic)), b"", flags >> 1 & 3, flags, 1, properties, received_ms, None)


def test_each_message_expires_at_its_own_time_and_none_is_worked_out_for_that(monkeypatch):
    """P6: what a broker had queued comes with a different rest of its interval each second."""
    cache, _ = cache_of("a/#")
    router = router_of(cache)
    router._address([expiring(b"a/%d" % number, 3600) for number in range(3)])
    kept_bytes, kinds = cache.known._kept_bytes, len(cache.known._others)
    monkeypatch.setattr(cache, "_work_out", None)
    queued = [expiring(b"a/%d" % (number % 3), 3600 - number, received_ms=5_000 + number) for number in range(3600)]
    router._address(queued)
    assert [dict(each.headers)["mqtt-message-expiry"] for each in queued] == [
        b"%d" % (5_000 + number + 1000 * (3600 - number)) for number in range(3600)
    ]
    assert (cache.known._kept_bytes, len(cache.known._others)) == (kept_bytes, kinds)


def test_kinds_that_take_turns_while_they_expire_are_kept_once():
    """P6: retained ones and others, of one topic."""
    cache, _ = cache_of("a/#")
    router = router_of(cache)
    router._address([expiring(b"a/b", 3600, flags) for flags in (2, 3)])
    kept_bytes = cache.known._kept_bytes
    queued = [expiring(b"a/b", 3600 - number, 2 + number % 2) for number in range(1000)]
    router._address(queued)
    assert [dict(each.headers)["mqtt-retain"] for each in queued] == [b"0", b"1"] * 500
    assert [dict(each.headers)["mqtt-message-expiry"] for each in queued[:2]] == [b"3600000", b"3599000"]
    assert cache.known._kept_bytes == kept_bytes


def test_a_message_with_long_properties_expires_as_well():
    """They are let go of once they are headers."""
    cache, _ = cache_of("a/#")
    long = b"\x26\x00\x01n\x01\x00" + bytes(256)
    messages = [expiring(b"a/b", seconds, more=long) for seconds in (60, 61)]
    router_of(cache)._address(messages)
    assert [dict(each.headers)["mqtt-message-expiry"] for each in messages] == [b"60000", b"61000"]


def test_messages_without_an_interval_have_no_such_header_and_other_lengths_are_other_kinds():
    cache, _ = cache_of("a/#")
    messages = [expiring(b"a/b", 7), message(b"a/b"), expiring(b"a/b", 8, more=CONTENT_TYPE), expiring(b"a/b", 9)]
    router_of(cache)._address(messages)
    assert [dict(each.headers).get("mqtt-message-expiry") for each in messages] == [b"7000", None, b"8000", b"9000"]
    assert ["mqtt-content-type" in dict(each.headers) for each in messages] == [False, False, True, False]
