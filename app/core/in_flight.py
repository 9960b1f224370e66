"""The messages in flight of one lane (`InFlight`), and the bounds that all lanes share (`SharedBounds`).

A message is in flight from the moment at which it is handed to librdkafka until its delivery report comes. Three bounds
apply: one for each lane, one for all lanes together, and a small reserve for each lane, which it may use whatever the
others have, so that one lane's trouble does not hold up the others. A single large message may exceed the bounds in
bytes if nothing else of its lane is in flight, and no other lane has such a message in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.message import LARGE_BYTES, Message

# Four times what may be in memory alone (`MemoryBudget`), and a tenth of librdkafka's queue. A direct lane reaches this
# limit only when Kafka is slow or away; from then on its new messages go to the table only.
LANE_LIMIT_MESSAGES = 20_000
LANE_LIMIT_BYTES = 32 * 1024 * 1024
LIMIT_BYTES = 64 * 1024 * 1024
# A lane with fewer messages in flight, and less than its reserved bytes, gets one more, whatever the others have.
RESERVED_MESSAGES = 100
CHUNK_MESSAGES = 1000  # read from the table at once; more would hold up the event loop


@dataclass
class SharedBounds:
    """The bounds of all lanes, and what is in flight of all.

    Attributes:
        lane_limit_messages: How many messages may be in flight per lane; all lanes together may have twice as many.
        lane_limit_bytes: How much may be in flight per lane.
        limit_bytes: How much may be in flight in all lanes.
        messages: How many messages are in flight.
        size_bytes: The sum of their `size_bytes`.
        waiting: The Kafka topics of lanes that found no room, to be looked at when there is some.
        exceeded_by: The Kafka topic of the one lane whose message exceeds the bounds; empty: of none.
        is_closed: Nothing is handed over, as the producer is about to be replaced or ended.
    """

    lane_limit_messages: int = LANE_LIMIT_MESSAGES
    lane_limit_bytes: int = LANE_LIMIT_BYTES
    limit_bytes: int = LIMIT_BYTES
    messages: int = 0
    size_bytes: int = 0
    waiting: set[str] = field(default_factory=set)
    exceeded_by: str = ""
    is_closed: bool = False
    _lanes: int = 0
    _reserved_bytes: int = 0

    def __post_init__(self) -> None:
        """Bound a lane by what all may have."""
        self.lane_limit_bytes = min(self.lane_limit_bytes, self.limit_bytes)

    def add_lane(self) -> None:
        """Reserve half of the common bytes for the lanes, in equal parts, with one more lane."""
        self._lanes += 1
        self._reserved_bytes = self.limit_bytes // (2 * self._lanes)

    def remove_lane(self, topic: str) -> None:
        """Reserve them for one lane less, which has nothing in flight."""
        self._lanes -= 1
        self._reserved_bytes = self.limit_bytes // (2 * max(1, self._lanes))
        self.waiting.discard(topic)

    def stay_below(self, table_bytes: int) -> None:
        """Bound what is in flight by the table's size: the table must have room for it, and cannot drop it."""
        self.lane_limit_bytes = min(self.lane_limit_bytes, table_bytes // 4)
        self.limit_bytes = min(self.limit_bytes, table_bytes // 2)
        self._reserved_bytes = self.limit_bytes // (2 * max(1, self._lanes))

    def close(self) -> None:
        """Have nothing handed over from now on."""
        self.is_closed = True

    def open(self) -> None:
        """Have messages handed over again."""
        self.is_closed = False

    def pop_waiting(self) -> set[str]:
        """Return the topics of the lanes that found no room; they wait no longer."""
        waiting, self.waiting = self.waiting, set()
        return waiting

    def count(self, messages: int, size_bytes: int) -> None:
        """Count messages in, or out with negative numbers."""
        self.messages += messages
        self.size_bytes += size_bytes

    def begin_exceeding(self, topic: str) -> None:
        """Note that a lane has a message in flight that exceeds the bounds in bytes."""
        self.exceeded_by = self.exceeded_by or topic

    def end_exceeding(self, topic: str) -> None:
        """Note that a lane has none in flight any more."""
        if self.exceeded_by == topic:
            self.exceeded_by = ""

    def has_room_for(self, lane: InFlight, messages: int, size_bytes: int) -> bool:
        """Tell whether a lane may have so many more without any of the bounds being reached."""
        return (
            lane.size_bytes + size_bytes <= self.lane_limit_bytes
            and self.messages + messages <= 2 * self.lane_limit_messages
            and self.size_bytes + size_bytes <= self.limit_bytes
        )

    def has_room(self, lane: InFlight) -> bool:
        """Tell whether a lane that has something in flight may have one more message; if not, it waits for room."""
        if lane.size_bytes >= self.lane_limit_bytes:
            return False
        if lane.messages < RESERVED_MESSAGES and lane.size_bytes < self._reserved_bytes:
            return True
        if self.messages < 2 * self.lane_limit_messages and self.size_bytes < self.limit_bytes:
            return True
        self.waiting.add(lane.topic)
        return False


class InFlight:
    """What librdkafka has of one lane; this alone writes `handed_at` and `alone` of messages.

    Attributes:
        topic: The lane's Kafka topic.
        queue: Messages with librdkafka, in order. Finished ones are dropped at its head, and further behind when they
            are more than half of it.
        messages: How many of them have no delivery report yet.
        size_bytes: The sum of their `size_bytes`.
        newest_ms: The latest time of receipt among them, milliseconds since 1970; also of reported ones, until there
            are none.
        unstored: Those that the table writer was not asked to store, oldest first.
        waits_for_bytes: The size of a large message that found no room; 0: none waits.
    """

    def __init__(self, topic: str, bounds: SharedBounds) -> None:
        self.topic = topic
        self.queue: deque[Message] = deque()
        self.messages = 0
        self.size_bytes = 0
        self.newest_ms = 0
        self.unstored: deque[Message] = deque()
        self.waits_for_bytes = 0
        self.bounds = bounds
        self._is_filling = False

    def admit(self, messages: Sequence[Message], limit_messages: int, now: float) -> Sequence[Message]:
        """Count messages in, from the first one on, as far as there is room; return those.

        Args:
            messages: What is to go to librdkafka, in order.
            limit_messages: How many messages of the lane may be in flight.
            now: The monotonic clock.
        """
        size_bytes = sum([message.size_bytes for message in messages])
        bounds = self.bounds
        fits = self.messages + len(messages) <= limit_messages and bounds.has_room_for(self, len(messages), size_bytes)
        if not fits:
            return self._admit_some(messages, limit_messages, now)
        for message in messages:
            message.handed_at = now
            message.alone = limit_messages == 1
        self.waits_for_bytes = 0
        self.queue.extend(messages)
        self.unstored.extend([message for message in messages if not message.to_be_stored])
        self.newest_ms = max([self.newest_ms, *[message.timestamp_ms for message in messages]])
        self.messages += len(messages)
        self.size_bytes += size_bytes
        bounds.count(len(messages), size_bytes)
        return messages

    def _admit_some(self, messages: Sequence[Message], limit_messages: int, now: float) -> Sequence[Message]:
        """Do the same one by one, as not all have room."""
        count = 0
        for message in messages:
            if self.messages >= limit_messages or (self.messages and not self.bounds.has_room(self)):
                break
            if not self._may_exceed(message.size_bytes):
                self.waits_for_bytes = message.size_bytes
                break
            self._add(message, now, alone=limit_messages == 1)
            count += 1
        return messages[:count]

    def _add(self, message: Message, now: float, *, alone: bool) -> None:
        message.handed_at = now
        message.alone = alone
        self.waits_for_bytes = 0
        self.queue.append(message)
        if not message.to_be_stored:
            self.unstored.append(message)
        self.newest_ms = max(self.newest_ms, message.timestamp_ms)
        self.messages += 1
        self.size_bytes += message.size_bytes
        self.bounds.count(1, message.size_bytes)
        if message.size_bytes > LARGE_BYTES and not self.bounds.has_room_for(self, 0, 0):
            self.bounds.begin_exceeding(self.topic)

    def _may_exceed(self, size_bytes: int) -> bool:
        """Tell whether a message is small, or fits, or may be the only one that exceeds the bounds; else it waits."""
        if size_bytes <= LARGE_BYTES or self.bounds.has_room_for(self, 1, size_bytes):
            return True
        if not self.messages and not self.bounds.exceeded_by:
            return True
        self.bounds.waiting.add(self.topic)
        return False

    def end(self, messages: Sequence[Message], size_bytes: int) -> None:
        """Count messages out, as they have their delivery report; those that Kafka has are finished, and dropped."""
        self._count_out(len(messages), size_bytes)
        self.drop_finished()

    def _count_out(self, messages: int, size_bytes: int) -> None:
        self.messages -= messages
        self.size_bytes -= size_bytes
        self.bounds.count(-messages, -size_bytes)
        if not self.messages:
            self.newest_ms = 0
            self.bounds.end_exceeding(self.topic)

    def withdraw(self, messages: Sequence[Message]) -> None:
        """Take back the youngest messages, which librdkafka did not accept."""
        self._count_as_not_handed(messages)
        for _ in messages:
            self.queue.pop()
        first = messages[0].key
        while self.unstored and self.unstored[-1].key >= first:
            self.unstored.pop()

    def end_at_once(self, message: Message) -> None:
        """Let go of a finished message that librdkafka did not accept, for good; younger ones may be with it."""
        self._count_as_not_handed([message])
        self.drop_finished()

    def _count_as_not_handed(self, messages: Sequence[Message]) -> None:
        for message in messages:
            message.handed_at = 0.0
        self._count_out(len(messages), sum([message.size_bytes for message in messages]))

    def drop_finished(self) -> None:
        """Drop finished messages at the head; if more than half of the queue is finished, those further behind too."""
        queue = self.queue
        while queue and queue[0].finished:
            queue.popleft()
        if len(queue) > 2 * self.messages:
            self.queue = deque([message for message in queue if not message.finished])

    def has_room(self) -> bool:
        """Tell whether there may be one more message: the large one that waits, if one does."""
        if self.waits_for_bytes and not self._may_exceed(self.waits_for_bytes):
            return False
        return not self.messages or self.bounds.has_room(self)

    def room_for_replay(self, limit_messages: int, refill_below_messages: int) -> int:
        """Return how many messages from the table may be added now, a chunk at most.

        It is filled up to a limit once there are few, so that the table is not read for a few messages at a time. New
        messages of a direct lane are not bounded by these two.

        Args:
            limit_messages: Up to so many: what the lane may have, and INVOKE_MAX_GOROUTINE at most.
            refill_below_messages: Few are fewer than this, INVOKE_MIN_GOROUTINE.
        """
        if not self.has_room():
            return 0
        if self.messages < refill_below_messages:
            self._is_filling = True
        if not self._is_filling:
            return 0
        room = limit_messages - self.messages
        self._is_filling = room > CHUNK_MESSAGES
        return max(0, min(room, CHUNK_MESSAGES))

    # ---- what is in memory alone

    def pop_unstored(self) -> list[Message]:
        """Return the unfinished messages that nobody asked the table writer to store, oldest first, to ask now."""
        messages = [message for message in self.unstored if not message.finished]
        self.unstored.clear()
        return messages

    def oldest_unstored(self) -> Message | None:
        """Return the oldest message that memory alone holds; None if there is none."""
        unstored = self.unstored
        while unstored and unstored[0].finished:
            unstored.popleft()
        return unstored[0] if unstored else None

    @property
    def oldest_handed_at(self) -> float | None:
        """When librdkafka got the oldest message that has no report (monotonic clock); None if there is none."""
        if not self.messages:
            return None
        return next((message.handed_at for message in self.queue if not message.finished), None)
