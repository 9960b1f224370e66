"""The states of a lane: what changes them, what cannot, and what a lane answers in each; microseconds, no brokers."""

from __future__ import annotations

import itertools

import pytest

from app.core.attempts import Refusal, Verdict
from app.core.in_flight import CHUNK_MESSAGES, SharedBounds
from app.core.lane import Lane
from app.core.lane_states import NEXT_STATES, Decision, Lot, State
from app.core.message import Message
from app.core.moment import Moment
from tests.support.dispatched import make_lane, make_message

WALL_MS = 1_700_000_000_000  # when all messages here are received
STORE_AFTER_SECONDS = 1.0
FOR_NOW = Refusal(is_final=False, is_of_batch=False, is_of_time=False, went_alone=True)
FOR_GOOD = FOR_NOW._replace(is_final=True)
FOR_ITS_BATCH = FOR_GOOD._replace(is_of_batch=True, went_alone=False)
FOR_ITS_TIME = FOR_NOW._replace(is_of_time=True)


def at(seconds: float = 0.0) -> Moment:
    """Return a moment, counted from when the messages are received."""
    return Moment(1000.0 + seconds, WALL_MS + int(seconds * 1000))


def messages_of(lane: Lane, *numbers: int, size_bytes: int = 1) -> list[Message]:
    return [make_message(lane.destination, number, size_bytes, timestamp_ms=WALL_MS) for number in numbers]


def hand_over(lane: Lane, messages: list[Message], moment: Moment | None = None) -> int:
    """Let a lane that is direct decide about new messages; return how many of them librdkafka gets."""
    return in_lots(lane.accept(messages, moment or at()))


def replay(lane: Lane, messages: list[Message], moment: Moment | None = None) -> int:
    """Let a lane decide about what was read from the table; return how many of them librdkafka gets."""
    for message in messages:
        message.to_be_stored = message.stored = True
    return in_lots(lane.accept_chunk(messages, lane.generation, moment or at()))


def in_lots(decision: Decision) -> int:
    return sum(len(lot.messages) for lot in decision.lots)


def confirm(lane: Lane, messages: list[Message], moment: Moment | None = None, limit_messages: int = 1000) -> str:
    """Report messages as delivered; return the trouble that ended with that."""
    for message in messages:
        message.error = None
    assert lane.note_reports(messages, moment or at(), limit_messages) == messages
    return lane.attempts.retry.pop_ended()


def refuse(lane: Lane, message: Message, refusal: Refusal = FOR_NOW, moment: Moment | None = None) -> Verdict:
    message.error = "refused"
    assert lane.note_reports([message], moment or at(), 1000) == []
    return lane.note_refused(message, refusal, moment or at())


def lane_that_is(state: State, *, store_after_seconds: float = STORE_AFTER_SECONDS) -> tuple[Lane, list[Message]]:
    """Return a lane in a state, and the two messages of it that are in flight."""
    lane = make_lane(store_after_seconds=store_after_seconds)
    lane.attempts.limit_messages = 1000
    messages = messages_of(lane, 1, 2)
    if state is State.BEHIND:
        lane.resume(messages[0].key)
        assert replay(lane, messages) == 2
    else:
        assert hand_over(lane, messages) == 2
    if state is State.STORING and store_after_seconds:
        assert lane.look_late(at(STORE_AFTER_SECONDS).seconds) == messages
    if state is State.REWINDING:
        refuse(lane, messages[0])
    assert lane.state is state
    return lane, messages


def full(lane: Lane) -> Lane:
    """Have librdkafka full of a lane."""
    lane.attempts.limit_messages = lane.in_flight.messages
    return lane


# ---- the table of transitions


def test_a_lane_is_direct_at_first_and_storing_where_nothing_is_to_be_in_memory_alone():
    assert make_lane().state is State.DIRECT
    assert make_lane(store_after_seconds=0).state is State.STORING


