"""Thousands of lanes that have something to be done at the same moment: others have a turn meanwhile."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from confluent_kafka import KafkaError

from app.core.message import Message
from app.core.requests import ReplayChunk
from app.kafka import reports
from app.kafka.topic_limits import TopicConfiguration
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched
from tests.support.stored_messages import Maker, append, opened

with app_settings():
    from app.storage import replay_reader
    from app.storage.replay_reader import ReplayReader

LANES = 300


async def counted_at_turns(work, done: list) -> list[int]:
    """Await something; return how much was done whenever others had a turn."""
    seen, ended = [], asyncio.ensure_future(work)
    while not ended.done():
        seen.append(len(done))
        await asyncio.sleep(0)
    await ended
    return [*seen, len(done)]


def most_at_once(seen: list[int]) -> int:
    return max(later - earlier for earlier, later in pairwise(seen))


@pytest.mark.parametrize("part_seconds", [0.0, 1_000.0])
def test_others_have_a_turn_while_thousands_of_lanes_are_read_and_handed_over(tmp_path, monkeypatch, part_seconds):
    """P5: all of them were read, and handed to the Kafka client, in one turn, which took 0.3 s."""
    monkeypatch.setattr(replay_reader, "PART_SECONDS", part_seconds)
    with opened(tmp_path) as table:
        dispatcher, maker = Dispatched(), Maker(table)
        reader = ReplayReader(dispatcher, table, dispatcher.requests, 0)
        for number in range(LANES):
            append(table, [maker(f"lane{number}")])
        for topic, first in table.lanes():
            dispatcher.resume(topic, first)

        async def read() -> None:
            waker = asyncio.ensure_future(reader._on_wake())
            while len(dispatcher.requests.chunks) < LANES:
                await asyncio.sleep(0)
            waker.cancel()

        async def hand_over() -> None:
            for chunk in dispatcher.requests.chunks.copy():
                assert isinstance(chunk, ReplayChunk)
                await reader.hand_over(chunk)

        read_at = asyncio.run(counted_at_turns(read(), dispatcher.requests.chunks))
        handed_at = asyncio.run(counted_at_turns(hand_over(), dispatcher.producer.taken))
    assert read_at[-1] == handed_at[-1] == LANES
    assert (most_at_once(read_at) < 5) == (most_at_once(handed_at) < 5) == (part_seconds == 0)


@pytest.mark.parametrize("refused", [True, False])
def test_others_have_a_turn_while_the_records_of_thousands_of_lanes_are_refused(refused, monkeypatch):
    """P2 and P5: in parts of 500, in order; what Kafka confirmed is dealt with at once, as it costs little."""
    dispatcher, dealt_with, reported = Dispatched(), [], []
    messages = [dispatcher.message(f"lane{number % 1_200}", number + 1) for number in range(2_000)]
    for message in messages:
        message.error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if refused else None
    monkeypatch.setattr(dispatcher.producer, "poll", lambda: [reported.append(0), messages][1], raising=False)
    monkeypatch.setattr(dispatcher.reports, "on_reports", dealt_with.extend)
    polling = dispatcher.reports.poll(lambda: bool(reported), lambda _: None)
    dispatcher.bounds.messages = 1

    seen = asyncio.run(counted_at_turns(polling, dealt_with))
    assert dealt_with == messages
    assert most_at_once(seen) == (reports.REFUSED_AT_ONCE if refused else len(messages))


def test_what_is_learned_of_some_topics_costs_nothing_for_the_lanes_of_all_others():
    """P5: a part of them is asked for all the time where Kafka lacks thousands."""
    dispatcher, asked = Dispatched(), []
    for number in range(1_000):
        dispatcher.lanes[f"k{number}"]
    dispatcher.topics.known = {"k1": TopicConfiguration(takes_age_ms=1_000)}
    limits_ms = dispatcher.topics.time_limits_ms
    dispatcher.lanes._limits_ms = lambda topic: [asked.append(topic), limits_ms(topic)][1]
    dispatcher.lanes.note_learned(["k1", "k2", "gone"], {"k2"})
    assert asked == ["k1", "k2"]
    assert dispatcher.lanes["k1"].attempts.times.limit_ms == 1_000
    assert [dispatcher.lanes[topic].attempts.limit_messages > 1 for topic in ("k1", "k2", "k3")] == [False, True, False]
    assert "gone" not in dispatcher.lanes and isinstance(dispatcher.message("k1", 1), Message)
