"""What the status page is made of, without brokers and browser: the verdict, and what is noted, bounded."""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.pages.history import INTERVAL_SECONDS, SAMPLES, Flows, History, Reading, Totals
from app.pages.losses import LONGEST_LIST, Losses
from app.pages.problems import LONGEST_LIST as MOST_PROBLEMS
from app.pages.problems import RecentProblems
from app.pages.reuse import LONGEST_SECONDS, Reused, Share
from app.pages.verdict import NAMED_REFUSALS, Picture, findings, refusals
from app.settings import Weakness
from tests.support.oracle import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "app" / "pages" / "page"

# ---- the verdict


@pytest.mark.parametrize(
    ("picture", "level", "text", "advice"),
    [
        (Picture(), "ok", "All is well.", "from MQTT to Kafka"),
        (Picture(waiting_messages=9, oldest_age_seconds=1), "ok", "All is well.", ""),
        (Picture(waiting_messages=9, oldest_age_seconds=60), "ok", "what waited goes to Kafka now", "in order"),
        (Picture(kafka_connected=False), "trouble", "Kafka is not reachable", "Bring Kafka back"),
        (Picture(kafka_connected=False, kafka_judged=False), "attention", "Kafka has not answered yet.", "seconds"),
        (Picture(kafka_connected=False, durable=False), "trouble", "Kafka is not reachable", "in memory only"),
        (Picture(kafka_connected=False, lane_troubles={"a": "x"}), "trouble", "Kafka is not reachable", ""),
        (Picture(mqtt_connected=False, mqtt_address="h:1"), "trouble", "MQTT broker is not connected", "h:1"),
        (Picture(refused_filters={"a/#": "not authorized"}), "trouble", "refused the filter a/#: not authorized", ""),
        (Picture(full_reason="the table is full"), "trouble", "Nothing more is accepted: the table is full.", ""),
        (Picture(lane_troubles={"a": "no right"}), "trouble", "The lane a waits: no right.", "other lanes go on"),
        (Picture(lane_troubles={"b": "x", "a": "y"}), "trouble", "2 lanes wait; a: y.", ""),
        (
            Picture(lane_troubles={"a": "no"}, lanes_not_shown={"a", "z"}),
            "trouble",
            "The lane a waits: no.",
            "Create a, or",
        ),
        (
            Picture(lane_troubles={"a": "no", "b": "x"}, lanes_not_shown={"b"}),
            "trouble",
            "2 lanes",
            "it. Look at the top",
        ),
        (Picture(topics_not_shown={"c"}), "attention", "Kafka shows no topic named c.", "Create it"),
        (Picture(less_granted=["QoS 1 for 2"]), "attention", "grants less than was asked for.", "QoS 1 for 2."),
        (Picture(less_granted=["session expiry 60 s"]), "attention", "grants less", "Session expiry 60 s."),
        (Picture(lost_lately=True), "attention", "may have been lost in the last hour", "possible losses"),
        (Picture(dead_letters=3), "attention", "Dead letters wait for a decision: 3.", "retry"),
        (Picture(durable=False), "attention", "in memory only", "DB_PERSIST_PATH"),
        (Picture(leaving="drained: subscribed to nothing"), "attention", "The worker is drained: subsc", "next start"),
        (Picture(stopping=True), "attention", "The worker is stopping.", ""),
        (Picture(ends_because="the disk", stopping=True), "trouble", "The worker ends", "the disk"),
    ],
)
def test_the_headline_says_what_is_wrong_and_what_to_do(picture, level, text, advice):
    headline = findings(picture)[0]
    assert headline.level == level
    assert text in headline.text
    assert advice in headline.advice
    assert headline.text.endswith(".")