def test_it_stores_when_a_message_is_not_confirmed_in_time_and_not_before():
    lane, messages = lane_that_is(State.DIRECT)
    assert lane.look_late(at(0.9).seconds) == []
    assert lane.state is State.DIRECT
    assert lane.look_late(at(1.0).seconds) == messages
    assert lane.state is State.STORING
    assert lane.look_late(at(9.0).seconds) == [], "they are asked for once"


def test_a_confirmed_message_is_not_late_however_long_the_next_one_takes():
    lane, (first, second) = lane_that_is(State.DIRECT)
    second.handed_at += 1
    confirm(lane, [first])
    assert lane.look_late(at(1.0).seconds) == []
    assert lane.state is State.DIRECT


def test_it_is_direct_again_when_messages_are_confirmed_in_time_again_and_not_before():
    lane, late = lane_that_is(State.STORING)
    confirm(lane, late, at(5.0))
    assert lane.state is State.STORING
    (young,) = messages_of(lane, 3)
    hand_over(lane, [young], at(5.0))
    confirm(lane, [young], at(5.1))
    assert lane.state is State.DIRECT


def test_it_goes_on_storing_where_nothing_is_to_be_in_memory_alone():
    lane = make_lane(store_after_seconds=0)
    messages = messages_of(lane, 1)
    assert lane.accept(messages, at()) == Decision([Lot(messages, with_current_time=False)], messages)
    confirm(lane, messages)
    assert lane.state is State.STORING


@pytest.mark.parametrize("state", [State.DIRECT, State.STORING])
def test_it_falls_behind_when_there_is_not_room_for_all(state):
    """What is in flight is stored before what is not, and the cursor is at the first that is not."""
    lane, in_flight = lane_that_is(state)
    rest = messages_of(lane, 3, 4)
    decision = full(lane).accept(rest, at())
    assert decision == Decision([], rest if state is State.STORING else [*in_flight, *rest])
    assert (lane.state, lane.cursor, lane.is_direct) == (State.BEHIND, rest[0].key, False)
    assert all(message.to_be_stored for message in [*in_flight, *rest])


@pytest.mark.parametrize("state", [State.DIRECT, State.STORING])
def test_it_falls_behind_when_librdkafka_does_not_take_all(state):
    """There was room by our count; what it did not take is no longer in flight."""
    lane, in_flight = lane_that_is(state)
    new = messages_of(lane, 3, 4, 5)
    decision = lane.accept(new, at())
    assert (in_lots(decision), decision.store) == (3, new if state is State.STORING else [])
    assert lane.note_not_taken(new[1:]) == ([] if state is State.STORING else [*in_flight, *new])
    assert (lane.state, lane.cursor) == (State.BEHIND, new[1].key)
    assert (list(lane.in_flight.queue), lane.in_flight.messages) == ([*in_flight, new[0]], 3)
    assert lane.in_flight.bounds.messages == 3
    assert list(lane.unwritten) == [*in_flight, *new], "the order of the table"


@pytest.mark.parametrize("state", [State.DIRECT, State.STORING])
def test_it_falls_behind_for_a_message_that_was_a_dead_letter(state):
    lane, in_flight = lane_that_is(state)
    (again,) = messages_of(lane, 3)
    assert lane.accept_revived([again]) == ([again] if state is State.STORING else [*in_flight, again])
    assert (lane.state, lane.cursor) == (State.BEHIND, again.key)
    (another,) = messages_of(lane, 4)
    assert lane.accept_revived([another]) == [another]
    assert lane.cursor == again.key


@pytest.mark.parametrize("store_after_seconds", [0, STORE_AFTER_SECONDS])
def test_it_begins_behind_with_what_the_table_has_from_earlier(store_after_seconds):
    lane = make_lane(store_after_seconds=store_after_seconds)
    lane.resume(b"Ualpha\0first")
    assert (lane.state, lane.cursor) == (State.BEHIND, b"Ualpha\0first")


