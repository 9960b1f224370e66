"""A topic that is new leads where another one led only if nothing of that was made of the topic; no brokers."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import pytest

from app.core.message import UNDECODABLE_FLAG, Message
from app.routes import Route, RouteTable, Template, has_wildcard, parse_kafka_topic, subscription_identifiers
from app.routing.derived_topics import DerivedTopics
from app.routing.known_routes import CachedRoute
from app.routing.route_cache import RouteCache
from tests.support.scripted_broker import variable_byte_integer
from tests.unit.test_kinds import LANES, cache_of, destination_of

LEVELS = ("a", "b", "", "$a")
ODD_TOPICS = (b"", b"a/+", b"b/#", b"a/\xff", b"b/\0", b"a/b/a")
TOPICS = (*("/".join(levels).encode() for n in (1, 2) for levels in itertools.product(LEVELS, repeat=n)), *ODD_TOPICS)
FILTER_LEVELS = st.sampled_from(["a", "b", "+", "+"])
FILTERS = st.tuples(st.lists(FILTER_LEVELS, min_size=1, max_size=2), st.booleans()).map(
    lambda drawn: "/".join([*drawn[0], "#"] if drawn[1] else drawn[0])
)
TEMPLATES = st.sampled_from(["", "{topic}", "{1}", "a", "a/b", "{1}/{2}", "x{topic}"]).map(Template)
PROPERTIES = st.sampled_from([b"", b"\x03\x00\x01x", b"\x02\x00\x00\x00\x09"])
ROUTES = st.builds(
    Route,
    name=st.just(""),
    mqtt_filter=FILTERS,
    to=st.sampled_from(["k", "l", "k.{1}"]).map(lambda name: parse_kafka_topic(name, {})),
    key=st.none() | TEMPLATES,
    headers=st.just(()) | TEMPLATES.map(lambda template: (("h", template),)),
    empty_payload=st.sampled_from(["value", "tombstone"]),
    timestamp_property=st.sampled_from(["", "", "", "time"]),
)


def with_its_key(found: CachedRoute, topic: bytes) -> CachedRoute:
    """Return a route with the record key that it leads to, whether it is the topic or equals it by chance."""
    return dataclasses.replace(
        found, is_keyed_by_topic=False, record_key=topic if found.is_keyed_by_topic else found.record_key
    )


class Worker:
    """The routes of a worker and its MQTT session, of which route caches are made."""

    def __init__(self, routes: list[Route], key: Template, removed: list[str]) -> None:
        named = {route.mqtt_filter: dataclasses.replace(route, name=route.mqtt_filter) for route in routes}
        self.table = RouteTable(sorted(named.values(), key=lambda route: has_wildcard(route.mqtt_filter)))
        self.key = key
        _, self.session = cache_of(*named, removed=[name for name in removed if name not in named])

    def new_cache(self) -> RouteCache:
        """Return a cache that knows nothing yet."""
        cache = RouteCache(self.table, self.key, destination_of, DerivedTopics(1000, LANES), self.session.copies)
        asyncio.run(cache.follow_changes())
        return cache

    def remove_first(self) -> None:
        """Have the first route no more, as after a reload."""
        self.table.become(RouteTable(self.table.routes[1:]))
        self.session.generations.change_filters([route.mqtt_filter for route in self.table.routes], ())

    def identifier(self, number: int) -> bytes:
        """Return the property with a subscription identifier: of a filter that there is or was, or of none."""
        known = sorted({*self.session.generations.by_filter, *self.session.generations.identifiers})
        identifiers = {**subscription_identifiers(known), **self.session.generations.identifiers}
        numbers = [5, *(identifiers[name] for name in known)]
        return b"\x0b" + variable_byte_integer(numbers[number % len(numbers)])


@hypothesis.given(
    st.lists(ROUTES, min_size=1, max_size=3), TEMPLATES, st.just([]) | st.lists(FILTERS, max_size=2), st.booleans(),
    st.sampled_from([2, 3, 10, 2 | UNDECODABLE_FLAG]), PROPERTIES, st.lists(st.integers(0, 5), max_size=2),
    st.permutations(TOPICS),
)  # fmt: skip
@hypothesis.settings(max_examples=600, deadline=None)
def test_what_is_known_of_other_topics_changes_nothing(
    routes, key, removed, is_reloaded, flags, properties, identifiers, topics
):
    """P1, P3: a message goes where it would go as the first one of all, before a filter is removed and after that."""
    worker = Worker(routes, key, removed)
    experienced = worker.new_cache()
    properties += b"".join(map(worker.identifier, identifiers))
    for number, topic in enumerate([*topics, *topics]):
        if number == len(topics) // 2 and is_reloaded:
            worker.remove_first()
            asyncio.run(experienced.follow_changes())
        message = functools.partial(Message, topic, b"", flags >> 1 & 3, flags, 1, properties, 0, None)
        found, alone = (cache.find(message()) for cache in (experienced, worker.new_cache()))
        assert with_its_key(found, topic) == with_its_key(alone, topic)


def found_in_turn(cache: RouteCache, *topics: bytes, properties: bytes = b"") -> list[CachedRoute]:
    """Return where messages of topics go that differ in nothing else."""
    return [cache.find(Message(topic, b"", 1, 2, 1, properties, 0, None)) for topic in topics]


def test_a_record_key_that_equals_a_topic_by_chance_is_not_taken_for_the_topic():
    """P2: else records of the next topic would have its own name as their key."""
    cache = Worker([Route("", "a/#", parse_kafka_topic("k", {}))], Template("a/b"), []).new_cache()
    first, second = found_in_turn(cache, b"a/b", b"a/c")
    assert [with_its_key(first, b"a/b").record_key, with_its_key(second, b"a/c").record_key] == [b"a/b"] * 2


def test_topics_that_match_further_filters_are_not_alike():
    """P1: the copy by the second filter is dropped where the first one matches too, and is the only one elsewhere."""
    alone, doubled = b"a", b"a/b/c"
    cache, session = cache_of("a/+/#", "a/#")
    properties = b"\x0b" + variable_byte_integer(session.generations.identifiers["a/#"])
    for order in ((alone, doubled), (doubled, alone)):
        cache.known.forget()
        found = dict(zip(order, found_in_turn(cache, *order, properties=properties), strict=True))
        assert (found[alone].is_copy, found[doubled].is_copy) == (False, True)


def test_what_was_alike_is_forgotten_with_the_rest():
    """P3: routes that a reload changes lead elsewhere."""
    cache, _ = cache_of("a/#")
    found_in_turn(cache, b"a/1")
    cache.known.forget()
    assert cache.known.like_another(Message(b"a/2", b"", 1, 2, 1, b"", 0, None), ("a/#",)) is None


def test_topics_that_match_further_removed_filters_are_not_alike():
    """P1, P3: until UNSUBSCRIBE is sent, the removed filter's copy is kept where it matches, and there is none else."""
    worker = Worker([Route("", name, parse_kafka_topic("k", {})) for name in ("a/+/c", "a/#")], Template("{topic}"), [])
    properties = b"\x0b" + variable_byte_integer(worker.session.generations.identifiers["a/#"])
    worker.remove_first()
    for order in itertools.permutations((b"a/1/c", b"a/2/c", b"a/1", b"a/2")):
        found = found_in_turn(worker.new_cache(), *order, properties=properties)
        assert [each.is_copy for each in found] == [topic.endswith(b"/c") for topic in order]


@pytest.mark.parametrize("removed", [[], ["old/#"], ["a/+"], ["a/+", "#"]])
def test_a_new_topic_of_a_fleet_is_not_worked_out(monkeypatch, removed):
    """Of a hundred thousand topics each is new once: only its filters are looked up, removed ones as well."""
    cache, _ = cache_of("a/#", removed=removed)
    first, second = (Message(topic, b"", 1, 2, 1, b"\x0b\x01", 0, None) for topic in (b"a/1", b"a/2"))
    found = cache.find(first)
    monkeypatch.setattr(cache, "_work_out", None)
    assert cache.find(second) is found
    assert cache.known.by_topic[b"a/2"] is found
