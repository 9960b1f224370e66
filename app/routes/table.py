"""Which routes match a topic: the rules of MQTT 3.1.1 and 5, section 4.7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.routes.filters import has_wildcard
from app.routes.route import Route

MOST_ROUTES = 20_000  # a reload of as many takes a second or two, in which messages flow on


@dataclass(slots=True)
class Node:
    """One level of a trie of wildcard filters; the numbers are places in a list of routes."""

    # Wildcards have places of their own, so that a level named "+" or "#" in a topic cannot be taken for one.
    children: dict[str, Node] = field(default_factory=dict)
    any_level: Node | None = None
    ends_here: int | None = None
    everything_below: int | None = None

    def below(self, level: str) -> Node:
        """Return the node of a level below this one, made if there is none."""
        if level != "+":
            return self.children.setdefault(level, Node())
        self.any_level = self.any_level or Node()
        return self.any_level

    def insert(self, levels: list[str], place: int) -> None:
        """Note the place of a filter below this node, the root."""
        node = self
        with_all_below = levels[-1] == "#"
        for level in levels[:-1] if with_all_below else levels:
            node = node.below(level)
        node.end(place, with_all_below=with_all_below)

    def end(self, place: int, *, with_all_below: bool) -> None:
        """Note that a filter ends here: for this level, or for it and everything below."""
        if with_all_below:
            self.everything_below = place
        else:
            self.ends_here = place


class RouteTable:
    """All routes, in their order of precedence, with look-ups whose cost does not grow with their number.

    Exact filters are found by a dict, wildcard filters by a trie that is walked level by level (no recursion: a filter
    may have 32768 levels).

    Attributes:
        routes: All of them.
        by_filter: The route of each filter.
        by_name: The route of each name.
        version: Changes when they are replaced.
        moved: The names of routes that had another Kafka topic before, or are gone.
        have_limits: One of them has a limit for what it takes of the table.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        """Take the routes in their order of precedence.

        Raises:
            ValueError: Two have the same filter, or the same name.
        """
        self.routes: tuple[Route, ...] = tuple(routes)
        self.by_filter = {route.mqtt_filter: route for route in self.routes}
        self.by_name = {route.name: route for route in self.routes}
        self.version = 0
        self.moved: frozenset[str] = frozenset()
        self.have_limits = any(route.drop_oldest_above_bytes is not None for route in self.routes)
        self._exact: dict[str, int] = {}
        self._root = Node()
        self._deepest = 0
        if len(self.by_filter) < len(self.routes):
            raise ValueError("an MQTT filter is mapped more than once")
        if len(self.by_name) < len(self.routes):
            raise ValueError("two routes have the same name")
        for place, route in enumerate(self.routes):
            if has_wildcard(route.mqtt_filter):
                levels = route.mqtt_filter.split("/")
                self._deepest = max(self._deepest, len(levels))
                self._root.insert(levels, place)
            else:
                self._exact[route.mqtt_filter] = place

    def become(self, other: RouteTable) -> None:
        """Have the routes of another table from now on, as the settings of a running worker have changed."""
        others = other.by_name
        moved = [name for name, route in self.by_name.items() if name not in others or others[name].to != route.to]
        self.moved = self.moved.union(moved)
        self.routes, self.by_filter, self.by_name = other.routes, other.by_filter, other.by_name
        self._exact, self._root = other._exact, other._root
        self._deepest, self.have_limits = other._deepest, other.have_limits
        self.version += 1

    def headers_bytes(self, topic_bytes: int) -> int:
        """Return how much memory the headers of a record take at most, by any route; see `Route.headers_bytes`."""
        return max(route.headers_bytes(topic_bytes) for route in self.routes)

    def kafka_topic_of(self, name: str) -> str | None:
        """Return the Kafka topic that all messages of a route go to; None if there are several, or nobody knows.

        What is behind the last colon of a route that is gone since an earlier start is its Kafka topic.
        """
        if name in self.moved:
            return None
        return self.by_name[name].kafka_topic if name in self.by_name else name.rpartition(":")[2]

    def matches(self, topic: str) -> list[Route]:
        """All routes that match the topic, the one that wins first."""
        # What is below the deepest filter stays in one piece: a topic may have 65,536 levels.
        places = self._wildcard_places(topic.split("/", self._deepest + 1))
        if (exact := self._exact.get(topic)) is not None:
            places.append(exact)
        return [self.routes[place] for place in sorted(places)]

    def _wildcard_places(self, levels: list[str]) -> list[int]:
        nodes = [self._root]
        # Topics that start with "$" belong to the broker: wildcards at the first level leave them out [MQTT-4.7.2-1].
        wildcards_count = not levels[0].startswith("$")
        places: list[int | None] = []
        for level in levels:
            if wildcards_count:
                places += [node.everything_below for node in nodes]
            nodes = _descend(nodes, level, wildcards_count)
            if not nodes:
                break
            wildcards_count = True
        for node in nodes:
            # "a/#" matches "a" too.
            places += [node.ends_here, node.everything_below]
        return [place for place in places if place is not None]


def _descend(nodes: list[Node], level: str, wildcards_count: bool) -> list[Node]:
    literal = [child for node in nodes if (child := node.children.get(level)) is not None]
    if not wildcards_count:
        return literal
    return literal + [node.any_level for node in nodes if node.any_level is not None]
