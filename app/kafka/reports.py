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
        for route, number, size_bytes in stored_by_route(stored):
            accounts[route].leave_table(size_bytes, number)
        self._requests.remove(stored)


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
