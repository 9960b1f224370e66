"""A tap is bounded in all that it holds, and nothing is done without one."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import pytest

from app.core.destination import Destination
from app.core.message import Message
from app.errors import ConnectorError
from app.kafka import tap
from app.kafka.tap import Taps

RECORD = SimpleNamespace(partition=lambda: 3, offset=lambda: 17)


def message(topic=b"a/b"):
    made = Message(topic, b"", 1, 2, 1, b"", 0, None)
    made.destination, made.route = Destination("kafka", b"", []), "a/#:kafka"
    return made


def confirm(taps, *messages, error=None):
    """Have Kafka confirm messages, as the producer does it; return how many delivery reports were noted."""
    for each in messages:
        watch = taps.watch()
        (each.on_delivery if watch is None else watch(each))(error, RECORD)
    return sum(each in each.destination.reports for each in messages)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tap, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    return now


def test_nothing_is_looked_at_while_nobody_asks_or_when_nobody_asks_any_more(clock):
    taps = Taps()
    assert not taps.open
    taps.ask(("name", "a/#"))
    assert taps.watch() is not None
    clock[0] += tap.FORGOTTEN_AFTER_SECONDS + 1
    assert taps.watch() is None


def test_only_what_matches_and_is_confirmed_is_shown_and_every_report_is_noted(clock):
    taps = Taps()
    taps.ask(("name", "a/+"))
    assert confirm(taps, message(), message(b"b"), message(b"a/b/c")) == 3
    assert confirm(taps, message(), error="refused") == 1
    (shown,) = taps.ask(("name", "a/+"))["messages"]
    assert (shown["mqtt_topic"], shown["kafka_topic"], shown["partition"], shown["offset"]) == ("a/b", "kafka", 3, 17)
    assert taps.ask(("name", "a/+")) == {"messages": [], "left_out": 0}


def test_of_many_in_a_second_a_part_is_shown_and_the_rest_is_counted(clock):
    taps = Taps()
    taps.ask(("name", "#"))
    assert confirm(taps, *(message() for _ in range(1000))) == 1000
    answer = taps.ask(("name", "#"))
    assert (len(answer["messages"]), answer["left_out"]) == (tap.MOST_PER_SECOND, 1000 - tap.MOST_PER_SECOND)
    clock[0] += 1
    confirm(taps, message())
    assert len(taps.ask(("name", "#"))["messages"]) == 1


def test_who_reads_slowly_gets_the_first_ones_and_the_number_of_the_others(clock):
    """P6: what waits for an answer does not grow."""
    taps = Taps()
    taps.ask(("name", "#"))
    for _ in range(4):
        confirm(taps, *(message() for _ in range(tap.MOST_PER_SECOND)))
        clock[0] += 1
    answer = taps.ask(("name", "#"))
    assert (len(answer["messages"]), answer["left_out"]) == (
        tap.KEPT_MESSAGES,
        4 * tap.MOST_PER_SECOND - tap.KEPT_MESSAGES,
    )


def test_the_topics_of_others_take_a_bounded_part_of_the_memory(clock):
    """P6: in the tap, and in an answer."""
    taps = Taps()
    taps.ask(("name", "#"))
    confirm(taps, message(b"x" * 60_000), *(message(b"%d" % number) for number in range(tap.KEPT_TOPICS + 10)))
    (only,) = taps.open.values()
    assert len(only._is_wanted) <= tap.KEPT_TOPICS
    assert max(map(len, only._is_wanted)) <= tap.KEPT_TOPIC_BYTES
    assert len(taps.ask(("name", "#"))["messages"][0]["mqtt_topic"]) == tap.LONGEST_TOPIC_CHARACTERS


def test_topics_of_wide_characters_take_no_more_than_others(clock):
    """P6: as text 490 of them take 2 KB, and eight taps kept 10,000 such topics each: 165 MB."""
    taps = Taps()
    taps.ask(("name", "#"))
    confirm(taps, *(message("\U0001f600".encode() * 60 + b"%d" % number) for number in range(20)))
    (only,) = taps.open.values()
    assert 0 < max(map(sys.getsizeof, only._is_wanted)) <= tap.KEPT_TOPIC_BYTES + sys.getsizeof(b"")


@pytest.mark.parametrize("levels", [tap.MOST_LEVELS, tap.MOST_LEVELS + 1])
def test_a_filter_of_a_tap_has_a_bound_of_levels_unless_it_names_one_topic(levels):
    """One of 32,768 levels took 15 ms for each message whose topic is as deep."""
    taps = Taps()
    taps.ask(("name", "/".join("a" * levels)))
    with contextlib.ExitStack() as stack:
        if levels > tap.MOST_LEVELS:
            stack.enter_context(pytest.raises(ConnectorError, match="may have 64 levels at most"))
        taps.ask(("other", "/".join("+" * levels)))


@pytest.mark.parametrize("ids", [(), ("name",), ("name", "#", "more"), ("name", "a#"), ("name", ""), ("n" * 65, "#")])
def test_what_is_no_tap_is_refused(ids):
    taps = Taps()
    with pytest.raises(ConnectorError):
        taps.ask(ids)
    assert taps.watch() is None


def test_there_are_no_more_taps_than_can_be(clock):
    taps = Taps()
    for number in range(tap.MOST_TAPS):
        taps.ask((str(number), "#"))
    with pytest.raises(ConnectorError, match="as many as can be"):
        taps.ask(("one more", "#"))
    clock[0] += tap.FORGOTTEN_AFTER_SECONDS + 1
    taps.ask(("one more", "#"))
