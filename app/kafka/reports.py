"""The way back: polls librdkafka for delivery reports, and does what follows from them. It runs on the event loop.

    librdkafka -- reports --> lane --> confirmed: counted, removed from the table, acknowledged to MQTT
                                   '-> refused: `app.kafka.refused`

A thread of its own for the poll would double the cost of a message (the interpreter lock changes hands each time).
While nothing is in flight, librdkafka is polled every half second, for its statistics and errors; at the start more
often, as the worker connects to MQTT only when Kafka has answered, or does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from app.core.lane_states import State
from app.core.message import LARGE_BYTES, Message
from app.core.moment import Moment
from app.core.requests import Requests, StoreMessages
from app.metrics import accounts, delivery_seconds
from app.settings import TRACE
from tables.figures import by_route

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.kafka.dispatcher import Dispatcher

log = logging.getLogger(__name__)

POLL_SECONDS = 0.002
SLOW_POLL_SECONDS = 0.01  # when nothing was reported for a while, as in an outage
IDLE_SECONDS = 0.5
OUTAGE_AFTER_SECONDS = 0.2
# Dealt with before others have a turn, where some were refused: each may be of a lane of its own, and take 30 us.
REFUSED_AT_ONCE = 500


class Reports:
    """Polls for delivery reports, and deals with them.

    Attributes:
        last_at: When Kafka confirmed a message last (monotonic clock); 0: never.
    """

    def __init__(
        self, dispatcher: Dispatcher, requests: Requests, acknowledge: Callable[[Iterable[Message]], None]
    ) -> None:
        """Take what the way back leads to.

        Args:
            dispatcher: The lanes, the producer, and what is done with refused messages.
            requests: What has messages stored, or removed from the table.
            acknowledge: Marks messages safe and acknowledges them to MQTT.
        """
        self.last_at = 0.0
        self._dispatcher = dispatcher
        self._requests = requests
        self._acknowledge = acknowledge

    async def poll(self, has_ended: Callable[[], bool], look: Callable[[float], None]) -> None:
        """Poll for reports, until it has ended.

        Args:
            has_ended: Tells whether it has.
            look: Called after each poll with the time (monotonic clock), for what else is to be looked at so often.
        """
        dispatcher, producer = self._dispatcher, self._dispatcher.producer
        reported_at = 0.0
        while not has_ended():
            reports = producer.poll()
            now = time.monotonic()
            if reports:
                reported_at = now
                for part in _in_parts(reports):
                    self.on_reports(part)
                    if len(part) < len(reports):
                        await asyncio.sleep(0)
            look(now)
            if dispatcher.in_flight_messages:
                await asyncio.sleep(POLL_SECONDS if now - reported_at < OUTAGE_AFTER_SECONDS else SLOW_POLL_SECONDS)
            else:
                dispatcher.wake_poller.clear()
                wait_seconds = IDLE_SECONDS if dispatcher.topics.is_asked.is_set() else SLOW_POLL_SECONDS
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(dispatcher.wake_poller.wait(), wait_seconds)
                reported_at = time.monotonic()

    def on_reports(self, messages: Sequence[Message]) -> None:
        """Deal with what librdkafka reported: confirmed, refused for now, refused for good."""
        at = Moment(time.monotonic(), int(time.time() * 1000))
        dispatcher, lanes = self._dispatcher, self._dispatcher.lanes
        by_topic = _by_kafka_topic(messages)
        confirmed: list[Message] = []
        for topic, reported in by_topic.items():
            confirmed += self._on_reports_of(lanes[topic], reported, at)
        if confirmed:
            self._on_confirmed(confirmed, at)
        for topic in by_topic:
            if lanes[topic].state is State.BEHIND:
                dispatcher.replay.look_at(lanes[topic])
        if dispatcher.bounds.waiting:
            for topic in dispatcher.bounds.pop_waiting():
                dispatcher.replay.look_at(lanes[topic])

    def _on_reports_of(self, lane: Lane, messages: list[Message], at: Moment) -> list[Message]:
        """Deal with the reports of one lane; return the messages that Kafka has."""
        limit_messages, refused = lane.attempts.limit_messages, self._dispatcher.refused
        if limit_messages == 1 or lane.topic in self._dispatcher.topics.singles:
            limit_messages = self._limit_of(lane)
        confirmed = lane.note_reports(messages, at, limit_messages)
        if lane.attempts.retry.ended:
            refused.log.end_of_trouble(lane, lane.attempts.retry.pop_ended())
        if len(confirmed) < len(messages):
            for message in messages:
                if message.error is not None:
                    refused.by_kafka(lane, message, message.error, at)
            # From the first refused message on, all is sent again from the table: also what memory alone has now.
            if lane.state is State.REWINDING and (in_memory_alone := lane.store_now()):
                self._requests.ask_table(StoreMessages(in_memory_alone))
            lane.finish_rewind()
        return confirmed

    def _limit_of(self, lane: Lane) -> int:
        """Return how many messages a lane may have in flight once a record of it was confirmed."""
        return lane.in_flight.bounds.lane_limit_messages if self._dispatcher.topics.takes_batches(lane.topic) else 1

    # ---- what Kafka has

    def _on_confirmed(self, messages: Sequence[Message], at: Moment) -> None:
        """Count, have removed, and acknowledge messages that Kafka has."""
        self.last_at = at.seconds
        if log.isEnabledFor(TRACE):
            _trace(messages)
        delivery_seconds.observe_since([message.timestamp_ms for message in messages], at.wall_ms)
        stored = [message for message in messages if message.stored]
        _count_delivered([message for message in messages if not message.stored] if stored else messages, stored)
        if stored:
            self._remove(stored)
        if max([len(message.payload) for message in messages]) > LARGE_BYTES:
            for message in messages:
                message.let_go_of_payload()
        self._acknowledge(messages)

    def _remove(self, stored: list[Message]) -> None:
        """Count what was stored out of the table, and have it removed."""
        for route, number, size_bytes in by_route(stored):
            accounts[route].leave_table(size_bytes, number)
        self._requests.remove(stored)


def _in_parts(reports: list[Message]) -> list[list[Message]]:
    """Return parts of what was reported at once, in order: refused records of thousands of lanes cost much."""
    if len(reports) <= REFUSED_AT_ONCE or all(message.error is None for message in reports):
        return [reports]
    return [reports[first : first + REFUSED_AT_ONCE] for first in range(0, len(reports), REFUSED_AT_ONCE)]


def _count_delivered(from_memory: Sequence[Message], stored: Sequence[Message]) -> None:
    """Count messages that were in memory alone, and such that are in the table, as delivered or as dead letters."""
    for counted, messages in ((accounts.deliver_from_memory, from_memory), (accounts.deliver, stored)):
        delivered = [message for message in messages if not message.dead_reason]
        if delivered:
            counted([message.route for message in delivered], [len(message.payload) for message in delivered])
        if len(delivered) < len(messages):
            _count_dead_letters([message for message in messages if message.dead_reason])


def _count_dead_letters(messages: Iterable[Message]) -> None:
    """Count messages that went to DEAD_LETTER_TOPIC."""
    for message in messages:
        account = accounts[message.route]
        account.dead_letter(message.dead_reason)
        if not message.stored:
            account.leave_memory(1)


def _trace(messages: Iterable[Message]) -> None:
    for message in messages:
        identifier = dict(message.headers)["connector-id"].decode()
        log.log(TRACE, "delivered to %s: %s", message.destination.topic, identifier)


def _by_kafka_topic(messages: Iterable[Message]) -> dict[str, list[Message]]:
    """Return messages by their Kafka topic, in order."""
    found: dict[str, list[Message]] = {}
    for message in messages:
        topic = message.destination.topic
        if topic in found:
            found[topic].append(message)
        else:
            found[topic] = [message]
    return found
