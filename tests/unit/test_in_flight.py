"""What librdkafka may have: of one lane, of all of them, and of a message that is larger than that; without brokers."""

from __future__ import annotations

from app.core.destination import Destination
from app.core.in_flight import RESERVED_MESSAGES, InFlight, SharedBounds
from app.core.message import LARGE_BYTES, MESSAGE_OVERHEAD_BYTES, Message
from tests.support.dispatched import make_message

SMALL = 1000  # bytes that a message counts with, all in all
LARGE = 1_000_000
NOW = 50.0


def lane_of(bounds: SharedBounds, topic: str = "alpha") -> InFlight:
    bounds.add_lane()
    return InFlight(topic, bounds)


def messages_of(lane: InFlight, count: int, size_bytes: int = SMALL, first: int = 1) -> list[Message]:
    """Return messages that count with so many bytes each."""
    destination = Destination(lane.topic, b"U" + lane.topic.encode() + b"\0", [])
    payload_bytes = size_bytes - MESSAGE_OVERHEAD_BYTES - len(b"a/b")
    made = [make_message(destination, number, payload_bytes) for number in range(first, first + count)]
    assert all(message.size_bytes == size_bytes for message in made)
    return made


def end(lane: InFlight, messages: list[Message]) -> None:
    """Report messages as delivered."""
    for message in messages:
        message.finished = True
    lane.end(messages, sum(message.size_bytes for message in messages))
    lane.drop_finished()


# ---- what is counted


def test_what_is_admitted_is_in_flight_until_its_report_comes():
    bounds = SharedBounds()
    lane, other = lane_of(bounds), lane_of(bounds, "beta")
    messages = messages_of(lane, 3)
    assert lane.admit(messages, 1000, NOW) == messages
    other.admit(messages_of(other, 1), 1000, NOW)
    assert (lane.messages, lane.size_bytes, list(lane.queue)) == (3, 3 * SMALL, messages)
    assert (bounds.messages, bounds.size_bytes) == (4, 4 * SMALL)
    assert [(message.handed_at, message.alone) for message in messages] == [(NOW, False)] * 3
    end(lane, messages[:2])
    assert (lane.messages, lane.size_bytes, list(lane.queue)) == (1, SMALL, messages[2:])
    assert (bounds.messages, bounds.size_bytes) == (2, 2 * SMALL)


def test_a_record_goes_alone_where_one_may_be_in_flight():
    lane = lane_of(SharedBounds())
    first, second = messages_of(lane, 2)
    assert lane.admit([first, second], 1, NOW) == [first]
    assert first.alone
    assert lane.admit([second], 1, NOW) == []
    end(lane, [first])
    assert lane.admit([second], 1, NOW) == [second]
    assert second.alone


def test_finished_messages_behind_one_that_stands_still_are_let_go_of_before_they_are_many():
    """One partition of several may stand still for days."""
    lane = lane_of(SharedBounds())
    first, *others = messages = messages_of(lane, 100)
    lane.admit(messages, 1000, NOW)
    end(lane, others[:49])
    assert len(lane.queue) == 100
    end(lane, others[49:51])
    assert list(lane.queue) == [first, *others[51:]]
    end(lane, others[51:])
    assert list(lane.queue) == [first]


def test_the_oldest_record_without_a_report_is_known():
    lane = lane_of(SharedBounds())
    assert lane.oldest_handed_at is None
    first, second = messages_of(lane, 2)
    lane.admit([first], 1000, NOW)
    lane.admit([second], 1000, NOW + 1)
    assert lane.oldest_handed_at == NOW
    end(lane, [first])
    assert lane.oldest_handed_at == NOW + 1


def test_the_youngest_are_withdrawn_as_if_they_had_never_been_admitted():
    bounds = SharedBounds()
    lane = lane_of(bounds)
    messages = messages_of(lane, 4)
    messages[3].to_be_stored = True
    lane.admit(messages, 1000, NOW)
    lane.withdraw(messages[1:])
    assert (list(lane.queue), lane.messages, bounds.messages, bounds.size_bytes) == (messages[:1], 1, 1, SMALL)
    assert lane.pop_unstored() == messages[:1]


# ---- what memory alone holds


def test_unstored_is_what_nobody_was_asked_to_store_and_kafka_does_not_have():
    lane = lane_of(SharedBounds())
    first, second, third, fourth = messages = messages_of(lane, 4)
    third.to_be_stored = True
    lane.admit(messages, 1000, NOW)
    assert lane.oldest_unstored() is first
    end(lane, [first])
    first.finished = True
    assert lane.oldest_unstored() is second
    assert lane.pop_unstored() == [second, fourth]
    assert lane.pop_unstored() == []
    assert lane.oldest_unstored() is None


# ---- the bounds


def test_a_lane_has_a_bound_in_messages_and_gets_the_first_ones():
    lane = lane_of(SharedBounds())
    messages = messages_of(lane, 10)
    assert lane.admit(messages, 7, NOW) == messages[:7]
    assert lane.admit(messages[7:], 7, NOW) == []
    end(lane, messages[:2])
    assert lane.admit(messages[7:], 7, NOW) == messages[7:9]


