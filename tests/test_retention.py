"""Messages that are older than what their Kafka topic keeps: what is counted and said, and that it outlives a start."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from oracle import wait_until
from proxied_protocols import DESCRIBE_CONFIGS, TO_CLIENT
from system import Bridge, Publisher

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
    assert finding.level == "attention"
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
    assert (finding.level, finding.text) == ("attention", "The clock of this machine is wrong by years.")


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 seconds"), (600, "10 minutes"), (7200, "2 hours"), (604_800, "7 days")]
)
def test_durations_are_in_words(seconds, words):
    assert in_words(seconds) == words


def test_an_outage_longer_than_what_the_topic_keeps_is_warned_of_after_a_start_without_kafka_too(
    mosquitto, proxied_kafka, names, tmp_path
):
    """What the topic keeps was learned while Kafka was there, and is on disk."""
    kafka, proxy = proxied_kafka
    short, arrival = names.kafka("short"), names.kafka("arrival")
    kafka.create_topic(short, 1, **{"retention.ms": "3000"})
    kafka.create_topic(arrival, 1, **{"retention.ms": "3000", "message.timestamp.type": "LogAppendTime"})
    mappings = f"{names.mqtt('short')}:{short},{names.mqtt('arrival')}:{arrival}"
    bridge = Bridge(tmp_path, mosquitto.port, proxy.address, mappings)
    topics = [names.mqtt("short"), names.mqtt("arrival")]
    with Publisher(mosquitto.port) as publisher:
        with bridge:
            publisher.publish_many(topics, 20)
            wait_until(lambda: bridge.total("connector_delivered_total") == 20, "20 deliveries")
            wait_until(lambda: proxy.seen(TO_CLIENT, DESCRIBE_CONFIGS), "what the topics keep")
            proxy.refuse()
            publisher.publish_many(topics, 60)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 60, "60 stored messages")
            assert bridge.total("connector_retention_exceeded_messages") == 0
        with bridge:
            wait_until(lambda: bridge.total("connector_retention_exceeded_messages") == 30, "30 that outlived it")
            texts = [finding["text"] for finding in bridge.status_page()["findings"]]
            assert any(f"waits for {short}" in text and "keeps records for 3 seconds" in text for text in texts)
            assert not any(f"waits for {arrival}" in text for text in texts)
            assert f"the oldest message that waits for {short}" in bridge.log_path.read_text()
