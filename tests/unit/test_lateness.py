"""When messages are stored: not because single answers of Kafka are late, but because the next may not come in time."""

from __future__ import annotations

import pytest

from app.core.lane_states import State
from app.core.lateness import Lateness
from app.core.memory_budget import MemoryBudget
from app.core.moment import Moment
from app.core.reception import QUIET_SECONDS, Reception
from tests.support.dispatched import make_lane, make_message

STORE_AFTER_SECONDS = 0.1


def is_to_be_stored(lateness: Lateness, handed_at: float, now: float, *, is_held_up: bool = False) -> bool:
    return lateness.is_time_to_store(handed_at, now, is_held_up=is_held_up)


def answered(*answers: tuple[float, float]) -> Lateness:
    """Return the lateness of a lane after messages that were handed over and confirmed at those times."""
    lateness = Lateness(STORE_AFTER_SECONDS)
    for handed_at, confirmed_at in answers:
        lateness.note_confirmed(handed_at, confirmed_at)
    return lateness


def steadily(seconds: float, until: float = 100.0) -> Lateness:
    """Return the lateness of a lane whose answers always took so long, and came every 10 ms."""
    return answered(*[(until - number / 100 - seconds, until - number / 100) for number in reversed(range(300))])


# ---- the rule


def test_a_kafka_of_which_nothing_is_known_gets_no_more_time_than_the_setting_says():
    assert not is_to_be_stored(Lateness(STORE_AFTER_SECONDS), 5.0, 5.09)
    assert is_to_be_stored(Lateness(STORE_AFTER_SECONDS), 5.0, 5.101)


def test_a_kafka_that_answered_a_question_gets_longer_for_its_first_record_and_not_for_the_next_ones():
    lateness = Lateness(STORE_AFTER_SECONDS)
    lateness.note_first_answer(0.002)
    assert not is_to_be_stored(lateness, 5.0, 5.29)
    assert is_to_be_stored(lateness, 5.0, 5.31)
    lateness.note_confirmed(5.0, 5.004)
    lateness.note_first_answer(3.0)
    assert is_to_be_stored(lateness, 6.0, 6.101)


def test_a_fast_kafka_that_falls_silent_has_messages_stored_after_the_time_of_the_setting():
    assert not is_to_be_stored(steadily(0.004), 100.0, 100.09)
    assert is_to_be_stored(steadily(0.004), 100.0, 100.11)


def test_a_kafka_that_answers_late_has_none_stored_as_long_as_it_answers():
    lateness = steadily(0.3)
    assert not is_to_be_stored(lateness, 99.7, 100.0)
    assert not is_to_be_stored(lateness, 100.2, 100.5), "nor the first ones after a pause"
    assert is_to_be_stored(lateness, 100.0, 100.7), "silent for twice as long as it usually takes"


def test_a_kafka_that_was_away_is_soon_given_no_more_time_than_any_other():
    lateness = answered((0.0, 60.0), *[(60.0 + number / 100, 60.005 + number / 100) for number in range(30)])
    assert is_to_be_stored(lateness, 61.0, 61.1)


@pytest.mark.parametrize("seconds", [0.004, 0.3, 5.0])
def test_no_message_is_in_memory_alone_for_more_than_ten_times_the_setting(seconds):
    """As where one partition of many stands still, and the others go on."""
    assert is_to_be_stored(steadily(seconds), 99.0, 100.0)


def test_what_is_late_is_stored_where_receiving_is_held_up_and_kafka_is_not_just_slow_for_a_moment():
    assert is_to_be_stored(steadily(0.3), 99.89, 100.0, is_held_up=True)
    assert not is_to_be_stored(steadily(0.3), 99.91, 100.0, is_held_up=True), "it is not late"
    slow_for_a_moment = answered((98.0, 98.01), (99.0, 99.2), (99.2, 99.4))
    assert not is_to_be_stored(slow_for_a_moment, 99.3, 99.45, is_held_up=True)


