"""What messages of the same MQTT topic, flags and properties have in common, worked out once and kept, with a bound.

A device sends the same kind of message again and again, so the router finds nearly every one here.

A message belongs to the mapping that its MQTT topic matches. Some brokers deliver under another topic than the one that
was subscribed to: they turn dots into slashes, or have rewriting rules. So what carries subscription identifiers of
mappings, and none of those that its topic matches, belongs to the first mapping that it carries. What belongs to none,
and not to a filter that was removed either, is a dead letter: somebody should look at it.

Properties beyond what `app.bounds` allows are left out: the record says so, and it is counted. Where several mappings
match, the subscription identifier may be among what was not read, and tells a message from its copy. Then it is a dead
letter, as to keep it might double it, and to drop it might lose it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from agents.left_out import decoded, say_left_out
from app.bounds import cost_of_properties
from app.kafka.lane import Lane
from app.kafka.outcomes import INVALID_MQTT_TOPIC, PERHAPS_COPY, UNDECODABLE
from app.messages import UNDECODABLE_FLAG
from app.metrics import UNMAPPED
from app.routes import Mapping, RouteTable

if TYPE_CHECKING:
    from app.kafka.lanes import Lanes
    from app.messages import Header, Message
    from app.mqtt.copies import Copies
    from app.routes import RecordKey

log = logging.getLogger(__name__)

KEPT_KINDS_BYTES = 64 * 1024 * 1024  # of 120,000 short topics; to work one out anew costs as much as ten messages
KIND_BYTES = 500  # without long texts; a topic may have 65,535 bytes, and its key several times as many
LONGEST_KEPT_PROPERTIES_BYTES = 256  # long ones differ from message to message
SAID_OVERLAPS = 100  # pairs of mappings; whoever has more overlaps knows it by then
QOS_HEADERS = (("mqtt-qos", b"0"), ("mqtt-qos", b"1"), ("mqtt-qos", b"2"))
RETAIN_HEADERS = (("mqtt-retain", b"0"), ("mqtt-retain", b"1"))
DUP_HEADER = ("mqtt-dup", b"1")


class Destination(NamedTuple):
    """Where the messages of one MQTT topic go.

    Attributes:
        lane: None if nothing shall become of them; one that leads nowhere if they belong to no mapping.
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
        lane: None if they are dropped; one that leads nowhere if they belong to no mapping.
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


