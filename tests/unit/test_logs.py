"""What is written to the log: its two forms, and that what repeats itself is logged once a minute."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from app import throttle as throttling
from app.errors import StoreError
from app.kafka.log_filters import NoneEndsUs, OncePerMinute
from app.lines import JsonFormatter, LineFormatter
from app.throttle import KEPT_KINDS, KEPT_TROUBLES, LINES_A_MINUTE, Progress, Throttle

FIELDS = ["time", "level", "logger", "message"]


def events(text: str) -> list[dict]:
    """Return the events of a log in JSON; fail if a line is none."""
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        assert list(event)[:4] == FIELDS, event
        assert datetime.fromisoformat(event["time"].replace("Z", "+00:00")).tzinfo is not None
        assert len(event["time"]) == len("2026-01-31T00:00:00.000Z")
    return found


def record_of(text: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("app.x", logging.WARNING, "", 0, text, (), None)
    record.__dict__.update(fields)
    return record


# ---- the two forms


def test_an_error_that_the_operator_can_act_on_has_no_traceback_in_either_form():
    try:
        raise StoreError("the table cannot be read")
    except StoreError as error:
        record = record_of(f"Crashed reason={error!r}", exc_info=sys.exc_info())
    assert "\n" not in LineFormatter().format(record)
    assert "exception" not in json.loads(JsonFormatter().format(record))


def test_json_has_the_traceback_and_each_text_is_one_that_harms_nobody():
    try:
        raise ValueError("a\x1b[31m\nb")
    except ValueError:
        record = record_of("it\nfailed \u202e\ud800", exc_info=sys.exc_info())
    line = JsonFormatter().format(record)
    assert line.isascii() and "\n" not in line
    [event] = events(line)
    assert event["message"] == r"it\nfailed \u202e\ud800"
    assert event["level"] == "warn"
    assert event["exception"].splitlines()[0] == "    Traceback (most recent call last):"
    assert event["exception"].endswith("b") and "\x1b" not in event["exception"]


# ---- levels


def test_what_librdkafka_finds_fatal_does_not_end_the_worker_and_is_an_error(caplog):
    log = logging.getLogger("librdkafka-under-test")
    log.addFilter(NoneEndsUs())
    log.critical("FATAL [thrd:main]: Fatal error: out of order")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    log.setLevel(logging.CRITICAL)
    log.critical("FATAL [thrd:main]: Fatal error: out of order")
    assert len(caplog.records) == 1, "LOG_LVL=fatal is for what ends the worker"


# ---- what repeats itself


def test_what_librdkafka_repeats_is_said_once_and_another_reason_or_node_at_once(caplog):
    log = logging.getLogger("librdkafka-repeating")
    log.addFilter(OncePerMinute())
    for milliseconds in range(3):
        for node in ("one:9093/1", "two:9093/2"):
            for reason in ("Connection refused", "SSL handshake failed: certificate verify failed"):
                client = f"connector#producer-{milliseconds}"  # there is another one for each question
                text = "FAIL [%s] [thrd:%s]: %s: %s (after %dms in state CONNECT)"
                log.error(text, client, node, node, reason, milliseconds)
    assert [(record.args[1], record.args[3]) for record in caplog.records] == [
        ("one:9093/1", "Connection refused"),
        ("one:9093/1", "SSL handshake failed: certificate verify failed"),
        ("two:9093/2", "Connection refused"),
        ("two:9093/2", "SSL handshake failed: certificate verify failed"),
    ]


@pytest.fixture
def throttle():
    log = logging.getLogger("throttle-under-test")
    log.setLevel(logging.INFO)
    return Throttle(log)


def wait_a_minute(throttle: Throttle) -> None:
    """Turn the clock, in effect."""
    for trouble in throttle._troubles.values():
        trouble.due -= 60
    for kind in throttle._kinds.values():
        kind.ends_at -= 60


def test_trouble_is_said_at_once_and_then_once_a_minute_with_its_count(throttle, caplog):
    for _ in range(13):
        throttle.warning("full", "it is %s", "full")
    assert caplog.messages == ["it is full"]
    wait_a_minute(throttle)
    throttle.warning("full", "it is %s", "full")
    assert len(caplog.records) == 2
    assert " (12 times more since " in LineFormatter().format(caplog.records[1])
    [event] = events(JsonFormatter().format(caplog.records[1]))
    assert event["message"] == "it is full", "the same text, so that programs can count it"
    assert event["repeated"] == 12
    said_at = datetime.fromtimestamp(caplog.records[0].created, timezone.utc)
    assert abs(datetime.fromisoformat(event["since"].replace("Z", "+00:00")) - said_at) < timedelta(minutes=1)
    wait_a_minute(throttle)
    throttle.warning("full", "it is %s", "full")
    assert LineFormatter().format(caplog.records[2]).endswith("it is full"), "it was not left out in between"


def test_another_trouble_is_said_at_once(throttle, caplog):
    throttle.warning("a", "a")
    throttle.error("b", "b")
    assert caplog.messages == ["a", "b"]


def test_the_end_of_a_trouble_is_said_if_the_trouble_was(throttle, caplog):
    throttle.end("a", "a is over")
    assert not caplog.messages, "there was none"
    for _ in range(3):  # it comes and goes within the minute
        throttle.warning("a", "a")
        throttle.end("a", "a is over")
    assert caplog.messages == ["a", "a is over"]
    wait_a_minute(throttle)
    throttle.warning("a", "a")
    throttle.end("a", "a is over")
    assert caplog.messages == ["a", "a is over"] * 2


def test_what_is_left_out_is_there_for_whoever_looks_for_a_fault(throttle, caplog):
    throttle.log.setLevel(logging.DEBUG)
    throttle.warning("a", "a")
    throttle.warning("a", "a")
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]


def test_trouble_of_thousands_of_topics_is_a_few_lines_a_minute_and_how_many_more_there_were(throttle, caplog):
    """Its end as well, which is said of what was said alone."""

    def say_all(topics=5000):
        caplog.clear()
        for number in range(topics):
            throttle.warning(("waits", number), "the lane %s waits", number)

    say_all()
    assert caplog.messages == [f"the lane {number} waits" for number in range(LINES_A_MINUTE)]
    assert " (more of this kind are left out until " in LineFormatter().format(caplog.records[-1])
    [event] = events(JsonFormatter().format(caplog.records[-1]))
    assert "others_until" in event
    for number in range(5000):
        throttle.end(("waits", number), "the lane %s flows again", number)
    assert len(caplog.messages) == 2 * LINES_A_MINUTE
    throttle.warning("other", "it is %s", "full")
    assert caplog.messages[-1] == "it is full", "another kind has lines of its own"
    wait_a_minute(throttle)
    say_all()
    assert len(caplog.messages) == LINES_A_MINUTE
    assert f" (and {5000 - LINES_A_MINUTE} more of this kind since " in LineFormatter().format(caplog.records[0])
    [event] = events(JsonFormatter().format(caplog.records[0]))
    assert event["others"] == 5000 - LINES_A_MINUTE


def test_what_is_said_stays_known_however_many_other_troubles_come(throttle, caplog):
    """Of too many the oldest is forgotten, not all of them at once."""
    throttle._lines_a_minute = 2 * KEPT_TROUBLES
    for number in range(KEPT_TROUBLES + 1):
        throttle.warning(number, "trouble %d", number)
    caplog.clear()
    for number in range(1, KEPT_TROUBLES + 1):
        throttle.warning(number, "trouble %d", number)
    assert not caplog.messages


def test_troubles_without_number_take_no_memory_without_bound(throttle):
    throttle.log.setLevel(logging.CRITICAL)
    for number in range(3 * KEPT_TROUBLES):
        throttle.warning(number, f"trouble {number}")
    assert len(throttle._troubles) <= KEPT_TROUBLES
    assert len(throttle._kinds) <= KEPT_KINDS


def test_long_work_tells_now_and_then_how_far_it_is_and_short_work_nothing(monkeypatch):
    now = 0.0
    monkeypatch.setattr(throttling, "time", SimpleNamespace(monotonic=lambda: now))
    told = []
    progress = Progress(told.append)
    for steps in range(1, 193):
        now += 0.0625
        progress.reached(steps)
    assert told == [80, 160], "each five seconds of the twelve"
