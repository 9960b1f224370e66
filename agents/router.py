"""The router: gives each message its Kafka topic, record key, headers and sequence, and its lane the message.

What messages of the same MQTT topic, flags and properties have in common is worked out once and kept (`Kind`), with a
bound: a device sends the same kind of message again and again.

A broker that speaks MQTT 5 delivers one copy of a message per matching subscription. One copy is kept (the session says
which), the others are acknowledged and dropped without being counted as received.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from agents.shell import for_each
from app import channels
from app.application import app
from app.kafka.outcomes import INVALID_MQTT_TOPIC
from app.messages import Batch, Header, Message
from app.metrics import PACKET_TOO_LARGE, UNMAPPED, accounts
from app.mqtt.properties import NO_PROPERTIES, PublishProperties, decode
from tables.layout import pack_sequence

if TYPE_CHECKING:
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from app.mqtt.session import Session
    from app.routes import RecordKey, RouteTable

log = logging.getLogger(__name__)

KEPT_KINDS = 50_000
KEPT_KINDS_BYTES = 8 * 1024 * 1024  # a topic may have 65,535 bytes, and several times as much is kept of each
LONGEST_KEPT_PROPERTIES_BYTES = 256  # long ones differ from message to message


class Destination(NamedTuple):
    """Where the messages of one MQTT topic go.

    Attributes:
        lane: None if no mapping matches.
        route: The mapping's text.
        record_key: The record's key.
        filters: Those of all mappings that match, in the order of precedence.
        problem: Why its messages become dead letters; empty if they do not.
    """

    lane: Lane | None
    route: str
    record_key: bytes | None
    filters: tuple[str, ...]
    problem: str


class Kind(NamedTuple):
    """What messages of the same MQTT topic, flags and properties have in common.

    Attributes:
        lane: None if they do not go to Kafka.
        route: The mapping's text.
        record_key: The record's key.
        headers: All headers but the first.
        is_copy: They are further copies of messages, to be dropped.
        problem: Why they become dead letters; empty if they do not.
    """

    lane: Lane | None
    route: str
    record_key: bytes | None
    headers: tuple[Header, ...]
    is_copy: bool
    problem: str


class Router:
    """Routes batches; on the event loop, without waiting."""

    def __init__(
        self,
        routes: RouteTable,
        record_key: RecordKey,
        lanes: Lanes,
        session: Session,
        acknowledge: Callable[[Iterable[Message]], None],
        client_id: str,
    ) -> None:
        """Make a router; its epoch is set when the table has begun it.

        Args:
            routes: The mappings.
            record_key: The template of record keys.
            lanes: Where the messages go.
            session: Which copy of a message to keep.
            acknowledge: For messages of which nothing shall become.
            client_id: MQTT_CLIENT_ID, the first part of each `connector-id`.
        """
        self.epoch = 0
        self.routed_messages = 0
        self._counter = 0
        self._routes = routes
        self._record_key = record_key
        self._lanes = lanes
        self._session = session
        self._acknowledge = acknowledge
        # Random, so that an older copy of the data directory cannot make ids that were used before.
        self._id_prefix = f"{client_id}/{secrets.token_hex(8)}/".encode()
        self._destinations: dict[bytes, Destination] = {}
        self._kinds: dict[tuple[bytes, int, bytes], Kind] = {}
        self._kept_bytes = 0
        self._version = -1  # of the session, whose answers are kept in the kinds

    async def route(self, batch: Batch) -> None:
        """Route a batch, and pass on what that set in motion."""
        if batch.too_large_bytes:
            self._drop(batch.messages[0], batch.too_large_bytes)
            return
        if self._version != self._session.version:
            self._version = self._session.version
            self._forget()
        for lane, messages in self._address(batch.messages).items():
            for route, times in Counter([message.route for message in messages]).items():
                account = accounts[route]
                account.received += times
                account.in_flight += times
            lane.accept(messages)
        self.routed_messages += len(batch.messages)
        await self._lanes.flush()

    def _address(self, messages: Iterable[Message]) -> dict[Lane, list[Message]]:
        """Fill in what the records need; return the messages by lane, without those that go nowhere."""
        kinds, prefix, epoch, counter = self._kinds, self._id_prefix, self.epoch, self._counter
        lots: dict[Lane, list[Message]] = {}
        left_out: list[tuple[Message, Kind]] = []
        for message in messages:
            kind = kinds.get((message.topic, message.flags, message.properties)) or self._find_kind(message)
            counter += 1
            lane = message.lane = kind.lane  # type: ignore[assignment]  # what has none is left out
            if lane is None:
                left_out.append((message, kind))
                continue
            message.route = kind.route
            message.record_key = kind.record_key
            message.key = lane.prefix + pack_sequence(epoch, counter)
            message.headers = [("connector-id", b"%b%d" % (prefix, counter)), *kind.headers]
            if kind.problem:
                left_out.append((message, kind))
            elif lane in lots:
                lots[lane].append(message)
            else:
                lots[lane] = [message]
        self._counter = counter
        if left_out:
            self._leave_out(left_out)
        return lots

    def _leave_out(self, messages: list[tuple[Message, Kind]]) -> None:
        """Account for messages that go to no lane: further copies, unmapped ones, and dead letters."""
        dropped = []
        for message, kind in messages:
            account = accounts[kind.route]
            if not kind.is_copy:
                account.received += 1
            if kind.problem:
                account.in_flight += 1
                self._lanes.set_aside(message, kind.problem, repr(message.topic))
                continue
            if not kind.is_copy:
                account.dropped[UNMAPPED] += 1
            dropped.append(message)
        self._acknowledge(dropped)

    def _drop(self, message: Message, packet_bytes: int) -> None:
        """Account for a message whose packet was too large to be held."""
        account = accounts[self._find(message.topic).route]
        account.received += 1
        account.dropped[PACKET_TOO_LARGE] += 1
        log.error(
            "a packet of %d bytes is dropped, more than message.max.bytes of the Kafka client: the MQTT topic is %r",
            packet_bytes,
            message.topic,
        )
        self._acknowledge([message])
        self.routed_messages += 1

    def next_key(self, prefix: bytes) -> bytes:
        """Return a new key of a lane, behind all that there are."""
        self._counter += 1
        return prefix + pack_sequence(self.epoch, self._counter)

    def _find_kind(self, message: Message) -> Kind:
        """Work out what all messages like this one have in common, and keep it."""
        destination = self._find(message.topic)
        properties = _decode(message.properties)
        identifiers = properties.subscription_identifiers
        is_copy = bool(identifiers) and not self._is_copy_to_keep(destination, identifiers)
        lane = None if is_copy else destination.lane
        headers = (*_constant_headers(message), *properties.headers) if lane else ()
        problem = destination.problem if lane else ""
        kind = Kind(lane, destination.route, destination.record_key, headers, is_copy, problem)
        if len(message.properties) <= LONGEST_KEPT_PROPERTIES_BYTES:
            self._make_room(len(message.topic) + len(message.properties))
            self._kinds[message.topic, message.flags, message.properties] = kind
        return kind

    def _is_copy_to_keep(self, destination: Destination, identifiers: tuple[int, ...]) -> bool:
        """Tell whether to keep this copy of a message; its siblings come by other subscriptions."""
        kept = self._session.copy_to_keep(destination.filters)
        return not kept or kept in identifiers or self._session.is_older_copy(identifiers, destination.filters)

    def _find(self, topic: bytes) -> Destination:
        """Work out what depends on the topic alone, and keep it."""
        kept = self._destinations.get(topic)
        if kept is not None:
            return kept
        text = topic.decode("utf-8", "surrogateescape")
        matches = self._routes.matches(text)
        if matches:
            destination = Destination(
                self._lanes[matches[0].kafka_topic],
                matches[0].text,
                self._record_key.render(text),
                tuple(match.mqtt_filter for match in matches),
                _problem(topic),
            )
        else:
            log.debug("no mapping matches the MQTT topic %r", text)
            destination = Destination(None, UNMAPPED, None, (), "")
        if len(matches) > 1:
            log.warning(
                "several mappings match the MQTT topic %r: %s is used, not %s",
                text,
                matches[0].text,
                ", ".join(match.text for match in matches[1:]),
            )
        self._make_room(len(topic))
        self._destinations[topic] = destination
        return destination

    def _make_room(self, size_bytes: int) -> None:
        """Count what is about to be kept; forget everything before it becomes too much."""
        if max(len(self._kinds), len(self._destinations)) >= KEPT_KINDS or self._kept_bytes >= KEPT_KINDS_BYTES:
            self._destinations.clear()
            self._forget()
            self._kept_bytes = 0
        self._kept_bytes += size_bytes

    def _forget(self) -> None:
        """Forget the kinds; cleared, not replaced, as a batch may be on its way through them."""
        self._kinds.clear()


def _decode(data: bytes) -> PublishProperties:
    try:
        return decode(data) if data else NO_PROPERTIES
    except (ValueError, IndexError) as error:
        log.warning("properties of a message are left out: %s", error)
        return NO_PROPERTIES


def _constant_headers(message: Message) -> tuple[Header, ...]:
    """Make the headers that only depend on topic, QoS, RETAIN and DUP."""
    headers = [
        ("mqtt-topic", message.topic),
        ("mqtt-qos", str(message.qos).encode()),
        ("mqtt-retain", b"1" if message.flags & 1 else b"0"),
    ]
    if message.flags & 8:
        headers.append(("mqtt-dup", b"1"))
    return tuple(headers)


def _problem(topic: bytes) -> str:
    """Return why a topic is none by MQTT's rules (4.7.3, 3.3.2.1), empty if it is one."""
    try:
        text = topic.decode("utf-8")
    except UnicodeDecodeError:
        return INVALID_MQTT_TOPIC
    return INVALID_MQTT_TOPIC if not text or any(character in text for character in "\0+#") else ""


def register(router: Router) -> None:
    """Start an agent that routes what comes through `inbound`."""

    @app.agent(channels.inbound, name="router")
    async def route(batches):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Route received messages to their lanes."""
        await for_each(batches, router.route)
