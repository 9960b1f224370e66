"""What is dropped from a full table, and what is not; with a real table, without brokers."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from app.core.lane_states import State
from app.metrics import accounts
from app.storage.fullness import Fullness
from app.storage.room import Room
from tests.support.dispatched import Dispatched
from tests.support.stored_messages import opened

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
        room = Room(table, dispatcher, Fullness(table, drop_oldest=drop_oldest), drop_oldest=drop_oldest)
        yield SimpleNamespace(table=table, dispatcher=dispatcher, room=room, messages=messages)


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


def test_the_lane_whose_first_message_is_the_oldest_gives_way_and_that_is_counted(tmp_path):
    with full_table(tmp_path) as there:
        assert there.room.make(20_000)
        assert numbers_in(there) == [2, 4, 6, 7, 8, 9], "all that was read of the lane at once"
        account = accounts["a/b:alpha"]
        assert (account.dropped, account.undelivered) == ({"table_full": 3}, 0)
        assert there.dispatcher.lanes["alpha"].cursor > there.messages[5].key


def test_what_librdkafka_has_is_not_dropped_nor_what_was_refused_and_goes_once_more(tmp_path):
    """Kafka may have it already."""
    with full_table(tmp_path) as there:
        in_flight = hand_over_all(there, "alpha")
        assert len(in_flight) == 3
        beta = there.dispatcher.lanes["beta"]
        refused = hand_over_all(there, "beta")
        beta._rewind(refused[0])
        assert beta.state is State.REWINDING
        assert not there.room.make(20_000)
        assert len(numbers_in(there)) == 9


@pytest.mark.parametrize(("size_bytes", "drop_oldest"), [(LIMIT_BYTES + 1, True), (20_000, False)])
def test_nothing_is_dropped_for_what_never_fits_nor_where_messages_are_to_wait(size_bytes, drop_oldest, tmp_path):
    with full_table(tmp_path, drop_oldest=drop_oldest) as there:
        assert not there.room.make(size_bytes)
        assert len(numbers_in(there)) == 9
