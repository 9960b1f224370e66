"""The router: gives each message its Kafka topic, record key, headers and sequence, and its lane the message.

What depends on the MQTT topic alone is worked out once per topic and kept (`Destination`), with a bound.

A broker that speaks MQTT 5 delivers one copy of a message per matching subscription. One copy is kept (the session says
which), the others are acknowledged and dropped without being counted as received.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from agents.shell import for_each
from app import channels
from app.application import app
from app.kafka.outcomes import INVALID_MQTT_TOPIC
from app.messages import Batch, Header, Message
from app.metrics import PACKET_TOO_LARGE, UNMAPPED, accounts
from app.mqtt.properties import NO_PROPERTIES, PublishProperties, decode
from tables import layout

if TYPE_CHECKING:
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from app.mqtt.session import Session
    from app.routes import RecordKey, RouteTable

log = logging.getLogger(__name__)

KEPT_TOPICS = 50_000
KEPT_TOPICS_BYTES = 8 * 1024 * 1024  # a topic may have 65,535 bytes, and several times as much is kept of each
KEPT_PROPERTIES = 10_000
LONGEST_KEPT_PROPERTIES_BYTES = 256  # long ones differ from message to message


class Destination:
    """What the router knows of one MQTT topic."""

    __slots__ = ("filters", "headers", "kept_identifier", "lane", "problem", "record_key", "route", "version")

    def __init__(self) -> None:
        self.lane: Lane | None = None
        self.route = UNMAPPED
        self.record_key: bytes | None = None
        self.headers: dict[int, tuple[Header, ...]] = {}
        self.filters: tuple[str, ...] = ()
        self.kept_identifier = 0
        self.version = -1
        self.problem = ""


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
        self._destinations_bytes = 0
        self._properties: dict[bytes, PublishProperties] = {b"": NO_PROPERTIES}

    async def route(self, batch: Batch) -> None:
        """Route a batch, and pass on what that set in motion."""
        if batch.too_large_bytes:
            self._drop(batch.messages[0], batch.too_large_bytes)
            return
        lots: dict[Lane, list[Message]] = {}
        dropped: list[Message] = []
        for message in batch.messages:
            destination = self._destinations.get(message.topic) or self._find(message.topic)
            properties = self._properties.get(message.properties) or self._decode(message.properties)
            identifiers = properties.subscription_identifiers
            if identifiers and not self._is_copy_to_keep(destination, identifiers):
                dropped.append(message)
                continue
            account = accounts[destination.route]
            account.received += 1
            if destination.lane is None:
                account.dropped[UNMAPPED] += 1
                dropped.append(message)
                continue
            account.in_flight += 1
            self._address(message, destination, properties)
            if destination.problem:
                self._lanes.set_aside(message, destination.problem, repr(message.topic))
            else:
                lots.setdefault(destination.lane, []).append(message)
        for lane, messages in lots.items():
            lane.accept(messages)
        if dropped:
            self._acknowledge(dropped)
        self.routed_messages += len(batch.messages)
        await self._lanes.flush()

    def _drop(self, message: Message, packet_bytes: int) -> None:
        """Account for a message whose packet was too large to be held."""
        destination = self._destinations.get(message.topic) or self._find(message.topic)
        account = accounts[destination.route]
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
        return prefix + layout.pack_sequence(self.epoch, self._counter)

    def _address(self, message: Message, destination: Destination, properties: PublishProperties) -> None:
        """Fill in what the record needs."""
        lane = destination.lane
        assert lane is not None
        self._counter = counter = self._counter + 1
        message.lane = lane
        message.route = destination.route
        message.record_key = destination.record_key
        message.key = lane.prefix + layout.pack_sequence(self.epoch, counter)
        constant = destination.headers.get(message.flags) or _flag_headers(message, destination)
        message.headers = [
            ("connector-id", self._id_prefix + str(counter).encode()),
            *constant,
            *properties.headers,
        ]

    def _is_copy_to_keep(self, destination: Destination, identifiers: tuple[int, ...]) -> bool:
        """Tell whether to keep this copy of a message; its siblings come by other subscriptions."""
        if destination.version != self._session.version:
            destination.version = self._session.version
            destination.kept_identifier = self._session.copy_to_keep(destination.filters)
        if not destination.kept_identifier or destination.kept_identifier in identifiers:
            return True
        return self._session.is_older_copy(identifiers, destination.filters)

    def _find(self, topic: bytes) -> Destination:
        """Work out what depends on the topic alone, and keep it."""
        destination = Destination()
        text = topic.decode("utf-8", "surrogateescape")
        matches = self._routes.matches(text)
        if matches:
            mapping = matches[0]
            destination.lane = self._lanes[mapping.kafka_topic]
            destination.route = mapping.text
            destination.record_key = self._record_key.render(text)
            destination.filters = tuple(match.mqtt_filter for match in matches)
            destination.problem = _problem(topic)
        if len(matches) > 1:
            log.warning(
                "several mappings match the MQTT topic %r: %s is used, not %s",
                text,
                matches[0].text,
                ", ".join(match.text for match in matches[1:]),
            )
        if not matches:
            log.debug("no mapping matches the MQTT topic %r", text)
        if len(self._destinations) >= KEPT_TOPICS or self._destinations_bytes >= KEPT_TOPICS_BYTES:
            self._destinations.clear()
            self._destinations_bytes = 0
        self._destinations[topic] = destination
        self._destinations_bytes += len(topic)
        return destination

    def _decode(self, data: bytes) -> PublishProperties:
        try:
            properties = decode(data)
        except (ValueError, IndexError) as error:
            log.warning("properties of a message are left out: %s", error)
            properties = NO_PROPERTIES
        if len(data) <= LONGEST_KEPT_PROPERTIES_BYTES:
            if len(self._properties) >= KEPT_PROPERTIES:
                self._properties.clear()
            self._properties[data] = properties
        return properties


def _flag_headers(message: Message, destination: Destination) -> tuple[Header, ...]:
    """Make the headers that only depend on topic, QoS, RETAIN and DUP, and keep them with the topic."""
    headers = [
        ("mqtt-topic", message.topic),
        ("mqtt-qos", str(message.qos).encode()),
        ("mqtt-retain", b"1" if message.flags & 1 else b"0"),
    ]
    if message.flags & 8:
        headers.append(("mqtt-dup", b"1"))
    destination.headers[message.flags] = constant = tuple(headers)
    return constant


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
