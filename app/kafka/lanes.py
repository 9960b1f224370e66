"""All lanes: their common bounds, what their delivery reports set in motion, and the requests to other rooms.

Everything here happens on the event loop, without waiting. Requests to the keeper and the replayer are collected in
`outbox` in the order in which they were decided, and `flush` puts them into the channels in that order: the order of
messages rests on it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from app import channels
from app.kafka.lane import Lane
from app.kafka.outcomes import Refusals
from app.kafka.topics import Topics
from app.messages import DeadLettered, Message, Remembered, Restored, Undelivered, stored_by_route
from app.metrics import accounts, delivery_seconds
from app.settings import TRACE
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.kafka.codes import Meaning
    from app.kafka.producer import KafkaProducer

log = logging.getLogger(__name__)

# Four times what memory alone may hold (`Flow`), and a tenth of librdkafka's queue: new messages of a direct lane reach
# it only when Kafka is slow or away, and go by way of the table from there on.
LANE_LIMIT_MESSAGES = 20_000
LANE_LIMIT_BYTES = 16 * 1024 * 1024
LANES_LIMIT_BYTES = 64 * 1024 * 1024
# Every lane may have this many in flight, however many others have: one lane's trouble is its own.
RESERVED_MESSAGES = 100


class Lanes:
    """The lanes by Kafka topic.

    Attributes:
        producer: The door to Kafka.
        limit_messages: How many messages may be in flight per lane; all lanes together may have twice as many.
        replay_limit_messages: How many may be in flight where the replayer adds restored ones.
        lane_limit_bytes: How much may be in flight per lane.
        limit_bytes: How much may be in flight in all lanes.
        refill_below_messages: The replayer feeds a lane only while fewer than this are in flight.
        store_after_seconds: How long a message may be held in memory alone.
        longest_retry_seconds: Where the interval of a failing lane stops growing.
        behind: Lanes of which something waits in the table alone.
        hungry: Lanes that the replayer should look at; `wake_replayer` is set with it.
        starved: Lanes that found librdkafka's queue full.
        overdrawn: The one lane that has a message in flight which is larger than the bounds allow, alone.
        stopping: Nothing more is fed from the table.
        paused: Nothing is handed to librdkafka, as the producer is about to be replaced.
        topics: What is known of the Kafka topics.
        reported_at: `time.monotonic()` of the last confirmation.
        refusals: How many records were refused with each code, by its name.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        acknowledge: Callable[[Iterable[Message]], None],
        *,
        replay_limit_messages: int,
        refill_below_messages: int,
        store_after_seconds: float,
        longest_retry_seconds: float,
        limit_bytes: int = LANES_LIMIT_BYTES,
    ) -> None:
        """Make a registry without lanes; see the attributes.

        Args:
            producer: The door to Kafka.
            acknowledge: Marks messages safe and acknowledges them to MQTT.
            replay_limit_messages: INVOKE_MAX_GOROUTINE.
            refill_below_messages: INVOKE_MIN_GOROUTINE.
            store_after_seconds: STORE_AFTER_MS.
            longest_retry_seconds: INVOKE_LATENCY_SEC.
            limit_bytes: How much may be in flight in all lanes.
        """
        self.producer = producer
        self.acknowledge = acknowledge
        self.limit_messages = max(LANE_LIMIT_MESSAGES, replay_limit_messages)
        self.replay_limit_messages = replay_limit_messages
        self.refill_below_messages = refill_below_messages
        self.store_after_seconds = store_after_seconds
        self.longest_retry_seconds = longest_retry_seconds
        self.lane_limit_bytes, self.limit_bytes = min(LANE_LIMIT_BYTES, limit_bytes), limit_bytes
        self.in_flight_messages = self.in_flight_bytes = 0
        self.behind: set[Lane] = set()
        self.hungry: set[Lane] = set()
        self.starved: set[Lane] = set()
        self.overdrawn: Lane | None = None
        self.stopping = self.paused = False
        self.reported_at = 0.0
        self.topics = Topics()
        self.refusals = Refusals()
        self.wake_replayer = asyncio.Event()
        self.wake_poller = asyncio.Event()
        self._lanes: dict[str, Lane] = {}
        self._reserved_bytes = 0
        self._outbox: list[tuple[Any, Any]] = []
        self._throttle = Throttle(log)

    def __getitem__(self, topic: str) -> Lane:
        """Return the lane of a Kafka topic, made when first asked for."""
        lane = self._lanes.get(topic)
        if lane is None:
            lane = self._lanes[topic] = Lane(topic, self)
            self._share_out()
        return lane

    def __iter__(self) -> Any:
        return iter(self._lanes.values())

    def has_room_for(self, lane: Lane) -> bool:
        """Whether a lane that has something in flight may have more."""
        if lane.in_flight_bytes >= self.lane_limit_bytes:
            return False
        if lane.in_flight_messages < RESERVED_MESSAGES and lane.in_flight_bytes < self._reserved_bytes:
            return True
        if self.in_flight_messages < 2 * self.limit_messages and self.in_flight_bytes < self.limit_bytes:
            return True
        self.starved.add(lane)
        return False

    def has_room_for_all(self, lane: Lane, messages: int, size_bytes: int) -> bool:
        """Whether a lane may have so many more without any of the bounds being reached."""
        return (
            lane.in_flight_bytes + size_bytes <= self.lane_limit_bytes
            and self.in_flight_messages + messages <= 2 * self.limit_messages
            and self.in_flight_bytes + size_bytes <= self.limit_bytes
        )

    def limit_for(self, lane: Lane) -> int:
        """Return how many messages a lane may have in flight whose record was confirmed."""
        return self.limit_messages if self.topics.takes_batches(lane.topic) else 1

    def stay_below(self, table_bytes: int) -> None:
        """Bound what is in flight by the table's size: a copy of it in the table can give way to nothing."""
        self.lane_limit_bytes = min(self.lane_limit_bytes, table_bytes // 4)
        self.limit_bytes = min(self.limit_bytes, table_bytes // 2)
        self._share_out()

    def _share_out(self) -> None:
        """Reserve half of the common bytes for the lanes, in equal parts."""
        self._reserved_bytes = self.limit_bytes // (2 * max(1, len(self._lanes)))

    # ---- delivery reports

    def take_reports(self, messages: list[Message]) -> None:
        """Deal with what librdkafka reported: confirmed, refused for now, refused for good."""
        now = time.monotonic()
        reports: dict[Lane, list[Message]] = {}
        for message in messages:
            reports.setdefault(message.lane, []).append(message)
        confirmed = [lane.take_reports(lot, now) for lane, lot in reports.items()]
        self._settle(list(itertools.chain.from_iterable(confirmed)), now)
        for lane in reports:
            lane.after_reports()
        touched = reports.keys() | self.starved
        self.starved.clear()
        for lane in touched:
            self.look_at(lane)

    def _settle(self, confirmed: list[Message], now: float) -> None:
        """Count, acknowledge, and have removed from the table what Kafka confirmed."""
        if not confirmed:
            return
        self.reported_at = now
        if log.isEnabledFor(TRACE):
            _trace(confirmed)
        now_ms = time.time() * 1000
        for timestamp_ms, times in Counter([message.timestamp_ms for message in confirmed]).items():
            delivery_seconds.observe(max(0.0, now_ms - timestamp_ms) / 1000, times)
        for route, times in Counter([message.route for message in confirmed if not message.dead_reason]).items():
            accounts[route].delivered += times
        for message in confirmed:
            if message.dead_reason:
                accounts[message.route].dead_lettered[message.dead_reason] += 1
        removable = [message for message in confirmed if message.stored]
        if removable:
            self._leave_table(removable)
        if len(removable) < len(confirmed):
            for route, times in Counter([message.route for message in confirmed if not message.stored]).items():
                accounts[route].in_flight -= times
        self.acknowledge(confirmed)

    def _leave_table(self, confirmed: list[Message]) -> None:
        """Count what was stored out of the table, and have it removed."""
        for message in confirmed:
            message.lane.removing_messages += 1
        for route, number, size_bytes in stored_by_route(confirmed):
            accounts[route].leave_table(size_bytes, number)
        self._outbox.append((channels.delivered, confirmed))

    def look_at_all(self) -> None:
        """Have the replayer look at every lane that is behind."""
        for lane in self.behind:
            self.look_at(lane)

    def look_at(self, lane: Lane) -> None:
        """Have the replayer look at a lane that is behind."""
        if lane.behind:
            self.hungry.add(lane)
            self.wake_replayer.set()

    def store_what_is_late(self) -> None:
        """Look through the lanes for messages that were not confirmed in time."""
        handed_before = time.monotonic() - self.store_after_seconds
        for lane in self._lanes.values():
            if lane.unstored:
                lane.store_what_is_late(handed_before)

    def store_everything(self) -> None:
        """Have the keeper store all that is in flight, late or not (the worker stops)."""
        for lane in self._lanes.values():
            lane.store_in_flight()

    # ---- requests to other rooms

    def ask_to_store(self, messages: list[Message]) -> None:
        """Have the keeper store messages."""
        self._outbox.append((channels.undelivered, Undelivered(messages)))

    def remember(self, name: str, value: Any) -> None:
        """Have the keeper remember a value, for the next start."""
        self._outbox.append((channels.undelivered, Remembered(name, value)))

    def set_aside(self, message: Message, reason: str, explanation: str) -> None:
        """Have the keeper put a message among the dead letters."""
        message.confirmed = True
        message.lane.removing_messages += 1
        if not message.dead_reason:
            message.dead_reason = reason
        topic = message.lane.topic
        self._throttle.warning(
            ("dead", topic, reason),
            "a message for %s becomes a dead letter: %s, MQTT topic %r (%s)",
            topic or "no Kafka topic",
            reason,
            message.topic_text,
            explanation,
        )
        self._outbox.append((channels.undelivered, DeadLettered([message])))

    def restore(self, lane: Lane, messages: list[Message]) -> None:
        """Send what was read from the table on its way."""
        self._outbox.append((channels.restored, Restored(lane, messages, lane.generation)))

    async def flush(self) -> None:
        """Send the requests, in the order in which they were decided.

        Callers may meet here: the order holds as putting into an unbounded channel never waits.
        """
        if self.in_flight_messages:
            self.wake_poller.set()
        while self._outbox:
            outbox, self._outbox = self._outbox, []
            for channel, item in outbox:
                await channel.put(item)

    def count_refusal(self, meaning: Meaning) -> None:
        """Count a record that was refused, for now or for good."""
        self.refusals.note(meaning)

    def say_time_of_now(self, lane: Lane) -> None:
        """Log that a lane's records are too old for their topic."""
        self._throttle.warning(
            ("time", lane.topic),
            "Kafka takes no records as old as these for %s (message.timestamp.before.max.ms): they go with the time of "
            "now, and the header connector-received says when they were received",
            lane.topic,
        )

    def say_trouble(self, lane: Lane) -> None:
        """Log a lane's trouble, once a minute at most."""
        if self.stopping:
            return  # what librdkafka held is given back, that is no trouble
        self._throttle.warning((lane.topic, lane.trouble), "the lane %s waits: %s", lane.topic, lane.trouble)

    def end_trouble(self, lane: Lane) -> None:
        """Note that a lane flows again, and log it if its trouble was."""
        self._throttle.end((lane.topic, lane.trouble), "the lane %s flows again", lane.topic)
        lane.trouble = ""

    def look_later(self, lane: Lane, seconds: float) -> None:
        """Have the replayer look at a failing lane when its interval is over."""
        asyncio.get_running_loop().call_later(seconds, self.look_at, lane)


def _trace(confirmed: list[Message]) -> None:
    for message in confirmed:
        log.log(TRACE, "delivered to %s: %s", message.lane.topic, dict(message.headers)["connector-id"].decode())