@pytest.mark.parametrize("state", [State.DIRECT, State.STORING, State.BEHIND])
def test_it_rewinds_when_kafka_refuses_a_message_for_now(state):
    lane, (_, second) = lane_that_is(state)
    generation = lane.generation
    assert refuse(lane, second) is Verdict.AGAIN
    assert (lane.state, lane.generation, lane.is_direct) == (State.REWINDING, generation + 1, False)
    assert lane.wanted_messages(at()) == 0
    new = messages_of(lane, 3)
    decision = lane.accept(new, at())
    assert (decision.lots, decision.store[-1:]) == ((), new), "new messages go to the table"
    assert lane.accept_chunk(new, generation, at()) == Decision((), []), "what was read before is void"
    assert replay(lane, messages_of(lane, 3)) == 0


def test_it_is_behind_again_when_every_record_is_reported_and_every_removal_done():
    """The cursor is at the oldest refused message, wherever the table's entries were read from before."""
    lane, (first, second) = lane_that_is(State.BEHIND)
    (third,) = messages_of(lane, 3)
    replay(lane, [third])
    lane.skip_to(b"Ualpha\0later")
    confirm(lane, [first])
    assert lane.removing_messages == 1, "it is stored"
    refuse(lane, third)
    lane.finish_rewind()
    assert lane.state is State.REWINDING, "a record is in flight"
    refuse(lane, second)
    lane.finish_rewind()
    assert lane.state is State.REWINDING, "an entry would be read again that Kafka has"
    lane.note_removed(1)
    lane.finish_rewind()
    assert (lane.state, lane.cursor, list(lane.in_flight.queue)) == (State.BEHIND, second.key, [])


@pytest.mark.parametrize(("store_after_seconds", "at_rest"), [(STORE_AFTER_SECONDS, State.DIRECT), (0, State.STORING)])
def test_it_is_direct_again_when_librdkafka_has_all_that_the_table_has(store_after_seconds, at_rest):
    """What is not written yet goes from memory, if there is room for all of it."""
    lane, _ = lane_that_is(State.BEHIND, store_after_seconds=store_after_seconds)
    new = messages_of(lane, 3, 4)
    lane.accept(new, at())
    lane.attempts.limit_messages = 3
    assert lane.catch_up(at()) == Decision([Lot(new[:1], with_current_time=False)], [])
    assert (lane.state, lane.cursor) == (State.BEHIND, new[1].key)
    lane.attempts.limit_messages = 4
    assert lane.catch_up(at()) == Decision([Lot(new[1:], with_current_time=False)], [])
    assert (lane.state, lane.is_direct) == (at_rest, True)


IMPOSSIBLE = [pair for pair in itertools.product(State, State) if pair[1] not in NEXT_STATES[pair[0]]]


@pytest.mark.parametrize(("before", "after"), IMPOSSIBLE, ids=lambda state: state.value)
def test_what_the_table_of_transitions_does_not_have_fails_loudly_in_place(before, after):
    lane, _ = lane_that_is(before)
    with pytest.raises(AssertionError, match=f"the lane alpha is {before.value} and cannot become {after.value}"):
        lane._become(after)
    assert lane.state is before


def test_the_table_of_transitions_is_the_one_in_the_header():
    """Each arrow has its test above; one that is new needs one too."""
    direct, storing, behind, rewinding = State
    assert {
        direct: {storing, behind, rewinding},
        storing: {direct, behind, rewinding},
        behind: {direct, storing, rewinding},
        rewinding: {behind},
    } == NEXT_STATES


@pytest.mark.parametrize(
    ("state", "act"),
    [
        (State.DIRECT, lambda lane: lane.catch_up(at())),
        (State.BEHIND, lambda lane: lane.resume(b"")),
        (State.REWINDING, lambda lane: lane.catch_up(at())),
    ],
    ids=["caught up, and direct", "resumed, and behind", "caught up, and rewinding"],
)
def test_what_happens_out_of_turn_fails_loudly(state, act):
    lane, _ = lane_that_is(state)
    with pytest.raises(AssertionError, match=f"is {state.value} and cannot become"):
        act(lane)


