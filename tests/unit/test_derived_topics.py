"""Routes with names: Kafka topics, keys and headers that are made from MQTT topics, and their bounds."""

from __future__ import annotations

import asyncio
import logging
import sys
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

from app.core.message import Message
from app.errors import ConnectorError
from app.kafka.lanes import Lanes
from app.memory import MemoryLimit, plan_for
from app.routes import DerivedNames, Route, RouteTable, Template, parse_pattern, resolve
from app.routes.kafka_topics import derived_kafka_topic
from app.routing import known_routes
from app.routing.derived_topics import LOGGED_MIXTURES, DerivedTopics
from app.routing.route_cache import RouteCache
from app.settings.mappings import parse_mappings
from tables.dead_letter import DeadLetter, mapped
from tests.support.dispatched import Dispatched, seconds_ago
from tests.unit.test_bounds import MOST_SECONDS, seconds, user_property
from tests.unit.test_kinds import Router, cache_of, message, router_of, where
from tests.unit.test_known_routes import kept_bytes_each

KEY = Template("{topic}")


def route_of(pattern: str, to: str, key: str | None = None, **headers: str) -> Route:
    """Return a route as a file has it."""
    _, captures = parse_pattern(pattern)
    short = Route.with_names(pattern, to)
    named = tuple((name, Template(text, captures)) for name, text in headers.items())
    return Route("named", short.mqtt_filter, short.to, None if key is None else Template(key, captures), named)


def cache_with(*routes: Route, most_topics: int = 1000, lanes: Lanes | None = None) -> RouteCache:
    """Return the route cache of these routes."""
    _, session = cache_of("a/#")
    lanes = Dispatched().lanes if lanes is None else lanes
    first, *others = routes
    named = [first, *(replace(route, name=f"{route.name} {number}") for number, route in enumerate(others, 2))]
    return RouteCache(RouteTable(named), KEY, lanes.destination, DerivedTopics(most_topics, lanes), session.copies)


def kafka_topic_of(pattern: str, to: str, topic: str) -> str:
    """Return the Kafka topic, or the reason why there is none."""
    resolved = resolve(RouteTable([route_of(pattern, to)]), topic.encode(), KEY)
    return resolved.problem or resolved.kafka_topic


@pytest.mark.parametrize(
    ("pattern", "to", "topic", "expected"),
    [
        ("p/{site}/{line}/#", "plant.{site}", "p/oslo/l1/t", "plant.oslo"),
        ("p/{site}/{line}/#", "plant.{site}-{line}", "p/oslo/l1", "plant.oslo-l1"),
        ("p/{rest#}", "plant.{rest}", "p/a/b/c", "plant.a_b_c"),
        ("p/+/#", "plant.{2}", "p/oslo/l1", "plant.oslo"),
        ("{a}/{b}", "k.{topic}", "x/y", "k.x_y"),
        ("p/{site}", "plant.{site}", "p/s 1 ü/".rstrip("/"), "plant.s_1__"),
        ("p/{site}", "plant.{site}", "p/", "illegal_kafka_topic"),
        ("p/{rest#}", "plant.{rest}", "p", "illegal_kafka_topic"),
        ("p/{site}", "_{site}", "p/_offsets", "illegal_kafka_topic"),
        ("p/{site}", "_{site}", "p/x", "_x"),
        ("p/{site}", ".{site}", "p/.", "illegal_kafka_topic"),
        ("p/{site}", "k{site}", f"p/{'x' * 248}", f"k{'x' * 248}"),
        ("p/{site}", "k{site}", f"p/{'x' * 249}", "illegal_kafka_topic"),
        ("p/{site}", "k.{site}", "p/+", "invalid_mqtt_topic"),
        ("p/{{x}}/{site}", "k.{site}", "p/{x}/1", "k.1"),
    ],
)
def test_a_kafka_topic_is_made_from_the_mqtt_topic_or_there_is_a_reason(pattern, to, topic, expected):
    assert kafka_topic_of(pattern, to, topic) == expected


