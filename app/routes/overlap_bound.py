"""How much filters may overlap: how many levels of them one MQTT topic has to be compared with.

A topic is compared with all filters at the same time, level by level, with those that match so far. Of routes that are
written for a purpose these are a few. But 200 filters of 2,000 levels, all of which match the same topic, are 400,000
comparisons, and all other messages wait meanwhile: a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.routes.filters import has_wildcard
from app.routes.route import Route
from app.routes.table import Node

# As many as one filter may have. Where all of them match, to find the route of a new topic takes some 20 milliseconds.
MOST_COMPARED_LEVELS = 32_768
_SHOWN_CHARACTERS = 60


def check_overlaps(routes: Sequence[Route]) -> None:
    """Check that no MQTT topic has to be compared with too much.

    Raises:
        ValueError: with a sentence that says with how much, and names the deepest filter.
    """
    filters = [route.mqtt_filter for route in routes if has_wildcard(route.mqtt_filter)]
    if sum(name.count("/") + 1 for name in filters) <= MOST_COMPARED_LEVELS:
        return
    levels = compared_levels(filters)
    if levels > MOST_COMPARED_LEVELS:
        deepest = max(filters, key=lambda name: name.count("/"))
        raise ValueError(
            f"the filters overlap too much: one MQTT topic may have to be compared with {levels} levels of them, at "
            f"most {MOST_COMPARED_LEVELS} are allowed, as all messages wait meanwhile; have fewer filters that match "
            f"the same topic, or fewer levels in them (the most has {deepest[:_SHOWN_CHARACTERS]!r}"
            f"{'...' if len(deepest) > _SHOWN_CHARACTERS else ''}, {deepest.count('/') + 1})"
        )


def compared_levels(filters: Sequence[str]) -> int:
    """Return with how many levels of filters a topic is compared at most; a bound that no topic exceeds.

    Below a level of a filter, a topic goes on with one of the levels that are written out, and with the +.
    """
    root = Node()
    for place, name in enumerate(filters):
        root.insert(name.split("/"), place)
    below: dict[int, int] = {}  # by the identity of a node
    to_look_at = [root]
    for node in to_look_at:  # no recursion: a filter may have 32768 levels
        to_look_at += node.children.values()
        to_look_at += [node.any_level] if node.any_level else []
    for node in reversed(to_look_at):
        written = max((below[id(child)] for child in node.children.values()), default=0)
        below[id(node)] = 1 + written + (below[id(node.any_level)] if node.any_level else 0)
    return below[id(root)] - 1