# ---- one record at a time, and how many after that


def test_a_new_lane_has_one_record_in_flight_until_one_is_confirmed():
    lane = make_lane()
    messages = messages_of(lane, *range(1, 6))
    assert hand_over(lane, messages) == 1
    assert messages[0].alone
    assert replay(lane, messages[1:]) == 0
    confirm(lane, messages[:1], limit_messages=3)
    assert replay(lane, messages[1:]) == 3
    assert not messages[1].alone


def test_after_a_refusal_the_next_try_is_one_record_after_its_interval():
    lane, (first, second) = lane_that_is(State.DIRECT)
    refuse(lane, first)
    assert lane.attempts.wait("why", at().seconds) == 0.5
    assert lane.attempts.wait("why", at(0.1).seconds) == 0, "it is planned already"
    refuse(lane, second)
    lane.finish_rewind()
    assert [lane.wanted_messages(at(seconds)) for seconds in (0.4, 0.5)] == [0, 1]
    again = messages_of(lane, 1, 2)
    assert replay(lane, again, at(0.4)) == 0
    assert replay(lane, again, at(0.5)) == 1
    assert confirm(lane, again[:1], at(0.6)) == "why"
    assert replay(lane, again[1:], at(0.6)) == 1


def test_what_is_confirmed_while_a_lane_rewinds_ends_neither_its_trouble_nor_its_patience():
    """Another partition's record; the refused one is still to be tried."""
    lane, (first, second) = lane_that_is(State.DIRECT)
    refuse(lane, first)
    lane.attempts.wait("why", at().seconds)
    assert confirm(lane, [second]) == ""
    assert (lane.trouble, lane.attempts.limit_messages) == ("why", 1)


def test_replay_fills_up_to_a_bound_once_there_are_few_and_in_chunks():
    lane = make_lane(replay_limit_messages=2500, refill_below_messages=10)
    lane.resume(b"")
    lane.attempts.limit_messages = 20_000
    wanted = []
    number = itertools.count(1)
    while (count := lane.wanted_messages(at())) and len(wanted) < 10:
        wanted.append(count)
        chunk = messages_of(lane, *itertools.islice(number, count))
        lane.note_chunk_read(chunk, b"")
        assert lane.wanted_messages(at()) == 0, "the next chunk waits for this one"
        replay(lane, chunk)
    assert wanted == [CHUNK_MESSAGES, CHUNK_MESSAGES, 500]
    in_flight = list(lane.in_flight.queue)
    confirm(lane, in_flight[:2490], limit_messages=20_000)
    assert lane.wanted_messages(at()) == 0, "there are enough for now"
    confirm(lane, in_flight[2490:2491], limit_messages=20_000)
    assert lane.wanted_messages(at()) == CHUNK_MESSAGES


def test_nothing_is_handed_over_while_the_producer_is_about_to_be_replaced():
    bounds = SharedBounds()
    lane = make_lane(bounds=bounds)
    lane.resume(b"")
    bounds.close()
    assert (lane.wanted_messages(at()), replay(lane, messages_of(lane, 1))) == (0, 0)
    bounds.open()
    assert (lane.wanted_messages(at()), replay(lane, messages_of(lane, 1))) == (1, 1)


def test_behind_a_record_that_stands_still_none_is_handed_over_where_kafka_takes_no_old_ones():
    lane, _ = lane_that_is(State.DIRECT)
    lane.attempts.times.note_limit(2_000)
    assert hand_over(lane, messages_of(lane, 3), at(0.4)) == 1
    assert hand_over(lane, messages_of(lane, 4), at(0.6)) == 0
    assert lane.state is State.BEHIND