def test_in_the_short_form_names_are_for_wildcard_lists_and_a_brace_in_an_exact_topic_is_a_brace():
    (named,) = parse_mappings("plant/{site}/#:plant.{site}", wildcards=True)
    assert (named.name, named.mqtt_filter) == ("plant/{site}/#:plant.{site}", "plant/+/#")
    (exact,) = parse_mappings("a/{x}:k", wildcards=False)
    assert (exact.name, exact.mqtt_filter, exact.kafka_topic) == ("a/{x}:k", "a/{x}", "k")
    with pytest.raises(ValueError, match="not a legal Kafka topic"):
        parse_mappings("a/{x}:k.{1}", wildcards=False)
    with pytest.raises(ValueError, match=r"the MQTT filter 'a/\+' is mapped more than once"):
        parse_mappings("a/+:k,a/{x}:k", wildcards=True)


def test_the_record_has_key_and_headers_of_its_route_beside_those_that_it_always_has():
    sent = message("p/oslo/l1")
    router_of(cache_with(route_of("p/{site}/{line}", "k", "{site}-{line}", site="{site}", fixed="x")))._address([sent])
    assert (sent.destination.topic, sent.record_key, sent.route) == ("k", b"oslo-l1", "named")
    own = [("site", b"oslo"), ("fixed", b"x")]
    assert sent.headers[1:] == [("mqtt-topic", b"p/oslo/l1"), ("mqtt-qos", b"1"), ("mqtt-retain", b"0"), *own]


@pytest.mark.parametrize(("key", "expected"), [(None, b"p/1"), ("", None), ("{topic}", b"p/1"), ("{x}", b"1")])
def test_a_route_without_a_key_has_that_of_all(key, expected):
    sent = [message("p/1"), message("p/1")]
    router_of(cache_with(route_of("p/{x}", "k", key)))._address(sent)
    assert [each.record_key for each in sent] == [expected] * 2


def test_messages_without_a_legal_kafka_topic_go_nowhere_and_no_lane_is_made():
    found = cache_with(route_of("p/{site}", "k.{site}")).find(message("p/"))
    assert (where(found), found.destination.topic, found.route) == ("illegal_kafka_topic", "", "named")


@pytest.mark.parametrize("to", ["plant.{site}", "plant.{site}.{site}.{site}.{site}", "plant.{topic}"])
def test_the_longest_topics_cost_no_time_for_a_kafka_topic_that_is_too_long_anyway(to):
    """Each is another one, and dozens of them come with one read."""
    route, topic = route_of("p/{site}", to), "p/" + "s " * 30_000

    def refused() -> None:
        with pytest.raises(ValueError, match="Kafka allows 249"):
            derived_kafka_topic(route.to, topic)

    assert seconds(refused) < MOST_SECONDS / 32


def test_no_more_derived_topics_are_in_use_than_are_allowed_and_those_that_are_go_on(caplog):
    """P6: publishers choose them."""
    lanes = Dispatched().lanes
    lanes.keep(["fixed"])
    routes = route_of("p/{site}", "k.{site}"), route_of("q/{x}", "fixed")
    cache = cache_with(*routes, most_topics=2, lanes=lanes)
    found = {}
    with caplog.at_level(logging.WARNING):
        for site in ("a", "b", "c", "d", "a"):
            found[site] = where(cache.find(message(f"p/{site}")))
            if found[site].startswith("k."):
                lanes[found[site]]  # which the first message makes
    assert found == {"a": "k.a", "b": "k.b", "c": "too_many_kafka_topics", "d": "too_many_kafka_topics"}
    assert where(cache.find(message("q/z"))) == "fixed"
    assert cache.find(message("p/c")).destination.topic == ""
    assert b"p/c" not in cache.known.by_topic, "it is looked at anew, as there may be room again"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("2 Kafka topics that no route names are in use, and ROUTES_MAX_TOPICS allows no more")


