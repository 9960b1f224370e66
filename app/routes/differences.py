"""What is new in other routes: which are added, removed and changed, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.routes.route import Route


class Differences(NamedTuple):
    """What differs between two lists of routes.

    Attributes:
        added: The names that are new.
        removed: The names that are gone.
        changed: The names of which anything else is new.
        are_moved: Those that stay are in another order.
    """

    added: list[str]
    removed: list[str]
    changed: list[str]
    are_moved: bool

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed or self.are_moved)


def differences(before: Sequence[Route], after: Sequence[Route]) -> Differences:
    """Return what is new; the names are in the order of the list that they are taken from."""
    old, new = ({route.name: route for route in routes} for routes in (before, after))
    return Differences(
        added=[name for name in new if name not in old],
        removed=[name for name in old if name not in new],
        changed=[name for name, route in new.items() if name in old and route != old[name]],
        are_moved=[name for name in old if name in new] != [name for name in new if name in old],
    )
