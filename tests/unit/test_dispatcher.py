"""What the dispatcher does with what lanes decide: for librdkafka, for the agents, in which order; without brokers."""

from __future__ import annotations

import math
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from app.core.lane_states import State
from app.core.requests import ReplayChunk
from app.kafka.topic_limits import TopicConfiguration
from tests.support.dispatched import Dispatched, seconds_ago

NOT_ENOUGH_REPLICAS = KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


def confirmed_once(**options) -> Dispatched:
    """Return a dispatcher whose lane `alpha` had a record confirmed, so that it may have many in flight."""
    dispatcher = Dispatched(**options)
    dispatcher.topics.learned = {"alpha"}
    dispatcher.send(dispatcher.message("alpha", 1))
    dispatcher.producer.report(dispatcher)
    return dispatcher


def test_a_large_message_that_had_to_wait_does_not_hold_up_the_small_ones_behind_it():
    """Room for it is kept free until it is handed over, and no longer."""
    dispatcher = confirmed_once(limit_bytes=1_000_000)
    lane, producer = dispatcher.lanes["alpha"], dispatcher.producer
    dispatcher.send(dispatcher.message("alpha", 2, 500_000))
    large = dispatcher.send(dispatcher.message("alpha", 3, 900_000))
    assert not lane.is_direct
    producer.report(dispatcher)
    dispatcher.catch_up(lane)
    assert producer.taken == [large]
    producer.report(dispatcher)
    assert lane.is_direct
    for number in range(4, 54):  # one after the other, as they come
        dispatcher.send(dispatcher.message("alpha", number, 10_000))
    assert (len(producer.taken), lane.is_direct) == (50, True)


@pytest.mark.parametrize(("limit_ms", "is_handed_over"), [(math.inf, True), (2_000, False)])
def test_where_kafka_takes_no_old_records_none_is_added_behind_one_that_stands_still(limit_ms, is_handed_over):
    """P2: Kafka would refuse the one that grew too old, and take the younger ones behind it."""
    dispatcher = confirmed_once()
    dispatcher.topics.known = {"alpha": TopicConfiguration(takes_age_ms=None if limit_ms == math.inf else limit_ms)}
    dispatcher.lanes.note_learned(["alpha"], set())
    now_ms = int(time.time() * 1000)
    old = dispatcher.send(dispatcher.message("alpha", 2, timestamp_ms=now_ms))
    old.handed_at = seconds_ago(1.0)
    young = dispatcher.send(dispatcher.message("alpha", 3, timestamp_ms=now_ms))
    assert (young in dispatcher.producer.taken, dispatcher.lanes["alpha"].is_direct) == (is_handed_over, is_handed_over)


def test_what_librdkafka_has_no_room_for_is_stored_behind_all_that_is_in_flight():
    """P2: after a crash the newer one would be replayed first."""
    dispatcher = confirmed_once()
    first = dispatcher.send(dispatcher.message("alpha", 2))
    dispatcher.producer.refuses = BufferError()
    second = dispatcher.send(dispatcher.message("alpha", 3))
    assert dispatcher.requests.to_be_stored == [first, second]
    assert dispatcher.lanes["alpha"].state is State.BEHIND
    assert dispatcher.lanes["alpha"].cursor == second.key
    assert not dispatcher.named_for_replay
    dispatcher.producer.report(dispatcher)
    assert dispatcher.named_for_replay == {"alpha"}, "there is room"


def test_a_lane_that_found_librdkafka_full_is_looked_at_when_another_lane_makes_room():
    """Nothing of its own is in flight, so no report of its own will come."""
    dispatcher = confirmed_once()
    other = dispatcher.send(dispatcher.message("beta", 1))
    dispatcher.producer.refuses = BufferError()
    dispatcher.send(dispatcher.message("alpha", 2))
    dispatcher.replay.pop_all()
    dispatcher.producer.report(dispatcher, [other])
    assert dispatcher.named_for_replay == {"alpha"}


