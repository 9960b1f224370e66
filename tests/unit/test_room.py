"""What is dropped from a full table, what is not, and what that costs; with a real table, without brokers."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from app import turns
from app.core.lane_states import State
from app.metrics import accounts
from app.routes import RouteTable
from app.storage.fullness import Fullness
from app.storage.oldest_first import PART_BYTES
from app.storage.room import TABLE_FULL, Room
from tables import layout
from tables.engine.seeker import Seeker
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched
from tests.support.stored_messages import append, opened
from tests.unit.test_route_limits import MIB, dropped, routes, storage
from tests.unit.test_turns import with_others

with app_settings():
    from app.storage.oversize import Oversize
    from app.storage.route_limits import RouteLimits

PAYLOAD_BYTES = 10_000
LIMIT_BYTES = 100_000


@contextmanager
def full_table(directory, *, drop_oldest=True):
    """Open a table that is nearly full: messages 1, 3, 5 of the lane `alpha`, and 2, 4, 6, 7, 8, 9 of `beta`."""
    accounts.clear()
    with opened(directory, LIMIT_BYTES) as table:
        dispatcher = Dispatched()
        dispatcher.open_up("alpha", "beta")
        messages = {
            number: dispatcher.message("alpha" if number in {1, 3, 5} else "beta", number, PAYLOAD_BYTES)
            for number in range(1, 10)
        }
        write = table.begin()
        write.append(list(messages.values()))
        write.commit()
        for message in messages.values():
            accounts[message.route].enter_table(message.stored_bytes)
        for topic, first in table.lanes():
            dispatcher.resume(topic, first)
        room = room_of(table, dispatcher, drop_oldest=drop_oldest)
        yield SimpleNamespace(table=table, dispatcher=dispatcher, room=room, messages=messages)


def room_of(table, dispatcher, *, drop_oldest=True):
    """Return what makes room in a table; no route has a limit."""
    limits = RouteLimits(table, dispatcher, RouteTable([]))
    return Room(table, dispatcher, Fullness(table, drop_oldest=drop_oldest), limits, drop_oldest=drop_oldest)


def newcomer(there, payload_bytes, number=1_000_000):
    """Return a message that is to be stored, for which there is no room."""
    return there.dispatcher.message("beta", number, payload_bytes)


@contextmanager
def many_lanes(directory, lanes, rounds, payload_bytes):
    """Open a table with as many messages in each of many lanes, received by turns, and no room for more."""
    accounts.clear()
    with opened(directory, 10**9) as table:
        dispatcher = Dispatched()
        numbers = iter(range(1, lanes * rounds + 1))
        for _ in range(rounds):
            append(table, [dispatcher.message(f"lane{n}", next(numbers), payload_bytes) for n in range(lanes)])
        for topic, first in table.lanes():
            dispatcher.resume(topic, first)
        table.limit_bytes = table.total_bytes
        yield SimpleNamespace(table=table, dispatcher=dispatcher, room=room_of(table, dispatcher))


def sequences_in(table):
    """Return the sequences of all messages in a table, in order."""
    return sorted(layout.sequence(key)[1] for key, _ in table.data.with_prefix(layout.UNDELIVERED))


def numbers_in(there):
    """Return which messages are in the table, by their numbers."""
    prefixes = [there.dispatcher.destination(topic).prefix for topic in ("alpha", "beta")]
    keys = {message.key for prefix in prefixes for message in there.table.read(prefix, prefix, 100, 10**9)}
    return [number for number, message in there.messages.items() if message.key in keys]


def hand_over_all(there, topic):
    """Have librdkafka get everything that the table has of a lane."""
    lane = there.dispatcher.lanes[topic]
    messages = there.table.read(lane.destination.prefix, lane.cursor, 100, 10**9)
    lane.note_chunk_read(messages, messages[-1].key + b"\0")
    at = SimpleNamespace(seconds=1.0, wall_ms=2, since=lambda _: 0.0)
    return [message for lot in lane.accept_chunk(messages, lane.generation, at).lots for message in lot.messages]


def test_the_oldest_of_all_lanes_give_way_with_some_head_room_and_that_is_counted(tmp_path):
    with full_table(tmp_path) as there:
        assert there.room.make_some(newcomer(there, 20_000))
        assert there.table.has_room_for(20_000 + LIMIT_BYTES // 200)
        assert numbers_in(there) == [3, 4, 5, 6, 7, 8, 9]
        for topic, at in (("alpha", 1), ("beta", 2)):
            account = accounts[f"a/b:{topic}"]
            assert account.dropped == {"table_full": 1}
            assert account.undelivered == there.table.figures.messages[f"a/b:{topic}"]
            cursor = there.dispatcher.lanes[topic].cursor
            assert there.messages[at].key < cursor <= there.messages[at + 2].key
            assert there.table.data.value(layout.HEAD + topic.encode()) == cursor


def test_what_librdkafka_has_is_not_dropped_nor_what_was_refused_and_goes_once_more(tmp_path):
    """Kafka may have it already."""
    with full_table(tmp_path) as there:
        in_flight = hand_over_all(there, "alpha")
        assert len(in_flight) == 3
        beta = there.dispatcher.lanes["beta"]
        refused = hand_over_all(there, "beta")
        beta._rewind(refused[0])
        assert beta.state is State.REWINDING
        assert not there.room.make_some(newcomer(there, 20_000))
        assert len(numbers_in(there)) == 9


@pytest.mark.parametrize(("payload_bytes", "drop_oldest"), [(LIMIT_BYTES + 1, True), (20_000, False)])
def test_nothing_is_dropped_for_what_never_fits_nor_where_messages_are_to_wait(payload_bytes, drop_oldest, tmp_path):
    with full_table(tmp_path, drop_oldest=drop_oldest) as there:
        assert not there.room.make_some(newcomer(there, payload_bytes))
        assert len(numbers_in(there)) == 9


def test_what_comes_into_a_lane_that_had_nothing_left_may_give_way_as_well(tmp_path):
    """That a lane has nothing is remembered until something is written to it."""
    with full_table(tmp_path) as there:
        while there.room.make_some(newcomer(there, LIMIT_BYTES - 1_000)):
            pass
        assert numbers_in(there) == []
        append(there.table, [there.dispatcher.message("alpha", 20, 60_000)])
        append(there.table, [there.dispatcher.message("beta", 21, 30_000)])
        assert there.room.make_some(newcomer(there, 20_000))
        assert sequences_in(there.table) == [21]


def test_no_more_is_read_than_gives_way_and_a_key_of_each_lane_and_little_is_in_memory(tmp_path, monkeypatch):
    """P6: with a thousand lanes 100 MiB were read for each hundred messages that were dropped, and held at once."""
    looked = []
    first_from = Seeker.first_from
    monkeypatch.setattr(Seeker, "first_from", lambda seeker, key: (looked.append(key), first_from(seeker, key))[1])
    monkeypatch.setattr(turns, "PART_SECONDS", 60.0)
    lanes, rounds = 150, 2
    with many_lanes(tmp_path, lanes, rounds, 100_000) as there:
        large, parts = newcomer(there, 10_000_000), 0
        tracemalloc.start()
        while there.table.total_messages > lanes:
            before = there.table.total_bytes
            assert there.room.make_some(large)
            assert before - there.table.total_bytes < PART_BYTES + 110_000
            parts += 1
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gone = lanes * rounds - there.table.total_messages
        assert sequences_in(there.table) == list(range(gone + 1, lanes * rounds + 1)), "the oldest, without a gap"
        assert len(looked) <= 2 * gone + lanes + 2 * parts
        assert peak_bytes < 3 * PART_BYTES


def test_what_is_known_of_lanes_that_have_ended_is_forgotten(tmp_path):
    """Publishers choose the names of derived topics."""
    with many_lanes(tmp_path, 60, 1, 1_000) as there:
        while there.room.make_some(newcomer(there, 50_000)):
            pass
        for topic in list(there.dispatcher.lanes):
            if topic != "lane7":
                del there.dispatcher.lanes[topic]
        there.room.make_some(newcomer(there, 50_000))
        assert set(there.room._oldest._known) == {"lane7"}


def test_of_a_message_larger_than_the_table_no_lane_but_its_own_is_looked_at(tmp_path, monkeypatch):
    """With a thousand lanes, for each such message the first one of each was read, of a megabyte perhaps."""
    with many_lanes(tmp_path, 20, 1, 1_000) as there:
        oversize, entries, read = Oversize(there.table, there.dispatcher, list), there.table.data.entries, []
        monkeypatch.setattr(there.table.data, "entries", lambda first: (read.append(first), entries(first))[1])
        assert oversize._oldest_stored_seconds(there.dispatcher.lanes["lane7"]) > 10**9, "received in 1970"
        assert [first[:7] for first in read] == [b"Ulane7\0"]


def test_a_table_whose_oldest_gave_way_for_a_small_message_counts_as_full_all_the_same(tmp_path):
    """P6: `connector_store_full_seconds` is 0 with less than a hundredth of room."""
    with many_lanes(tmp_path, 100, 10, 100) as there:
        assert there.room.make_some(newcomer(there, 100))
        assert 0 < there.table.limit_bytes - there.table.total_bytes < there.table.limit_bytes / 100
        assert there.table.total_messages < 999, "more than one, or each message would have a write for its room"


# ---- others have a turn


@pytest.fixture
def short_parts(monkeypatch):
    """Have each part of work be as short as may be."""
    monkeypatch.setattr(turns, "PART_SECONDS", 0.0)


@pytest.fixture(params=["the table", "the limit of a route"])
def full(request, short_parts, tmp_path):
    """Return all around a table that is full of small messages of two lanes, as the table or a route's limit says."""
    of_route = request.param != "the table"
    limits = routes(4 * MIB) if of_route else routes(None)
    with storage(tmp_path, limits, limit_bytes=5 * MIB, drop_oldest=not of_route) as there:
        kept = there.take("other", 40) if of_route else []
        while not gone_of(there):
            there.take("limited", 20, batch=20)
        yield SimpleNamespace(storage=there, others=kept)


