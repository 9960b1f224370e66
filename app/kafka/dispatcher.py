"""The dispatcher: carries out what the lanes decide. It runs on the event loop, and never waits.

    router -- accept ------------------.           .--> librdkafka, which reports to `app.kafka.reports`
    replay reader -- hand_over_chunk --'--> lane --|
                                                   '--> table writer (a request)

A lane (`app.core.lane`) decides what is to be done with its messages. The dispatcher does it: it hands messages to
librdkafka, and sends requests to the agents in the order of the decisions, as the order of the messages depends on
that. What follows from delivery reports is done in `app.kafka.reports`, and what an operator should know of a lane is
logged by `app.kafka.refused`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from app.core.in_flight import LANE_LIMIT_MESSAGES, LIMIT_BYTES, SharedBounds
from app.core.lane import Lane
from app.core.lane_states import Decision, Lot, Policy
from app.core.message import Message
from app.core.moment import Moment
from app.core.requests import ForgetLanes, Remember, ReplayChunk, Requests, StoreMessages
from app.kafka.lanes import Lanes
from app.kafka.lanes_to_replay import LanesToReplay
from app.kafka.missing_topics import MissingTopics
from app.kafka.producer import KafkaProducer
from app.kafka.refused import Refused
from app.kafka.topics import Topics


class Dispatcher:
    """What carries out the decisions of the lanes.

    Attributes:
        lanes: The lanes by Kafka topic.
        producer: The Kafka client, librdkafka.
        policy: The settings that hold for all lanes.
        bounds: How much may be in flight.
        topics: What is known of the Kafka topics.
        missing: Derived topics that Kafka does not have.
        refused: What is done with messages that Kafka or librdkafka does not accept.
        replay: Which lanes the replay reader should look at.
        is_stopping: Nothing more is read from the table.
        wake_poller: Set when librdkafka has something, so that its delivery reports are polled for.
        destination: Returns the destination of messages to a Kafka topic.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        requests: Requests,
        policy: Policy,
        *,
        limit_bytes: int = LIMIT_BYTES,
        is_derived: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Make a dispatcher without lanes.

        Args:
            producer: The Kafka client, librdkafka.
            requests: What carries requests to the agents.
            policy: The settings that hold for all lanes.
            limit_bytes: How much may be in flight in all lanes.
            is_derived: Tells whether the name of a Kafka topic may be made from an MQTT topic.
        """
        self.producer = producer
        self.policy = policy
        self.bounds = SharedBounds(max(LANE_LIMIT_MESSAGES, policy.replay_limit_messages), limit_bytes=limit_bytes)
        self.topics = Topics()
        self.replay = LanesToReplay()
        self._is_derived = is_derived
        self.missing = MissingTopics(policy.missing_topic_seconds, policy.longest_retry_seconds, self._may_be_mistaken)
        self.refused = Refused(producer, self.topics, self.missing, requests, self.replay)
        self.is_stopping = False
        self.wake_poller = asyncio.Event()
        self._requests = requests
        self.lanes = Lanes(self.bounds, policy, producer.reports_sink, self.topics.time_limits_ms)
        self.destination = self.lanes.destination

    def __iter__(self) -> Iterator[Lane]:
        return iter(self.lanes.values())

    @property
    def in_flight_messages(self) -> int:
        """How many messages librdkafka has that have no delivery report yet."""
        return self.bounds.messages

    def _may_be_mistaken(self, topic: str) -> bool:
        """Tell whether a publisher made the name of a topic, and no route names it."""
        return not self.lanes.lasts(topic) and self._is_derived(topic)

    # ---- to librdkafka, or to the table

    def accept(self, topic: str, messages: Sequence[Message]) -> None:
        """Deal with new messages of a Kafka topic, in order."""
        lane, at = self.lanes[topic], _now()
        self._carry_out(lane, lane.accept(messages, at), at)

    def _carry_out(self, lane: Lane, decision: Decision, at: Moment) -> int:
        """Do what a lane has decided; return how many messages librdkafka accepted, or are dead letters now."""
        taken = 0
        not_taken: list[Message] = []
        for lot in decision.lots:
            count = 0 if not_taken else self._hand_over(lane, lot, at)
            taken += count
            not_taken += lot.messages[count:]
        if decision.store:
            self._store(decision.store)
        if not_taken:
            self._store(lane.note_not_taken(not_taken))
        if self.bounds.messages:
            self.wake_poller.set()
        return taken

    def _hand_over(self, lane: Lane, lot: Lot, at: Moment) -> int:
        """Give librdkafka a lot; return how many of it are dealt with, from the first one on."""
        messages, count = lot.messages, 0
        if lane.topic in self.missing.given_up and self.producer.connected:
            self.refused.set_all_aside(lane, messages)
            return len(messages)
        while count < len(messages):
            handed, refusal = self.producer.produce(
                lane.topic,
                messages[count:] if count else messages,
                at.wall_ms,
                with_current_time=lot.with_current_time,
                times=lane.attempts.times.of_devices,
            )
            count += handed
            if refusal is None:
                return count
            if isinstance(refusal, BufferError):
                self.bounds.waiting.add(lane.topic)
                return count
            if not self.refused.at_once(lane, messages[count], refusal.args[0]):
                return count
            count += 1
        return count

    def set_aside(self, message: Message, reason: str, explanation: str) -> None:
        """Make a dead letter of a message that was never handed to Kafka."""
        self.refused.set_aside(self.lanes[message.destination.topic], message, reason, explanation)

    def _store(self, messages: list[Message]) -> None:
        if messages:
            self._requests.ask_table(StoreMessages(messages))

    def note_shown(self, topics: Collection[str]) -> None:
        """Note topics that Kafka shows, or a route names now: what goes there becomes no dead letter any more."""
        for topic in self.missing.given_up.intersection(topics):
            self.refused.resume(self.lanes[topic])
            self.replay.look_at(self.lanes[topic])
        self.missing.forget(topics)

    # ---- what is not confirmed in time

    def store_late(self, *, is_held_up: bool = False) -> None:
        """Have stored what Kafka may not confirm soon; `is_held_up`: receiving is held up, or will be soon."""
        now = time.monotonic()
        for lane in self.lanes.values():
            if lane.in_flight.unstored:
                self._store(lane.look_late(now, is_held_up=is_held_up))

    def end_idle_lanes(self) -> int:
        """End the lanes that nothing needs any more, and forget what was known of their topics; return how many."""
        ended = self.lanes.end_idle(time.monotonic())
        if ended:
            self.topics.forget(ended)
            self.missing.forget(ended)
            self._requests.ask_table(ForgetLanes(ended))
        return len(ended)

    def store_everything(self) -> None:
        """Have everything stored that is in memory alone, late or not; also what waits for room in the table."""
        for lane in self.lanes.values():
            self._store(lane.store_now())
        self._requests.ask_table(StoreMessages([]))

    # ---- from the table

    def look_at_all(self) -> None:
        """Have the replay reader look at every lane that is behind."""
        for lane in self.lanes.values():
            self.replay.look_at(lane)

    def wanted_messages(self, lane: Lane) -> int:
        """Return how many messages of a lane to read from the table now."""
        if self.is_stopping or (lane.removing_messages and lane.topic in self.missing.given_up):
            return 0  # what becomes dead letters is read as fast as it is written
        return lane.wanted_messages(_now())

    def hand_over_chunk(self, chunk: ReplayChunk) -> int:
        """Give librdkafka what was read from the table; return how many, the rest will be read again."""
        lane, at = self.lanes[chunk.topic], _now()
        return self._carry_out(lane, lane.accept_chunk(chunk.messages, chunk.generation, at), at)

    def catch_up(self, lane: Lane) -> None:
        """Give librdkafka what is not written yet, as the table has nothing more; if all may go, become direct."""
        at = _now()
        self._carry_out(lane, lane.catch_up(at), at)

    def resume(self, topic: str, first: bytes) -> None:
        """Begin a lane with what the table has from earlier starts."""
        lane = self.lanes[topic]
        lane.resume(first)
        self.replay.look_at(lane)

    # ---- from the table writer, and for the table

    def go_on(self, topics: Iterable[str]) -> None:
        """Go on with lanes that may have waited for the removal of messages from the table."""
        for topic in topics:
            lane = self.lanes[topic]
            if not lane.is_direct:
                lane.finish_rewind()
                self.replay.look_at(lane)

    def accept_revived(self, messages: Sequence[Message]) -> None:
        """Have messages of one lane that were dead letters stored at its end, to be sent from there."""
        lane = self.lanes[messages[0].destination.topic]
        self._store(lane.accept_revived(messages))
        self.replay.look_at(lane)

    def send_appended(self, message: Message) -> None:
        """Have a message sent that the table writer has just written as the last one of its lane."""
        lane = self.lanes[message.destination.topic]
        if lane.is_direct:
            lane.resume(message.key)
            self._store(lane.store_now())
        self.replay.look_at(lane)

    def set_head_aside(self, lane: Lane, head: Message, next_key: bytes, reason: str, explanation: str) -> None:
        """Make a dead letter of the first message of an idle lane, as an operator asked for it."""
        lane.skip_head(head, next_key)
        self.refused.set_aside(lane, head, reason, explanation)

    def remember(self, name: str, value: object) -> None:
        """Have the table writer remember a value, for the next start."""
        self._requests.ask_table(Remember(name, value))

    def stop_replaying(self) -> None:
        """Read nothing more from the table, as the worker stops."""
        self.is_stopping = True
        self.refused.note_stopping()


def _now() -> Moment:
    return Moment(time.monotonic(), int(time.time() * 1000))