# What may be wrong at a time, in the order in which it is to be said: what ends, loses, stops, exposes, slows, waits.
BY_GRAVITY = [
    ({"ends_because": "the disk"}, "The worker ends"),
    ({"stopping": True}, "The worker is stopping"),
    ({"full_reason": "the table is full"}, "Nothing more is accepted"),
    ({"mqtt_connected": False}, "The MQTT broker is not connected"),
    ({"clock_is_wrong": True}, "The clock"),
    ({"unanswered": "SUBSCRIBE", "is_overdue": True}, "The MQTT broker has not answered"),
    ({"refused_filters": {"a/#": "not authorized"}}, "The MQTT broker refused"),
    ({"outlived": ["the oldest message that waits for a is 9 days old"]}, "The oldest message"),
    ({"kafka_connected": False}, "Kafka is not reachable"),
    ({"weaknesses": [Weakness("any_host_name", "any host name is accepted", "Set another")]}, "TLS is weakened"),
    ({"leaving": "drained"}, "The worker is drained"),
    ({"less_granted": ["QoS 1 for 2"]}, "The MQTT broker grants less"),
    ({"topics_not_shown": {"c"}}, "Kafka shows no topic"),
    ({"lost_lately": True}, "Messages may have been lost"),
    ({"dead_letters": 1}, "Dead letters"),
    ({"durable": False}, "What waits for Kafka is in memory only"),
]


def test_everything_that_is_wrong_is_said_and_the_gravest_first():
    found = findings(Picture(**functools.reduce(operator.or_, (wrong for wrong, _ in BY_GRAVITY))))
    assert len(found) == len(BY_GRAVITY)
    assert all(finding.text.startswith(said) for finding, (_, said) in zip(found, BY_GRAVITY, strict=True))
    levels = [finding.level for finding in found if finding.text != "The worker is stopping."]
    assert levels == sorted(levels, reverse=True), "each trouble before what wants attention alone"


def test_of_any_two_that_are_wrong_the_graver_one_is_the_headline():
    """It is all that `systemctl status` shows: what loses messages must not be hidden by what delays them."""
    for (graver, said), (other, also) in itertools.combinations(BY_GRAVITY, 2):
        texts = [finding.text for finding in findings(Picture(**other | graver))]
        assert texts[0].startswith(said) and texts[1].startswith(also)


@pytest.mark.parametrize(
    ("graver", "slower"),
    [
        ({"lane_troubles": {"a": "no right"}}, {"unanswered": "SUBSCRIBE"}),
        ({"refused_filters": {"a/#": "no"}}, {"kafka_connected": False, "kafka_judged": False}),
        ({"outlived": ["the oldest one is old"]}, {"lane_troubles": {"a": "no right"}}),
    ],
)
def test_what_may_end_by_itself_is_said_behind_what_does_not(graver, slower):
    first, second = findings(Picture(**graver | slower))
    assert [first.text, second.text] == [findings(Picture(**wrong))[0].text for wrong in (graver, slower)]


@pytest.mark.parametrize("is_judged", [True, False])
def test_a_full_table_with_kafka_away_never_says_that_messages_are_kept(is_judged):
    """Nothing more is accepted then; without a full table it is true."""
    full = findings(Picture(full_reason="the table is full", kafka_connected=False, kafka_judged=is_judged))
    assert "Nothing more is accepted" in full[0].text
    assert not re.search("received and kept", " ".join(finding.advice for finding in full))
    (away,) = findings(Picture(kafka_connected=False, kafka_judged=is_judged))
    assert "received and kept" in away.advice


def test_of_ten_thousand_filters_that_the_broker_refused_the_first_are_named_and_the_others_counted():
    """P5: /health/ready named all of them, which held up the messages for 150 ms each time that a probe asked."""
    filters = {f"plant/{number:05}/#": "not authorized" for number in reversed(range(10_000))}
    told = [finding.text for finding in findings(Picture(refused_filters=filters))]
    assert told[0] == "The MQTT broker refused the filter plant/00000/#: not authorized."
    assert told[NAMED_REFUSALS:] == ["The MQTT broker refused 9900 filters more."]
    assert refusals(filters)[-1] == "the MQTT broker refused 9900 filters more"
    few = dict(list(filters.items())[:NAMED_REFUSALS])
    assert len(refusals(few)) == NAMED_REFUSALS and "more" not in refusals(few)[-1]
    assert refusals({}) == []


