"""Which routes match a topic: the rules of MQTT 3.1.1 and 5, section 4.7."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.routes.filters import has_wildcard
from app.routes.route import Route


@dataclass(slots=True)
class _Node:
    """One level of the trie of wildcard filters; the numbers are places in `RouteTable.routes`."""

    # Wildcards have places of their own, so that a level named "+" or "#" in a topic cannot be taken for one.
    children: dict[str, "_Node"] = field(default_factory=dict)
    any_level: "_Node | None" = None
    ends_here: int | None = None
    everything_below: int | None = None

    def below(self, level: str) -> "_Node":
        """Return the node of a level below this one, made if there is none."""
        if level != "+":
            return self.children.setdefault(level, _Node())
        self.any_level = self.any_level or _Node()
        return self.any_level

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
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        """Take the routes in their order of precedence.

        Raises:
            ValueError: Two have the same filter.
        """
        self.routes: tuple[Route, ...] = tuple(routes)
        self.by_filter = {route.mqtt_filter: route for route in self.routes}
        self.by_name = {route.name: route for route in self.routes}
        self._exact: dict[str, int] = {}
        self._root = _Node()
        self._deepest = 0
        if len(self.by_filter) < len(self.routes):
            raise ValueError("an MQTT filter is mapped more than once")
        for place, route in enumerate(self.routes):
            if has_wildcard(route.mqtt_filter):
                self._insert(route.mqtt_filter.split("/"), place)
            else:
                self._exact[route.mqtt_filter] = place

    def matches(self, topic: str) -> list[Route]:
        """All routes that match the topic, the one that wins first."""
        # What is below the deepest filter stays in one piece: a topic may have 65,536 levels.
        places = self._wildcard_places(topic.split("/", self._deepest + 1))
        if (exact := self._exact.get(topic)) is not None:
            places.append(exact)
        return [self.routes[place] for place in sorted(places)]

    def _insert(self, levels: list[str], place: int) -> None:
        node = self._root
        self._deepest = max(self._deepest, len(levels))
        with_all_below = levels[-1] == "#"
        for level in levels[:-1] if with_all_below else levels:
            node = node.below(level)
        node.end(place, with_all_below=with_all_below)

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


def _descend(nodes: list[_Node], level: str, wildcards_count: bool) -> list[_Node]:
    literal = [child for node in nodes if (child := node.children.get(level)) is not None]
    if not wildcards_count:
        return literal
    return literal + [node.any_level for node in nodes if node.any_level is not None]
