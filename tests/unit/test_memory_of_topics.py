"""What thousands of Kafka topics take of memory: it is planned, and said where it does not fit."""

from __future__ import annotations

import asyncio
import logging
import re
from types import SimpleNamespace

import pytest

from app.check import machine
from app.lifecycle.start import Recovery
from app.memory import COST_OF_LARGEST, KAFKA_TOPIC_BYTES, MEBIBYTE, SOME_TOPICS, MemoryLimit, plan_for
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.settings.routes import RoutesSettings
from tests.support.dispatched import Dispatched
from tests.support.stored_messages import opened

KAFKA_BYTES = 103_000_000


def most_topics(mappings: list[str]) -> int:
    return RoutesSettings(wildcard_topic_list=",".join(mappings), routes_max_topics=10_000).most_kafka_topics


def test_kafka_topics_that_may_be_in_use_are_counted_as_the_routes_and_the_setting_allow():
    named = [f"a/{number}/#:k{number}" for number in range(7)]
    assert most_topics(named) == most_topics([*named, "b/#:k1"]) == 7
    assert most_topics([*named, "c/{site}/#:k.{site}"]) == 10_007


@pytest.mark.parametrize(("limit_mebibytes", "topics"), [(512, 10_000), (256, 1_500), (1_024, 20_000)])
def test_more_kafka_topics_than_memory_carries_are_said_with_both_numbers_and_leave_the_least_for_messages(
    limit_mebibytes, topics
):
    """P6: with 9,000 of them the kernel killed a worker that 512 MiB were allowed, and nothing had warned of it."""
    limit = MemoryLimit(limit_mebibytes * MEBIBYTE, "the test")
    plan = plan_for(limit, topics)
    needed_bytes = int(re.search(r"Allow it (\d+) bytes", plan.danger_of_topics)[1])
    for number in (topics, limit.size_bytes, KAFKA_TOPIC_BYTES * (topics - SOME_TOPICS)):
        assert str(number) in plan.danger_of_topics
    assert plan.largest_packet_bytes == plan.received_bytes == plan.in_flight_bytes == MEBIBYTE
    assert not plan_for(MemoryLimit(needed_bytes + 2, "the test"), topics).danger_of_topics
    assert plan_for(MemoryLimit(needed_bytes - 1_000, "the test"), topics).danger_of_topics


def test_kafka_topics_that_memory_carries_leave_less_for_large_messages():
    """P6: what they take is taken from what a message may have."""
    limit = MemoryLimit(512 * MEBIBYTE, "the test")
    few, many = plan_for(limit, 100), plan_for(limit, 1_000)
    assert few == plan_for(limit)._replace(kafka_topics=100)
    assert not many.danger_of_topics and not many.packet_limit(None, KAFKA_BYTES).danger
    less_bytes = COST_OF_LARGEST * (few.largest_packet_bytes - many.largest_packet_bytes)
    assert less_bytes == pytest.approx(900 * KAFKA_TOPIC_BYTES, abs=COST_OF_LARGEST)
    packets = many.packet_limit(100_000_000, KAFKA_BYTES)
    needed_bytes = int(re.search(r"Allow it (\d+) bytes", packets.danger)[1])
    assert not plan_for(limit._replace(size_bytes=needed_bytes + 20), 1_000).packet_limit(10**8, KAFKA_BYTES).danger


def test_the_start_warns_of_kafka_topics_that_memory_does_not_carry(caplog, tmp_path):
    plan = plan_for(MemoryLimit(512 * MEBIBYTE, "the test"), 10_000)
    packets = plan.packet_limit(None, KAFKA_BYTES)
    with opened(tmp_path) as table, caplog.at_level(logging.INFO):
        router = SimpleNamespace(begin_epoch=lambda _: None)
        session = Session(Generations(("a/#",), {"a/#": 1}))
        asyncio.run(Recovery(table, Dispatched(), router, session, packets, plan.danger_of_topics).on_start())
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in warnings if "10000 Kafka topics" in text and str(512 * MEBIBYTE) in text]


def test_a_check_doubts_kafka_topics_that_memory_does_not_carry(monkeypatch):
    limit = MemoryLimit(512 * MEBIBYTE, "the test")
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    for topics, verdict in ((10_000, "doubtful"), (1_000, "good")):
        settings = SimpleNamespace(most_kafka_topics=topics, mqtt_maximum_packet_bytes=None)
        found = {each.check: each for each in machine.machine(settings, KAFKA_BYTES)}
        assert (found["memory"].verdict, found["kafka_topics"].verdict) == ("good", verdict)
        assert str(topics) in found["kafka_topics"].text + found["kafka_topics"].advice