def test_when_librdkafka_takes_no_more_of_one_lot_it_gets_none_of_the_next():
    """P2: it may have room again in between."""
    dispatcher = confirmed_once()
    dispatcher.lanes["alpha"].attempts.times.note_limit(60_000)  # so the first, of 1970, goes with the current time
    first, second = (dispatcher.message("alpha", n, timestamp_ms=t) for n, t in ((2, 0), (3, int(time.time() * 1000))))
    answers = [(0, BufferError()), (1, None)]
    dispatcher.producer.produce = lambda *_, **__: answers.pop(0)
    dispatcher.accept("alpha", [first, second])
    assert len(answers) == 1
    assert dispatcher.requests.to_be_stored == [first, second]
    assert dispatcher.lanes["alpha"].cursor == first.key


def test_delivery_reports_are_polled_for_once_librdkafka_has_something():
    dispatcher = Dispatched()
    dispatcher.message("alpha", 1)
    assert not dispatcher.wake_poller.is_set()
    dispatcher.send(dispatcher.message("alpha", 1))
    assert dispatcher.wake_poller.is_set()


def test_what_is_in_flight_is_stored_before_a_message_that_was_written_at_the_end_of_its_lane():
    """A dead letter on its way to DEAD_LETTER_TOPIC: the table has it, and librdkafka the older ones."""
    dispatcher = confirmed_once()
    older = dispatcher.send(dispatcher.message("alpha", 2))
    appended = dispatcher.message("alpha", 3)
    dispatcher.send_appended(appended)
    assert dispatcher.requests.to_be_stored == [older]
    assert (dispatcher.lanes["alpha"].state, dispatcher.lanes["alpha"].cursor) == (State.BEHIND, appended.key)
    assert dispatcher.named_for_replay == {"alpha"}


def test_a_record_that_librdkafka_refuses_for_good_is_set_aside_and_the_next_one_goes():
    dispatcher = confirmed_once()
    large, small = dispatcher.message("alpha", 2), dispatcher.message("alpha", 3)
    answers = [(0, KafkaException(TOO_LARGE)), (1, None)]
    dispatcher.producer.produce = lambda *_, **__: answers.pop(0)
    dispatcher.accept("alpha", [large, small])
    assert dispatcher.requests.set_aside == [large]
    assert (large.finished, large.dead_reason) == (True, "too_large")
    assert list(dispatcher.lanes["alpha"].in_flight.queue) == [small]
    assert dispatcher.lanes["alpha"].is_direct


def test_a_dead_letter_has_nothing_else_of_its_lane_stored():
    """Kafka takes the others as well as before: there is no reason to write them to the table."""
    dispatcher = confirmed_once()
    large = dispatcher.send(dispatcher.message("alpha", 2, 70_000))  # above batch.size, so it went alone
    dispatcher.send(dispatcher.message("alpha", 3))
    dispatcher.producer.report(dispatcher, [large], TOO_LARGE)
    assert dispatcher.requests.set_aside == [large]
    assert dispatcher.requests.to_be_stored == []
    assert dispatcher.lanes["alpha"].state is State.DIRECT


@pytest.mark.parametrize("refusal", [BufferError(), KafkaException(NOT_ENOUGH_REPLICAS), KafkaException(TOO_LARGE)])
def test_what_librdkafka_did_not_take_does_not_count_as_handed_over(refusal):
    """By that it is seen whether its payload, once it is stored, is needed in memory for librdkafka."""
    dispatcher = confirmed_once()
    dispatcher.producer.refuses = refusal
    assert dispatcher.send(dispatcher.message("alpha", 2)).handed_at == 0.0