def test_a_lane_has_a_bound_in_bytes_that_its_last_message_may_pass():
    bounds = SharedBounds(lane_limit_bytes=10_500, limit_bytes=10**9)
    lane = lane_of(bounds)
    messages = messages_of(lane, 20)
    assert lane.admit(messages, 1000, NOW) == messages[:11]
    assert not lane.has_room()
    assert "alpha" not in bounds.waiting, "it is its own bound: its own reports make room"


def test_all_lanes_together_have_bounds_and_who_finds_no_room_is_looked_at_when_there_is_some():
    bounds = SharedBounds(lane_limit_messages=500)
    full, other = lane_of(bounds), lane_of(bounds, "beta")
    full.admit(messages_of(full, 1000), 10_000, NOW)
    other.admit(messages_of(other, RESERVED_MESSAGES), 10_000, NOW)
    assert not full.has_room()
    assert not other.has_room()
    assert bounds.pop_waiting() == {"alpha", "beta"}
    assert bounds.pop_waiting() == set()
    end(full, list(full.queue)[:101])
    assert other.has_room()


def test_every_lane_has_its_part_however_many_messages_others_have():
    """One lane's trouble is its own."""
    bounds = SharedBounds(lane_limit_messages=500)
    full, other = lane_of(bounds), lane_of(bounds, "beta")
    full.admit(messages_of(full, 1000), 10_000, NOW)
    messages = messages_of(other, 200)
    assert other.admit(messages, 10_000, NOW) == messages[:RESERVED_MESSAGES]


def test_every_lane_has_its_part_however_many_bytes_others_have():
    """Half of the common bytes, in equal parts."""
    bounds = SharedBounds(limit_bytes=100 * SMALL)
    full, other = lane_of(bounds), lane_of(bounds, "beta")
    full.admit(messages_of(full, 150), 10_000, NOW)
    assert full.messages == 100
    messages = messages_of(other, 50)
    assert other.admit(messages, 10_000, NOW) == messages[:25]
    lane_of(bounds, "gamma")
    assert not other.has_room(), "with a third lane its part is smaller"


def test_what_is_in_flight_stays_below_what_a_small_table_holds():
    """A quarter of it for each lane, half of it for all, and of that half for their parts."""
    bounds = SharedBounds()
    lanes = [lane_of(bounds, topic) for topic in ("alpha", "beta", "gamma")]
    bounds.stay_below(48 * SMALL)
    assert [len(lane.admit(messages_of(lane, 20), 1000, NOW)) for lane in lanes] == [12, 12, 4]
    bounds.stay_below(10**12)
    assert not lanes[0].has_room(), "a larger table changes nothing"


# ---- a message that is larger than the bounds


def test_one_message_of_all_lanes_may_exceed_the_bounds_and_only_alone_in_its_lane():
    bounds = SharedBounds(limit_bytes=LARGE)
    first, second = lane_of(bounds), lane_of(bounds, "beta")
    (one,), (another,) = messages_of(first, 1, 3 * LARGE), messages_of(second, 1, 3 * LARGE)
    small = messages_of(first, 1)
    first.admit(small, 1000, NOW)
    assert first.admit([one], 1000, NOW) == []
    assert not first.has_room(), "room for it is kept free"
    end(first, small)
    assert first.has_room()
    assert first.admit([one], 1000, NOW) == [one]
    assert first.waits_for_bytes == 0
    assert bounds.exceeded_by == "alpha"
    assert second.admit([another], 1000, NOW) == []
    assert not second.has_room()
    assert "beta" in bounds.pop_waiting()
    end(first, [one])
    assert bounds.exceeded_by == ""
    assert second.admit([another], 1000, NOW) == [another]


def test_a_small_message_of_another_lane_passes_one_that_exceeds_the_bounds():
    bounds = SharedBounds(limit_bytes=LARGE)
    first, second = lane_of(bounds), lane_of(bounds, "beta")
    first.admit(messages_of(first, 1, 3 * LARGE), 1000, NOW)
    messages = messages_of(second, 3)
    assert second.admit(messages, 1000, NOW) == messages


def test_room_is_kept_free_for_a_large_message_until_it_is_admitted_and_no_longer():
    bounds = SharedBounds(limit_bytes=2 * LARGE)
    lane = lane_of(bounds)
    small, (large,) = messages_of(lane, 1, LARGE_BYTES), messages_of(lane, 1, 2 * LARGE - 1)
    lane.admit(small, 1000, NOW)
    assert lane.admit([large], 1000, NOW) == []
    assert lane.waits_for_bytes == 2 * LARGE - 1
    end(lane, small)
    lane.admit([large], 1000, NOW)
    assert lane.waits_for_bytes == 0
    assert bounds.exceeded_by == "", "it fits"


def test_nothing_is_handed_over_between_close_and_open():
    bounds = SharedBounds()
    bounds.close()
    assert bounds.is_closed
    bounds.open()
    assert not bounds.is_closed
