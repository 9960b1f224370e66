"""What nobody waits for on the event loop: routes that overlap, and pages of thousands of routes, are done in parts.

No brokers are needed. That others have a turn is counted, and not timed: the time after which they have one is set to
nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import threading
from itertools import pairwise
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import pytest
from prometheus_client import CollectorRegistry, GCCollector, generate_latest

from app import turns
from app.core.message import Message
from app.errors import SettingsError
from app.lines import escaped_json
from app.metric_definitions import METRICS
from app.metrics import Accounts, Gauges, Histogram, accounts
from app.mqtt import generations
from app.mqtt.copies import Copies
from app.mqtt.generations import FEW_FILTERS, Former
from app.pages.exposition import SAMPLES_AT_ONCE, ConnectorCollector, exposition
from app.pages.json_text import json_pieces
from app.pages.reuse import ReusedText, Share
from app.routes import Route, RouteTable, check_overlaps
from app.routes import table as route_tables
from app.routes.overlap_bound import MOST_COMPARED_LEVELS, compared_levels
from app.routing import removed_filters
from app.routing.route_counts import count_routes
from app.settings import load_settings
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched
from tests.support.scripted_broker import variable_byte_integer
from tests.unit.test_kinds import cache_of, where

with app_settings():
    from agents.router import Router
    from app import control
    from app.pages.status import Status

REQUIRED = {"MQTT_CLIENT_ID": "c", "MQTT_BROKER_URL": "mqtt://h:1", "KAFKA_BROKER": "h:1"}


def overlapping(count: int, below: str = "/#") -> list[str]:
    """Return filters all of which match a/a/a/..."""
    depth = max(1, (count - 1).bit_length())
    return ["/".join(levels) + below for levels in itertools.islice(itertools.product("a+", repeat=depth), count)]


async def with_others(work) -> int:
    """Await something; return how many turns others had meanwhile."""
    counted, ended = 0, asyncio.ensure_future(work)
    while not ended.done():
        counted += 1
        await asyncio.sleep(0)
    await ended
    return counted


# ---- messages


def test_others_have_a_turn_between_messages_of_new_kinds_where_hundreds_of_routes_match():
    """P5: 500 of them were routed in one go, whatever each cost; with 2,000 routes that match, that took 200 ms."""
    cache, _ = cache_of(*overlapping(200))
    oversize = SimpleNamespace(harmless_bytes=sys.maxsize)
    router = Router(cache, Dispatched(), list, "c", None, oversize, costly_seconds=0.0)
    router.begin_epoch(1)
    # Topics of the same routes are alike from the second on, so each message has properties of its own.
    messages = [
        Message(b"a/a/a/a/a/a/a/a/%d" % number, b"", 1, 2, 1, b"\x26\0\1n\0\4%04d" % number, 0, None)
        for number in range(100)
    ]
    routed_at_turns = []

    async def other():
        while router.routed_messages < len(messages):
            routed_at_turns.append(router.routed_messages)
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(router._route(messages, 0), other())

    asyncio.run(both())
    assert max(later - earlier for earlier, later in pairwise([*routed_at_turns, len(messages)])) == 1
    assert [each.key for each in messages] == sorted(each.key for each in messages), "in order"


def by_definition(copies: Copies, identifiers, matching) -> bool:
    """Say by its definition whether a copy came by a subscription that won until the routes changed."""
    former = copies.generations.former
    rivals = copies._sure(matching).values()
    others = [each for each in former.values() if each.mqtt_filter in matching]
    return any(
        each.seniority <= min([*rivals, *(other.seniority for other in others if other.change >= each.change)])
        for each in (former[identifier] for identifier in identifiers if identifier in former)
    )


NAMES = tuple("abcdef")


@hypothesis.given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4), min_size=1),
    st.dictionaries(
        st.integers(1, 8),
        st.builds(Former, st.sampled_from(NAMES), st.tuples(st.integers(0, 5), st.integers(0, 3)), st.integers(1, 3)),
    ),
    st.lists(st.integers(1, 8), max_size=5),
    st.lists(st.sampled_from(NAMES), unique=True),
)
def test_whether_a_copy_won_before_the_routes_changed_is_found_as_it_is_defined(ages, former, identifiers, more):
    """P3, P4."""
    known = SimpleNamespace(
        former=former,
        there=frozenset(ages),
        seniority=lambda names: {name: (ages[name], 0) for name in names},
    )
    copies = Copies(SimpleNamespace(generations=known, refused={}))
    matching = tuple(dict.fromkeys([next(iter(ages)), *more]))
    assert copies._came_by_former_winner(identifiers, matching) is by_definition(copies, identifiers, matching)


def comparisons(size: int) -> int:
    """Return how many times names are compared to judge a copy that matches many routes, all of which were replaced."""
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    matching = tuple(Name(f"new{number}") for number in range(size))
    former = {number: Former(Name(f"old{number}"), (2, number), 1) for number in range(size)}
    there = dict.fromkeys(matching, (1, 0))
    known = SimpleNamespace(former=former, there=frozenset(there), seniority=lambda _: there)
    copies = Copies(SimpleNamespace(generations=known, refused={}))
    copies._came_by_former_winner(list(former), matching)
    return compared


def test_to_judge_a_copy_costs_no_more_than_the_routes_that_match_and_those_that_were_replaced():
    """With 2,000 of each, one batch after a reload took nine seconds of the event loop."""
    assert comparisons(400) <= 4 * comparisons(200) // 2 + 400


def test_what_is_needed_of_thousands_of_removed_filters_is_made_in_a_thread(monkeypatch):
    """As many as a reload removed; the first message after it was not routed before."""
    threads = []
    made = removed_filters._table_of
    monkeypatch.setattr(
        removed_filters, "_table_of", lambda names: (threads.append(threading.get_ident()), made(names))[1]
    )
    for count in (2, removed_filters.FILTERS_AT_ONCE + 1):
        cache, _ = cache_of("a/#", removed=[f"old/{number}/+" for number in range(count)])
        found = cache.find(Message(b"old/1/x", b"", 1, 2, 1, b"", 0, None))
        assert found.destination is None and not found.problem
    assert [thread == threading.get_ident() for thread in threads] == [True, False]


@pytest.mark.parametrize(("count", "group"), [(FEW_FILTERS, None), (FEW_FILTERS + 1, None), (FEW_FILTERS + 1, "g")])
def test_how_old_the_subscriptions_of_thousands_of_filters_are_is_worked_out_in_a_thread(count, group, monkeypatch):
    """P5: with 10,000, and a table that was lost, the first copy by an unknown subscription took 0.9 s."""
    threads = set()
    called = generations.identifier_of
    cache, session = cache_of(*[f"a/{number}/+" for number in range(count)], group=group)
    session.generations.replace(dict.fromkeys(session.generations.filters, 3))
    monkeypatch.setattr(
        generations, "identifier_of", lambda *given: (threads.add(threading.get_ident()), called(*given))[1]
    )
    asyncio.run(cache.follow_changes())
    assert threads.isdisjoint({threading.get_ident()})
    assert bool(threads) is (count > FEW_FILTERS and not group)
    asyncio.run(cache.follow_changes())
    threads.clear()
    assert where(cache.find(Message(b"a/1/x", b"", 1, 2, 1, b"\x0b\x01", 0, None))) == "k1"
    assert bool(threads) is (count <= FEW_FILTERS), "ready, where there are many"


def test_a_copy_that_is_judged_while_thousands_of_filters_change_does_not_wait_for_their_age(monkeypatch):
    """P5: with 10,000, one that came within the 50 ms of the change took 0.9 s."""
    cache, session = cache_of("a/#", *[f"a/{number}/+" for number in range(FEW_FILTERS)])
    known = session.generations
    known.replace(dict.fromkeys(known.filters, 60))
    asyncio.run(cache.follow_changes())
    copy = b"\x0b" + variable_byte_integer(known.identifiers["a/7/+"])
    known.by_filter = {**known.by_filter, "b": 61}  # as the MQTT thread does first, and tells it last
    monkeypatch.setattr(generations, "identifier_of", lambda *_: pytest.fail("it is worked out at once"))
    assert where(cache.find(Message(b"a/7/x", b"", 1, 2, 1, copy, 0, None))) == "copy"


@pytest.mark.parametrize("count", [FEW_FILTERS - 1, FEW_FILTERS + 1])
def test_by_which_identifiers_hundreds_of_removed_filters_brought_messages_is_worked_out_in_a_thread(
    count, monkeypatch
):
    """P5: with 1,000 that were in their fiftieth generation, the first message of no route took 80 ms."""
    threads = set()
    called = generations.identifier_of
    removed = [f"old/{number}/+" for number in range(count)]
    cache, session = cache_of("a/#", removed=removed)
    session.generations.replace(dict.fromkeys(["a/#", *removed], 60))
    monkeypatch.setattr(
        generations, "identifier_of", lambda *given: (threads.add(threading.get_ident()), called(*given))[1]
    )
    asyncio.run(cache.follow_changes())
    threads.discard(threading.get_ident())
    assert bool(threads) is (count > FEW_FILTERS)
    threads.clear()
    by_its_60th_life = variable_byte_integer(called(removed[0], 60))
    found = cache.find(Message(b"rewritten", b"", 1, 2, 1, b"\x0b" + by_its_60th_life, 0, None))
    assert found.destination is None and not found.problem, "it came by one of them"
    assert bool(threads) is (count <= FEW_FILTERS), "ready, where there are many"


# ---- routes that overlap too much


def looked_at(filters, topic) -> int:
    """Return how many levels of filters a topic is compared with."""
    counted = 0
    descend = route_tables._descend

    def counting(nodes, level, wildcards_count):
        nonlocal counted
        found = descend(nodes, level, wildcards_count)
        counted += len(found)
        return found

    route_tables._descend = counting
    try:
        RouteTable([Route.of(name, "k") for name in filters]).matches(topic)
    finally:
        route_tables._descend = descend
    return counted


def test_no_topic_is_compared_with_more_levels_than_is_calculated():
    """P5: that number is what is bounded."""
    generator = random.Random(5)
    reached = 0
    for _ in range(300):
        levels = [["a", "b", "+"][: generator.randint(1, 3)] for _ in range(4)]
        every = ["/".join(choice) for choice in itertools.product(*levels)]
        filters = [name + generator.choice(["", "/#"]) for name in generator.sample(every, min(8, len(every)))]
        filters = [name for name in filters if "+" in name or "#" in name]
        counts = [looked_at(filters, "/".join(topic)) for topic in itertools.product("abc", repeat=4)]
        assert max(counts, default=0) <= compared_levels(filters)
        reached += max(counts, default=0) == compared_levels(filters)
    assert reached > 100, "the bound is most often what a topic takes"


TOO_MUCH = [f"{name}/" + "a/" * 1_000 + "#" for name in overlapping(40, "")]


@pytest.mark.parametrize("setting", ["ROUTES_FILE", "WILDCARD_TOPIC_LIST"])
def test_routes_that_overlap_so_much_that_one_topic_holds_up_all_messages_are_refused(setting, tmp_path):
    """200 filters of 2,000 levels that match one topic held up the event loop for 100 ms, at each new topic."""
    value = ",".join(f"{name}:k" for name in TOO_MUCH)
    if setting == "ROUTES_FILE":
        path = tmp_path / "routes.yaml"
        entries = [{"name": f"r{number}", "from": name, "to": "k"} for number, name in enumerate(TOO_MUCH)]
        path.write_text(json.dumps({"routes": entries}))
        value = str(path)
    with pytest.raises(SettingsError, match=f"{setting}: .*compared with 40080 levels .*at most 32768 are") as refused:
        load_settings({**REQUIRED, setting: value})
    assert "have fewer filters that match the same topic, or fewer levels in them" in str(refused.value)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize(
    "filters",
    [
        ["/".join("+" * 32_768)],
        [f"plant/+/line{number}/#" for number in range(20_000)],
        [f"+/+/+/{number}/+/#" for number in range(20_000)],
        overlapping(8_192),
    ],
    ids=["the deepest", "20,000 that do not overlap", "20,000 behind the same wildcards", "8,192 that overlap"],
)
def test_filters_of_the_greatest_depth_and_many_filters_are_allowed(filters):
    check_overlaps([Route.of(name, "k") for name in filters])
    assert compared_levels(filters) <= MOST_COMPARED_LEVELS


# ---- the pages and the commands


@pytest.fixture
def collector():
    """Return a collector of more routes than are shown at once."""
    found = Accounts()
    for number in range(2 * SAMPLES_AT_ONCE + 1):
        found[f"route{number}"].received = found[f"route{number}"].delivered = number
        if number % 3:
            found[f"route{number}"].dropped["no_room"] += number
    histograms = {name: Histogram() for name, (kind, *_) in METRICS.items() if kind == "histogram"}
    return ConnectorCollector(found, Gauges(), histograms, {"version": "1"})


def test_what_prometheus_reads_is_the_same_in_pieces_and_of_one_moment(collector):
    """P8: with 10,000 routes a scrape held up all messages for half a second."""
    registry = CollectorRegistry()
    registry.register(collector)
    at_once = generate_latest(registry).decode()
    pieces = exposition(collector, [])
    first = next(pieces)
    for account in collector._accounts.values():
        account.receive(7)
        account.drop("later")
    assert first + "".join(pieces) == at_once
    assert max(piece.count("\n") for piece in exposition(collector, [])) <= SAMPLES_AT_ONCE + 2
    others = "".join(exposition(collector, [GCCollector(registry=CollectorRegistry())]))
    assert others.startswith("# HELP python_gc_objects_collected_total")


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1, "routes": {"x\n": {"received": 1, "dropped": {}}, "y": {"dropped": {"z": 2}}}, "text": "l\n"},
        {"findings": [], "routes": {}, "list": [{"a": None}, "b\u200b", 1.5, True], "none": None, "tuple": ("a",)},
    ],
)
def test_json_in_pieces_is_the_same_text(content):
    assert "".join(json_pieces(content)) == escaped_json(content, indent=2)
    lazily = {name: iter(value.items()) if isinstance(value, dict) else value for name, value in content.items()}
    assert "".join(json_pieces(lazily)) == escaped_json(content, indent=2)


def test_others_have_a_turn_while_a_page_is_made_and_all_who_ask_meanwhile_get_the_same(monkeypatch):
    """P5: /status of 10,000 routes took 180 ms, in which nothing else was done."""
    monkeypatch.setattr(turns, "PART_SECONDS", 0.0)
    made = []

    def pieces():
        made.append(0)
        return (f"{number} " for number in range(50))

    async def ask():
        text = ReusedText(Share(), pieces)
        asked = asyncio.gather(*(text() for _ in range(5)))
        counted = await with_others(asked)
        return counted, asked.result()

    counted, answers = asyncio.run(ask())
    assert counted >= 50
    assert answers == [" ".join(map(str, range(50))) + " "] * 5
    assert len(made) == 1


def waiting_on_status():
    """Return what `/status` shows to wait of each route, as an iterator."""
    flows = SimpleNamespace(per_second=lambda _: (0, 0))
    routes = Status._routes(SimpleNamespace(samples=SimpleNamespace(flows=flows)))
    return (shown["undelivered"] + shown["in_flight"] for _, shown in routes)


def waiting_as_told():
    """Return the same of what `connector routes` is told of routes that are gone."""
    return (counts["waiting"] for counts in count_routes(RouteTable([])))


@pytest.mark.parametrize("waiting", [waiting_on_status, waiting_as_told])
def test_what_is_shown_of_a_route_balances_although_messages_come_and_go_between_two_turns(waiting):
    """P8: with two routes at once, what came was in no account yet, and what went was: -1 messages waited."""
    accounts.clear()
    try:
        accounts["first"].received = accounts["second"].received = 1  # else they are not told of
        shown = waiting()
        assert next(shown) == 0
        accounts.receive(["first", "second"], [1, 1])
        accounts.deliver_from_memory(["second"], [1])
        assert next(shown) == 0
    finally:
        accounts.clear()


def test_others_have_a_turn_while_a_command_is_told_of_thousands_of_routes(monkeypatch):
    monkeypatch.setattr(turns, "PART_SECONDS", 0.0)
    routes = RouteTable([Route.of(f"told/{number}", "k") for number in range(60)])
    accounts["told, and gone"].receive(1)
    try:
        found = []

        async def count():
            found.extend(await turns.listed(count_routes(routes)))

        assert asyncio.run(with_others(count())) >= 60
        assert [each["route"] for each in found[:60]] == [route.name for route in routes.routes]
        assert "told, and gone" in {each["route"] for each in found[60:]}
    finally:
        accounts.clear()
    encoded = []

    async def encode():
        encoded.append(await control._encoded({"result": found}))

    assert asyncio.run(with_others(encode())) >= 60
    assert json.loads(encoded[0]) == {"result": found}
    assert [asyncio.run(control._encoded(each)) for each in ({"result": 3}, {"error": "x"}, {"result": []})] == [
        b'{"result": 3}\n',
        b'{"error": "x"}\n',
        b'{"result": []}\n',
    ]
