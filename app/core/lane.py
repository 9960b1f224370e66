"""A lane: the messages of one Kafka topic, in order, on their way to librdkafka, to the table, or both.

A lane is told what happened, and answers what is to be done; `app.kafka.dispatcher` does it, and on the way back
`app.kafka.reports` and `app.kafka.refused`. Its states, and what changes them, are a table in `app.core.lane_states`.

Two rules keep the order. Nothing is stored before every older unfinished message of its lane: after a crash the newer
one would be replayed first. And no record is handed over that could pass a refused one (`app.core.attempts`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.core.attempts import Attempts, Refusal, Verdict
from app.core.destination import Destination
from app.core.in_flight import InFlight, SharedBounds
from app.core.lane_states import NEXT_STATES, Decision, Lot, Policy, State
from app.core.lateness import Lateness
from app.core.message import Message
from app.core.moment import Moment
from app.core.unwritten import Unwritten
from app.pieces import Pieces


class Lane:
    """The state of one lane; see the module's header.

    Attributes:
        destination: The Kafka topic.
        topic: Its name.
        state: What the lane does with new messages.
        in_flight: The messages that librdkafka has.
        unwritten: What the table writer was asked to store and has not written yet.
        cursor: While `BEHIND`: the first key that librdkafka does not have.
        generation: How often the lane was rewound; what was read from the table before a rewind is not used.
        chunk_messages: How many messages were read from the table and are not with librdkafka yet.
        removing_messages: How many messages are finished and not removed from the table yet.
        attempts: What is known of refused records: how many may be in flight, when, and with which time.
        lateness: When what Kafka has not confirmed is to be stored.
    """

    def __init__(self, destination: Destination, bounds: SharedBounds, policy: Policy) -> None:
        """Make a lane with nothing in it."""
        self.destination = destination
        self.topic = destination.topic
        self.in_flight = InFlight(destination.topic, bounds)
        self.unwritten = Unwritten()
        self.cursor = b""
        self.generation = 0
        self.chunk_messages = 0
        self.removing_messages = 0
        self.attempts = Attempts(policy.longest_retry_seconds)
        self.lateness = Lateness(policy.store_after_seconds)
        self._policy = policy
        self._rewind_to = b""
        self._at_rest = State.DIRECT if policy.store_after_seconds else State.STORING
        self.state = self._at_rest

    def _become(self, state: State) -> None:
        if state not in NEXT_STATES[self.state]:
            raise AssertionError(f"the lane {self.topic} is {self.state.value} and cannot become {state.value}")
        self.state = state

    @property
    def is_direct(self) -> bool:
        """Whether new messages go to librdkafka."""
        return self.state is State.DIRECT or self.state is State.STORING

    @property
    def trouble(self) -> str:
        """Why the lane waits, for people; empty if it does not."""
        return self.attempts.retry.trouble

    # ---- new messages

    def accept(self, messages: Sequence[Message], at: Moment) -> Decision:
        """Decide about new messages, in order."""
        if self.state is State.BEHIND or self.state is State.REWINDING:
            return Decision((), self.store_now(messages))
        lots, rest = self._hand_over(messages, at)
        if rest:
            self._fall_behind(rest[0].key)
        return Decision(lots, self.store_now(rest) if self.state is not State.DIRECT else [])

    def _hand_over(self, messages: Sequence[Message], at: Moment) -> tuple[list[Lot], Sequence[Message]]:
        """Count messages in flight as far as there is room; return them in lots, and the rest."""
        if not self._may_hand_over(at):
            return [], messages
        attempts = self.attempts
        admitted = self.in_flight.admit(messages, attempts.limit_messages, at.seconds)
        rest = messages[len(admitted) :]
        if not admitted:
            return [], rest
        if not attempts.times.are_of_interest and at.wall_ms >= self.in_flight.newest_ms:
            return [Lot(admitted, with_current_time=False)], rest
        return attempts.times.cut(admitted, at), rest

    def _may_hand_over(self, at: Moment) -> bool:
        """Tell whether librdkafka may have a message of this lane now, if there is room."""
        in_flight = self.in_flight
        if self.state is State.REWINDING or in_flight.bounds.is_closed:
            return False
        if not in_flight.messages:
            return at.seconds >= self.attempts.retry.due_at
        if at.wall_ms < in_flight.newest_ms:
            return False  # the clock was set back: Kafka may refuse what is in flight, as it is from the future
        times = self.attempts.times
        return times.limit_ms == math.inf or not times.stand_still(in_flight.queue[0], at)

    def _fall_behind(self, cursor: bytes) -> None:
        """Have everything from a key on go through the table."""
        if self.state is not State.BEHIND:
            self._become(State.BEHIND)
        self.cursor = cursor

    def accept_revived(self, messages: Sequence[Message]) -> list[Message]:
        """Have messages that were dead letters go through the table; return what is to be stored, in order."""
        if self.is_direct:
            self._fall_behind(messages[0].key)
        return self.store_now(messages)

    def note_not_taken(self, messages: Sequence[Message]) -> list[Message]:
        """Have messages that librdkafka did not accept go through the table; return what is to be stored."""
        self.in_flight.withdraw(messages)
        self._fall_behind(messages[0].key)
        return self.store_now([message for message in messages if not message.to_be_stored])

    # ---- storing

    def store_now(self, rest: Sequence[Message] = ()) -> list[Message]:
        """Return everything that is in memory alone, to be stored: what is in flight, and then new messages."""
        messages = [*self.in_flight.pop_unstored(), *rest] if self.in_flight.unstored else list(rest)
        for message in messages:
            message.to_be_stored = True
        self.unwritten.extend(messages)
        return messages

    def look_late(self, now: float, *, is_held_up: bool = False) -> list[Message]:
        """Return what is to be stored, as Kafka may not confirm it soon; `is_held_up`: see `app.core.reception`."""
        oldest = self.in_flight.oldest_unstored()
        if oldest is None or not self.lateness.is_time_to_store(oldest.handed_at, now, is_held_up=is_held_up):
            return []
        if self.state is State.DIRECT:
            self._become(State.STORING)
        return self.store_now()

    # ---- delivery reports

    def note_reports(self, messages: Sequence[Message], at: Moment, limit_messages: int) -> list[Message]:
        """Note the delivery reports of messages; `note_refused` decides about those that Kafka refused.

        Args:
            messages: Those that have their delivery report.
            at: The present moment.
            limit_messages: How many may be in flight once a record of the lane was confirmed.

        Returns:
            The messages that Kafka has.
        """
        confirmed = [message for message in messages if message.error is None]
        for message in confirmed:
            message.finished = True
            if message.stored:
                self.removing_messages += 1
        self.in_flight.end(messages, sum([message.size_bytes for message in messages]))
        attempts = self.attempts
        may_be_news = attempts.are_troubled or attempts.limit_messages != limit_messages
        if may_be_news and confirmed and self.state is not State.REWINDING:
            attempts.note_confirmed(confirmed, limit_messages, is_direct=self.is_direct)
        if confirmed:
            self.lateness.note_confirmed(confirmed[0].handed_at, at.seconds)
            if self.state is State.STORING and self._at_rest is State.DIRECT:
                self._perhaps_end_storing(confirmed, at.seconds)
        if self.state is State.REWINDING and len(confirmed) == len(messages):
            self.finish_rewind()
        return confirmed

    def _perhaps_end_storing(self, confirmed: Sequence[Message], now: float) -> None:
        """Store no more if Kafka answers in time again, or late with little in flight."""
        youngest_at = max([message.handed_at for message in confirmed])
        few = self.in_flight.bounds.messages < self._policy.few_messages
        if self.lateness.ends_storing(youngest_at, now, are_few=few):
            self._become(State.DIRECT)

    def note_refused(self, message: Message, refusal: Refusal, at: Moment) -> Verdict:
        """Decide about a message that Kafka refused; unless it becomes a dead letter, the lane rewinds to it."""
        verdict = self.attempts.judge(message, refusal, at)
        if verdict is not Verdict.DEAD_LETTER:
            self._rewind(message)
        return verdict

    def note_refused_at_once(self, message: Message) -> None:
        """Note that librdkafka did not accept a message, for good."""
        message.finished = True
        self.in_flight.end_at_once(message)
        self.attempts.end_suspicion(message)

    def note_set_aside(self, message: Message) -> None:
        """Note that a message becomes a dead letter."""
        message.finished = True
        self.removing_messages += 1

    def note_removed(self, messages: int) -> None:
        """Note that so many are removed."""
        self.removing_messages -= messages

    # ---- rewinding

    def _rewind(self, message: Message) -> None:
        """Hand nothing over for now; from this message on, all that Kafka lacks is to be sent again, from the table."""
        if self.state is not State.REWINDING:
            self._become(State.REWINDING)
            self.generation += 1
            self._rewind_to = message.key
        self._rewind_to = min(self._rewind_to, message.key)

    def finish_rewind(self) -> None:
        """Drop what is finished; go back in the table if the lane rewinds and nothing is in flight or to be removed."""
        self.in_flight.drop_finished()
        if self.state is State.REWINDING and not self.in_flight.messages and not self.removing_messages:
            self.in_flight.queue.clear()
            self.cursor = self._rewind_to
            self._become(State.BEHIND)

    # ---- replaying

    def resume(self, first: bytes) -> None:
        """Begin as `BEHIND`: the table has messages of the lane, from a key on."""
        self._become(State.BEHIND)
        self.cursor = first

    def wanted_messages(self, at: Moment) -> int:
        """Return how many messages to read from the table now."""
        if self.state is not State.BEHIND or self.chunk_messages or not self._may_hand_over(at):
            return 0
        limit_messages = min(self.attempts.limit_messages, self._policy.replay_limit_messages)
        return self.in_flight.room_for_replay(limit_messages, self._policy.refill_below_messages)

    def note_chunk_read(self, messages: Sequence[Message], cursor: bytes) -> None:
        """Note that messages were read from the table, and where to go on."""
        self.chunk_messages = len(messages)
        self.cursor = cursor

    def accept_chunk(self, messages: Sequence[Message], generation: int, at: Moment) -> Decision:
        """Decide about what was read from the table; it is not used if the lane was rewound meanwhile."""
        self.chunk_messages = 0
        if generation != self.generation:
            return Decision((), [])
        lots, rest = self._hand_over(messages, at)
        if rest:
            self.cursor = rest[0].key  # they will be read again
        return Decision(lots, [])

    def catch_up(self, at: Moment) -> Decision:
        """Decide about what is not written yet, as the table has nothing more to read; if all may go, become direct."""
        tail = self.tail()
        in_pieces = (place for place, message in enumerate(tail) if isinstance(message.payload, Pieces))
        lots, _ = self._hand_over(tail[: next(in_pieces, len(tail))], at)  # the rest comes through the table
        handed = sum([len(lot.messages) for lot in lots])
        if handed < len(tail):
            self.cursor = tail[handed].key
        else:
            self._become(self._at_rest)
        return Decision(lots, [])

    def skip_to(self, cursor: bytes) -> None:
        """Go on in the table at a later key, as what is before it was dropped."""
        self.cursor = max(self.cursor, cursor)

    def tail(self) -> list[Message]:
        """Return what is to be stored and not written yet, from the cursor on; it follows everything in the table."""
        return [message for message in self.unwritten if message.key >= self.cursor and not message.finished]

    @property
    def first_in_table(self) -> bytes:
        """A key that no entry of the lane in the table is smaller than; empty if that is not known."""
        if self.removing_messages or self.chunk_messages:
            return b""  # smaller keys are still in the table, and after a crash they must be found
        if self.in_flight.queue:
            return self.in_flight.queue[0].key
        return self.cursor if self.state is State.BEHIND else b""

    # ---- by hand

    @property
    def has_idle_head(self) -> bool:
        """Whether nothing of the lane is on its way: its first message, at the cursor, is in the table alone."""
        under_way = self.in_flight.messages or self.chunk_messages or self.removing_messages
        return self.state is State.BEHIND and not under_way

    def skip_head(self, head: Message, next_key: bytes) -> None:
        """Skip the first message of an idle lane, which becomes a dead letter, and have the next one tried at once."""
        self.cursor = next_key
        self.attempts.skip(head)