# ---- answers that are given again


@pytest.mark.parametrize("costs", [[0.01], [0.01, 0.01, 0.01, 0.01, 0.01], [0.03, 0.001, 0.002]])
def test_costly_answers_take_a_fifth_of_the_processor_at_most_together_however_many_ask(costs, monkeypatch):
    """Each took a fifth by itself."""
    share, clock, used = Share(), [100.0], [7.0]
    clocks = SimpleNamespace(monotonic=lambda: clock[0], thread_time=lambda: used[0])
    monkeypatch.setattr("app.pages.reuse.time", clocks)
    made = [0 for _ in costs]

    def make(which: int) -> int:
        used[0] += costs[which]
        clock[0] += 1.5 * costs[which]  # the machine was busy with others
        made[which] += 1
        return made[which]

    answers = [Reused(share, partial(make, which)) for which in range(len(costs))]
    for answer in (*answers, *answers):  # as long as not all were made once, what all take is not known
        answer()
    made_before, used_before, end = made.copy(), used[0], clock[0] + 2.0
    while clock[0] < end:
        assert [answer() for answer in answers] == made
        clock[0] += 0.001
    assert used[0] - used_before <= 2.0 / 5 + sum(costs)
    assert all(now > before for now, before in zip(made, made_before, strict=True)), "none waits for ever"


def test_no_answer_is_older_than_five_seconds():
    share = Share()
    assert share.note("one", 0.1) == pytest.approx(0.5)
    assert share.note("another", 0.3) == pytest.approx(2.0)
    assert share.note("another", 30.0) == LONGEST_SECONDS == 5.0


def test_an_answer_is_made_anew_when_something_has_changed_and_not_before():
    version, made = [1], iter("abc")
    answer = Reused(Share(), lambda: next(made), lambda: version[0])
    assert {answer() for _ in range(100)} == {"a"}
    version[0] = 2
    wait_until(lambda: answer() == "b", "the answer of the second version")
    answer.forget()
    assert answer() == "c"


# ---- history


def test_the_history_has_a_sample_for_every_ten_seconds_of_an_hour_and_no_more():
    history = History()
    for second in range(2 * 3600):
        history.note(Reading(second, 1_000_000 + second, 50 * second, 40 * second, 10 * second))
    answer = history.as_dictionary()
    samples = answer["samples"]
    assert len(samples) == SAMPLES + 1, "and the interval that is not over"
    assert samples[-1] == (1_007_199, 50.0, 40.0, 71_990)
    distances = {later[0] - earlier[0] for earlier, later in itertools.pairwise(samples[:-1])}
    assert distances == {INTERVAL_SECONDS} == {answer["interval_seconds"]}


def test_a_worker_that_stood_still_has_a_sample_that_is_true_all_the_same():
    history = History()
    history.note(Reading(0, 0, 0, 0, 0))
    history.note(Reading(100, 100, 1000, 500, 500))
    assert history.as_dictionary()["samples"] == [(100, 10.0, 5.0, 500)]


def test_the_flow_of_a_route_is_of_the_last_ten_seconds():
    flows = Flows()
    assert flows.per_second("a") == (0.0, 0.0)
    for second in range(31):
        received, delivered = {"a": min(second, 20) * 30}, {"a": second * 10}
        new = {} if second < 25 else {"new": 7 * second - 24 * 7}
        flows.note(Totals(second, received | new, delivered))
    assert flows.per_second("a") == (0.0, 10.0), "nothing came in for ten seconds"
    assert flows.per_second("new") == (4.2, 0.0)
    assert flows.per_second("never heard of") == (0.0, 0.0)


# ---- losses


def look(losses, at, connected=True, **counts):
    losses.look(at, connected=connected, counts={(kind, ""): count for kind, count in counts.items()})


def windows(losses):
    return [
        (entry["kind"], entry["from_seconds"], entry["until_seconds"], entry["count"]) for entry in losses.as_list()
    ]


