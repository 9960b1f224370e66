"""Which subscription a message came by: the mapping that it belongs to, and which of its copies to keep.

A broker delivers a copy per matching subscription. The *winning subscription* is the oldest, as only its copy is sure
to exist: a filter that was added later has no copy of what the broker had queued before. Within a generation
(`app.mqtt.generations`), subscriptions are made in the order of precedence. After a drain none is there any more, and
they are made from the oldest to the youngest: the copy to keep comes first.

A filter may be removed, or refused, and come again: then it is younger than those that stayed. What was queued for it
in its first life may have no other copy. A copy may be dropped only if the winning subscription was there when the copy
was made: if its generation is not above that of the copy. What is of unknown age is kept.

All of it runs on the event loop, and changes nothing outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from app.mqtt.generations import LATEST
from app.routes import plain_filter

if TYPE_CHECKING:
    from app.mqtt.subscriptions import Subscriptions


class Copies:
    """Judges the copies of messages, by the subscriptions that they came by.

    Attributes:
        generations: How old the subscriptions are; its `version` changes with the answers, which the router keeps.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        """Look at subscriptions, which the MQTT thread changes."""
        self._subscriptions = subscriptions
        self.generations = subscriptions.generations
        self._kept: tuple[dict[str, int] | None, dict[int, int]] = None, {}

    def winning_identifier(self, matching: Sequence[str]) -> int:
        """Return the subscription identifier of the copy to keep; 0: all.

        Args:
            matching: The filters of the mappings that match the message's topic, in the order of precedence.
        """
        sure, by_filter = self._sure(matching), self.generations.by_filter
        return self.generations.identifiers[min(sure, key=by_filter.__getitem__)] if sure else 0

    def is_older_copy(self, identifiers: Iterable[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy may have been made before the winning subscription.

        Args:
            identifiers: The copy's subscription identifiers, none of them the winning one.
            matching: As for `winning_identifier`.
        """
        by_filter = self.generations.by_filter
        winning = min((by_filter[name] for name in self._sure(matching)), default=0)
        return self.generations.age_of(identifiers) < winning

    def _sure(self, matching: Sequence[str]) -> list[str]:
        """Return the filters of which the broker has subscriptions of a known generation."""
        by_filter, refused = self.generations.by_filter, self._subscriptions.refused
        return [name for name in matching if name in by_filter and name not in refused]

    def filters_of(self, identifiers: Iterable[int]) -> list[str]:
        """Return the filters of the mappings, as written, by which a message came; the first in order first."""
        places = self._places()
        found = sorted([places[identifier] for identifier in set(identifiers) if identifier in places])
        return [plain_filter(self.generations.filters[place]) for place in found]

    def _places(self) -> dict[int, int]:
        """Return the place of the filter of each identifier; kept until there are others, as there may be thousands."""
        ours = self.generations.identifiers
        if self._kept[0] is not ours:
            self._kept = ours, {ours[name]: place for place, name in enumerate(self.generations.filters)}
        return self._kept[1]

    def removed_filters(self) -> list[str]:
        """Return the filters, as written in mappings, that the session had and that are mapped no more."""
        subscriptions = self._subscriptions
        had = {*self.generations.by_filter, *(subscriptions.remembered or ()), *subscriptions.left}
        mapped = {plain_filter(name) for name in self.generations.filters}
        return sorted({plain_filter(name) for name in had} - mapped - {LATEST})

    def came_by_removed(self, identifiers: Iterable[int]) -> bool:
        """Tell whether a message came by a subscription that we removed."""
        return not self.generations.lives_of(self.removed_filters()).isdisjoint(identifiers)
