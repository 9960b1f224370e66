"""Filters for which the broker closes the connection instead of refusing them: found, left out, tried again rarely.

MQTT permits that, and some brokers do it where a client may not subscribe to a filter. One such filter would keep all
others from being subscribed to, so it is searched for. A connection may also end for another reason while filters are
asked for, so one such end shows nothing yet. After the second in a row those that were not answered are *suspects*:

1. All others are asked for first. When they are answered, the first suspect, as brokers answer in order; then the rest
   in halves. What is answered is no suspect any more.
2. A connection that ends while suspects are asked for leaves as suspects first those of them without an answer.
3. A filter at which two connections ended while it alone was asked for is left out. The search goes on for the others.

So one filter among hundreds is found in four connections, or some ten where answers get lost. Where MQTT 5 gives a
reason that can only be a filter's, one end is enough for each step. What is left out is asked for again, one at a time,
after ten minutes, then ever more rarely: each try that fails interrupts the others. It is remembered over a restart of
the worker, which tries it once. An UNSUBSCRIBE that ends two connections in a row waits as long.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

AGAIN_SECONDS = (600.0, 4 * 3600.0)  # until what is left out is tried again: first, and at most
ENDS_TO_SUSPECT = 2
ENDS_TO_LEAVE_OUT = 2
CLOSES = "it closes the connection when it is asked for this filter"
# DISCONNECT reasons of MQTT 5 that speak of a filter, and those that speak of something else.
OF_A_FILTER = frozenset({0x87, 0x8F, 0x9E, 0xA1, 0xA2})
OF_SOMETHING_ELSE = frozenset({0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x94, 0x95, 0x98, 0x9C, 0x9D, 0x9F, 0xA0})


class Forbidden:
    """What the ends of connections say of filters; the MQTT thread's.

    Attributes:
        left_out: Filters that are not asked for, in the order in which they are tried again.
        unanswered_in_drain: How often in a row an UNSUBSCRIBE of a drain got no answer, by filter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Suspect nothing."""
        self.left_out: list[str] = []
        self.unanswered_in_drain: Counter[str] = Counter()
        self._clock = clock
        self._groups: list[list[str]] = []  # suspects, in the order in which they are asked for
        self._ends = 0  # in a row, while filters were asked for that are not suspected
        self._ends_alone: Counter[str] = Counter()
        self._ends_unsubscribing = 0
        self._tried = ""
        self._again_at = 0.0
        self._again_seconds = AGAIN_SECONDS[0]
        self._unsubscribe_at = 0.0

    def recover(self, left_out: Iterable[str]) -> None:
        """Begin with the filters that an earlier process left out; each is tried once."""
        self.left_out = list(left_out)

    def drop(self, filters: Collection[str]) -> None:
        """Forget filters that nobody wants any more."""
        self.left_out = [name for name in self.left_out if name not in filters]
        self._groups = [kept for group in self._groups if (kept := [name for name in group if name not in filters])]

    @property
    def is_searching(self) -> bool:
        """Whether there are suspects."""
        return bool(self._groups)

    @property
    def suspects(self) -> list[str]:
        """The filters one of which the broker may close the connection at."""
        return [name for group in self._groups for name in group]

    @property
    def may_unsubscribe(self) -> bool:
        """Whether UNSUBSCRIBE may be sent."""
        return self._clock() >= self._unsubscribe_at

    def to_ask_first(self, wanted: Iterable[str]) -> list[str]:
        """Return what to ask for at once on a new connection; the suspects among the wanted come later."""
        wanted = list(wanted)
        self._tried = ""
        self._groups = [kept for group in self._groups if (kept := [name for name in group if name in wanted])]
        later = {*self.suspects, *self.left_out}
        return [name for name in wanted if name not in later]

    def to_ask_next(self) -> list[str]:
        """Return what to ask for now that all else is answered: suspects, or what was left out long enough."""
        if self._groups:
            return list(self._groups[0])
        if self.left_out and not self._tried and self._clock() >= self._again_at:
            self._tried = self.left_out[0]
            return [self._tried]
        return []

    def on_answered(self, name: str) -> None:
        """Note that the broker answered and did not close the connection; refused or not, the filter is no suspect."""
        if name in self.left_out:
            self.left_out.remove(name)
            self._again_seconds, self._again_at = AGAIN_SECONDS[0], self._clock()  # the next one at once
        if name == self._tried:
            self._tried = ""
        if self._groups:
            self._groups = [kept for group in self._groups if (kept := [other for other in group if other != name])]
        self._ends_alone.pop(name, None)

    def on_ended(self, unanswered: Sequence[str], *, unsubscribing: bool = False, reason: int = 0) -> list[str]:
        """Note the end of a connection; return the filters that are left out from now on.

        Args:
            unanswered: The filters that were asked for and not answered.
            unsubscribing: An UNSUBSCRIBE was not answered.
            reason: That of the broker's DISCONNECT; 0 without.
        """
        if self._tried and self._tried in unanswered:
            self._try_later()
            return []
        if reason in OF_SOMETHING_ELSE:
            return []
        if not unanswered:
            self._ends = 0
            self._note_unsubscribing(unsubscribing=unsubscribing)
            return []
        certain = reason in OF_A_FILTER
        guilty = [name for name in (self._groups[0] if self._groups else []) if name in unanswered]
        if not guilty:
            self._ends += 1
            if certain or self._ends >= ENDS_TO_SUSPECT:
                self._ends = 0
                self._groups[:0] = _first_and_halves(unanswered)
            return []
        self._ends = 0
        return self._narrow(guilty, certain=certain)

    def _narrow(self, guilty: list[str], *, certain: bool) -> list[str]:
        """Go on with those that were asked for when the connection ended."""
        if len(guilty) > 1:
            self._groups[:1] = _first_and_halves(guilty)
            return []
        self._groups[0] = guilty
        self._ends_alone[guilty[0]] += 1
        if not certain and self._ends_alone[guilty[0]] < ENDS_TO_LEAVE_OUT:
            return []
        del self._groups[0], self._ends_alone[guilty[0]]
        self.left_out += guilty
        self._again_at = self._clock() + self._again_seconds
        return guilty

    def _try_later(self) -> None:
        self.left_out.remove(self._tried)
        self.left_out.append(self._tried)
        self._again_seconds = min(2 * self._again_seconds, AGAIN_SECONDS[1])
        self._again_at = self._clock() + self._again_seconds
        self._tried = ""

    def _note_unsubscribing(self, *, unsubscribing: bool) -> None:
        self._ends_unsubscribing = self._ends_unsubscribing + 1 if unsubscribing else 0
        if self._ends_unsubscribing >= ENDS_TO_SUSPECT:
            self._unsubscribe_at = self._clock() + AGAIN_SECONDS[0]


def _first_and_halves(names: Sequence[str]) -> list[list[str]]:
    """Return the first, and the others in halves."""
    rest = list(names[1:])
    middle = (len(rest) + 1) // 2
    return [part for part in (list(names[:1]), rest[:middle], rest[middle:]) if part]
