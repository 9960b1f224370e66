"""Lanes of derived Kafka topics: they end, wait for a topic only for a time, and hold up no other; without brokers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from app.core.lane import Lane
from app.core.lane_states import State
from app.core.requests import ForgetLanes, ReplayChunk, SetAside
from app.kafka import ended_topics, producer
from app.kafka.asked_topics import ASKED_AT_ONCE, LEARN_SECONDS, AskedTopics
from app.kafka.learning import SMALLEST_BATCH_BYTES, Learning
from app.kafka.missing_topics import REFUSED_WITHIN_SECONDS, MissingTopics
from app.kafka.topic_limits import Answer, TopicConfiguration
from app.kafka.topics import Topics
from app.routes import RouteTable
from app.routing.derived_topics import DerivedTopics
from tables import layout
from tables.dead_letter import unmapped_error
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched, seconds_ago
from tests.support.stored_messages import Maker, add_dead_letter, append, opened, remove

with app_settings():
    from app.storage.dead_letters import DeadLetters

UNKNOWN = KafkaError(KafkaError._UNKNOWN_TOPIC)
UNKNOWN_BY_KAFKA = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
NOT_ENOUGH_REPLICAS = KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)
BATCH_BYTES = 65_536


def is_derived(topic: str) -> bool:
    return topic.startswith("k.")


def given_up(topic: str = "k.a", **options) -> Dispatched:
    """Return a dispatcher with a lane whose topic Kafka does not have, for longer than messages wait for it."""
    dispatcher = Dispatched(is_derived=is_derived, missing_topic_seconds=1.0, **options)
    for number in (1, 2):
        dispatcher.lanes[topic].attempts.retry.reset()
        message = dispatcher.message(topic, number)
        dispatcher.producer.taken.append(message)
        dispatcher.lanes[topic].in_flight.admit([message], 1, 0.0)
        dispatcher.producer.report(dispatcher, error=UNKNOWN)
        for missing in dispatcher.missing._missing.values():
            missing.refused_at -= 2.0
    return dispatcher


def settle(lane: Lane) -> None:
    """Have the dead letters of a lane written, and what waits looked at anew."""
    lane.note_removed(lane.removing_messages)
    lane.finish_rewind()


# ---- a topic that there is not


def test_the_time_without_a_topic_counts_only_while_kafka_says_so():
    """An outage of a day must not turn a day's messages into dead letters."""
    missing = MissingTopics(3600.0, 10.0, is_derived)
    code = UNKNOWN_BY_KAFKA.code()
    assert not missing.note_refused("k.a", code, 1_000.0)
    assert not missing.note_refused("k.a", code, 1_000.0 + 24 * 3600)
    assert missing._missing["k.a"].seconds == 10.0 + REFUSED_WITHIN_SECONDS
    at = 100_000.0
    while not missing.note_refused("k.a", code, at):
        at += 10.0
    assert 3_500 < at - 100_000.0 < 3_600
    missing.forget(["k.a"])
    assert not missing.note_refused("k.a", code, at + 1)


def test_thousands_of_records_that_are_refused_at_once_are_no_reason_to_look_at_all_templates_for_each():
    looked_at: list[str] = []
    missing = MissingTopics(3600.0, 10.0, lambda topic: looked_at.append(topic) is None)
    for number in range(1_000):
        missing.note_refused("k.a", UNKNOWN.code(), 10.0 + number)
    assert looked_at == ["k.a"]


@pytest.mark.parametrize(("topic", "error"), [("named", UNKNOWN), ("k.a", NOT_ENOUGH_REPLICAS)])
def test_messages_for_a_topic_that_a_route_names_or_that_kafka_has_wait_for_ever(topic, error):
    missing = MissingTopics(1.0, 10.0, is_derived)
    assert not any(missing.note_refused(topic, error.code(), 10.0 * number) for number in range(1_000))
    assert not missing.given_up


def test_once_the_time_is_over_all_of_the_lane_becomes_dead_letters_at_once_and_the_others_go_on():
    """P5: also what waits in the table, and without asking Kafka about each."""
    dispatcher = given_up()
    lane = dispatcher.lanes["k.a"]
    assert dispatcher.requests.set_aside[-1].dead_reason == "no_kafka_topic"
    stored = [dispatcher.message("k.a", number) for number in range(3, 503)]
    settle(lane)
    assert (lane.state, dispatcher.wanted_messages(lane)) == (State.BEHIND, 1_000), "no single tries any more"
    lane.note_chunk_read(stored, stored[-1].key + b"\0")
    requests = len(dispatcher.requests.table)
    assert dispatcher.hand_over_chunk(ReplayChunk("k.a", stored, lane.generation)) == 500
    (request,) = dispatcher.requests.table[requests:]
    assert isinstance(request, SetAside)
    assert request.messages == stored
    assert {message.dead_reason for message in stored} == {"no_kafka_topic"}
    assert dispatcher.wanted_messages(lane) == 0, "no more is read before these are written"
    other = dispatcher.send(dispatcher.message("beta", 1))
    assert dispatcher.producer.taken == [other]


