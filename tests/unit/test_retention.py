"""Messages that are older than what their Kafka topic keeps: what is counted."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from app.pages.retention import READ_MESSAGES, Retention, in_words, outlived_messages
from app.pages.verdict import Picture, findings

DAY_MS = 86_400_000


class Table:
    """Lanes with messages of given ages in days, and how they are read."""

    def __init__(self, **ages_days: list[float]) -> None:
        now_ms = time.time() * 1000
        self._times = {topic: [now_ms - age * DAY_MS for age in ages] for topic, ages in ages_days.items()}

    def lanes(self):
        return [(topic, topic) for topic in self._times]

    def read(self, _prefix, first, messages, _size_bytes):
        return [SimpleNamespace(timestamp_ms=time_ms) for time_ms in self._times[first][:messages]]


def looked(keeps_days, **ages_days):
    """Return what is found in lanes of topics that keep so long."""
    keeps_ms = {topic: days * DAY_MS for topic, days in keeps_days.items()}
    retention = Retention(Table(**ages_days), keeps_ms)
    retention.look({topic: len(ages) for topic, ages in ages_days.items()})
    return retention


def test_messages_that_outlived_what_their_topic_keeps_are_counted_and_named(caplog):
    retention = looked({"short": 7, "long": 30}, short=[9, 8, 6, 0], long=[9, 8], ever=[4000], empty=[])
    assert list(retention.outlived) == ["short"], "who keeps for ever, or from the arrival, is not in the mapping"
    assert retention.messages == 2
    (said,) = caplog.messages
    assert said.startswith(
        "the oldest message that waits for short is 9 days old, and that topic keeps records for 7 days: "
        "Kafka will delete about 2 messages"
    )
    (finding,) = findings(Picture(outlived=[found.sentence(topic) for topic, found in retention.outlived.items()]))
    assert finding.level == "trouble"
    assert finding.text.startswith("The oldest message that waits for short is 9 days old")
    assert "retention.ms" in finding.advice
    assert "LogAppendTime" in finding.advice


def test_messages_of_a_clock_that_said_1970_are_counted():
    days = time.time() * 1000 / DAY_MS
    retention = looked({"a": 7}, a=[days, days, 0.1])
    assert retention.messages == 2


@pytest.mark.parametrize(
    ("ages", "waiting", "number"),
    [([9, 8, 6], 3, 2), ([9], 1, 1), ([14] * READ_MESSAGES, 1000, READ_MESSAGES + 450), ([14] * 10, 4, 10)],
)
def test_how_many_outlived_is_counted_at_the_head_and_estimated_behind_it(ages, waiting, number):
    assert outlived_messages(ages, 7, waiting) == number


def test_a_clock_that_is_wrong_by_years_is_not_well(monkeypatch, caplog):
    """Messages that do not even wait get a time that topics delete by."""
    monkeypatch.setattr("app.pages.retention.time.time", lambda: 86_400.0)
    retention = looked({})
    assert retention.clock_is_wrong
    assert "the clock of this machine shows" in caplog.text
    (finding,) = findings(Picture(clock_is_wrong=retention.clock_is_wrong))
    assert (finding.level, finding.text) == ("trouble", "The clock of this machine is wrong by years.")


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 seconds"), (600, "10 minutes"), (7200, "2 hours"), (604_800, "7 days")]
)
def test_durations_are_in_words(seconds, words):
    assert in_words(seconds) == words