def gone_of(there):
    """Return how many messages were given up."""
    return dropped() + accounts["limited"].dropped[TABLE_FULL]


def large_message(there):
    """Return a large message that was received."""
    message = there.make("limited", "limited", bytes(3 * MIB))
    message.destination = there.dispatcher.destination("limited")
    accounts["limited"].receive(1)
    there.dispatcher.accept("limited", [message])
    return message


def test_others_have_a_turn_while_thousands_of_small_messages_give_way_for_a_large_one(full):
    """P5: 40 MB into a table of 60 MB held up everything else for four seconds."""
    there = full.storage
    before, message = gone_of(there), large_message(there)
    counted = asyncio.run(with_others(there.writer.do(there.dispatcher.requests.table.pop(0))))
    assert message.stored and there.kept("limited")[-1] == message.key
    assert gone_of(there) - before > 100
    assert counted > gone_of(there) - before
    assert there.kept("other") == full.others
    there.assert_balanced()


async def in_the_middle(there, happens) -> None:
    """Have the table writer make room, and something happen when some twenty messages have given way."""
    before = gone_of(there)
    work = asyncio.ensure_future(there.writer.do(there.dispatcher.requests.table.pop(0)))
    while gone_of(there) < before + 20:
        await asyncio.sleep(0)
    happens()
    await work


def test_nothing_more_gives_way_once_kafka_has_the_message_for_which_it_does(full):
    """P8: the lane may send from memory what waits for room."""
    there = full.storage
    before, message = gone_of(there), large_message(there)

    def is_confirmed():
        message.finished = True
        accounts["limited"].deliver_from_memory(1)

    asyncio.run(in_the_middle(there, is_confirmed))
    assert not message.stored and message.key not in there.kept("limited")
    assert gone_of(there) - before <= 22
    assert not there.writer.is_full


def test_a_stop_in_the_middle_gives_up_nothing_more_and_stores_what_was_received(full):
    """P10: the table may exceed its limit then."""
    there = full.storage
    before, message = gone_of(there), large_message(there)

    asyncio.run(in_the_middle(there, there.dispatcher.stop_replaying))
    assert message.stored and there.kept("limited")[-1] == message.key
    assert gone_of(there) - before <= 22
    there.assert_balanced()
