"""What is kept of MQTT topics: one small entry each, as there may be hundreds of thousands, and a message needs one.

Nearly all messages of a topic have the same flags and properties, so the topic alone is the key. What it leads to is
shared by all topics that have it in common: with the record key `{topic}`, by all topics of a route. A topic with
several flags or properties has those of its latest new kind there, and the earlier ones among the others.

A topic that is new is most often one of many that match the same filters, removed ones included. Where nothing is made
of the topic but a record key that is the topic, what one of them leads to is known to be that of all, for the same
flags and properties.

Everything is forgotten before it becomes too much: to work one out anew costs as much as ten messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.bounds import cost_of_properties
from app.routing.varying import NOWHERE, Places, common_part, find_time, without_time

if TYPE_CHECKING:
    from app.core.destination import Destination
    from app.core.message import Header, Message

KEPT_BYTES = 48 * 1024 * 1024  # of 350,000 short topics; 60,000 if each has a route of its own
# Measured (tests/unit/test_known_routes.py), without the texts: a topic may have 65,535 bytes.
TOPIC_BYTES = 120  # the topic and its place in the dictionary
OTHER_BYTES = 240  # the same for a topic with flags and properties
ROUTE_BYTES = 400  # with its headers, record key and properties
ALIKE_BYTES = 300  # that topics of the same filters lead there too; 8 for each filter on top
HEADER_BYTES = 120  # a header that the route adds, without its value


@dataclass(frozen=True, slots=True)
class CachedRoute:
    """What messages of the same flags and properties, and of topics that go the same way, have in common.

    Attributes:
        flags: Those of the messages.
        properties: Those of one of the messages, as they came, but without the value of the record's time.
        destination: The Kafka topic; None if they are dropped, one without a name if there is no Kafka topic for them.
        route: The route's name.
        is_keyed_by_topic: The record's key is the MQTT topic.
        record_key: The record's key, if it is not.
        headers: All headers but `connector-id` and `mqtt-topic`.
        is_copy: They are further copies of messages, to be dropped.
        problem: Why they become dead letters; empty if they do not.
        places: Where those of the properties are that differ from message to message.
        makes_tombstones: An empty payload becomes a record whose value is null.
        time_property: The user property that has the record's time, as it comes; empty: the time of receipt.
        time_place: Which of the headers has its value, which differs from message to message; 0: none.
        more_bytes: What a message counts for in addition, as much was made of its topic.
        needs_more: Their records need more than these have in common (`app.routing.completing`), or none is made.
        common_part: What their properties have in common (`app.routing.varying`).
    """

    flags: int
    properties: bytes
    destination: Destination | None
    route: str
    is_keyed_by_topic: bool
    record_key: bytes | None
    headers: tuple[Header, ...]
    is_copy: bool
    problem: str
    places: Places = NOWHERE
    makes_tombstones: bool = False
    time_property: bytes = b""
    time_place: int = 0
    more_bytes: int = 0
    needs_more: bool = field(init=False, compare=False)
    common_part: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Tell once for all of them what the router would ask for each."""
        varies = self.places.expiry_at or self.makes_tombstones or self.time_property
        needs_more = bool(self.problem or varies or self.more_bytes)
        object.__setattr__(self, "needs_more", needs_more)
        object.__setattr__(self, "common_part", common_part(self.properties, self.places))

    @property
    def expiry_at(self) -> int:
        """Where the expiry of each message is among its properties; 0: they have none."""
        return self.places.expiry_at

    @property
    def time_at(self) -> int:
        """Where the length of the value of the record's time is among the properties; 0: they have none."""
        return self.places.time_at


class KnownRoutes:
    """The routes that are kept; on the event loop.

    Attributes:
        by_topic: The route of the latest new kind of each MQTT topic; always the same dictionary.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.by_topic: dict[bytes, CachedRoute] = {}
        self._others: dict[tuple[bytes, int, bytes], CachedRoute] = {}
        self._shared: dict[CachedRoute, CachedRoute] = {}
        self._alike: dict[tuple[tuple[str, ...], int, bytes], CachedRoute] = {}
        self._kept_bytes = 0

    def forget(self) -> None:
        """Forget everything."""
        self.by_topic.clear()  # not replaced: a batch may be on its way through it
        self._others.clear()
        self._shared.clear()
        self._alike.clear()
        self._kept_bytes = 0

    def find(self, message: Message) -> CachedRoute | None:
        """Return the route of a message; None: it is not known, or only with the places of what varies.

        The subscription identifiers may decide which route a message belongs to, and the route decides which property
        has the time. So what is found without the value of that property counts only if it was kept without that value;
        else it is of messages in which the property is empty and means nothing.
        """
        latest = self.by_topic.get(message.topic)
        if latest is None:
            return None
        if latest.flags == message.flags and latest.common_part == common_part(message.properties, latest.places):
            return latest
        if latest.time_property and (time_at := find_time(message.properties, latest.time_property)):
            found = self._others.get((message.topic, message.flags, without_time(message.properties, time_at)))
            if found is not None and found.time_at == time_at:
                return found
        return self._others.get((message.topic, message.flags, message.properties))

    def of_kind(self, message: Message, places: Places) -> CachedRoute | None:
        """Return the route of a message of which it is known where its properties vary; None: it is new."""
        common = common_part(message.properties, places)
        latest = self.by_topic.get(message.topic)
        if latest is not None and (latest.flags, latest.common_part) == (message.flags, common):
            return latest
        return self._others.get((message.topic, message.flags, common))

    def like_another(self, message: Message, filters: tuple[str, ...]) -> CachedRoute | None:
        """Return where another topic of the same filters led, and keep that; None: it is to be worked out.

        Args:
            message: The message.
            filters: Those of all routes that match its topic, in the order of precedence, and removed ones that do.
        """
        route = self._alike.get((filters, message.flags, message.properties))
        if route is not None:
            self.keep(message.topic, route)
        return route

    def note_alike(self, filters: tuple[str, ...], route: CachedRoute) -> None:
        """Note that topics that match these filters and no others lead there, with the same flags and properties."""
        route = self._shared.get(route, route)  # else each set of filters would keep properties and headers of its own
        if (kind := (filters, route.flags, route.properties)) not in self._alike:
            self._kept_bytes += ALIKE_BYTES + 8 * len(filters)
            self._alike[kind] = route

    def keep(self, topic: bytes, route: CachedRoute, added: tuple[Header, ...] = ()) -> None:
        """Keep the route of a new kind of message; `added` are the headers that come from the settings."""
        self._make_room(topic, route, added)
        earlier = self.by_topic.get(topic)
        if earlier is not None:
            self._others[topic, earlier.flags, earlier.common_part] = earlier
        self.by_topic[topic] = self._shared.setdefault(route, route)

    def _make_room(self, topic: bytes, route: CachedRoute, added: tuple[Header, ...]) -> None:
        """Count what is about to be kept; forget everything before it becomes too much."""
        size_bytes = len(topic) + (OTHER_BYTES if topic in self.by_topic else TOPIC_BYTES)
        if route not in self._shared:
            size_bytes += ROUTE_BYTES + len(route.record_key or b"") + cost_of_properties(route.properties)
            size_bytes += sum([HEADER_BYTES + len(value) for _, value in added])
        if self._kept_bytes + size_bytes > KEPT_BYTES:
            self.forget()
        self._kept_bytes += size_bytes
