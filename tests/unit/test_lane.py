"""One lane, and the dead letters that go back to it, between stand-ins; no brokers are needed."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

from agents.dead_letters import DeadLetters
from app.kafka.lane import Lane
from app.messages import Message
from app.routes import RouteTable
from tables import layout
from tests.support.stored_messages import Maker, add_dead_letter, append, opened


class Taking:
    """A producer that takes everything, and reports when it is told to."""

    batch_size_bytes = 65_536

    def __init__(self):
        self.reports_sink = []
        self.taken = []

    def produce(self, _topic, messages, _now_ms, **_options):
        self.taken += messages
        return len(messages), None

    def confirm(self, lane: Lane) -> None:
        """Confirm everything that was taken."""
        taken, self.taken = self.taken, []
        for message in taken:
            message.error = None
        lane.take_reports(taken, 1.0)
        lane.after_reports()


class Bounds:
    """What a lane asks of all lanes: the bounds, as if there were no other lane, and nothing written yet."""

    store_after_seconds = longest_retry_seconds = 1.0
    limit_bytes = 1_000_000
    topics = SimpleNamespace(takes_age_ms=lambda _: math.inf)
    overdrawn = None
    paused = False

    def __init__(self):
        self.producer = Taking()
        self.behind, self.starved = set(), set()
        self.in_flight_messages = self.in_flight_bytes = 0
        self.ask_to_store = self.look_at = lambda _: None

    def limit_for(self, _lane):
        return 1000

    def has_room_for(self, lane):
        return lane.in_flight_bytes < self.limit_bytes

    def has_room_for_all(self, lane, _messages, size_bytes):
        return lane.in_flight_bytes + size_bytes <= self.limit_bytes


def test_a_large_message_that_had_to_wait_does_not_hold_up_the_small_ones_behind_it():
    """Room for it is kept free until it is handed over, and no longer."""
    lanes = Bounds()
    lane, producer = Lane("alpha", lanes), lanes.producer

    def message(number: int, size_bytes: int) -> Message:
        made = Message(b"a", bytes(size_bytes), 1, 2, 1, b"", 0, None)
        made.key = lane.prefix + layout.pack_sequence(1, number)
        return made

    lane.accept([message(1, 100)])
    producer.confirm(lane)
    lane.accept([message(2, 500_000)])
    large = message(3, 900_000)
    lane.accept([large])
    assert lane.behind
    producer.confirm(lane)
    lane.catch_up()
    assert producer.taken == [large]
    producer.confirm(lane)
    assert not lane.behind
    for number in range(4, 54):  # one after the other, as they come
        lane.accept([message(number, 10_000)])
    assert (len(producer.taken), lane.behind) == (50, False)


def test_where_kafka_takes_no_old_records_none_is_added_behind_one_that_stands_still():
    """P2: Kafka would refuse the one that grew too old, and take the younger ones behind it."""
    lanes = Bounds()
    lane, producer = Lane("alpha", lanes), lanes.producer

    def message(number: int) -> Message:
        made = Message(b"a", b"x", 1, 2, 1, b"", int(time.time() * 1000), None)
        made.key = lane.prefix + layout.pack_sequence(1, number)
        return made

    lane.accept([message(1)])
    producer.confirm(lane)
    for limit_ms, is_handed_over in ((math.inf, True), (2_000, False)):
        lanes.topics = SimpleNamespace(takes_age_ms=lambda _, limit_ms=limit_ms: limit_ms)
        old, young = message(2), message(3)
        lane.accept([old])
        old.handed_at = time.monotonic() - 1.0
        lane.accept([young])
        assert (young in producer.taken, lane.behind) == (is_handed_over, not is_handed_over)
        producer.confirm(lane)


def test_a_dead_letter_that_is_asked_for_again_before_it_is_stored_is_sent_once(tmp_path):
    """P3: a button that is pressed twice; or Kafka and the table stand still for a while."""
    with opened(tmp_path) as table:
        make = Maker(table)
        add_dead_letter(table, make(topic="alpha"), "alpha")
        lane = SimpleNamespace(prefix=layout.undelivered_prefix("alpha"), topic="alpha")
        sent: list[Message] = []
        lane.take_back = sent.append
        letters = DeadLetters(table, {"alpha": lane}, None, lambda _: make(topic="alpha").key, RouteTable([], []))

        def retry() -> int:
            return len([letters.revive(letter) for letter in letters.chosen([])])

        assert [retry(), retry()] == [1, 0]
        append(table, sent)
        assert not list(table.dead_letters())
        message = sent.pop()
        message.dead_reason = "too_large"
        add_dead_letter(table, message, "alpha")  # refused once more
        assert [retry(), retry()] == [1, 0]
        assert len(sent) == 1


def test_a_dead_letter_that_is_refused_again_before_it_is_stored_is_never_missing(tmp_path):
    """P1: the write that has it as a dead letter once more ends the former one, whoever is killed when."""
    with opened(tmp_path) as table:
        make = Maker(table)
        first = make(topic="alpha")
        add_dead_letter(table, first, "alpha")
        lane = SimpleNamespace(prefix=layout.undelivered_prefix("alpha"), topic="alpha", take_back=lambda _: None)
        letters = DeadLetters(table, {"alpha": lane}, None, lambda _: make(topic="alpha").key, RouteTable([], []))
        (letter,) = letters.chosen([])
        again = letter.revived(make(topic="alpha").key)
        again.lane, again.dead_reason = lane, "too_large"
        write = table.begin()
        letters.add(again, write)
        assert [letter.message.payload for letter in table.dead_letters()] == [first.payload]
        write.commit()
        assert [letter.id for letter in table.dead_letters()] == [again.key[-layout.SEQUENCE_BYTES :].hex()]
        assert table.dead_messages == 1
