"""Routes that can never match, as a route before them takes all that they could get.

Exact filters come before all others, and no two are the same, so only filters with wildcards can be hidden, and only by
such ones. What is hidden in part, or by several together, is not found: that is how exceptions are written. Filters
that overlap as much as they may are compared up to a bound, and what would be found beyond it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.routes.filters import has_wildcard
from app.routes.route import Route
from app.routes.table import Node

MOST_COMPARED = 2_000_000  # levels of filters, in one or two seconds; of usual routes some ten for each


class Shadowed(NamedTuple):
    """A route that never gets a message.

    Attributes:
        route: The route.
        by: The one before it that matches everything that it matches.
    """

    route: Route
    by: Route

    @property
    def why(self) -> str:
        """What is wrong, as a part of a sentence."""
        return (
            f"the route {self.route.name} ({self.route.mqtt_filter}) never gets a message, as {self.by.name} "
            f"({self.by.mqtt_filter}) stands before it and matches all of them"
        )

    @property
    def advice(self) -> str:
        """What to do about it, as a sentence."""
        return f"Put {self.route.name} before {self.by.name}, or remove it."

    @property
    def text(self) -> str:
        """Both, for a warning."""
        return f"{self.why}: put it before that one, or remove it"


def shadowed(routes: Sequence[Route]) -> list[Shadowed]:
    """Return the routes that can never match.

    Args:
        routes: All of them, in their order of precedence.
    """
    earlier, found, compared = Node(), [], 0
    for place, route in enumerate(routes):
        if not has_wildcard(route.mqtt_filter):
            continue
        levels = route.mqtt_filter.split("/")
        places = list(_places_of_covering(earlier, levels))
        if covering := [place for place in places if place is not None]:
            found.append(Shadowed(route, routes[min(covering)]))
        compared += len(places)
        if compared > MOST_COMPARED:
            break
        earlier.insert(levels, place)
    return found


def _places_of_covering(earlier: Node, levels: list[str]) -> Iterator[int | None]:
    """Iterate over the places of filters that match every topic which these levels match; None where there is none."""
    # No recursion: a filter may have 32768 levels. What is looked at is a tree, so it ends.
    to_look_at = [(earlier, 0)]
    while to_look_at:
        node, depth = to_look_at.pop()
        # Wildcards at the first level leave out topics that begin with "$" [MQTT-4.7.2-1].
        wildcards_count = depth > 0 or not levels[0].startswith("$")
        if wildcards_count:
            yield node.everything_below
        if depth == len(levels):
            yield node.ends_here
            continue
        level = levels[depth]
        if level == "#":
            # "#" alone matches what "+/#" matches, as a topic has at least one level; further down it matches more.
            if depth == 0 and node.any_level is not None:
                yield node.any_level.everything_below
            continue
        if wildcards_count and node.any_level is not None:
            to_look_at.append((node.any_level, depth + 1))
        if level != "+" and level in node.children:
            to_look_at.append((node.children[level], depth + 1))
