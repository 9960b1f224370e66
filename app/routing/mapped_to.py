"""Which route the messages of an MQTT topic belong to, and which Kafka topic is theirs while this worker runs.

A message belongs to the route that its MQTT topic matches. Some brokers deliver under another topic than the one that
was subscribed to: they turn dots into slashes, or have rewriting rules. So a message that has the subscription
identifiers of routes that its topic does not match, and of no other, belongs to the first of these. A message that
belongs to no route, and not to a filter that was removed either, is a dead letter: somebody should look at it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from app.kafka.outcomes import TOO_MANY_KAFKA_TOPICS
from app.metrics import UNMAPPED
from app.routes import Resolved, Route, RouteTable, Template, filters_of, resolve_by, topic_text
from app.routing.overlaps import Overlaps

if TYPE_CHECKING:
    from app.core.destination import Destination
    from app.mqtt.copies import Copies
    from app.routing.derived_topics import DerivedTopics
    from app.routing.removed_filters import RemovedFilters

log = logging.getLogger(__name__)


class MappedTo(NamedTuple):
    """Where the messages of one MQTT topic go: what the rules say, and what this worker has for it.

    Attributes:
        resolved: What the rules say.
        destination: The Kafka topic; None if they are dropped, one without a name if there is no Kafka topic for them.
        problem: Why they become dead letters, by the rules or as this worker has no room; empty if they do not.
    """

    resolved: Resolved
    destination: Destination | None
    problem: str

    @property
    def first(self) -> Route | None:
        """The route that they belong to; None: to none."""
        return self.resolved.matches[0] if self.resolved.matches else None

    @property
    def route(self) -> str:
        """The name of that route, the label of their metrics."""
        return self.first.name if self.first else UNMAPPED

    @property
    def header_names(self) -> frozenset[str]:
        """The names of the headers that it adds, or leaves out."""
        return self.first.header_names if self.first else frozenset()

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters of all routes that they belong to, in the order of precedence."""
        return filters_of(self.resolved.matches)

    @property
    def time_property(self) -> bytes:
        """The user property that has the record's time; empty: the time of receipt."""
        return self.first.time_property if self.first else b""


class Mapper:
    """Maps MQTT topics to Kafka topics; on the event loop."""

    def __init__(
        self,
        routes: RouteTable,
        default_key: Template,
        destination_of: Callable[[str], Destination],
        derived: DerivedTopics,
        copies: Copies,
        forget: Callable[[], None],
    ) -> None:
        """Make a mapper.

        Args:
            routes: All routes.
            default_key: RECORD_KEY, for routes without a key of their own.
            destination_of: Returns the destination that a Kafka topic is.
            derived: The Kafka topics that are made from MQTT topics.
            copies: Knows which subscriptions a message came by.
            forget: Forgets the destinations that are only kept.
        """
        self.nowhere = destination_of("")  # of what has no Kafka topic
        self._routes = routes
        self._default_key = default_key
        self._destination_of = destination_of
        self._derived = derived
        self._copies = copies
        self._forget = forget
        self._overlaps = Overlaps()

    def by_topic(self, topic: bytes, matches: Sequence[Route]) -> MappedTo:
        """Return where messages go by the routes that their topic matches."""
        if len(matches) > 1:
            self._overlaps.log(topic, matches)
        return self._mapped_to(topic, matches)

    def by_subscriptions(
        self, topic: bytes, matches: Sequence[Route], identifiers: tuple[int, ...], removed: RemovedFilters
    ) -> MappedTo:
        """Return where messages go by the routes that their topic matches, and by the subscriptions they came by."""
        mapped = self.by_topic(topic, matches)
        carried = self._copies.filters_of(identifiers) if identifiers else []
        carried = [name for name in carried if name in self._routes.by_filter]  # others were just removed
        if carried and not set(carried).intersection(mapped.filters):
            return self._mapped_to(topic, [self._routes.by_filter[name] for name in carried])
        if mapped.destination is None and not removed.brought(topic_text(topic), identifiers):
            return mapped._replace(destination=self.nowhere, problem=UNMAPPED)
        return mapped

    def _mapped_to(self, topic: bytes, matches: Sequence[Route]) -> MappedTo:
        """Return where messages of a topic go, and note a Kafka topic that was not in use yet."""
        resolved = resolve_by(matches, topic, self._default_key)
        if not resolved.matches:
            log.debug("no route matches the MQTT topic %r", topic)
            return MappedTo(resolved, None, "")
        problem = resolved.problem
        is_derived = resolved.matches[0].kafka_topic is None
        if not problem and is_derived and not self._derived.admit(resolved.kafka_topic, self._forget):
            problem = TOO_MANY_KAFKA_TOPICS
        has_topic = resolved.kafka_topic and problem != TOO_MANY_KAFKA_TOPICS
        destination = self._destination_of(resolved.kafka_topic) if has_topic else self.nowhere
        if is_derived and has_topic:
            self._derived.note(destination, resolved.captured)
        return MappedTo(resolved, destination, problem)
