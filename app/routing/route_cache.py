"""The route cache: where messages of the same MQTT topic, flags and properties go, worked out once and kept.

A device sends messages that look alike again and again, so the router finds nearly every one here. The first of a topic
goes where one like it of another topic went, if both match the same filters and only the record's key has the topic.

A message belongs to the route that its MQTT topic matches. Some brokers deliver under another topic than the one that
was subscribed to: they turn dots into slashes, or have rewriting rules. So a message that has the
subscription identifiers of other routes than its topic matches belongs to the first of these routes. A message that
belongs to no route, and not to a filter that was removed either, is a dead letter: somebody should look at it.

Properties beyond what `app.bounds` allows are left out: the record has a header about it, and it is counted. Where
several routes match, the subscription identifier shows whether a message is the copy to keep. If it may be among the
properties that were not read, the message becomes a dead letter: it may be a copy or the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from app.core.destination import Destination
from app.core.message import UNDECODABLE_FLAG
from app.kafka.outcomes import POSSIBLE_COPY, TOO_MANY_KAFKA_TOPICS, UNDECODABLE
from app.metrics import UNMAPPED
from app.mqtt.properties import expiry_header
from app.routes import Resolved, Route, RouteTable, Template, filters_of, resolve_by, topic_problem, topic_text
from app.routing.device_times import place_of, put_back_of_others, take_out, take_out_only
from app.routing.known_routes import CachedRoute, KnownRoutes
from app.routing.left_out import decoded, log_left_out
from app.routing.overlaps import Overlaps
from app.routing.removed import RemovedFilters

if TYPE_CHECKING:
    from app.core.message import Header, Message
    from app.mqtt.copies import Copies
    from app.routing.derived_topics import DerivedTopics

log = logging.getLogger(__name__)

LONGEST_KEPT_PROPERTIES_BYTES = 256  # long ones differ from message to message
QOS_HEADERS = (("mqtt-qos", b"0"), ("mqtt-qos", b"1"), ("mqtt-qos", b"2"))
RETAIN_HEADERS = (("mqtt-retain", b"0"), ("mqtt-retain", b"1"))
DUP_HEADER = ("mqtt-dup", b"1")


class MappedTo(NamedTuple):
    """Where the messages of one MQTT topic go.

    Attributes:
        destination: The Kafka topic; None if they are dropped, one without a name if there is no Kafka topic for them.
        route: The route's name.
        record_key: The record's key.
        headers: Those that the route adds.
        filters: Those of all routes that match, in the order of precedence.
        problem: Why its messages become dead letters; empty if they do not.
        makes_tombstones: An empty payload becomes a record whose value is null.
        time_property: The user property that has the record's time; empty: the time of receipt.
    """

    destination: Destination | None
    route: str
    record_key: bytes | None
    headers: tuple[Header, ...]
    filters: tuple[str, ...]
    problem: str
    makes_tombstones: bool = False
    time_property: bytes = b""


class RouteCache:
    """The routes that are known; on the event loop.

    Attributes:
        known: Those that were worked out and are kept.
    """

    def __init__(
        self,
        routes: RouteTable,
        default_key: Template,
        destination_of: Callable[[str], Destination],
        derived: DerivedTopics,
        copies: Copies,
    ) -> None:
        """Know nothing yet.

        Args:
            routes: All routes.
            default_key: RECORD_KEY, for routes without a key of their own.
            destination_of: Returns the destination that a Kafka topic is.
            derived: The Kafka topics that are made from MQTT topics.
            copies: Which copy of a message to keep.
        """
        self.known = KnownRoutes()
        self._routes = routes
        self._default_key = default_key
        self._destination_of = destination_of
        self._derived = derived
        self._copies = copies
        self._removed = RemovedFilters(copies)
        self._nowhere = destination_of("")  # of what has no Kafka topic
        self._overlaps = Overlaps()
        self._versions = (-1, -1)  # of the subscriptions and of the routes

    async def follow_changes(self) -> None:
        """Forget what rested on subscriptions or routes that have changed since; nothing is routed meanwhile."""
        while self._versions != (versions := (self._copies.generations.version, self._routes.version)):
            await self._removed.look(self._routes.by_filter)
            self.known.forget()
            self._versions = versions

    def look_up(self, message: Message) -> CachedRoute | None:
        """Return what is known of all messages like this one; None: nothing yet."""
        if self._routes.have_times:
            latest = self.known.by_topic.get(message.topic)
            if name := self._time_property(message.topic) if latest is None else latest.time_property:
                take_out(message, name)
                if latest and latest.flags == message.flags and latest.properties == message.properties:
                    return latest
        found = self.known.other(message)
        if found is not None and put_back_of_others(message, found.time_property):
            return self.known.other(message)
        return found

    def find(self, message: Message) -> CachedRoute:
        """Return what all messages like this one have in common; what is not known is worked out and kept."""
        if known := self.look_up(message):
            return known
        matches = self._routes.matches(topic_text(message.topic))
        return self._like_another(message, matches) or self._work_out(message, matches)

    def _like_another(self, message: Message, matches: Sequence[Route]) -> CachedRoute | None:
        """Return the route of another topic, if messages of this one are the same but for the topic."""
        if message.device_time is not None or topic_problem(message.topic):  # a value was taken out; a dead letter
            return None
        return self.known.like_another(message, filters_of(matches))

    def _note_alike(self, route: CachedRoute, mapped: MappedTo) -> None:
        """Note that other topics go the same way, if nothing of it was made of the topic.

        Nothing is noted while there are removed filters, as these may match one topic and not another: after a filter
        was removed, until the session is lost. A key that equals the topic by chance is not the topic.
        """
        if route.needs_more or self._removed or not mapped.filters:
            return
        first = self._routes.by_filter[mapped.filters[0]]
        is_keyed_by_topic = first.key_or(self._default_key).is_whole_topic
        if first.is_alike_for_all_topics(self._default_key) and route.is_keyed_by_topic == is_keyed_by_topic:
            self.known.note_alike(mapped.filters, route)

    def _time_property(self, topic: bytes) -> bytes:
        return next((route.time_property for route in self._routes.matches(topic_text(topic))), b"")

    def _work_out(self, message: Message, matches: Sequence[Route]) -> CachedRoute:
        if message.flags & UNDECODABLE_FLAG:
            mapped = self.mapped(message.topic)
            destination = mapped.destination or self._nowhere
            unkeyed = mapped._replace(destination=destination, record_key=None, time_property=b"")
            return _route(message, unkeyed, _constant_headers(message), UNDECODABLE)
        properties = decoded(message)
        identifiers = properties.subscription_identifiers
        mapped = self._mapped_by(message.topic, matches, identifiers)
        if (self._routes.have_times or message.device_time) and take_out_only(message, mapped.time_property):
            properties = decoded(message)
        if properties.expiry_at and (known := self.known.other(message, properties.expiry_at)):
            return known
        matching = self._matching(message.topic, mapped)
        may_be_copy = bool(identifiers) and not self._is_copy_to_keep(matching, identifiers)
        is_copy = may_be_copy and properties.is_whole
        if is_copy:
            mapped = mapped._replace(destination=None)
        ours = (*_constant_headers(message), *mapped.headers)
        named = _without(properties.headers, mapped.headers)
        headers = (*ours, *named) if mapped.destination else ()
        place = place_of(named, mapped.time_property)
        problem = mapped.problem if mapped.destination else ""
        is_unsure = mapped.destination and not problem and not properties.is_whole
        if is_unsure and self._is_possible_copy(matching, identifiers):
            problem = POSSIBLE_COPY
        if mapped.destination and properties.left_out:
            headers = (*headers, log_left_out(message, mapped.route, properties))
        expiry_at = properties.expiry_at
        is_long = len(message.properties) > LONGEST_KEPT_PROPERTIES_BYTES
        if expiry_at and is_long:
            headers, expiry_at = (*headers, expiry_header(message, expiry_at)), 0
        time_place = len(ours) + place if place is not None else 0
        route = _route(message, mapped, headers, problem, is_copy=is_copy, expiry_at=expiry_at, time_place=time_place)
        if is_long:
            message.let_go_of_properties()  # they are headers by now
        elif not properties.left_out and problem != TOO_MANY_KAFKA_TOPICS:  # else each one is counted
            self.known.keep(message.topic, route, mapped.headers)
            self._note_alike(route, mapped)
        return route

    def _matching(self, topic: bytes, mapped: MappedTo) -> tuple[str, ...]:
        """Return the filters by which copies of a message may come, also those that were removed."""
        return (*mapped.filters, *self._removed.matching(topic)) if self._removed else mapped.filters

    def _is_possible_copy(self, matching: tuple[str, ...], identifiers: tuple[int, ...]) -> bool:
        """Tell whether the identifiers that were read do not say if this copy of a message is the one to keep."""
        kept = self._copies.winning_identifier(matching) if len(matching) > 1 else 0
        return bool(kept) and kept not in identifiers

    def _is_copy_to_keep(self, matching: tuple[str, ...], identifiers: tuple[int, ...]) -> bool:
        """Tell whether to keep this copy of a message; its siblings come by other subscriptions."""
        kept = self._copies.winning_identifier(matching)
        return not kept or kept in identifiers or self._copies.is_older_copy(identifiers, matching)

    def mapped(self, topic: bytes) -> MappedTo:
        """Work out where messages go by their topic alone."""
        return self._mapped(topic, self._routes.matches(topic_text(topic)))

    def _mapped(self, topic: bytes, matches: Sequence[Route]) -> MappedTo:
        if len(matches) > 1:
            self._overlaps.log(topic, matches)
        return self._mapped_to(topic, resolve_by(matches, topic, self._default_key))

    def _mapped_by(self, topic: bytes, matches: Sequence[Route], identifiers: tuple[int, ...]) -> MappedTo:
        """Work out where messages go by the routes that match, and by the subscriptions that they came by."""
        mapped = self._mapped(topic, matches)
        carried = self._copies.filters_of(identifiers) if identifiers else []
        carried = [name for name in carried if name in self._routes.by_filter]  # others were just removed
        if carried and not set(carried).intersection(mapped.filters):
            routes = [self._routes.by_filter[name] for name in carried]
            return self._mapped_to(topic, resolve_by(routes, topic, self._default_key))
        if mapped.destination is None and not self._removed.have(topic, identifiers):
            return mapped._replace(destination=self._nowhere, problem=UNMAPPED)
        return mapped

    def _mapped_to(self, topic: bytes, resolved: Resolved) -> MappedTo:
        """Return where messages of a topic go, and note a Kafka topic that was not in use yet."""
        if not resolved.matches:
            log.debug("no route matches the MQTT topic %r", topic)
            return MappedTo(None, UNMAPPED, resolved.record_key, (), (), "")
        problem = resolved.problem
        is_derived = resolved.matches[0].kafka_topic is None
        if not problem and is_derived and not self._derived.admit(resolved.kafka_topic, self.known.forget):
            problem = TOO_MANY_KAFKA_TOPICS
        has_topic = resolved.kafka_topic and problem != TOO_MANY_KAFKA_TOPICS
        destination = self._destination_of(resolved.kafka_topic) if has_topic else self._nowhere
        if is_derived and has_topic:
            self._derived.note(destination, resolved.captured)
        route = resolved.matches[0]
        where = destination, route.name, resolved.record_key, resolved.headers
        return MappedTo(*where, filters_of(resolved.matches), problem, route.makes_tombstones, route.time_property)


def _route(
    message: Message,
    mapped: MappedTo,
    headers: tuple[Header, ...],
    problem: str,
    *,
    is_copy: bool = False,
    expiry_at: int = 0,
    time_place: int = 0,
) -> CachedRoute:
    """Make the route of messages like this one."""
    is_keyed_by_topic = mapped.record_key == message.topic
    record_key = None if is_keyed_by_topic else mapped.record_key
    where = mapped.destination, mapped.route, is_keyed_by_topic, record_key
    return CachedRoute(
        message.flags,
        message.properties,
        *where,
        headers,
        is_copy,
        problem,
        expiry_at,
        mapped.makes_tombstones,
        mapped.time_property,
        time_place,
    )


def _without(named: tuple[Header, ...], added: tuple[Header, ...]) -> tuple[Header, ...]:
    """Return the headers that a publisher named, without those that would be second values of headers of the route."""
    names = {name for name, _ in added}
    return tuple([header for header in named if header[0] not in names]) if names else named


def _constant_headers(message: Message) -> tuple[Header, ...]:
    """Make the headers that only depend on QoS, RETAIN and DUP."""
    headers: list[Header] = [QOS_HEADERS[message.qos], RETAIN_HEADERS[message.flags & 1]]
    if message.flags & 8:
        headers.append(DUP_HEADER)
    return tuple(headers)
