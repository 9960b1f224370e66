"""The way of one message through the code: the rule by which it is found, and the map of the code held against it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.calls import ANOTHER_IN_HAND, IN_HAND, Call, Span, way
from tools.path import Follower, report

REPOSITORY = Path(__file__).resolve().parents[2]
IDLE, MESSAGE = Span(0, 10), Span(10, 20)


# ---- the rule


def follow(*calls):
    """Return the functions of the message's way; a call is (time, file.function, caller[, in hand[, goes on]])."""
    made = []
    for at, name, caller, *rest in calls:
        in_hand, goes_on = [*rest, *(0, False)[len(rest) :]]
        file, _, function = name.rpartition(".")
        made.append(Call(at, 1, file, function, caller, goes_on, in_hand))
    return [f"{file}.{function}" for file, function in way(made, MESSAGE, [IDLE]).steps]


def test_what_is_called_for_messages_only_belongs_to_the_message():
    assert follow((1, "a.timer", -1), (11, "a.timer", -1), (12, "b.send", -1)) == ["b.send"]


def test_what_runs_anyway_belongs_to_the_message_when_it_has_it_in_hand():
    assert follow((1, "a.poll", -1), (11, "a.poll", -1, IN_HAND), (12, "a.poll", -1)) == ["a.poll"]


def test_callers_belong_to_it():
    calls = [(1, "a.turn", -1), (11, "a.turn", -1), (12, "a.turn", -1), (13, "a.read", 2), (14, "b.decode", 3)]
    assert follow(*calls) == ["a.turn", "a.read", "b.decode"]


def test_what_began_before_the_message_is_no_caller():
    assert follow((9, "a.run", -1), (11, "b.send", 0)) == ["b.send"]


def test_what_is_done_for_another_message_is_left_out():
    calls = [(11, "a.turn", -1), (12, "b.store", 0, ANOTHER_IN_HAND), (13, "b.write", 1), (14, "b.store", 0, IN_HAND)]
    assert follow(*calls) == ["a.turn", "b.store"]


def test_what_is_done_for_both_belongs_to_the_message():
    calls = [(11, "b.take_reports", -1, IN_HAND), (12, "b.settle", 0, ANOTHER_IN_HAND), (13, "b.count", 0)]
    assert follow(*calls) == ["b.take_reports", "b.count"]


def test_pages_are_left_out():
    assert follow((11, "app/pages/status.py.show", -1), (12, "b.head", 0, IN_HAND)) == []


def test_a_coroutine_that_goes_on_and_does_nothing_is_left_out():
    calls = [(11, "a.agent", -1, 0, True), (12, "a.agent", -1, 0, True), (13, "b.store", 1)]
    assert follow(*calls) == ["a.agent", "b.store"]


def test_what_two_threads_do_at_once_is_not_mixed():
    calls = [(11, "a.turn", -1), (12, "b.pass_on", -1), (13, "a.write", 0), (14, "b.route", 1)]
    assert follow(*calls) == ["a.turn", "a.write", "b.pass_on", "b.route"]


def test_a_way_is_counted_in_files_changes_of_file_and_functions():
    calls = [Call(11, 1, file, function, -1, False, 0) for file, function in ("aa", "ab", "ab", "ba", "ab")]
    found = way(calls, MESSAGE, [IDLE])
    assert found.steps == (("a", "a"), ("a", "b"), ("b", "a"), ("a", "b"))
    assert (found.files, found.changes, found.functions) == (["a", "b"], 2, 3)


# ---- the map


# What pages and the Kafka service do by themselves now and then, for other messages too: whether it happens to run in
# the idle time, and so counts as no step of this message, is chance.
RUNS_ANYWAY = {"tables/shapes.py", "app/kafka/cluster.py", "app/kafka/contained.py", "app/kafka/stranded.py"}


def files_on_the_map(heading):
    """Return the files that a list of the map names, in the header of `app/__init__.py`."""
    text = ast.get_docstring(ast.parse((REPOSITORY / "app" / "__init__.py").read_text(encoding="utf-8")))
    listed = re.search(rf"^{heading}: (.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert listed, f"the map has no list that begins with {heading!r}"
    return [f"{name.replace('.', '/')}.py" for name in re.findall(r"[a-z_]+(?:\.\w+)+", listed[1])]


HEADINGS = ("Direct", "Outage")
TRIES = 3


@pytest.fixture(scope="module")
def ways(mosquitto, kafka, tmp_path_factory):
    """Return the ways of a message, direct and through an outage.

    On a machine that stands still for a second, what runs once a second is not seen in the idle time, and counts as a
    step. So a message whose way is not on the map is followed again: what is wrong with the map is so each time.
    """
    for _ in range(TRIES):
        # A name of its own each time: where tests are shared out, the module may be set up twice at one Kafka.
        directory = tmp_path_factory.mktemp("path")
        found = Follower(directory, mosquitto, kafka, f"way-of-a-message-{directory.name}").follow()
        if all(are_on_the_map(found, heading) for heading in HEADINGS):
            break
    return found


def are_on_the_map(found, heading):
    """Tell whether a list names the files that a message met, and no others."""
    return set(files_on_the_map(heading)) ^ set(found[heading.lower()].files) <= RUNS_ANYWAY


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_map_of_the_code_names_the_files_that_a_message_meets(heading, ways):
    named = files_on_the_map(heading)
    assert are_on_the_map(ways, heading), report(ways)
    assert len(named) == len(set(named))