def test_a_record_that_kafka_refuses_for_now_is_stored_with_all_that_follow_and_tried_after_an_interval():
    dispatcher = confirmed_once()
    lane = dispatcher.lanes["alpha"]
    messages = [dispatcher.send(dispatcher.message("alpha", number)) for number in (2, 3, 4)]
    dispatcher.producer.report(dispatcher, messages[:1], NOT_ENOUGH_REPLICAS)
    assert dispatcher.requests.to_be_stored == messages
    assert (lane.state, dispatcher.wanted_messages(lane)) == (State.REWINDING, 0)
    dispatcher.producer.report(dispatcher, messages[1:])
    assert (lane.state, lane.cursor) == (State.BEHIND, messages[0].key)
    assert dispatcher.later == [(lane, 0.5)]
    assert lane.trouble
    lane.attempts.retry.due_at = 0.0
    assert dispatcher.wanted_messages(lane) == 1, "one at a time, until one is confirmed"


def test_confirmed_messages_that_are_stored_are_removed_before_their_lane_rewinds():
    """Else they would be read from the table, and sent again."""
    dispatcher = confirmed_once()
    lane = dispatcher.lanes["alpha"]
    messages = [dispatcher.send(dispatcher.message("alpha", number)) for number in (2, 3)]
    for message in messages:
        message.stored, message.stored_bytes = True, 1
    dispatcher.producer.report(dispatcher, messages[1:])
    dispatcher.producer.report(dispatcher, messages[:1], NOT_ENOUGH_REPLICAS)
    assert dispatcher.requests.removals == [[messages[1]]]
    assert lane.state is State.REWINDING
    lane.note_removed(1)
    dispatcher.go_on(["alpha"])
    assert lane.state is State.BEHIND


def test_a_chunk_that_was_read_before_a_rewind_is_void():
    dispatcher = confirmed_once()
    lane = dispatcher.lanes["alpha"]
    first = dispatcher.send(dispatcher.message("alpha", 2))
    old = ReplayChunk("alpha", [dispatcher.message("alpha", 3)], lane.generation)
    dispatcher.producer.report(dispatcher, [first], NOT_ENOUGH_REPLICAS)
    lane.attempts.retry.due_at = 0.0
    assert dispatcher.hand_over_chunk(old) == 0
    new = ReplayChunk("alpha", [dispatcher.message("alpha", number) for number in (2, 3)], lane.generation)
    assert dispatcher.hand_over_chunk(new) == 1
    assert lane.cursor == new.messages[1].key, "the rest is read again"


def test_what_is_not_confirmed_in_time_is_stored_in_order_and_so_is_what_follows():
    dispatcher = confirmed_once(store_after_seconds=60.0)
    messages = [dispatcher.send(dispatcher.message("alpha", number)) for number in (2, 3)]
    dispatcher.store_late()
    assert dispatcher.requests.to_be_stored == []
    messages[0].handed_at = seconds_ago(599.0)
    dispatcher.store_late()
    assert dispatcher.requests.to_be_stored == [], "late, but Kafka has confirmed another of the lane just now"
    messages[0].handed_at = seconds_ago(601.0)
    dispatcher.store_late()
    messages.append(dispatcher.send(dispatcher.message("alpha", 4)))
    assert dispatcher.requests.to_be_stored == messages
    assert dispatcher.lanes["alpha"].state is State.STORING
    assert dispatcher.producer.taken == messages, "and it goes to Kafka at once"


def test_at_the_stop_everything_is_stored_and_nothing_more_is_read():
    dispatcher = confirmed_once()
    messages = [dispatcher.send(dispatcher.message("alpha", number)) for number in (2, 3)]
    dispatcher.stop_replaying()
    dispatcher.store_everything()
    assert dispatcher.requests.to_be_stored == messages
    dispatcher.resume("beta", dispatcher.lanes["beta"].destination.prefix)
    assert dispatcher.wanted_messages(dispatcher.lanes["beta"]) == 0


def test_messages_of_no_kafka_topic_have_a_lane_that_nothing_is_read_or_judged_by():
    dispatcher = Dispatched()
    message = dispatcher.message("", 1)
    dispatcher.set_aside(message, "unmapped", "nothing matches it")
    assert dispatcher.requests.set_aside == [message]
    dispatcher.look_at_all()
    assert (list(dispatcher), dispatcher.named_for_replay) == ([], set())
