"""Which mapping a message belongs to, by its topic and by the subscriptions that it came by; no brokers are needed."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from types import SimpleNamespace

import pytest

from app.core.destination import Destination
from app.core.message import UNDECODABLE_FLAG, Message
from app.errors import ConnectorError
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations
from app.routes import Route, RouteTable, Template, has_wildcard, subscription_identifiers
from app.routing.derived_topics import DerivedTopics
from app.routing.overlaps import LOGGED_PAIRS
from app.routing.route_cache import RouteCache
from tables.dead_letter import DeadLetter, mapped
from tables.layout import undelivered_prefix
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched
from tests.support.scripted_broker import variable_byte_integer

with app_settings():
    from agents.router import Router

LANES = Dispatched().lanes
SUBSCRIPTION_IDENTIFIER = b"\x0b"


@functools.cache
def destination_of(topic):
    """Return the destination that a Kafka topic is, the same each time."""
    return Destination(topic, undelivered_prefix(topic), [])


def cache_of(*filters, removed=(), group=None):
    """Return the route cache of mappings to Kafka topics that are named k0, k1, ..., after a first connection."""
    mappings = [Route.of(name, f"k{number}") for number, name in enumerate(filters)]
    routes = RouteTable(
        sorted(mappings, key=lambda route: has_wildcard(route.mqtt_filter)),
    )
    names = tuple(mapping.mqtt_filter for mapping in routes.routes)
    session = Session(SharedGenerations(group, names) if group else Generations(names, subscription_identifiers(names)))
    session.on_connected(session_present=False, renews=True)
    if removed:
        session.generations.replace({**session.generations.by_filter, **dict.fromkeys(removed, 1)})
    cache = RouteCache(routes, Template("{topic}"), destination_of, DerivedTopics(1000, LANES), session.copies)
    asyncio.run(cache.follow_changes())
    return cache, session


def router_of(cache: RouteCache) -> Router:
    """Return a router that only addresses messages, all at once."""
    nothing = SimpleNamespace()
    return Router(cache, nothing, lambda _: None, "client", nothing, nothing, costly_seconds=math.inf)


def message(topic: str, *identifiers: int) -> Message:
    properties = b"".join(SUBSCRIPTION_IDENTIFIER + variable_byte_integer(number) for number in identifiers)
    return Message(topic.encode(), b"", 1, 2, 1, properties, 0, None)


def where(found) -> str:
    """Return what becomes of a message in a word."""
    if found.is_copy:
        return "copy"
    return "dropped" if found.destination is None else found.problem or found.destination.topic


def test_a_broken_packet_that_belongs_to_no_mapping_is_not_kept_for_the_kafka_topic_of_another_one():
    """A retry would send it there."""
    cache, _ = cache_of("a/#")
    mapped_one, strange = (Message(topic, b"", 0, UNDECODABLE_FLAG, 0, b"", 0, None) for topic in (b"a/b", b""))
    assert [cache.find(each).destination.topic for each in (mapped_one, strange)] == ["k0", ""]
    assert {cache.find(each).problem for each in (mapped_one, strange)} == {"undecodable"}


@pytest.mark.parametrize("topic", ["plant/line/temperature", "rewritten/x", "$queue/plant.line", "$exclusive/a", "a"])
def test_what_carries_a_mappings_identifier_belongs_to_it_whatever_its_topic(topic):
    """A broker may turn the dots of a topic into slashes, rewrite it, or put something before it."""
    cache, session = cache_of("plant.line", "other/#")
    sent = message(topic, session.generations.identifiers["plant.line"])
    assert where(cache.find(sent)) == "k0"
    router_of(cache)._address([sent])
    assert sent.route == "plant.line:k0"
    assert sent.record_key == topic.encode()
    assert ("mqtt-topic", topic.encode()) in sent.headers


def test_an_identifier_beats_a_topic_that_another_mapping_matches_and_loses_nothing():
    """What was subscribed to by other rules than MQTT's has no second copy that would be sure to exist."""
    cache, session = cache_of("a.b", "a/#")
    assert where(cache.find(message("a/b", session.generations.identifiers["a.b"]))) == "k0"
    assert where(cache.find(message("a/b", session.generations.identifiers["a/#"]))) == "k1"
    both = message("a/b", session.generations.identifiers["a.b"], session.generations.identifiers["a/#"])
    assert where(cache.find(both)) == "k1", "its topic decides where it can"


def test_of_several_mappings_that_a_message_carries_the_first_gets_it():
    cache, session = cache_of("b.x", "a.x")
    assert (
        where(
            cache.find(message("c/d", session.generations.identifiers["a.x"], session.generations.identifiers["b.x"]))
        )
        == "k0"
    )


