"""How old the subscriptions are: their generations, and the subscription identifiers that tell them.

A broker delivers a copy of a message for each matching subscription, with the subscription's identifier. Which copy is
kept depends on the age of the subscriptions (`app.mqtt.copies`). So the identifier stands for the filter *and* for the
generation in which it was subscribed to: a filter that is removed or refused, and comes again, is of a new generation,
with another identifier. The generation of each subscription is remembered, also of those that were removed since, as
copies of theirs may still be queued at the broker.

When the routes of a running worker change, so do the filters. A filter that is removed stays *there* until UNSUBSCRIBE
is sent for it: until then its copies are sure to be made, and it may be the oldest of all. Its age is known after that
as well (`Former`), as copies of it may be on their way, and copies by younger subscriptions were dropped for them.

The MQTT thread changes this, the event loop reads it: dictionaries are replaced, never changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from app.routes import subscription_identifiers

KNOWN_AGES = 50  # generations of a filter that are told apart; what is older counts as older than all

FEW_FILTERS = 200  # of which what `age_of` rests on is worked out in 20 ms at most

LATEST = ""  # no filter: under it stands the last generation that was begun, so that no number is used twice


class Former(NamedTuple):
    """The subscription of a filter that was removed while the worker ran.

    Attributes:
        mqtt_filter: The filter.
        seniority: Its generation, and its rank.
        change: The number of the change that removed it.
    """

    mqtt_filter: str
    seniority: tuple[int, int]
    change: int


class Generations:
    """When each filter was subscribed to.

    Attributes:
        is_shared: The subscriptions are shared with other workers, which only MQTT 5 has.
        filters: The topic filters of the routes, in the order of precedence.
        by_filter: The generation of each subscription, by filter; also of removed ones, until the session is lost. A
            filter is missing while that is unknown.
        identifiers: The subscription identifier of each filter, removed ones included.
        rank: Which of several filters of a generation was subscribed to first, by a number; a filter keeps it.
        there: The filters whose copies the broker makes for all that was asked of it.
        former: The subscriptions that were removed while the worker ran, by their identifiers.
        version: Changes with everything that the router's answers rest on, which keeps them.
    """

    is_shared: ClassVar[bool] = False

    def __init__(self, filters: Sequence[str], identifiers: Mapping[str, int]) -> None:
        """Begin with subscriptions of which nothing is known.

        Args:
            filters: The topic filters of the routes, in the order of precedence.
            identifiers: Those of their first generation.
        """
        self.filters, self._wanted = tuple(filters), frozenset(filters)
        self.by_filter: dict[str, int] = {}
        self.identifiers = dict(identifiers)
        self.rank = {name: place for place, name in enumerate(self.filters)}
        self.there = frozenset(self.filters)
        self.former: dict[int, Former] = {}
        self.version = 0
        self._changes = 0
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

    def begin_apart(self) -> None:
        """Begin a generation with all filters that is none of those of an earlier process, of which nothing is known.

        Its number is drawn by chance: else its identifiers could be those of copies that the broker has queued for that
        process.
        """
        self.by_filter = {**self.by_filter, LATEST: KNOWN_AGES + secrets.randbelow(2**31)}
        self.begin(self.filters)

    def change_filters(self, filters: Sequence[str], not_there: Collection[str]) -> list[str]:
        """Have other filters, as the routes have changed; return those that are new, which begin a generation.

        Args:
            filters: All of them, in the order of precedence.
            not_there: Those of which the broker has no subscription.
        """
        before, first_rank = set(self.filters), max(self.rank.values(), default=0) + 1
        added = [name for name in filters if name not in before]
        removed = before.difference(filters, not_there)
        self._changes += 1
        gone = self.seniority(removed)
        former = {self.identifiers[name]: Former(name, seniority, self._changes) for name, seniority in gone.items()}
        self.former = {**self.former, **former}
        never_had = [name for name in added if name not in self._first]
        self._first = {**self._first, **subscription_identifiers(never_had, set(self._first.values()))}
        self.rank = {**self.rank, **{name: place for place, name in enumerate(added, first_rank)}}
        # Above the first one, of which all those are that nothing is known of.
        self.by_filter = {**self.by_filter, **dict.fromkeys(added, max(1, self._latest()) + 1)}
        self.identify()
        self.there = self.there.union(added).difference(before.difference(filters, removed))  # last, see `Copies`
        self.filters, self._wanted = tuple(filters), frozenset(filters)
        self.touch()
        return added

    def seniority(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return what orders the subscriptions of known generations by their age, the oldest first (either thread)."""
        by_filter, rank = self.by_filter, self.rank  # as they are now: the other thread may replace them meanwhile
        return {name: (by_filter[name], rank.get(name, 0)) for name in names if name in by_filter}

    def was_removed(self, name: str) -> bool:
        """Tell whether a filter was one of the routes and is none any more."""
        return name in self.rank and name not in self._wanted

    def leave(self, filters: Iterable[str]) -> None:
        """Note that the broker is about to be asked to give up filters."""
        self.there = self.there.difference(filters)
        self.touch()

    def begin_connection(self, *, session_present: bool) -> None:
        """Rest on nothing but the filters of the routes on a new connection."""
        self.there = frozenset(self.filters)
        if not session_present:
            self.former = {}

    def identify(self) -> None:
        """Make the identifiers of the generations that there are."""
        later = {name: age for name in self._first if (age := self.by_filter.get(name, 1)) > 1}
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
        """Return the generation of the youngest of some identifiers; 0 if all are unknown (event loop).

        While the MQTT thread changes the filters, the answer rests on what was known before: an identifier that is new
        is unknown until the router has made the others ready.
        """
        ages = self._ages[2] if self._ages is not None and not self.are_ages_ready else self._known()
        return max((ages.get(identifier, 0) for identifier in identifiers), default=0)

    @property
    def are_ages_ready(self) -> bool:
        """Whether `age_of` has its answer ready, or has it soon, as there are few filters (event loop)."""
        ages = self._ages
        is_ready = ages is not None and ages[0] is self.by_filter and ages[1] is self.identifiers
        return is_ready or len(self.by_filter) <= FEW_FILTERS

    def make_ages_ready(self) -> None:
        """Work out what `age_of` rests on: of ten thousand filters that takes up to a second (a thread of its own)."""
        self._known()

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
