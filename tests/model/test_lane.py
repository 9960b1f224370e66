"""One lane beside a list: what is stored and handed over when, through any reports, refusals, writes and rewinds.

The model is the list of all messages of the lane, in the order of receipt, and what became of each. Around the lane are
a librdkafka (what it has, which may be reported in any order, as a topic has several partitions), a table that writes
in order, and somebody who reads from it. What the dispatcher does with the decisions is done here in a few lines.
"""

from __future__ import annotations

from collections import deque

import hypothesis.strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.core.attempts import Refusal, Verdict
from app.core.in_flight import SharedBounds
from app.core.lane_states import Decision, State
from app.core.message import Message
from app.core.moment import Moment
from tests.support.dispatched import make_lane, make_message

LIMIT_MESSAGES = 6
FOR_NOW = Refusal(is_final=False, is_of_batch=False, is_of_time=False, went_alone=False)
REFUSALS = {
    "for now": FOR_NOW,
    "for good": FOR_NOW._replace(is_final=True),
    "as a batch": FOR_NOW._replace(is_final=True, is_of_batch=True),
    "for its time": FOR_NOW._replace(is_of_time=True),
}


def number_of(message: Message) -> int:
    return message.packet_identifier


class LaneMachine(RuleBasedStateMachine):
    """A lane, and what is around it."""

    @initialize(storing=st.booleans(), left=st.integers(0, 3))
    def begin(self, storing, left):
        """Begin a lane, with what an earlier start left in the table."""
        self.now = 100.0
        self.bounds = SharedBounds(lane_limit_messages=4)  # all together may have eight
        self.lane = make_lane(bounds=self.bounds, store_after_seconds=0 if storing else 1.0)
        self.received = left
        self.ended: dict[int, str] = {}  # what became of each message that is finished
        self.with_librdkafka: list[Message] = []
        self.requests: deque[tuple[str, list[Message]]] = deque()  # to the table writer
        self.removals: deque[list[Message]] = deque()
        self.chunks: deque[tuple[list[Message], int]] = deque()
        self.table: dict[int, int] = {number: number for number in range(1, left + 1)}
        self.asked_up_to = left  # everything up to here was to be stored, unless it was finished before
        self.is_proved = False  # a record was confirmed since the lane began, or since one was refused
        if left:
            self.lane.resume(make_message(self.lane.destination, 1).key)

    # ---- what the dispatcher does

    def at(self) -> Moment:
        return Moment(self.now, int(self.now * 1000))

    def carry_out(self, decision: Decision, taken: int) -> None:
        """Give librdkafka what is to go there, of which it takes so many, and the table writer the rest."""
        handed = [message for lot in decision.lots for message in lot.messages]
        self.store(decision.store)
        if handed:
            self.hand_over(handed[:taken])
        if handed[taken:]:
            self.store(self.lane.note_not_taken(handed[taken:]))

    def hand_over(self, messages: list[Message]) -> None:
        for message in messages:
            number = number_of(message)
            here = {number_of(each) for each in self.with_librdkafka}
            older = set(range(1, number)) - self.ended.keys() - here
            assert not older, f"{number} is handed over before {older}"
            assert number not in here, f"{number} is there already"
            assert number not in self.ended, f"{number} is finished"
            self.with_librdkafka.append(message)
        if not self.is_proved and messages:
            assert len(self.with_librdkafka) == 1, "more than one record before the first was confirmed"
        assert len(self.with_librdkafka) <= 2 * 4

    def store(self, messages: list[Message]) -> None:
        for message in messages:
            number = number_of(message)
            older = set(range(self.asked_up_to + 1, number)) - self.ended.keys()
            assert not older, f"{number} is to be stored before {older}"
            assert number > self.asked_up_to, f"{number} is to be stored twice, or too late"
            self.asked_up_to = number
        if messages:
            self.requests.append(("store", messages))

    # ---- what may happen

    @rule(count=st.integers(1, 4), taken=st.sampled_from([0, 1, 2, 99, 99, 99]))
    def receive(self, count, taken):
        """New messages come, and librdkafka takes some of those that it is given."""
        messages = [
            make_message(self.lane.destination, self.received + each, timestamp_ms=int(self.now * 1000))
            for each in range(1, count + 1)
        ]
        self.received += count
        self.carry_out(self.lane.accept(messages, self.at()), taken)

    @precondition(lambda self: self.with_librdkafka)
    @rule(chosen=st.lists(st.integers(0, 7), min_size=1, max_size=4), data=st.data())
    def report(self, chosen, data):
        """Some records are confirmed or refused, in any order."""
        places = {place % len(self.with_librdkafka) for place in chosen}
        reported = [self.with_librdkafka[place] for place in sorted(places)]
        answers = [data.draw(st.sampled_from(["", "", *REFUSALS])) for _ in reported]
        self.settle(reported, answers)

    def settle(self, reported: list[Message], answers: list[str]) -> None:
        for message, answer in zip(reported, answers, strict=True):
            self.with_librdkafka.remove(message)
            message.error = answer or None
        was_rewinding = self.lane.state is State.REWINDING
        confirmed = self.lane.note_reports(reported, self.at(), LIMIT_MESSAGES)
        assert confirmed == [message for message in reported if message.error is None]
        for message in confirmed:
            assert number_of(message) not in self.ended, "delivered twice"
            self.ended[number_of(message)] = "delivered"
        if confirmed and not was_rewinding:
            self.is_proved = True
        if stored := [message for message in confirmed if message.stored]:
            self.removals.append(stored)
        for message in reported:
            if message.error is not None:
                self.refuse(message, REFUSALS[message.error])
        self.store(self.lane.store_now() if len(confirmed) < len(reported) else [])
        self.lane.finish_rewind()

    def refuse(self, message: Message, refusal: Refusal) -> None:
        went_alone = message.alone
        verdict = self.lane.note_refused(message, refusal._replace(went_alone=went_alone), self.at())
        if verdict is Verdict.DEAD_LETTER:
            assert refusal.is_final
            assert went_alone or not refusal.is_of_batch, "another one of its batch may be the reason"
            self.ended[number_of(message)] = "dead letter"
            self.lane.note_set_aside(message)
            self.requests.append(("set aside", [message]))
            return
        assert self.lane.state is State.REWINDING
        self.is_proved = False
        if verdict is not Verdict.AGAIN_WITH_CURRENT_TIME:
            self.lane.attempts.wait("refused", self.now)

    @precondition(lambda self: self.requests)
    @rule()
    def write(self):
        """The table writer does what it was asked for next."""
        kind, messages = self.requests.popleft()
        if kind == "set aside":
            for message in messages:
                self.table.pop(number_of(message), None)
            self.lane.note_removed(len(messages))
        for message in messages:
            if kind == "store" and not message.finished:
                self.table[number_of(message)] = number_of(message)
                message.stored = True
        self.lane.unwritten.drop_written()
        self.lane.finish_rewind()

    @precondition(lambda self: self.removals)
    @rule()
    def remove(self):
        """What Kafka has is removed from the table."""
        messages = self.removals.popleft()
        for message in messages:
            del self.table[number_of(message)]
        self.lane.note_removed(len(messages))
        self.lane.finish_rewind()

    @rule(taken=st.sampled_from([0, 1, 99, 99, 99]))
    def look(self, taken):
        """Somebody reads from the table, as far as the lane wants, or lets it catch up."""
        wanted = self.lane.wanted_messages(self.at())
        if not wanted:
            return
        messages = [
            make_message(self.lane.destination, number, timestamp_ms=int(self.now * 1000))
            for number in sorted(self.table)
        ]
        messages = [message for message in messages if message.key >= self.lane.cursor][:wanted]
        if not messages:
            self.carry_out(self.lane.catch_up(self.at()), taken)
            return
        for message in messages:
            message.to_be_stored = message.stored = message.safe = True
        self.lane.note_chunk_read(messages, messages[-1].key + b"\0")
        self.chunks.append((messages, self.lane.generation))

    @precondition(lambda self: self.chunks)
    @rule(taken=st.sampled_from([0, 1, 99, 99, 99]))
    def replay(self, taken):
        """What was read is given to the lane."""
        messages, generation = self.chunks.popleft()
        self.carry_out(self.lane.accept_chunk(messages, generation, self.at()), taken)

    @rule(seconds=st.sampled_from([0.1, 0.6, 3.0, 12.0]), is_held_up=st.booleans())
    def wait(self, seconds, is_held_up):
        """Time passes, and late messages are looked for."""
        self.now += seconds
        self.store(self.lane.look_late(self.now, is_held_up=is_held_up))

    # ---- what must hold

    @invariant()
    def what_is_counted_is_there(self):
        assert self.lane.in_flight.messages == self.bounds.messages == len(self.with_librdkafka)
        assert self.lane.in_flight.size_bytes == sum(message.size_bytes for message in self.with_librdkafka)

    @invariant()
    def a_direct_lane_leaves_nothing_to_the_table_alone(self):
        if self.lane.is_direct:
            here = {number_of(message) for message in self.with_librdkafka}
            assert set(range(1, self.received + 1)) - self.ended.keys() - here == set()

    @invariant()
    def a_storing_lane_has_nothing_in_memory_alone(self):
        if self.lane.state is not State.DIRECT:
            assert set(range(self.asked_up_to + 1, self.received + 1)) - self.ended.keys() == set()

    @invariant()
    def where_its_entries_begin_is_no_later_than_the_first(self):
        if first := self.lane.first_in_table:
            entries = [make_message(self.lane.destination, number).key for number in self.table]
            assert min(entries, default=first) >= first, "after a crash it would not be found"

    def teardown(self):
        """Let everything settle: each message is delivered or a dead letter, and the lane is as at the beginning."""
        for _ in range(200):
            self.wait(3.0, is_held_up=False)
            while self.requests:
                self.write()
            while self.removals:
                self.remove()
            if self.with_librdkafka:
                self.settle(self.with_librdkafka.copy(), [""] * len(self.with_librdkafka))
            while self.chunks:
                self.replay(99)
            self.look(99)
        assert self.ended.keys() == set(range(1, self.received + 1)), "stranded"
        assert (self.lane.is_direct, self.table, list(self.lane.unwritten)) == (True, {}, [])


def test_a_lane_stores_and_hands_over_in_order_and_strands_nothing_through_anything_that_may_happen():
    """P1 to P3: one lane by itself; the simulation has it with all that is around it."""
    run_state_machine_as_test(LaneMachine)
