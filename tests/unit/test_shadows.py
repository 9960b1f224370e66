"""Routes that can never match, and what is new in other routes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routes import Route, RouteTable, differences, shadowed, shadows


def hidden(*filters):
    """Return which filter is hidden by which, of filters in their order of precedence."""
    found = shadowed([Route.of(text, "k") for text in filters])
    return {each.route.mqtt_filter: each.by.mqtt_filter for each in found}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("#", "a/+"),
        ("#", "+/#"),
        ("+/#", "#"),
        ("a/#", "a/+/b"),
        ("a/#", "a/b/#"),
        ("+/b/#", "a/b/#"),
        ("+/+", "+/b"),
        ("a/#", "a/+/#"),
        ("$SYS/#", "$SYS/+/a"),
    ],
)
def test_a_route_behind_one_that_matches_all_of_it_is_found(first, second):
    assert hidden(first, second) == {second: first}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/+", "a/#"),
        ("a/+/#", "a/#"),
        ("a/b/#", "a/+/#"),
        ("#", "$SYS/#"),
        ("+/x/#", "$SYS/x/#"),
        ("+", "#"),
        ("a/b", "a/+"),
        ("+/b", "a/+"),
    ],
)
def test_a_route_that_still_gets_something_is_not(first, second):
    assert not hidden(first, second)


filters = st.lists(st.sampled_from(("a", "b", "", "$s", "+")), min_size=1, max_size=3).map("/".join)
filters = st.builds(lambda text, end: text + end, filters.filter(bool), st.sampled_from(("", "/#"))) | st.just("#")
topics = st.lists(st.sampled_from(("a", "b", "", "$s", "other")), min_size=1, max_size=4).map("/".join).filter(bool)


@given(st.lists(filters, min_size=2, max_size=6, unique=True), st.lists(topics, max_size=20))
def test_a_route_that_is_found_is_the_first_match_of_no_topic(texts, names):
    """And the one that is said to hide it matches whatever it matches."""
    table = RouteTable([Route.of(text, "k") for text in sorted(texts, key=lambda text: "+" in text or "#" in text)])
    by = {each.route: each.by for each in shadowed(table.routes)}
    for topic in names:
        matching = table.matches(topic)
        assert not matching or matching[0] not in by
        assert all(by[route] in matching for route in matching if route in by)


def test_ten_thousand_routes_are_looked_at():
    """A pair at a time, it would take minutes instead of a tenth of a second."""
    routes = [Route.of(f"plant/{number // 100}/+/x{number % 100}/#", "k") for number in range(10_000)]
    assert [each.route for each in shadowed([*routes, Route.of("plant/7/+/x1/+", "k")])] == [
        Route.of("plant/7/+/x1/+", "k")
    ]


def test_what_is_new_is_told_by_names():
    before = [Route.of(text, "k") for text in ("a", "b", "c", "d")]
    changed = Route(before[1].name, "b", Route.of("b", "other").to)
    found = differences(before, [before[3], changed, before[0], Route.of("e", "k")])
    assert found == (["e:k"], ["c:k"], ["b:k"], True)
    assert differences(before, [*before, Route.of("e", "k")]).are_moved is False
    assert not differences(before, list(before))


def test_of_several_the_first_one_is_named():
    assert hidden("a/#", "#", "a/+") == {"a/+": "a/#"}
    assert hidden("#", "a/#", "a/+") == {"a/#": "#", "a/+": "#"}


def test_filters_that_overlap_as_much_as_they_may_are_compared_up_to_a_bound(monkeypatch):
    """Each of thousands was compared with thousands of others, for minutes, and the start waited."""
    looked_at = 0
    places_of = shadows._places_of_covering

    def counting(*given):
        nonlocal looked_at
        for place in places_of(*given):
            looked_at += 1
            yield place

    monkeypatch.setattr(shadows, "_places_of_covering", counting)
    monkeypatch.setattr(shadows, "MOST_COMPARED", 5_000)
    every = ["/".join(levels) for levels in itertools.product("a+", repeat=8)][1:]
    found = hidden("first/#", "first/+", *every, *(f"{'a/' * 8}{number}/+" for number in range(200)))
    assert found == {"first/+": "first/#"}
    assert 5_000 < looked_at < 5_000 + 2**9