def test_no_publisher_gives_a_header_of_a_route_a_second_value():
    """What reads the last value of a name would believe the publisher; also of a dead letter that is retried."""
    pairs = [(b"specversion", b"1.0"), (b"source", b"forged"), (b"traceparent", b"forged"), (b"type", b"t")]
    properties = b"".join(user_property(*pair) for pair in pairs)
    route = route_of("a/{x}", "k", ce_source="{x}", traceparent="ours")
    sent = Message(b"a/b", b"", 1, 2, 1, properties, 0, None)
    router_of(cache_with(route))._address([sent])
    unmapped = Message(b"a/b", b"", 1, 2, 1, properties, 0, None)
    router_of(cache_with(route_of("a/{x}", "k")))._address([unmapped])
    assert dict(unmapped.headers)["ce_source"] == b"forged"
    (retried,) = mapped([DeadLetter(b"", 0, "", unmapped)], RouteTable([route]))
    for each in (sent, retried.message):
        named = [header for header in each.headers if header[0] in {"ce_source", "ce_type", "traceparent"}]
        assert sorted(named) == [("ce_source", b"b"), ("ce_type", b"t"), ("traceparent", b"ours")]


@pytest.mark.parametrize(("most_topics", "known"), [(10_000, False), (10_000, True), (1, False), (1, True)])
def test_others_have_a_turn_while_thousands_of_kafka_topics_or_dead_letters_are_made_of_one_read(most_topics, known):
    """P2, P7: a publisher may give each message another topic."""
    dispatcher = Dispatched()
    cache = cache_with(route_of("a/{site}/#", "k.{site}"), most_topics=most_topics, lanes=dispatcher.lanes)
    router = Router(cache, dispatcher, list, "c", None, SimpleNamespace(harmless_bytes=sys.maxsize))
    router.begin_epoch(1)
    messages = [Message(b"a/%d/x" % (number % 1_200), b"", 1, 2, 1, b"", 0, None) for number in range(2_000)]
    routed_at_turns = []

    async def other():
        while router.routed_messages < len(messages):
            routed_at_turns.append(router.routed_messages)
            await asyncio.sleep(0)

    async def both():
        if known:
            await router._route([Message(each.topic, b"", 1, 2, 1, b"", 0, None) for each in messages], 0)
            router.routed_messages = 0
        await asyncio.gather(router._route(messages, 0), other())

    asyncio.run(both())
    assert router.routed_messages == len(messages)
    between = [later - earlier for earlier, later in pairwise([*routed_at_turns, len(messages)])]
    assert max(between) < 110, "each part makes 100 Kafka topics or dead letters at most"
    assert len({each.key for each in messages}) == len(messages)
    for lane in dispatcher:
        sent = [each for each in messages if each.destination.topic == lane.topic]
        assert [each.key for each in sent] == sorted(each.key for each in sent)
    dead = [each for each in messages if each.dead_reason]
    assert len(dead) == (0 if most_topics > 1 else len([each for each in messages if each.topic != b"a/0/x"]))


def test_different_texts_that_come_to_one_kafka_topic_are_warned_of_once_for_each_and_equal_ones_not(caplog):
    routes = [route_of("p/{site}", "k.{site}"), route_of("q/{site}", "k.{site}"), route_of("r/{a}/{b}", "k.{a}.{b}")]
    cache = cache_with(*routes)
    with caplog.at_level(logging.WARNING):
        for topic in ("p/a b", "q/a b", "p/c", "q/c", "p/a_b", "p/a/", "q/a-b", "p/x.y", "r/x/y", "r/x/y"):
            cache.find(message(topic))
        for topic in ("p/a,b", "p/a;b"):
            cache.find(message(topic))
    lines = [record.getMessage() for record in caplog.records if "different MQTT topics" in record.getMessage()]
    assert len(lines) == 2
    assert "the Kafka topic k.a_b, as its name is made of 'a b' and of 'a_b'" in lines[0]
    assert "the Kafka topic k.x.y, as its name is made of 'x.y' and of 'x and y'" in lines[1]


def test_the_warnings_of_different_texts_have_a_bound(caplog):
    cache = cache_with(route_of("p/{site}", "k.{site}"))
    with caplog.at_level(logging.WARNING):
        for number in range(2 * LOGGED_MIXTURES):
            for text in ("a b", "a,b"):
                cache.find(message(f"p/{number}{text}"))
    assert len(caplog.records) == LOGGED_MIXTURES + 1


def test_headers_by_names_count_for_what_they_take_and_are_shared_where_they_are_equal():
    """P6: there may be hundreds of thousands of topics."""
    own = cache_with(route_of("a/{device}/state", "k", device="{device}", all="{topic}"))
    shared = cache_with(route_of("a/+/state", "k", site="{1}", fixed="x"))
    route_bytes = known_routes.ROUTE_BYTES + 2 * known_routes.HEADER_BYTES
    assert kept_bytes_each(own) < known_routes.TOPIC_BYTES + route_bytes + 60
    assert kept_bytes_each(shared) < 150
    assert own.known._kept_bytes > 3_000 * route_bytes


