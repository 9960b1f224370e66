"""One lane: the messages of one Kafka topic, in order, on their way to librdkafka, to the table, or both.

A lane is *direct*: new messages go to librdkafka at once. Or it is *behind*: something of it waits in the table alone,
new messages go to the table only, and the replayer feeds librdkafka from the lane's cursor until nothing is left.

It falls behind when librdkafka has no more room for it, or when it fails: a record was refused for now. Then the lane
waits until all its records are reported, rewinds the cursor to the first that was refused, and tries with a single
record, after an interval that doubles; what is refused for its time, at once (`app.kafka.receipt_times`). A new lane
begins with a single record too, until one was confirmed and it is known what the topic takes: so a topic that is
missing or forbidden never holds more than one, and no later record can pass an earlier one that was refused. What is
refused for good is set aside, and the lane goes on.

A lane is *late* when a record was not confirmed within STORE_AFTER_MS: then everything unconfirmed is stored as well,
and new messages are stored at once, until delivery reports are on time again. Nothing is stored before every older
unconfirmed message of its lane: else a crash would replay the newer one first.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from app.kafka.outcomes import Outcome, meaning_of, sentence
from app.kafka.receipt_times import ReceiptTimes
from app.messages import LARGE_BYTES, has_large
from tables import layout
from tables.pieces import before_unread

if TYPE_CHECKING:
    from app.kafka.codes import Meaning
    from app.kafka.lanes import Lanes
    from app.messages import Message

FIRST_RETRY_SECONDS = 0.5
SMALL_LOT_MESSAGES = 50  # handed over at once where there is not room for all
CHUNK_MESSAGES = 1000  # read from the table at once; more would hold up the event loop


class Lane:
    """The state of one Kafka topic; see the module's header.

    Attributes:
        topic: The Kafka topic.
        prefix: What the keys of its entries in the table begin with.
        in_flight: Messages with librdkafka, in order; confirmed ones leave, from behind others not at once.
        in_flight_messages: How many of them have no delivery report yet.
        in_flight_bytes: Their size.
        unstored: Those that the keeper was not asked to store, oldest first: what can become late.
        unwritten: Messages that the keeper was asked to store and has not written yet, in order.
        behind: Something waits in the table alone.
        cursor: The first key that librdkafka did not get, while behind and not rewinding.
        late: New messages are stored at once.
        limit_messages: How many may be in flight: 1 until a record was confirmed and the topic's limits are known.
        generation: Counts rewinds; what was read from the table before one is void.
        restoring_messages: Read from the table, and not with librdkafka yet.
        removing_messages: Confirmed or set aside, and not removed from the table yet.
        trouble: Why the lane waits; empty if it does not.
        retry_at: `time.monotonic()` of the next try.
        suspect_until: Up to this key records go one by one, as one of them spoils its batch.
        times: Which records go with the time of now.
    """

    def __init__(self, topic: str, lanes: Lanes) -> None:
        """Make a direct lane with nothing in it."""
        self.topic = topic
        self.prefix = layout.undelivered_prefix(topic)
        self.reports = lanes.producer.reports_sink
        self.in_flight: deque[Message] = deque()
        self.in_flight_messages = 0
        self.in_flight_bytes = 0
        self.unstored: deque[Message] = deque()
        self.unwritten: deque[Message] = deque()
        self.behind = False
        self.cursor = b""
        self.late = lanes.store_after_seconds == 0
        self.limit_messages = 1
        self.generation = 0
        self.restoring_messages = 0
        self.removing_messages = 0
        self.trouble = ""
        self.retry_at = 0.0
        self.suspect_until = b""
        self.times = ReceiptTimes()
        self._waits_for_bytes = 0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._filling = False
        self._rewind_to: bytes | None = None
        self._lanes = lanes

    # ---- taking messages

    def accept(self, messages: list[Message]) -> None:
        """Take new messages, in order, from the router."""
        if self.behind:
            self._queue(messages)
            return
        handed = self.hand_over(messages)
        if handed < len(messages):
            rest = messages[handed:]
            self.fall_behind(rest[0].key)
            self._queue(rest)
        elif self.late:
            self.store_in_flight()

    def hand_over(self, messages: Sequence[Message]) -> int:
        """Give messages to librdkafka, in order, as far as there is room.

        Returns:
            How many of them were dealt with: handed over, or set aside for good.
        """
        count, step = 0, len(messages) if self._has_room_for_all(messages) else SMALL_LOT_MESSAGES
        now_ms = int(time.time() * 1000)
        self.times.limit_ms = self._lanes.topics.takes_age_ms(self.topic)
        while count < len(messages) and self.has_room:
            lot: Sequence[Message] = messages[count : count + step]
            if step == SMALL_LOT_MESSAGES and not self._has_room_for_all(lot):
                lot = lot[:1]
                if not self._has_room_for_large(lot[0].size_bytes):
                    self._waits_for_bytes = lot[0].size_bytes
                    break
            self._waits_for_bytes = 0
            lot, with_time_of_now = self.times.cut(lot, now_ms)
            handed, refusal = self._lanes.producer.produce(self.topic, lot, now_ms, with_time_of_now=with_time_of_now)
            self._add_in_flight(lot[:handed] if handed < len(lot) else lot)
            count += handed
            if isinstance(refusal, BufferError):
                self._lanes.starved.add(self)
                break
            if isinstance(refusal, KafkaException):
                if not self._refused_at_once(messages[count], refusal.args[0]):
                    break
                count += 1
        return count

    def _has_room_for_all(self, messages: Sequence[Message]) -> bool:
        """Whether librdkafka may have all of them at once, without any of the bounds being reached."""
        if self.in_flight_messages + len(messages) > self.limit_messages:
            return False
        return self._lanes.has_room_for_all(self, len(messages), sum([message.size_bytes for message in messages]))

    def _has_room_for_large(self, size_bytes: int) -> bool:
        """Whether a message is small, or fits, or may be the only one in flight that exceeds the bounds."""
        lanes = self._lanes
        if size_bytes <= LARGE_BYTES or lanes.has_room_for_all(self, 1, size_bytes):
            return True
        if not self.in_flight_messages and lanes.overdrawn is None:
            return True
        lanes.starved.add(self)
        return False

    def _add_in_flight(self, messages: Sequence[Message]) -> None:
        """Take note that librdkafka has messages."""
        now, alone = time.monotonic(), self.limit_messages == 1
        for message in messages:
            message.handed_at = now
            message.alone = alone
        self.in_flight.extend(messages)
        self.unstored.extend([message for message in messages if not message.queued])
        size_bytes = sum([message.size_bytes for message in messages])
        self._count_in_flight(len(messages), size_bytes)
        if len(messages) == 1 and size_bytes > LARGE_BYTES and not self._lanes.has_room_for_all(self, 0, 0):
            self._lanes.overdrawn = self

    def _count_in_flight(self, messages: int, size_bytes: int) -> None:
        self.in_flight_messages += messages
        self.in_flight_bytes += size_bytes
        self._lanes.in_flight_messages += messages
        self._lanes.in_flight_bytes += size_bytes
        if not self.in_flight_messages and self._lanes.overdrawn is self:
            self._lanes.overdrawn = None

    @property
    def has_room(self) -> bool:
        """Whether librdkafka may have one more message of this lane."""
        if self._rewind_to is not None or self.in_flight_messages >= self.limit_messages or self._lanes.paused:
            return False
        if self._waits_for_bytes and not self._has_room_for_large(self._waits_for_bytes):
            return False
        if not self.in_flight_messages:
            return time.monotonic() >= self.retry_at
        if self.times.limit_ms != math.inf and self.times.stand_still(self.in_flight[0]):
            return False
        return self._lanes.has_room_for(self)

    def fall_behind(self, cursor: bytes) -> None:
        """Leave the messages from `cursor` on to the table; what is in flight is stored before them."""
        self.store_in_flight()
        self.behind = True
        self.cursor = cursor
        self._lanes.behind.add(self)

    def take_back(self, message: Message) -> None:
        """Take a message that was a dead letter, to be sent from the table, behind all others."""
        if not self.behind:
            self.fall_behind(message.key)
        self._queue([message])
        self._lanes.look_at(self)

    def store_in_flight(self) -> None:
        """Ask the keeper to store whatever is in flight and was not asked for before."""
        messages = [message for message in self.unstored if not message.confirmed]
        self.unstored.clear()
        self._queue(messages)

    def store_what_is_late(self, handed_before: float) -> None:
        """Become late if the oldest unconfirmed message was handed over before that time."""
        unstored = self.unstored
        while unstored and unstored[0].confirmed:
            unstored.popleft()
        if unstored and unstored[0].handed_at <= handed_before:
            self.late = True
            self.store_in_flight()

    def _queue(self, messages: list[Message]) -> None:
        if messages:
            for message in messages:
                message.queued = True
            self.unwritten.extend(messages)
            self._lanes.ask_to_store(messages)

    # ---- delivery reports

    def take_reports(self, messages: list[Message], now: float) -> list[Message]:
        """Take note of what Kafka said of messages; return those that it has."""
        size_bytes = sum([message.size_bytes for message in messages])
        self._count_in_flight(-len(messages), -size_bytes)
        confirmed = [message for message in messages if message.error is None]
        if confirmed:
            self._on_confirmed(confirmed, now)
            if has_large(messages, size_bytes):
                for message in confirmed:
                    message.let_go_of_payload()
        if len(confirmed) < len(messages):
            for message in messages:
                if message.error is not None:
                    self._on_refused(message, message.error)
        return confirmed

    def _on_confirmed(self, messages: list[Message], now: float) -> None:
        for message in messages:
            message.confirmed = True
        if self._rewind_to is None:
            if self.trouble:
                self._lanes.end_trouble(self)
            self._retry_seconds = FIRST_RETRY_SECONDS
            if self.times.has_refused and not self.behind:
                self.times.forget()
            if not self.suspect_until or any(message.key >= self.suspect_until for message in messages):
                self.suspect_until = b""
                self.limit_messages = self._lanes.limit_for(self)
        if self.late:
            on_time_after = now - self._lanes.store_after_seconds
            self.late = all(message.handed_at <= on_time_after for message in messages)

    def _on_refused(self, message: Message, error: Any) -> None:
        """Take note that Kafka refused a message, for now or for good."""
        meaning = self._lanes.topics.meaning_of(message, error)
        self._lanes.count_refusal(meaning)
        went_alone = message.alone or len(message.payload) > self._lanes.producer.batch_size_bytes
        if meaning.of_batch and self.times.grew_too_old(message) and self._goes_with_time_of_now(message):
            return
        if meaning.of_batch and not went_alone:
            self._lanes.topics.note_batch_refused(self.topic, error)
            self.suspect_until = max(self.suspect_until, message.key)
        elif meaning.outcome is Outcome.NEVER:
            self._set_aside(message, meaning.dead_reason, sentence(error))
            return
        elif meaning.outcome is Outcome.TIME_OF_NOW and self._goes_with_time_of_now(message):
            return
        elif meaning.outcome is Outcome.REPLACE_CLIENT and went_alone:
            self._lanes.producer.give_up(error)
        self._rewind(message)
        self._wait(error, meaning)

    def _goes_with_time_of_now(self, message: Message) -> bool:
        """Send a message, and what was refused with it, once more with the time of now; False if it had that."""
        if not self.times.note_refused(message, self.suspect_until):
            return False
        self._lanes.say_time_of_now(self)
        self.suspect_until = b""
        self._rewind(message)
        self.limit_messages = 1
        return True

    def after_reports(self) -> None:
        """Drop the confirmed from the head, and rewind a failed lane once nothing of it is in flight."""
        in_flight = self.in_flight
        while in_flight and in_flight[0].confirmed:
            in_flight.popleft()
        if len(in_flight) > 2 * self.in_flight_messages:  # the head's partition stands still, others go on
            self.in_flight = in_flight = deque([message for message in in_flight if not message.confirmed])
        if self._rewind_to is not None and not self.in_flight_messages and not self.removing_messages:
            in_flight.clear()
            self.cursor, self._rewind_to = self._rewind_to, None

    def _rewind(self, message: Message) -> None:
        """Stop handing over; from this message on, everything goes once more, from the table."""
        if self._rewind_to is None:
            self.generation += 1
            self.fall_behind(self.cursor)
            self._rewind_to = message.key
        self._rewind_to = min(self._rewind_to, message.key)

    def _refused_at_once(self, message: Message, error: Any) -> bool:
        """Deal with a record that librdkafka itself refuses; return whether that was for good."""
        meaning = meaning_of(error)
        self._lanes.count_refusal(meaning)
        if meaning.outcome is Outcome.NEVER:
            self._set_aside(message, meaning.dead_reason, sentence(error))
            return True
        self._wait(error, meaning)
        return False

    def _wait(self, error: Any, meaning: Meaning) -> None:
        self.trouble = sentence(error, meaning)
        self._lanes.say_trouble(self)
        self.limit_messages = 1
        now = time.monotonic()
        if now >= self.retry_at:
            self.retry_at = now + self._retry_seconds
            self._lanes.look_later(self, self._retry_seconds)
            self._retry_seconds = min(self._retry_seconds * 2, self._lanes.longest_retry_seconds)

    def _set_aside(self, message: Message, reason: str, explanation: str) -> None:
        if message.key >= self.suspect_until:
            self.suspect_until = b""
        self._lanes.set_aside(message, reason, explanation)

    @property
    def has_idle_head(self) -> bool:
        """Whether the lane waits with nothing under way, so that its head, at the cursor, is the table's alone."""
        under_way = self.in_flight_messages or self.restoring_messages or self.removing_messages
        return self.behind and self._rewind_to is None and not under_way

    def take_out(self, head: Message, reason: str, explanation: str) -> None:
        """Set the head of an idle lane aside, and try the next message at once."""
        self.cursor = layout.after(head.key)
        self.trouble, self.retry_at, self._retry_seconds = "", 0.0, FIRST_RETRY_SECONDS
        self._set_aside(head, reason, explanation)

    # ---- catching up

    @property
    def refill_messages(self) -> int:
        """How many messages to read from the table now.

        Once fewer than INVOKE_MIN_GOROUTINE are in flight, it is filled up to INVOKE_MAX_GOROUTINE, a chunk at a time.
        New messages of a direct lane are not bounded by them.
        """
        if not self.behind or self.restoring_messages or self._lanes.stopping or not self.has_room:
            return 0
        if self.in_flight_messages < self._lanes.refill_below_messages:
            self._filling = True
        if not self._filling:
            return 0
        room = min(self.limit_messages, self._lanes.replay_limit_messages) - self.in_flight_messages
        self._filling = room > CHUNK_MESSAGES
        return max(0, min(room, CHUNK_MESSAGES))

    @property
    def head(self) -> bytes:
        """A key that no entry of the lane in the table is smaller than; empty if that is not known."""
        if self.removing_messages or self.restoring_messages:
            return b""  # entries below are still in the table: after a crash they must be found
        if self.in_flight:
            return self.in_flight[0].key
        return self.cursor if self.behind else b""

    def take_restored(self, messages: Sequence[Message], generation: int) -> int:
        """Hand over what was read from the table; return how many, the rest will be read again."""
        self.restoring_messages = 0
        if generation != self.generation:
            return 0
        handed = self.hand_over(messages)
        if handed < len(messages):
            self.cursor = messages[handed].key
        return handed

    @property
    def is_rewinding(self) -> bool:
        """Whether the lane waits for its records to be reported, to begin again at the first that was refused."""
        return self._rewind_to is not None

    def catch_up(self) -> None:
        """Hand over what the keeper has not written yet, and become direct, as the table has nothing more."""
        tail = [message for message in self.unwritten if message.key >= self.cursor and not message.confirmed]
        handed = self.hand_over(before_unread(tail))  # what is behind it comes by way of the table
        if handed < len(tail):
            self.cursor = tail[handed].key
        else:
            self.behind = False
            self._lanes.behind.discard(self)