def test_nothing_is_handed_over_behind_a_record_from_the_future_that_had_its_own_time():
    """P2: the clock was set back. Kafka may refuse what is in flight, and accept what has the right time."""
    lane, messages = lane_that_is(State.DIRECT)
    an_hour_earlier = Moment(at(1).seconds, WALL_MS - 3_600_000)
    assert hand_over(lane, messages_of(lane, 3), an_hour_earlier) == 0
    assert lane.state is State.BEHIND
    confirm(lane, messages[:1], an_hour_earlier)
    assert (lane.wanted_messages(an_hour_earlier), replay(lane, messages_of(lane, 3), an_hour_earlier)) == (0, 0)
    confirm(lane, messages[1:], an_hour_earlier)
    assert lane.wanted_messages(an_hour_earlier) > 0
    decision = lane.accept_chunk(messages_of(lane, 3, 4), lane.generation, an_hour_earlier)
    assert [(len(lot.messages), lot.with_current_time) for lot in decision.lots] == [(2, True)]


def test_a_record_from_the_future_goes_with_the_current_time_wherever_it_is_among_others():
    lane, messages = lane_that_is(State.BEHIND)
    confirm(lane, messages)
    ages_ms = {3: 0, 4: -3_600_000, 5: 0, 6: 3_600_000}
    chunk = [
        make_message(lane.destination, number, 1, timestamp_ms=WALL_MS - age_ms) for number, age_ms in ages_ms.items()
    ]
    decision = lane.accept_chunk(chunk, lane.generation, at())
    assert decision.lots == [Lot(chunk[:1], False), Lot(chunk[1:2], True), Lot(chunk[2:], False)]


# ---- what a refusal means


def test_a_message_that_is_refused_for_good_does_not_stop_its_lane():
    lane, (first, _) = lane_that_is(State.DIRECT)
    assert refuse(lane, first, FOR_GOOD) is Verdict.DEAD_LETTER
    lane.note_set_aside(first)
    assert (lane.state, first.finished, lane.removing_messages) == (State.DIRECT, True, 1)


def test_a_message_that_librdkafka_refuses_at_once_and_for_good_is_in_flight_no_longer():
    lane, _ = lane_that_is(State.DIRECT)
    first, second, third = messages_of(lane, 3, 4, 5)
    assert hand_over(lane, [first, second, third]) == 3
    lane.note_refused_at_once(second)
    assert (lane.state, lane.in_flight.messages, second.finished) == (State.DIRECT, 4, True)
    assert lane.note_not_taken([third])[-2:] == [first, third], "the one in between is not stored"


def test_the_records_of_a_refused_batch_go_one_by_one_until_the_last_of_them_is_through():
    """One of them spoils it, and nobody says which."""
    lane, messages = lane_that_is(State.DIRECT)
    for message in reversed(messages):
        assert refuse(lane, message, FOR_ITS_BATCH) is Verdict.AGAIN_ALONE
        lane.attempts.wait("why", at().seconds)
    lane.finish_rewind()
    first, second, third = messages_of(lane, 1, 2, 3)
    assert replay(lane, [first, second, third], at(1.0)) == 1
    confirm(lane, [first])
    assert lane.attempts.limit_messages == 1, "the second is suspected still"
    assert replay(lane, [second, third], at(1.0)) == 1
    assert refuse(lane, second, FOR_ITS_BATCH._replace(went_alone=True)) is Verdict.DEAD_LETTER
    assert lane.attempts.suspect_until == b""
    assert replay(lane, [third], at(1.0)) == 1
    confirm(lane, [third])
    assert lane.attempts.limit_messages == 1000


