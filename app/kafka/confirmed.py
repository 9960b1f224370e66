"""What is done with messages that Kafka has: they are counted, removed from the table, and acknowledged to MQTT."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from app.core.message import LARGE_BYTES, Message, stored_by_route
from app.core.moment import Moment
from app.core.requests import Requests
from app.metrics import accounts, delivery_seconds
from app.settings import TRACE

log = logging.getLogger(__name__)


class Confirmed:
    """Deals with confirmed messages.

    Attributes:
        last_at: When Kafka confirmed a message last (monotonic clock); 0: never.
    """

    def __init__(self, requests: Requests, acknowledge: Callable[[Iterable[Message]], None]) -> None:
        """Take what has messages removed from the table, and what acknowledges them."""
        self.last_at = 0.0
        self._requests = requests
        self._acknowledge = acknowledge

    def deal_with(self, messages: Sequence[Message], at: Moment) -> None:
        """Count, have removed, and acknowledge messages that Kafka has."""
        self.last_at = at.seconds
        if log.isEnabledFor(TRACE):
            _trace(messages)
        payload_bytes = [len(message.payload) for message in messages]
        _count(messages, payload_bytes, at)
        if max(payload_bytes) > LARGE_BYTES:
            for message in messages:
                message.let_go_of_payload()
        stored = [message for message in messages if message.stored]
        if stored:
            self._remove(stored)
        if len(stored) < len(messages):
            accounts.leave_memory([message.route for message in messages if not message.stored])
        self._acknowledge(messages)

    def _remove(self, stored: list[Message]) -> None:
        """Count what was stored out of the table, and have it removed."""
        for route, number, size_bytes in stored_by_route(stored):
            accounts[route].leave_table(size_bytes, number)
        self._requests.remove(stored)


def _count(messages: Sequence[Message], payload_bytes: Sequence[int], at: Moment) -> None:
    """Count messages as delivered, or as dead-lettered if they went to DEAD_LETTER_TOPIC; and how long it took."""
    delivery_seconds.observe_since([message.timestamp_ms for message in messages], at.wall_ms)
    delivered = [message.route for message in messages if not message.dead_reason]
    if len(delivered) < len(messages):
        for message in messages:
            if message.dead_reason:
                accounts[message.route].dead_letter(message.dead_reason)
        of_all = zip(messages, payload_bytes, strict=True)
        payload_bytes = [size_bytes for message, size_bytes in of_all if not message.dead_reason]
    accounts.deliver(delivered, payload_bytes)


def _trace(messages: Iterable[Message]) -> None:
    for message in messages:
        identifier = dict(message.headers)["connector-id"].decode()
        log.log(TRACE, "delivered to %s: %s", message.destination.topic, identifier)


def by_kafka_topic(messages: Iterable[Message]) -> dict[str, list[Message]]:
    """Return messages by their Kafka topic, in order."""
    found: dict[str, list[Message]] = {}
    for message in messages:
        topic = message.destination.topic
        if topic in found:
            found[topic].append(message)
        else:
            found[topic] = [message]
    return found
