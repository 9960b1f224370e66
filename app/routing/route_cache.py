"""The route cache: where messages of the same MQTT topic, flags and properties go, worked out once and kept.

A device sends messages that look alike again and again, so the router finds nearly every one here.

A message belongs to the mapping that its MQTT topic matches. Some brokers deliver under another topic than the one that
was subscribed to: they turn dots into slashes, or have rewriting rules. So a message that has the
subscription identifiers of other mappings than its topic matches belongs to the first of these mappings. A message that
belongs to no mapping, and not to a filter that was removed either, is a dead letter: somebody should look at it.

Properties beyond what `app.bounds` allows are left out: the record has a header about it, and it is counted. Where
several mappings match, the subscription identifier shows whether a message is the copy to keep. If it may be among the
properties that were not read, the message becomes a dead letter: it may be a copy or the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from app.core.destination import Destination
from app.core.message import UNDECODABLE_FLAG
from app.kafka.outcomes import INVALID_MQTT_TOPIC, POSSIBLE_COPY, UNDECODABLE
from app.metrics import UNMAPPED
from app.routes import Mapping, RouteTable
from app.routing.known_routes import CachedRoute, KnownRoutes
from app.routing.left_out import decoded, log_left_out

if TYPE_CHECKING:
    from app.core.message import Header, Message
    from app.mqtt.copies import Copies
    from app.routes import RecordKey

log = logging.getLogger(__name__)

LONGEST_KEPT_PROPERTIES_BYTES = 256  # long ones differ from message to message
LOGGED_OVERLAPS = 100  # pairs of mappings; more lines would tell nothing new
QOS_HEADERS = (("mqtt-qos", b"0"), ("mqtt-qos", b"1"), ("mqtt-qos", b"2"))
RETAIN_HEADERS = (("mqtt-retain", b"0"), ("mqtt-retain", b"1"))
DUP_HEADER = ("mqtt-dup", b"1")


class MappedTo(NamedTuple):
    """Where the messages of one MQTT topic go.

    Attributes:
        destination: The Kafka topic; None if they are dropped, one without a name if they belong to no mapping.
        route: The mapping's text.
        record_key: The record's key.
        filters: Those of all mappings that match, in the order of precedence.
        problem: Why its messages become dead letters; empty if they do not.
    """

    destination: Destination | None
    route: str
    record_key: bytes | None
    filters: tuple[str, ...]
    problem: str


class RouteCache:
    """The routes that are known; on the event loop.

    Attributes:
        known: Those that were worked out and are kept.
    """

    def __init__(
        self,
        routes: RouteTable,
        record_key: RecordKey,
        destination_of: Callable[[str], Destination],
        copies: Copies,
    ) -> None:
        """Know nothing yet.

        Args:
            routes: The mappings.
            record_key: The template of record keys.
            destination_of: Returns the destination that a Kafka topic is.
            copies: Which copy of a message to keep.
        """
        self.known = KnownRoutes()
        self._routes = routes
        self._record_key = record_key
        self._destination_of = destination_of
        self._copies = copies
        self._mappings = {mapping.mqtt_filter: mapping for mapping in routes.mappings}
        self._removed = RouteTable([], [])  # of the filters that were ours
        self._nowhere = destination_of("")  # of what belongs to no mapping
        self._logged_overlaps: set[tuple[Mapping, Mapping]] = set()
        self._version = -1  # of the subscriptions, on which the routes rest

    def follow_subscriptions(self) -> None:
        """Forget what rested on subscriptions that have changed since."""
        if self._version != self._copies.generations.version:
            self._version = self._copies.generations.version
            self.known.forget()
            self._removed = RouteTable([Mapping(name, "") for name in self._copies.removed_filters()], [])

    def find(self, message: Message) -> CachedRoute:
        """Return what all messages like this one have in common; what is not known is worked out and kept."""
        return self.known.other(message) or self._work_out(message)

    def _work_out(self, message: Message) -> CachedRoute:
        if message.flags & UNDECODABLE_FLAG:
            mapped = self.mapped(message.topic)
            unkeyed = mapped._replace(destination=mapped.destination or self._nowhere, record_key=None)
            return _route(message, unkeyed, _constant_headers(message), UNDECODABLE)
        properties = decoded(message)
        identifiers = properties.subscription_identifiers
        mapped = self._mapped_by(message.topic, identifiers)
        may_be_copy = bool(identifiers) and not self._is_copy_to_keep(mapped, identifiers)
        is_copy = may_be_copy and properties.is_whole
        if is_copy:
            mapped = mapped._replace(destination=None)
        headers = (*_constant_headers(message), *properties.headers) if mapped.destination else ()
        problem = mapped.problem if mapped.destination else ""
        is_unsure = mapped.destination and not problem and not properties.is_whole
        if is_unsure and self._is_possible_copy(mapped, identifiers):
            problem = POSSIBLE_COPY
        if mapped.destination and properties.left_out:
            headers = (*headers, log_left_out(message, mapped.route, properties))
        route = _route(message, mapped, headers, problem, is_copy=is_copy)
        if len(message.properties) > LONGEST_KEPT_PROPERTIES_BYTES:
            message.let_go_of_properties()  # they are headers by now
        elif not properties.left_out:  # else each one is counted
            self.known.keep(message.topic, route)
        return route

    def _is_possible_copy(self, mapped: MappedTo, identifiers: tuple[int, ...]) -> bool:
        """Tell whether the identifiers that were read do not say if this copy of a message is the one to keep."""
        kept = self._copies.winning_identifier(mapped.filters) if len(mapped.filters) > 1 else 0
        return bool(kept) and kept not in identifiers

    def _is_copy_to_keep(self, mapped: MappedTo, identifiers: tuple[int, ...]) -> bool:
        """Tell whether to keep this copy of a message; its siblings come by other subscriptions."""
        kept = self._copies.winning_identifier(mapped.filters)
        return not kept or kept in identifiers or self._copies.is_older_copy(identifiers, mapped.filters)

    def mapped(self, topic: bytes) -> MappedTo:
        """Work out where messages go by their topic alone."""
        matches = self._routes.matches(_text(topic))
        if len(matches) > 1:
            self._log_overlap(topic, matches)
        return self._mapped_to(topic, matches)

    def _mapped_by(self, topic: bytes, identifiers: tuple[int, ...]) -> MappedTo:
        """Work out where messages go by their topic and by the subscriptions that they came by."""
        mapped = self.mapped(topic)
        carried = self._copies.filters_of(identifiers) if identifiers else []
        if carried and not set(carried).intersection(mapped.filters):
            return self._mapped_to(topic, [self._mappings[name] for name in carried])
        if mapped.destination is None and not self._is_of_removed(topic, identifiers):
            return mapped._replace(destination=self._nowhere, problem=UNMAPPED)
        return mapped

    def _is_of_removed(self, topic: bytes, identifiers: tuple[int, ...]) -> bool:
        """Tell whether a message that no mapping matches came by a subscription that was ours."""
        by_identifier = bool(identifiers) and self._copies.came_by_removed(identifiers)
        return by_identifier or bool(self._removed.matches(_text(topic)))

    def _mapped_to(self, topic: bytes, matches: Sequence[Mapping]) -> MappedTo:
        """Return where messages of a topic go that belong to these mappings, the first of them first."""
        key = self._record_key.render(_text(topic))
        if not matches:
            log.debug("no mapping matches the MQTT topic %r", topic)
            return MappedTo(None, UNMAPPED, key, (), "")
        filters = tuple(match.mqtt_filter for match in matches)
        destination = self._destination_of(matches[0].kafka_topic)
        return MappedTo(destination, matches[0].text, key, filters, _problem(topic))

    def _log_overlap(self, topic: bytes, matches: Sequence[Mapping]) -> None:
        """Warn of mappings that match the same topic, once for each pair of them."""
        if len(self._logged_overlaps) >= LOGGED_OVERLAPS:
            return
        news = [match for match in matches[1:] if (matches[0], match) not in self._logged_overlaps]
        if not news:
            return
        self._logged_overlaps.update((matches[0], match) for match in news)
        log.warning(
            "several mappings match the MQTT topic %r: %s is used, not %s",
            _text(topic),
            matches[0].text,
            ", ".join(match.text for match in news),
        )
        if len(self._logged_overlaps) >= LOGGED_OVERLAPS:
            log.warning("that is enough of mappings that overlap: further pairs of them are not said")


def _text(topic: bytes) -> str:
    return topic.decode("utf-8", "surrogateescape")


def _route(
    message: Message, mapped: MappedTo, headers: tuple[Header, ...], problem: str, *, is_copy: bool = False
) -> CachedRoute:
    """Make the route of messages like this one."""
    is_keyed_by_topic = mapped.record_key == message.topic
    record_key = None if is_keyed_by_topic else mapped.record_key
    where = mapped.destination, mapped.route, is_keyed_by_topic, record_key
    return CachedRoute(message.flags, message.properties, *where, headers, is_copy, problem)


def _constant_headers(message: Message) -> tuple[Header, ...]:
    """Make the headers that only depend on QoS, RETAIN and DUP."""
    headers: list[Header] = [QOS_HEADERS[message.qos], RETAIN_HEADERS[message.flags & 1]]
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