def test_in_a_shared_group_the_identifier_decides_as_well():
    cache, session = cache_of("plant.line", group="g")
    assert where(cache.find(message("plant/line/x", session.generations.identifiers["$share/g/plant.line"]))) == "k0"


def test_what_belongs_to_no_mapping_is_a_dead_letter_and_what_belongs_to_a_removed_filter_is_dropped():
    """Nobody else has it; but of a filter that was removed on purpose it is wanted no more."""
    cache, _ = cache_of("a/#", removed=["old/+", "older.x"])
    assert where(cache.find(message("strange/x"))) == "unmapped"
    assert where(cache.find(message("$SYS/uptime"))) == "unmapped"
    assert where(cache.find(message("strange/x", 12345))) == "unmapped", "an identifier that nobody knows"
    assert where(cache.find(message("old/x"))) == "dropped"
    removed = subscription_identifiers(["older.x"])["older.x"]
    assert where(cache.find(message("older/x", removed))) == "dropped"
    assert where(cache.find(message("a/x"))) == "k0"
    assert {cache.find(message(topic)).route for topic in ("strange/x", "old/x")} == {"unmapped"}


def test_a_removed_filter_that_comes_to_be_known_is_known_from_then_on():
    cache, session = cache_of("a/#")
    assert where(cache.find(message("old/x"))) == "unmapped"
    session.generations.replace({**session.generations.by_filter, "old/+": 1})
    asyncio.run(cache.follow_changes())
    assert where(cache.find(message("old/x"))) == "dropped"


def test_filters_of_a_group_that_were_removed_are_known_by_their_plain_form():
    cache, _ = cache_of("a/#", removed=["$share/g/old/+"], group="g")
    assert where(cache.find(message("old/x"))) == "dropped"


def test_overlapping_mappings_are_warned_of_once_a_pair_however_many_topics_match_them(caplog):
    """50,000 devices would be 50,000 warnings, and nothing else on the page."""
    cache, _ = cache_of("dev/+/state", "dev/+/state/#", "dev/#")
    with caplog.at_level(logging.WARNING):
        for device in range(5_000):
            cache.find(message(f"dev/{device}/state"))
            cache.find(message(f"dev/{device}/state/x"))
    assert [record.getMessage() for record in caplog.records] == [
        "several routes match the MQTT topic 'dev/0/state': dev/+/state:k0 is used, not dev/+/state/#:k1, dev/#:k2",
        "several routes match the MQTT topic 'dev/0/state/x': dev/+/state/#:k1 is used, not dev/#:k2",
    ]


def test_the_pairs_that_are_warned_of_have_a_bound(caplog):
    cache, _ = cache_of("#", *(f"site{number}/#" for number in range(2 * LOGGED_PAIRS)))
    with caplog.at_level(logging.WARNING):
        for number in range(2 * LOGGED_PAIRS):
            cache.find(message(f"site{number}/x"))
    assert len(caplog.records) == LOGGED_PAIRS + 1
    assert "further pairs of them are not logged" in caplog.records[-1].getMessage()


def test_thousands_of_topics_without_a_mapping_or_with_broken_properties_do_not_fill_the_log(caplog):
    """Devices choose topics and properties; the log's length must not be theirs to choose."""
    cache, _ = cache_of("a/#")
    with caplog.at_level(logging.INFO):
        for number in range(5_000):
            cache.find(message(f"elsewhere/{number}"))
            broken = message(f"a/{number}")
            broken.properties = b"\xff" + str(number).encode()
            cache.find(broken)
    assert len(caplog.records) <= 1


def test_a_dead_letter_that_belonged_to_no_mapping_says_so_through_the_dead_letter_topic_and_back():
    """Where DEAD_LETTER_TOPIC refuses it too, a retry must not go there, but to the mapping that matches it by then."""
    one = message("strange/x")
    one.destination, one.dead_reason, one.headers = destination_of(""), "unmapped", [("mqtt-topic", b"strange/x")]
    one.headers = one.dead_letter_headers()
    assert one.remove_dead_letter_headers() == ""
    letter = DeadLetter(b"D", 0, "", one)
    assert [(it.topic, it.message.route) for it in mapped([letter], RouteTable([Route.of("strange/+", "k")]))] == [
        ("k", "strange/+:k")
    ]
    with pytest.raises(ConnectorError, match="no route matches the MQTT topic 'strange/x': add a route"):
        list(mapped([letter], RouteTable([])))
    one.headers = [("mqtt-topic", b"")]
    with pytest.raises(ConnectorError, match="delete it"):
        list(mapped([letter], RouteTable([])))