# ---- whether receiving is held up


def reception(window_messages: int = 1000, unacknowledged: int = 0, **budget: int) -> Reception:
    """Return a reception that has just received something, with so many messages that are not acknowledged."""
    memory = MemoryBudget(limit_messages=100, limit_bytes=1000, received_messages=1, **budget)
    made = Reception(memory, window_messages, lambda: unacknowledged)
    made.is_held_up(0.0)
    return made


def test_receiving_is_held_up_when_most_of_the_window_or_of_the_memory_is_used():
    assert not reception(unacknowledged=799).is_held_up(0.0)
    assert reception(unacknowledged=800).is_held_up(0.0)
    assert not reception(received_bytes=799).is_held_up(0.0)
    assert reception(received_bytes=800).is_held_up(0.0)
    budget = MemoryBudget(limit_messages=100)
    budget.add(79, 0)
    made = Reception(budget, 1000, lambda: 0)
    assert not made.is_held_up(0.0)
    budget.add(1, 0)
    assert made.is_held_up(0.0)


def test_it_is_held_up_when_a_broker_stops_sending_before_its_window_is_used_up():
    """Some have a smaller window than they are asked for, and do not tell it. Once it may be the end of a burst."""
    budget, unacknowledged = MemoryBudget(), [0]
    made = Reception(budget, 1000, lambda: unacknowledged[0])

    def is_quiet_with(messages: int, since: float) -> bool:
        budget.add(messages, 0)
        budget.count_safe(messages, 0)
        unacknowledged[0] = messages
        assert not made.is_held_up(since)
        assert not made.is_held_up(since + QUIET_SECONDS - 0.01)
        return made.is_held_up(since + QUIET_SECONDS)

    assert not is_quiet_with(10, 1.0)
    assert is_quiet_with(10, 2.0)
    assert is_quiet_with(10, 3.0)
    assert not is_quiet_with(11, 4.0), "a burst of another size"
    assert [is_quiet_with(9, since) for since in (5.0, 6.0)] == [False, False], "a few messages now and then"


def test_with_few_messages_in_memory_it_is_never_held_up():
    assert reception(window_messages=60).few_messages == 48
    assert reception(window_messages=1000).few_messages == 80


# ---- how a lane begins to store, and ends it


def lane_with(messages: int, at_seconds: float, few_messages: int):
    lane = make_lane(store_after_seconds=STORE_AFTER_SECONDS, few_messages=few_messages)
    lane.attempts.note_learned(1000)
    sent = [make_message(lane.destination, number) for number in range(messages)]
    lane.accept(sent, Moment(at_seconds, 0))
    return lane, sent


def report(lane, messages, now):
    for message in messages:
        message.error = None
    lane.note_reports(messages, Moment(now, 0), 1000)


@pytest.mark.parametrize(("few_messages", "state"), [(3, State.DIRECT), (2, State.STORING)])
def test_a_lane_is_direct_again_although_answers_are_late_if_little_is_in_flight(few_messages, state):
    """Of the messages that were handed over since: what was stored for its lateness proves nothing."""
    lane, first = lane_with(1, 0.0, few_messages)
    assert lane.look_late(0.1) == first
    report(lane, first, 0.3)
    assert lane.state is State.STORING
    later = [make_message(lane.destination, number) for number in range(1, 4)]
    lane.accept(later, Moment(0.3, 0))
    report(lane, later[:1], 0.6)
    assert lane.state is state


def test_a_lane_whose_limits_are_known_begins_with_more_than_one_record():
    lane, _ = lane_with(5, 0.0, 0)
    assert lane.in_flight.messages == 5
    assert lane.state is State.DIRECT


def test_a_lane_of_which_a_record_was_refused_is_not_opened_by_what_is_learned():
    lane, _ = lane_with(1, 0.0, 0)
    lane.attempts.wait("no right", 0.0)
    lane.attempts.note_learned(1000)
    assert lane.attempts.limit_messages == 1
