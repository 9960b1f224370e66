"""The route cache: where messages of the same MQTT topic, flags and properties go, worked out once and kept.

A device sends messages that look alike again and again, so the router finds nearly every one here. The first of a topic
goes where one like it of another topic went, if both match the same filters and only the record's key has the topic.
The filters that were removed count as well: copies by them may still come.

Properties and headers of a route beyond what `app.bounds` allows are left out: the record has a header about it, and it
is counted. Where several routes match, the subscription identifier shows whether a message is the copy to keep. If it
may be among the properties that were not read, the message becomes a dead letter: it may be a copy or the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from app.bounds import cost_of_added
from app.core.message import UNDECODABLE_FLAG
from app.kafka.outcomes import POSSIBLE_COPY, TOO_MANY_KAFKA_TOPICS, UNDECODABLE
from app.mqtt.properties import expiry_header
from app.routes import Route, RouteTable, Template, filters_of, topic_problem, topic_text
from app.routing.device_times import take_out
from app.routing.known_routes import CachedRoute, KnownRoutes
from app.routing.left_out import decoded, log_left_out
from app.routing.mapped_to import MappedTo, Mapper
from app.routing.record_headers import constant_headers, headers_of
from app.routing.removed_filters import RemovedFilters
from app.routing.varying import NOWHERE, Places, places_of

if TYPE_CHECKING:
    from app.core.destination import Destination
    from app.core.message import Header, Message
    from app.mqtt.copies import Copies
    from app.mqtt.properties import PublishProperties
    from app.routing.derived_topics import DerivedTopics

LONGEST_KEPT_PROPERTIES_BYTES = 256  # long ones differ from message to message


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
        self._copies = copies
        self._mapper = Mapper(routes, default_key, destination_of, derived, copies, self.known.forget)
        self._removed = RemovedFilters(copies)
        self._versions = (-1, -1)  # of the subscriptions and of the routes

    async def follow_changes(self) -> None:
        """Forget what rested on subscriptions or routes that have changed since; nothing is routed meanwhile."""
        while self._versions != (versions := (self._copies.generations.version, self._routes.version)):
            await self._copies.prepare()
            await self._removed.look(self._routes.by_filter)
            self.known.forget()
            self._versions = versions

    def look_up(self, message: Message) -> CachedRoute | None:
        """Return what is known of all messages like this one; None: nothing yet."""
        return self.known.find(message)

    def find(self, message: Message) -> CachedRoute:
        """Return what all messages like this one have in common; what is not known is worked out and kept."""
        if known := self.look_up(message):
            return known
        text = topic_text(message.topic)
        matches, removed = self._routes.matches(text), self._removed.matching(text)
        if not topic_problem(message.topic):  # else it is a dead letter
            alike = self.known.like_another(message, (*filters_of(matches), *removed))
            if alike is not None:
                return alike
        return self._work_out(message, matches, removed)

    def mapped(self, topic: bytes) -> MappedTo:
        """Work out where messages go by their topic alone."""
        return self._mapper.by_topic(topic, self._routes.matches(topic_text(topic)))

    def _work_out(self, message: Message, matches: Sequence[Route], removed: tuple[str, ...]) -> CachedRoute:
        """Work out where all messages like this one go, and keep it, unless it was known but for what varies."""
        if message.flags & UNDECODABLE_FLAG:
            return self._undecodable(message)
        properties = decoded(message)
        identifiers = properties.subscription_identifiers
        mapped = self._mapper.by_subscriptions(message.topic, matches, identifiers, self._removed)
        places = places_of(message.properties, properties.expiry_at, mapped.time_property)
        if places != NOWHERE and (known := self.known.of_kind(message, places)):
            return known
        if places.time_at:
            take_out(message, places.time_at)
        route = self._route(message, mapped, properties, (*mapped.filters, *removed), places)
        if _is_long(message):
            message.let_go_of_properties()  # they are headers by now
        elif (
            not properties.left_out and not mapped.resolved.left_out and route.problem != TOO_MANY_KAFKA_TOPICS
        ):  # else each one is counted
            self.known.keep(message.topic, route, mapped.resolved.headers)
            self._note_alike(route, mapped, removed)
        return route

    def _route(
        self,
        message: Message,
        mapped: MappedTo,
        properties: PublishProperties,
        matching: tuple[str, ...],
        places: Places,
    ) -> CachedRoute:
        """Return what messages like this one have in common.

        Args:
            message: The message.
            mapped: Where it goes, by its topic and its subscription identifiers.
            properties: Its properties, decoded.
            matching: The filters by which copies of it may come, also those that were removed.
            places: What of the properties differs from message to message.
        """
        identifiers = properties.subscription_identifiers
        is_copy = properties.is_whole and self._copies.is_to_drop(identifiers, matching)
        if is_copy or mapped.destination is None:
            return _cached(message, mapped._replace(destination=None, problem=""), places=places, is_copy=is_copy)
        if not mapped.problem and not properties.is_whole and self._copies.is_unsure(identifiers, matching):
            mapped = mapped._replace(problem=POSSIBLE_COPY)
        headers, time_place = headers_of(message, mapped, properties, has_time=bool(places.time_at))
        if properties.left_out or mapped.resolved.left_out:
            headers = (*headers, log_left_out(message, mapped, properties))
        if places.expiry_at and _is_long(message):
            headers = (*headers, expiry_header(message, places.expiry_at))
            places = places._replace(expiry_at=0)
        return _cached(message, mapped, headers, time_place, places)

    def _undecodable(self, message: Message) -> CachedRoute:
        """Return what becomes of a packet that could not be decoded: a dead letter of what its topic leads to."""
        mapped = self.mapped(message.topic)
        destination = mapped.destination or self._mapper.nowhere
        where = destination, mapped.route, False, None, constant_headers(message)
        return CachedRoute(message.flags, message.properties, *where, is_copy=False, problem=UNDECODABLE)

    def _note_alike(self, route: CachedRoute, mapped: MappedTo, removed: tuple[str, ...]) -> None:
        """Note that other topics go the same way, if nothing of it was made of the topic.

        A key that equals the topic by chance is not the topic.
        """
        if route.needs_more or mapped.first is None:
            return
        is_keyed_by_topic = mapped.first.key_or(self._default_key).is_whole_topic
        if mapped.first.is_alike_for_all_topics(self._default_key) and route.is_keyed_by_topic == is_keyed_by_topic:
            self.known.note_alike((*mapped.filters, *removed), route)


def _cached(
    message: Message,
    mapped: MappedTo,
    headers: tuple[Header, ...] = (),
    time_place: int = 0,
    places: Places = NOWHERE,
    *,
    is_copy: bool = False,
) -> CachedRoute:
    """Make the route of messages like this one."""
    record_key = mapped.resolved.record_key
    is_keyed_by_topic = record_key == message.topic
    return CachedRoute(
        message.flags,
        message.properties,
        mapped.destination,
        mapped.route,
        is_keyed_by_topic,
        None if is_keyed_by_topic else record_key,
        headers,
        is_copy,
        mapped.problem,
        places,
        mapped.first is not None and mapped.first.makes_tombstones,
        mapped.time_property,
        time_place,
        cost_of_added(None if is_keyed_by_topic else record_key, mapped.resolved.headers),
    )


def _is_long(message: Message) -> bool:
    """Tell whether a message's properties, without a time that was taken out, are not kept."""
    return len(message.properties) > LONGEST_KEPT_PROPERTIES_BYTES