def test_while_kafka_is_away_nothing_becomes_a_dead_letter_for_that():
    dispatcher = given_up()
    lane = dispatcher.lanes["k.a"]
    settle(lane)
    dispatcher.catch_up(lane)
    dispatcher.producer.connected = False
    message = dispatcher.send(dispatcher.message("k.a", 9))
    assert dispatcher.producer.taken == [message]
    assert not message.dead_reason


def test_when_the_topic_is_there_the_lane_begins_with_one_record():
    dispatcher = given_up()
    lane = dispatcher.lanes["k.a"]
    settle(lane)
    dispatcher.catch_up(lane)
    dispatcher.note_shown({"k.a", "another"})
    assert (lane.trouble, lane.attempts.limit_messages) == ("", 1)
    sent = [dispatcher.send(dispatcher.message("k.a", number)) for number in (9, 10)]
    assert dispatcher.producer.taken == sent[:1]
    assert not any(message.dead_reason for message in sent)


def test_a_topic_that_a_route_names_waits_for_ever_also_where_a_template_could_have_made_its_name():
    """And one whose messages became dead letters waits from the moment on at which a reload names it."""
    dispatcher = given_up()
    lane = dispatcher.lanes["k.a"]
    settle(lane)
    dispatcher.catch_up(lane)
    for topic in ("k.a", "k.named"):
        dispatcher.lanes.keep([topic])
        dispatcher.note_shown([topic])
        sent = dispatcher.send(dispatcher.message(topic, 9))
        dispatcher.producer.report(dispatcher, error=UNKNOWN)
        refused = dispatcher.missing.note_refused
        assert not any(refused(topic, UNKNOWN.code(), seconds_ago(-number)) for number in range(99))
        assert not sent.dead_reason
        assert "Create the topic" in dispatcher.lanes[topic].trouble


# ---- lanes that begin


def test_a_lane_begins_when_it_is_asked_for_and_not_when_somebody_asks_whether_there_is_one():
    """P6: publishers name topics; what is only looked for must not take memory, or a share of what may be in flight."""
    lanes = Dispatched().lanes
    assert ("k.a" in lanes, lanes.get("k.a"), list(lanes)) == (False, None, [])
    assert lanes[""] is lanes[""] and list(lanes) == [], "where messages without a topic are is no lane among others"
    assert lanes["k.a"] is lanes["k.a"] and list(lanes) == ["k.a"]


# ---- lanes that end


def test_a_lane_ends_only_if_nothing_of_it_is_anywhere_and_no_route_names_its_topic():
    dispatcher = Dispatched(idle_topic_seconds=60.0)
    dispatcher.lanes.keep(["named"])
    dispatcher.open_up("k.flight", "k.table", "k.idle")
    dispatcher.send(dispatcher.message("k.flight", 1))
    dispatcher.lanes["k.table"].resume(b"x")
    later = seconds_ago(-61)
    assert dispatcher.lanes.end_idle(seconds_ago(-59)) == []
    assert dispatcher.lanes.end_idle(later) == ["k.idle"]
    dispatcher.producer.report(dispatcher)
    assert dispatcher.lanes.end_idle(seconds_ago(-59)) == [], "it was confirmed just now"
    assert dispatcher.lanes.end_idle(later) == ["k.flight"]
    assert [lane.topic for lane in dispatcher] == ["named", "k.table"]


def test_a_lane_whose_topic_never_came_ends_as_well_once_nothing_is_sent_there():
    """A publisher's mistakes of one day would take all of ROUTES_MAX_TOPICS until the next start."""
    dispatcher = given_up(idle_topic_seconds=60.0)
    lane = dispatcher.lanes["k.a"]
    settle(lane)
    dispatcher.catch_up(lane)
    dispatcher.lanes._made_at["k.a"] -= 1_000.0
    dispatcher.send(dispatcher.message("k.a", 9))
    assert dispatcher.lanes.end_idle(seconds_ago(-61)) == [], "its dead letter is not written yet"
    settle(lane)
    dispatcher.lanes["k.a"].unwritten.drop_written()
    assert dispatcher.lanes.end_idle(seconds_ago(-59)) == [], "something was sent there just now"
    assert dispatcher.lanes.end_idle(seconds_ago(-61)) == ["k.a"]


