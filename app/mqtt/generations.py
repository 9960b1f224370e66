"""How old the subscriptions are: their generations, and the subscription identifiers that tell them.

A broker delivers a copy of a message for each matching subscription, with the subscription's identifier. Which copy is
kept depends on the age of the subscriptions (`app.mqtt.copies`). So the identifier stands for the filter *and* for the
generation in which it was subscribed to: a filter that is removed or refused, and comes again, is of a new generation,
with another identifier. The generation of each subscription is remembered, also of those that were removed since, as
copies of theirs may still be queued at the broker.

The MQTT thread changes this, the event loop reads it: dictionaries are replaced, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from app.routes import subscription_identifiers

KNOWN_AGES = 50  # generations of a filter that are told apart; what is older counts as older than all

LATEST = ""  # no filter: under it stands the last generation that was begun, so that no number is used twice


class Generations:
    """When each filter was subscribed to.

    Attributes:
        is_shared: The subscriptions are shared with other workers, which only MQTT 5 has.
        filters: The topic filters of the mappings, in the order of precedence.
        by_filter: The generation of each subscription, by filter; also of removed ones, until the session is lost. A
            filter is missing while that is unknown.
        identifiers: The subscription identifier of each filter.
        version: Changes with everything that the router's answers rest on, which keeps them.
    """

    is_shared: ClassVar[bool] = False

    def __init__(self, filters: Sequence[str], identifiers: Mapping[str, int]) -> None:
        """Begin with subscriptions of which nothing is known.

        Args:
            filters: The topic filters of the mappings, in the order of precedence.
            identifiers: Those of their first generation.
        """
        self.filters = tuple(filters)
        self.by_filter: dict[str, int] = {}
        self.identifiers = dict(identifiers)
        self.version = 0
        self._first = dict(identifiers)
        self._ages: tuple[dict[str, int], dict[str, int], dict[int, int]] | None = None

    def replace(self, by_filter: dict[str, int]) -> None:
        """Have other generations, as they are in the table, or of a new session."""
        self.by_filter = by_filter
        self.identify()
        self.touch()

    def touch(self) -> None:
        """Have the router forget the answers that it keeps."""
        self.version += 1

    def begin(self, filters: Sequence[str]) -> list[str]:
        """Begin a generation with these filters; return those that have another identifier by that."""
        if filters:
            self.replace({**self.by_filter, **dict.fromkeys(filters, self._latest() + 1)})
        return list(filters)

    def identify(self) -> None:
        """Make the identifiers of the generations that there are."""
        later = {name: age for name in self.filters if (age := self.by_filter.get(name, 1)) > 1}
        self.identifiers = {**self._first, **{name: identifier_of(name, age) for name, age in later.items()}}

    def known_filters(self) -> set[str]:
        """Return the filters with a known generation, mapped or not."""
        return set(self.by_filter).difference([LATEST])

    def without(self, filters: Iterable[str]) -> dict[str, int]:
        """Return the generations of all others, and the number of the last one."""
        gone = set(filters)
        sure = {name: age for name, age in self.by_filter.items() if name not in gone}
        return {**sure, LATEST: self._latest()}

    def age_of(self, identifiers: Iterable[int]) -> int:
        """Return the generation of the youngest of some identifiers; 0 if all are unknown (event loop)."""
        ages = self._known()
        return max((ages.get(identifier, 0) for identifier in identifiers), default=0)

    def lives_of(self, filters: Iterable[str]) -> set[int]:
        """Return the identifiers that filters had in any generation that is told apart."""
        lives = ((name, age) for name in filters for age in _told_apart(self.by_filter.get(name, 1)))
        return {identifier_of(*life) for life in lives}

    def _latest(self) -> int:
        return max(self.by_filter.values(), default=0)

    def _known(self) -> dict[int, int]:
        """Return the generation that each identifier stands for; the answer is kept until there are others."""
        by_filter, identifiers = self.by_filter, self.identifiers
        if self._ages is None or self._ages[0] is not by_filter or self._ages[1] is not identifiers:
            ages = {identifier_of(name, age): age for name, last in by_filter.items() for age in _told_apart(last)}
            ages |= dict.fromkeys(self._first.values(), 1)
            ages |= {number: by_filter.get(name, 0) for name, number in identifiers.items()}
            self._ages = by_filter, identifiers, ages
        return self._ages[2]


def _told_apart(last: int) -> tuple[int, ...]:
    return (1, *range(max(2, last - KNOWN_AGES), last + 1))


def identifier_of(topic_filter: str, generation: int) -> int:
    """Return the identifier of a subscription; that of the first generation is the filter's alone."""
    text = topic_filter if generation == 1 else f"{topic_filter}\0{generation}"
    return subscription_identifiers([text])[text]
