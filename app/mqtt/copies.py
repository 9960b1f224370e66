"""Which subscription a message came by: the route that it belongs to, and which of its copies to keep.

A broker delivers a copy per matching subscription. The *winning subscription* is the oldest, as only its copy is sure
to exist: a filter that was added later has no copy of what the broker had queued before. Within a generation
(`app.mqtt.generations`), subscriptions are made in the order of precedence. After a drain none is there any more, and
they are made from the oldest to the youngest: the copy to keep comes first.

A filter may be removed, or refused, and come again: then it is younger than those that stayed. What was queued for it
in its first life may have no other copy. A copy may be dropped only if the winning subscription was there when the copy
was made: if its generation is not above that of the copy. What is of unknown age is kept.

A filter that is removed while the worker runs goes on winning until UNSUBSCRIBE is sent for it. Its copies are kept
after that as well: those by other subscriptions of the same messages were dropped before. So a change of filters loses
nothing; where a removed one overlaps with others, it may double what the broker has not sent by then.

All of it runs on the event loop, but for what `Copies.prepare` has worked out in a thread, and changes nothing outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
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
        self._kept: tuple[dict[str, int], tuple[str, ...], dict[int, tuple[int, str]]] = {}, (), {}

    async def prepare(self) -> None:
        """Have ready what the first judgement after a change would hold up the event loop for."""
        if not self.generations.is_shared and not self.generations.are_ages_ready:
            await asyncio.to_thread(self.generations.make_ages_ready)

    def is_to_drop(self, identifiers: Collection[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy is to be dropped, as that by the winning subscription comes as well.

        Args:
            identifiers: All of the copy's subscription identifiers; none from a broker that sends none.
            matching: As for `winning_identifier`.
        """
        if not identifiers or self.winning_identifier(matching) in {0, *identifiers}:
            return False
        return not self.is_older_copy(identifiers, matching)

    def is_unsure(self, identifiers: Collection[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy may be one to drop, if not all of its subscription identifiers were read."""
        return len(matching) > 1 and self.winning_identifier(matching) not in {0, *identifiers}

    def winning_identifier(self, matching: Sequence[str]) -> int:
        """Return the subscription identifier of the copy to keep; 0: all.

        Args:
            matching: The filters that match the message's topic: those of the routes, in the order of precedence, and
                those that were removed.
        """
        sure = self._sure(matching)
        return self.generations.identifiers[min(sure, key=sure.__getitem__)] if sure else 0

    def is_older_copy(self, identifiers: Iterable[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy may have been made before the winning subscription, or when another one won.

        Args:
            identifiers: The copy's subscription identifiers, none of them the winning one.
            matching: As for `winning_identifier`.
        """
        winning, _ = min(self._sure(matching).values(), default=(0, 0))
        return self.generations.age_of(identifiers) < winning or self._came_by_former_winner(identifiers, matching)

    def _came_by_former_winner(self, identifiers: Iterable[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy came by a subscription that won until the routes changed."""
        former = self.generations.former
        carried = [former[identifier] for identifier in identifiers if identifier in former]
        if not carried:
            return False
        # From the last change back: a copy is compared with those that were there at its change, and later.
        names = set(matching)
        changes = [(-each.change, False, each.seniority) for each in former.values() if each.mqtt_filter in names]
        changes += [(-each.change, True, each.seniority) for each in carried]
        oldest = min(self._sure(matching).values())
        for _, is_carried, seniority in sorted(changes):
            if is_carried and seniority <= oldest:
                return True
            if not is_carried:
                oldest = min(oldest, seniority)
        return False

    def _sure(self, matching: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the filters of which the broker has subscriptions of a known generation, with their seniority."""
        there, refused = self.generations.there, self._subscriptions.refused
        return self.generations.seniority([name for name in matching if name in there and name not in refused])

    def filters_of(self, identifiers: Iterable[int]) -> list[str]:
        """Return the filters of the routes, as written, by which a message came; the first in order first."""
        places = self._places()
        found = sorted([places[identifier] for identifier in set(identifiers) if identifier in places])
        return [plain_filter(name) for _, name in found]

    def _places(self) -> dict[int, tuple[int, str]]:
        """Return place and filter by the identifier; kept until there are others, as there may be thousands."""
        ours, filters = self.generations.identifiers, self.generations.filters  # in this order, as they may be replaced
        if self._kept[0] is not ours or self._kept[1] is not filters:
            places = {ours[name]: (place, name) for place, name in enumerate(filters) if name in ours}
            self._kept = ours, filters, places
        return self._kept[2]

    def removed_filters(self, mapped: Collection[str]) -> list[str]:
        """Return the filters, as written in routes, that the session had or has and that are mapped no more.

        Args:
            mapped: The filters of the routes.
        """
        subscriptions, generations = self._subscriptions, self.generations
        had = {*generations.by_filter, *generations.filters, *(subscriptions.remembered or ()), *subscriptions.left}
        return sorted({plain_filter(name) for name in had}.difference(mapped, [LATEST]))

    def lives_of(self, filters: Iterable[str]) -> set[int]:
        """Return the identifiers by which a message shows that it came by one of these filters."""
        return self.generations.lives_of(filters)