def test_a_record_that_is_too_old_for_its_topic_goes_once_more_with_the_current_time_and_then_waits():
    lane, (first, second) = lane_that_is(State.DIRECT)
    confirm(lane, [second])
    lane.attempts.times.note_limit(60_000)
    assert refuse(lane, first, FOR_ITS_TIME, at(100.0)) is Verdict.AGAIN_WITH_CURRENT_TIME
    lane.finish_rewind()
    (again,) = messages_of(lane, 1)
    assert lane.accept_chunk([again], lane.generation, at(100.0)).lots == [Lot([again], with_current_time=True)]
    assert refuse(lane, again, FOR_ITS_TIME, at(100.1)) is Verdict.AGAIN, "it had the current time"


def test_a_record_that_was_handed_over_in_the_millisecond_of_its_receipt_had_its_own_time():
    """The wall clock is read in whole milliseconds, so what is reckoned back from it may be before the receipt."""
    lane, (first, second) = lane_that_is(State.DIRECT)
    confirm(lane, [second])
    refused_at = Moment(at().seconds + 0.5009, WALL_MS + 500)
    assert refuse(lane, first, FOR_ITS_TIME, refused_at) is Verdict.AGAIN_WITH_CURRENT_TIME


# ---- storing


def test_a_direct_lane_asks_for_nothing_to_be_stored_and_a_storing_one_for_what_it_hands_over():
    lane, _ = lane_that_is(State.DIRECT)
    assert lane.accept(messages_of(lane, 3), at()).store == []
    assert [message.packet_identifier for message in lane.store_now()] == [1, 2, 3]
    assert lane.store_now() == []
    lane, _ = lane_that_is(State.STORING)
    new = messages_of(lane, 3)
    assert lane.accept(new, at()).store == new


def test_what_is_written_or_finished_is_let_go_of_from_the_first_one_on():
    """Behind one that waits for room the others are needed in order; what Kafka has is let go of on request."""
    lane = make_lane()
    lane.resume(b"")
    first, second, third = messages_of(lane, 1, 2, 3)
    lane.accept([first, second, third], at())
    second.stored = True
    lane.unwritten.drop_written()
    assert list(lane.unwritten) == [first, second, third]
    third.finished = True
    lane.unwritten.drop_finished()
    assert list(lane.unwritten) == [first, second]
    first.stored = True
    lane.unwritten.drop_written()
    assert list(lane.unwritten) == []


def test_the_tail_is_what_is_not_written_yet_from_the_cursor_on():
    lane = make_lane()
    lane.resume(b"")
    messages = messages_of(lane, 1, 2, 3)
    lane.accept(messages, at())
    messages[2].finished = True
    lane.skip_to(messages[1].key)
    assert lane.tail() == [messages[1]]


def test_where_the_entries_of_a_lane_begin_is_said_only_where_it_is_known():
    lane, (first, second) = lane_that_is(State.BEHIND)
    lane.skip_to(b"Ualpha\0later")
    assert lane.first_in_table == first.key
    confirm(lane, [first])
    assert lane.first_in_table == b"", "its entry is still there"
    lane.note_removed(1)
    assert lane.first_in_table == second.key
    confirm(lane, [second])
    lane.note_removed(1)
    assert lane.first_in_table == b"Ualpha\0later"
    lane.note_chunk_read([second], b"Ualpha\0last")
    assert lane.first_in_table == b""
    assert make_lane().first_in_table == b""


# ---- by hand


def test_only_an_idle_lane_has_a_head_that_can_be_taken_out_and_the_next_message_is_tried_at_once():
    lane, messages = lane_that_is(State.BEHIND)
    assert not lane.has_idle_head
    for message in messages:
        refuse(lane, message, FOR_ITS_BATCH)
        lane.attempts.wait("why", at().seconds)
    assert not lane.has_idle_head
    lane.finish_rewind()
    assert lane.has_idle_head
    lane.skip_head(messages[0], messages[1].key)
    assert (lane.cursor, lane.trouble, lane.wanted_messages(at())) == (messages[1].key, "", 1)
    assert lane.attempts.suspect_until == messages[1].key, "the younger one is suspected still"
