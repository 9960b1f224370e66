"""Which subscription a message came by: the mapping that it belongs to, and which of its copies to keep.

A broker delivers a copy per matching subscription. Kept is that of the subscription which is *oldest*, as only its copy
is sure to exist: a filter that was added later has no copy of what the broker had queued before. So the generation of
each subscription is remembered, also of those that were removed since, as copies of theirs may still be queued. Within
a generation, subscriptions are made in the order of precedence. After a drain none is there any more, and they are made
from the oldest to the youngest: the copy to keep comes first.

A filter may be removed, or refused, and come again: then it is younger than those that stayed. What was queued for it
in its first life may have no other copy. So the identifier of a subscription stands for the filter *and* its
generation, and tells the age of each copy. A copy may be dropped only if the one to keep is of a subscription that was
there when the copy was made: whose generation is not above that of the copy. What is of unknown age is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.routes import plain_filter, subscription_identifiers

KNOWN_AGES = 50  # generations of a filter that are told apart; what is older is taken for older than all

LATEST = ""  # no filter: under it stands the last generation that was begun, so that no number is used twice


class Copies:
    """The part of `Session` that judges copies: it adds no state, and the fields below are described there."""

    filters: tuple[str, ...]
    identifiers: dict[str, int]
    remembered: frozenset[str] | None
    generations: dict[str, int]
    left: frozenset[str]
    refused: dict[str, str]
    _first: dict[str, int]  # the identifiers of the first generation
    _aged: tuple[dict[str, int], dict[str, int], dict[int, int]] | None

    def identify(self) -> None:
        """Make the identifiers of the generations that there are; what was taken from the settings is the first one."""
        if not self._first:
            self._first = self.identifiers
        later = {name: age for name in self.filters if (age := self.generations.get(name, 1)) > 1}
        self.identifiers = {**self._first, **{name: identifier_of(name, age) for name, age in later.items()}}

    def copy_to_keep(self, matching: Sequence[str]) -> int:
        """Return the subscription identifier of the copy to keep; 0: all (event loop).

        Args:
            matching: The filters of the mappings that match the message's topic, in the order of precedence.
        """
        sure = self._sure(matching)
        return self.identifiers[min(sure, key=self.generations.__getitem__)] if sure else 0

    def is_older_copy(self, identifiers: Iterable[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy may have been made before the subscription whose copy is kept (event loop).

        Args:
            identifiers: The copy's subscription identifiers, none of them the one to keep.
            matching: As for `copy_to_keep`.
        """
        kept = min((self.generations[name] for name in self._sure(matching)), default=0)
        ages = self._ages()
        return max((ages.get(identifier, 0) for identifier in identifiers), default=0) < kept

    def _sure(self, matching: Sequence[str]) -> list[str]:
        """Return the filters of which the broker has subscriptions of a known generation."""
        generations = self.generations
        return [name for name in matching if name in generations and name not in self.refused]

    def _ages(self) -> dict[int, int]:
        """Return the generation that each identifier stands for; the answer is kept until there are others."""
        generations, identifiers = self.generations, self.identifiers
        if self._aged is None or self._aged[0] is not generations or self._aged[1] is not identifiers:
            ages = {identifier_of(name, age): age for name, last in generations.items() for age in _known_ages(last)}
            ages |= dict.fromkeys(self._first.values(), 1)
            ages |= {number: generations.get(name, 0) for name, number in identifiers.items()}
            self._aged = generations, identifiers, ages
        return self._aged[2]

    def generations_without(self, filters: Iterable[str]) -> dict[str, int]:
        """Return the generations of what the broker has for sure while it is asked to give up filters."""
        gone = {*filters, *self.refused}
        sure = {name: age for name, age in self.generations.items() if name not in gone}
        return {**sure, LATEST: max(self.generations.values(), default=0)}

    def filters_of(self, identifiers: Iterable[int]) -> list[str]:
        """Return the filters of the mappings, as written, by which a message came; the first in order first."""
        found = set(identifiers)
        return [plain_filter(name) for name in self.filters if self.identifiers[name] in found]

    def removed_filters(self) -> list[str]:
        """Return the filters, as written in mappings, that the session had and that are mapped no more."""
        had = {plain_filter(name) for name in (*self.generations, *(self.remembered or ()), *self.left)}
        had.discard(LATEST)
        return sorted(had.difference(plain_filter(name) for name in self.filters))

    def came_by_removed(self, identifiers: Iterable[int]) -> bool:
        """Tell whether a message came by a subscription that we removed."""
        removed = self.removed_filters()
        lives = ((name, age) for name in removed for age in _known_ages(self.generations.get(name, 1)))
        return not {identifier_of(*life) for life in lives}.isdisjoint(identifiers)


def _known_ages(last: int) -> tuple[int, ...]:
    return (1, *range(max(2, last - KNOWN_AGES), last + 1))


def identifier_of(topic_filter: str, generation: int) -> int:
    """Return the identifier of a subscription; that of the first generation is the filter's alone."""
    text = topic_filter if generation == 1 else f"{topic_filter}\0{generation}"
    return subscription_identifiers([text])[text]