def test_a_start_and_an_absence_of_the_broker_are_windows_in_which_qos_0_may_be_lost():
    losses = Losses(100)
    look(losses, 101, connected=False)
    assert windows(losses) == [("started", None, None, 0)], "it is not over"
    look(losses, 103)
    look(losses, 200, connected=False)
    look(losses, 210, connected=False)
    look(losses, 220)
    look(losses, 230)
    assert windows(losses) == [("mqtt_away", 200, 220, 0), ("started", None, 103, 0)]
    assert not losses.since(0), "nothing that was promised is lost"


def test_a_lost_session_is_a_window_from_the_end_of_the_last_connection():
    losses = Losses(100)
    look(losses, 101, session_lost=0)
    look(losses, 200, connected=False, session_lost=0)
    look(losses, 230, session_lost=1)
    assert windows(losses)[0] == ("session_lost", 200, 230, 1)
    assert losses.since(230)
    assert not losses.since(231)
    look(losses, 299, session_lost=1)
    look(losses, 300, session_lost=2)
    assert windows(losses)[0] == ("session_lost", 299, 300, 1), "it was away for less than a second"


def test_what_is_dropped_again_and_again_is_one_window_until_it_ceases():
    losses = Losses(100)
    for at, dropped in ((101, 0), (110, 5), (120, 9), (150, 9), (170, 10), (400, 12)):
        look(losses, at, dropped=dropped)
    assert windows(losses)[:2] == [("dropped", 400, 400, 2), ("dropped", 110, 170, 10)]


def test_damage_that_was_found_at_the_start_is_told_with_its_count():
    losses = Losses(100)
    look(losses, 101, damage=7)
    look(losses, 102, damage=7)
    assert windows(losses)[0] == ("damage", None, 100, 7)


def test_the_list_of_losses_is_bounded():
    losses = Losses(0)
    for round_number in range(100):
        look(losses, 2 * round_number, connected=False)
        look(losses, 2 * round_number + 1)
    assert len(losses.as_list()) == LONGEST_LIST


# ---- the last warnings


@pytest.fixture
def problems():
    handler = RecentProblems()
    log = logging.getLogger("a log of its own")
    log.propagate = False
    log.addHandler(handler)
    yield handler, log
    log.removeHandler(handler)


def test_the_last_warnings_are_kept_newest_first_and_repeated_ones_once(problems):
    handler, log = problems
    log.info("no news")
    log.warning("the lane %s waits", "a")
    log.error("the disk is full")
    log.warning("the lane %s waits", "a")
    entries = [(entry["level"], entry["text"], entry["times"]) for entry in handler.as_list()]
    assert entries == [("WARNING", "the lane a waits", 2), ("ERROR", "the disk is full", 1)]


def test_the_last_warnings_are_bounded_in_number_and_length(problems):
    handler, log = problems
    for number in range(200):
        log.warning("%d %s", number, "x" * 100_000)
    entries = handler.as_list()
    assert [entry["text"].split()[0] for entry in entries] == [
        str(number) for number in range(199, 199 - MOST_PROBLEMS, -1)
    ]
    assert max(len(entry["text"]) for entry in entries) < 1000


def test_a_log_call_with_wrong_arguments_ends_nothing(problems, monkeypatch):
    handler, log = problems
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.warning("%d", "no number")
    assert handler.as_list() == []


# ---- the page's files


def test_every_file_of_the_page_is_served_and_belongs_to_the_package():
    text = (REPOSITORY / "app" / "pages" / "static.py").read_text(encoding="utf-8")
    served = set(re.findall(r'^    "([\w.]+)": "(?:text|image)/', text, re.MULTILINE))
    assert served == {path.name for path in PAGE.iterdir()}
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert '[tool.setuptools.package-data]\n"app.pages.page" = ["*"]' in project


def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_text():
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|DOMParser", text), path
        assert not re.search(r"\bstyle=|\son\w+=", text), path