class Kinds:
    """The kinds that are known; on the event loop.

    Attributes:
        known: By MQTT topic, flags and properties, as they came.
    """

    def __init__(self, routes: RouteTable, record_key: RecordKey, lanes: Lanes, copies: Copies) -> None:
        """Know nothing yet.

        Args:
            routes: The mappings.
            record_key: The template of record keys.
            lanes: Where the messages go.
            copies: Which copy of a message to keep.
        """
        self.known: dict[tuple[bytes, int, bytes], Kind] = {}
        self._routes = routes
        self._record_key = record_key
        self._lanes = lanes
        self._copies = copies
        self._mappings = {mapping.mqtt_filter: mapping for mapping in routes.mappings}
        self._removed = RouteTable([], [])  # of the filters that were ours
        self._nowhere = Lane("", lanes)  # of what belongs to no mapping; it never leads to Kafka
        self._said_overlaps: set[tuple[Mapping, Mapping]] = set()
        self._kept_bytes = 0
        self._version = -1  # of the subscriptions, on which the kinds rest

    def follow_subscriptions(self) -> None:
        """Forget what rested on subscriptions that have changed since."""
        if self._version != self._copies.generations.version:
            self._version = self._copies.generations.version
            self.known.clear()
            self._kept_bytes = 0
            self._removed = RouteTable([Mapping(name, "") for name in self._copies.removed_filters()], [])

    def find(self, message: Message) -> Kind:
        """Work out what all messages like this one have in common, and keep it."""
        if message.flags & UNDECODABLE_FLAG:
            destination = self.destination(message.topic)
            lane: Lane | None = destination.lane or self._nowhere
            return Kind(lane, destination.route, None, _constant_headers(message), False, UNDECODABLE)
        properties = decoded(message)
        identifiers = properties.subscription_identifiers
        destination = self._destination_of(message.topic, identifiers)
        may_be_copy = bool(identifiers) and not self._is_copy_to_keep(destination, identifiers)
        is_copy = may_be_copy and properties.is_whole
        lane = None if is_copy else destination.lane
        headers = (*_constant_headers(message), *properties.headers) if lane else ()
        problem = destination.problem if lane else ""
        if lane and not problem and not properties.is_whole and self._is_perhaps_copy(destination, identifiers):
            problem = PERHAPS_COPY
        if lane and properties.left_out:
            headers = (*headers, say_left_out(message, destination.route, properties))
        kind = Kind(lane, destination.route, destination.record_key, headers, is_copy, problem)
        if not properties.left_out:  # else each one is counted
            self._keep(message, kind)
        if len(message.properties) > LONGEST_KEPT_PROPERTIES_BYTES:
            message.properties = b""  # they are headers by now
        return kind

    def _keep(self, message: Message, kind: Kind) -> None:
        """Keep a kind, unless its properties are long."""
        if len(message.properties) > LONGEST_KEPT_PROPERTIES_BYTES:
            return
        key_bytes = len(kind.record_key or b"")
        self._make_room(KIND_BYTES + 2 * len(message.topic) + key_bytes + cost_of_properties(message.properties))
        self.known[message.topic, message.flags, message.properties] = kind

    def _is_perhaps_copy(self, destination: Destination, identifiers: tuple[int, ...]) -> bool:
        """Tell whether the identifiers that were read do not say if this copy of a message is the one to keep."""
        kept = self._copies.winning_identifier(destination.filters) if len(destination.filters) > 1 else 0
        return bool(kept) and kept not in identifiers

    def _is_copy_to_keep(self, destination: Destination, identifiers: tuple[int, ...]) -> bool:
        """Tell whether to keep this copy of a message; its siblings come by other subscriptions."""
        kept = self._copies.winning_identifier(destination.filters)
        return not kept or kept in identifiers or self._copies.is_older_copy(identifiers, destination.filters)

    def destination(self, topic: bytes) -> Destination:
        """Work out where messages go by their topic alone."""
        matches = self._routes.matches(_text(topic))
        if len(matches) > 1:
            self._say_overlap(topic, matches)
        return self._destination(topic, matches)

    def _destination_of(self, topic: bytes, identifiers: tuple[int, ...]) -> Destination:
        """Work out where messages go by their topic and by the subscriptions that they came by."""
        destination = self.destination(topic)
        carried = self._copies.filters_of(identifiers) if identifiers else []
        if carried and not set(carried).intersection(destination.filters):
            return self._destination(topic, [self._mappings[name] for name in carried])
        if destination.lane is None and not self._is_of_removed(topic, identifiers):
            return destination._replace(lane=self._nowhere, problem=UNMAPPED)
        return destination

    def _is_of_removed(self, topic: bytes, identifiers: tuple[int, ...]) -> bool:
        """Tell whether a message that no mapping matches came by a subscription that was ours."""
        by_identifier = bool(identifiers) and self._copies.came_by_removed(identifiers)
        return by_identifier or bool(self._removed.matches(_text(topic)))

    def _destination(self, topic: bytes, matches: Sequence[Mapping]) -> Destination:
        """Return where messages of a topic go that belong to these mappings, the first of them first."""
        key = self._record_key.render(_text(topic))
        if not matches:
            log.debug("no mapping matches the MQTT topic %r", topic)
            return Destination(None, UNMAPPED, key, (), "")
        filters = tuple(match.mqtt_filter for match in matches)
        return Destination(self._lanes[matches[0].kafka_topic], matches[0].text, key, filters, _problem(topic))

    def _say_overlap(self, topic: bytes, matches: Sequence[Mapping]) -> None:
        """Warn of mappings that match the same topic, once for each pair of them."""
        if len(self._said_overlaps) >= SAID_OVERLAPS:
            return
        unsaid = [match for match in matches[1:] if (matches[0], match) not in self._said_overlaps]
        if not unsaid:
            return
        self._said_overlaps.update((matches[0], match) for match in unsaid)
        log.warning(
            "several mappings match the MQTT topic %r: %s is used, not %s",
            _text(topic),
            matches[0].text,
            ", ".join(match.text for match in unsaid),
        )
        if len(self._said_overlaps) >= SAID_OVERLAPS:
            log.warning("that is enough of mappings that overlap: further pairs of them are not said")

    def _make_room(self, size_bytes: int) -> None:
        """Count what is about to be kept; forget everything before it becomes too much."""
        if self._kept_bytes + size_bytes > KEPT_KINDS_BYTES:
            self.known.clear()  # not replaced: a batch may be on its way through it
            self._kept_bytes = 0
        self._kept_bytes += size_bytes


def _text(topic: bytes) -> str:
    return topic.decode("utf-8", "surrogateescape")


def _constant_headers(message: Message) -> tuple[Header, ...]:
    """Make the headers that only depend on topic, QoS, RETAIN and DUP."""
    headers = [("mqtt-topic", message.topic), QOS_HEADERS[message.qos], RETAIN_HEADERS[message.flags & 1]]
    if message.flags & 8:
        headers.append(DUP_HEADER)
    return tuple(headers)


def _problem(topic: bytes) -> str:
    """Return why a topic is none by MQTT's rules (4.7.3, 3.3.2.1), empty if it is one."""
    try:
        text = topic.decode("utf-8")
    except UnicodeDecodeError:
        return INVALID_MQTT_TOPIC
    return INVALID_MQTT_TOPIC if not text or any(character in text for character in "\0+#") else ""