def test_a_destination_is_the_same_whether_its_lane_ended_or_not_as_long_as_somebody_has_it():
    """P2: the router puts messages together by it."""
    dispatcher = Dispatched(idle_topic_seconds=60.0)
    kept = dispatcher.destination("k.a")
    first = dispatcher.lanes["k.a"]
    assert dispatcher.lanes.end_idle(seconds_ago(-61)) == ["k.a"]
    assert dispatcher.destination("k.a") is kept
    assert dispatcher.lanes["k.a"] is not first
    assert dispatcher.lanes["k.a"].destination is kept


def test_thousands_of_topics_one_after_the_other_leave_nothing_behind():
    """P6: what is known of a topic ends with its lane."""
    dispatcher = Dispatched(is_derived=is_derived, idle_topic_seconds=0.0)
    for number in range(3_000):
        topic = f"k.{number}"
        dispatcher.open_up(topic)
        dispatcher.topics.note_answer({topic: TopicConfiguration(1_000, keeps_ms=1)})
        dispatcher.topics.note_not_shown({topic}, {topic})
        dispatcher.topics.note_unknown({topic: "why"}, {topic})
        dispatcher.topics.note_alone([topic])
        dispatcher.topics.note_singles(BATCH_BYTES)
        dispatcher.missing.note_refused(topic, UNKNOWN.code(), 0.0)
        dispatcher.send(dispatcher.message(topic, 1))
        dispatcher.producer.report(dispatcher)
        dispatcher.end_idle_lanes()
    topics = dispatcher.topics
    left = [
        topics.learned,
        topics.singles,
        topics.alone,
        topics.not_shown,
        topics.unknown,
        topics.known,
        topics.keeps_ms,
    ]
    assert not any([*left, topics._unlearned_since, dispatcher.missing._missing, list(dispatcher)])
    assert dispatcher.bounds._lanes == 0
    assert sum(isinstance(request, ForgetLanes) for request in dispatcher.requests.table) == 3_000


def test_the_table_forgets_a_lane_that_has_nothing_in_it_and_no_other(tmp_path):
    """P6: it would look at each of them at a start, and when a page is shown."""
    with opened(tmp_path) as table:
        make = Maker(table)
        messages = [make() for _ in range(2)]
        append(table, messages)
        assert len(list(table.lanes())) == 1
        (topic,) = dict(table.lanes())
        remove(table, messages)
        assert table.data.value(layout.HEAD + topic.encode()) is not None
        write = table.begin()
        write.forget_head(topic)
        write.commit()
        assert table.data.value(layout.HEAD + topic.encode()) is None
        append(table, [make()])
        assert list(dict(table.lanes())) == [topic], "it is known again with its next message"


def test_a_producer_that_is_replaced_ends_beside_the_event_loop(monkeypatch):
    """With thousands of topics it takes 100 ms, and while the address of Kafka is looked up some seconds."""
    ended_in = []

    class Watched(producer.Producer):
        def __del__(self):
            ended_in.append(threading.get_ident())

    monkeypatch.setattr(producer, "Producer", Watched)
    kafka = producer.KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    kafka.open()
    kafka.start_anew()
    give_up_at = time.monotonic() + 10
    while not ended_in and time.monotonic() < give_up_at:
        time.sleep(0.01)
    kafka.close()
    assert len(ended_in) == 2
    assert ended_in[0] != threading.get_ident() == ended_in[1]


# ---- what is asked of Kafka


def test_new_topics_are_asked_for_in_parts_and_those_that_are_known_rarely():
    """Each is a question of its own, and a publisher chooses how many there are."""
    topics, asked = Topics(), AskedTopics(["named"])
    lanes = ["named", *(f"k.{number}" for number in range(250))]
    seen: set[str] = set()
    for round_number in range(3):
        chosen = asked.choose(lanes, topics, 1_000.0 + round_number)
        assert "named" in chosen
        assert len(chosen) <= ASKED_AT_ONCE + 1
        assert asked.are_more == (round_number < 2)
        seen |= chosen
    assert seen == set(lanes)
    topics.learned.update(lanes)
    assert asked.choose(lanes, topics, 1_010.0) == {"named"}
    topics.refused_batches.add("k.7")
    assert asked.choose(lanes, topics, 1_010.0) == {"named", "k.7"}
    assert len(asked.choose(lanes, topics, 1_003.0 + LEARN_SECONDS)) == ASKED_AT_ONCE + 1
    asked.choose(["named"], topics, 2_000.0)
    assert not asked._asked_at