def test_a_dead_letter_without_a_kafka_topic_gets_what_its_route_says_by_then():
    """It is retried after the route was mended."""
    one = Message(b"", b"", 1, 2, 1, b"", 0, None)
    one.headers, one.record_key, one.dead_reason = [("mqtt-topic", b"p//l1")], b"old", "illegal_kafka_topic"
    letter = DeadLetter(b"D", 0, "", one)
    with pytest.raises(ConnectorError, match="its route makes no legal Kafka topic of the MQTT topic 'p//l1': change"):
        list(mapped([letter], RouteTable([route_of("p/{site}/{line}", "k.{site}")])))
    mended = RouteTable([route_of("p/{site}/{line}", "k.{line}", "{line}", line="{line}")])
    (found,) = mapped([letter], mended)
    assert (found.topic, found.message.record_key) == ("k.l1", b"l1")
    assert found.message.headers == [("mqtt-topic", b"p//l1"), ("line", b"l1")]


def test_a_topic_that_is_idle_makes_room_for_another_one_although_the_cache_knows_it():
    """P6: in a year there may be more of them than may be in use at a time."""
    lanes = Dispatched(idle_topic_seconds=60.0).lanes
    cache = cache_with(route_of("p/{site}", "k.{site}"), most_topics=2, lanes=lanes)
    for year in range(50):
        names = [f"k.{year}-{number}" for number in range(2)]
        assert [where(cache.find(message(f"p/{name[2:]}"))) for name in names] == names
        for name in names:
            lanes[name]
        assert where(cache.find(message("p/more"))) == "too_many_kafka_topics"
        assert lanes.end_idle(seconds_ago(-30)) == []
        assert sorted(lanes.end_idle(seconds_ago(-61))) == names
    assert list(lanes) == []


@pytest.mark.parametrize(
    ("templates", "name", "expected"),
    [
        (["k.{1}"], "k.a", True),
        (["k.{1}"], "k.", False),
        (["k.{1}"], "x.a", False),
        (["k"], "k", False),
        (["x.{1}", "k.{1}.{2}.end"], "k.a.b.end", True),
        (["k.{1}.{2}.end"], "k.a.b.c.end", True),
        (["k.{1}.{2}.end"], "k.a.end", False),
        (["k.{1}{2}{3}"], "k.ab", False),
        (["k.{1}{2}{3}-"], "k.abc-", True),
        (["k.{1}-x"], "k.a-x-x", True),
        (["k.{1}-x"], "k.-x", False),
        (["k-{1}" * 1 + "-{2}" * 3], "k-" + "-" * 247, True),
    ],
)
def test_a_topic_of_an_earlier_start_is_known_as_a_derived_one_by_its_name(templates, name, expected):
    assert DerivedNames(map(Template, templates)).may_have(name) == expected


@pytest.mark.parametrize(
    "headers",
    [{"h": "fixed"}, {"h": "{topic}"}, {"a": "{1}", "b": "{2}", "c": "{3}"}, {"a": "{1}", "b": "{1}-{topic}"}],
)
def test_what_the_headers_of_a_route_take_is_counted(headers):
    """P6: each message with a topic of its own has headers of its own."""
    route = route_of("+/+/+", "k", **headers)
    topics = [f"{number:064}/{number:064}/{number:064}".encode() for number in range(500)]
    routes = RouteTable([route])
    tracemalloc.start()
    try:
        kept = [resolve(routes, topic, KEY).headers for topic in topics]
        taken_bytes = tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()
    copied_bytes = sum(90 + len(name) + len(value) for name, value in kept[0])
    assert taken_bytes + copied_bytes < route.headers_bytes(len(topics[0])) + 100  # the tuple of all of them
    plan = plan_for(MemoryLimit(2**31, "")).with_more(1_000, route.headers_bytes(100))
    assert plan.received_bytes < plan_for(MemoryLimit(2**31, "")).received_bytes