@pytest.mark.parametrize("refuses", [False, True])
def test_a_derived_topic_that_takes_little_has_its_records_alone_and_shrinks_no_batches(refuses):
    """P5: else whoever publishes could make all topics slow."""
    dispatcher = Dispatched()
    dispatcher.open_up("k.small")
    shrunk: list[int] = []
    dispatcher.producer.shrink_batches = shrunk.append
    learning = Learning(dispatcher, ["named"], lambda: False)
    known = {"named": TopicConfiguration(1_000_000)}
    known["k.small"] = TopicConfiguration(None if refuses else SMALLEST_BATCH_BYTES * 2)
    asyncio.run(learning._heed(Answer(set(), known), {"k.small"} if refuses else set()))
    assert shrunk == []
    assert dispatcher.topics.singles == {"k.small"}
    assert not dispatcher.topics.takes_batches("k.small")
    assert dispatcher.topics.takes_batches("named")


def test_nothing_is_kept_of_topics_whose_lanes_ended_while_kafka_was_asked():
    """They are never asked for again, and in a year there are many."""
    dispatcher = Dispatched()
    dispatcher.open_up("k.here")
    learning = Learning(dispatcher, ["named"], lambda: False)
    known = {topic: TopicConfiguration(1_000_000, keeps_ms=1) for topic in ("named", "k.here", "k.ended")}
    answer = Answer({"k.missing"}, known, unanswered={"k.silent": "no answer"})
    with contextlib.suppress(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(learning._learn(answer, set(), 60.0), 0.01))
    topics = dispatcher.topics
    assert set(topics.known) == set(topics.keeps_ms) == {"named", "k.here"}
    assert topics.learned == {"named", "k.here"}
    assert not topics.not_shown


def test_a_start_without_a_topic_to_ask_for_takes_kafka_for_neither_there_nor_away():
    dispatcher = Dispatched()
    dispatcher.producer.cluster = SimpleNamespace(note_answered=lambda: pytest.fail("nothing was asked"))
    dispatcher.producer.ask_topics = lambda topics, _seconds: Answer(missing=set(topics))
    assert asyncio.run(Learning(dispatcher, [], lambda: False)._ask_first()) is None


def test_of_all_dead_letters_those_are_retried_whose_kafka_topics_may_be_in_use(tmp_path):
    """P6: a retry of thousands for as many topics must not make as many lanes."""
    dispatcher = Dispatched()
    derived = DerivedTopics(2, dispatcher.lanes)
    with opened(tmp_path) as table:
        make = Maker(table)
        for number in (1, 2, 3, 1):
            add_dead_letter(table, make(topic=f"k.{number}"), f"k.{number}")
        letters = DeadLetters(
            table, dispatcher, None, lambda prefix: prefix + layout.pack_sequence(9, 9), RouteTable([]),
            lambda topic: derived.admit(topic, lambda: None) and bool(dispatcher.lanes[topic]),
        )  # fmt: skip
        found = [sent and sent.topic for _, sent in letters.idle(layout.DEAD_LETTER, layout.DEAD_LETTER + b"\xff")]
        assert found == ["k.1", "k.2", None, "k.1"]
        (refused,) = [letter for letter, sent in letters.idle(layout.DEAD_LETTER, b"E") if sent is None]
        assert "as many Kafka topics are in use as ROUTES_MAX_TOPICS allows" in str(unmapped_error(refused))


@pytest.mark.parametrize("lands", [True, False])
def test_a_kafka_client_with_a_thousand_topics_that_are_used_no_more_is_replaced_when_nothing_is_in_flight(
    lands, monkeypatch
):
    """P3 and P6: it keeps each for ever; and nothing may be repeated."""
    monkeypatch.setattr(ended_topics, "LAND_SECONDS", 0.2)
    monkeypatch.setattr(ended_topics, "KEPT_TOPICS", 3)
    dispatcher = Dispatched(idle_topic_seconds=0.0)
    replaced: list[int] = []
    dispatcher.producer.is_fatal = False
    dispatcher.producer.start_anew = lambda: replaced.append(dispatcher.in_flight_messages)
    for number in range(3):
        dispatcher.lanes[f"k.{number}"]
    dispatcher.lanes.keep(["busy"])
    dispatcher.send(dispatcher.message("busy", 1))

    async def run() -> None:
        ended = ended_topics.EndedTopics(dispatcher, lambda: False)
        task = asyncio.ensure_future(ended.run())
        await asyncio.sleep(0.02)
        assert dispatcher.bounds.is_closed
        assert not replaced
        if lands:
            dispatcher.producer.report(dispatcher)
        while dispatcher.bounds.is_closed:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert replaced == ([0] if lands else [])
