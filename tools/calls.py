"""Which calls belong to the way of one message; plain code, without a worker.

The interpreter reports every call on every thread, and most of them have nothing to do with the message: timers, polls
that find nothing, pages. A call belongs to the message if one of these holds:

1. It has the message *in hand*: the message, its payload, or a list or request that it is in, is among the arguments or
   is the result.
2. Its function is never called while nothing happens to a message: it was not called once while the worker was
   connected and idle, neither with Kafka there, nor with Kafka away and other messages waiting for it.
3. Something of 1 or 2 is called by it, however far down.

Left out is what happens inside a call that has another message alone in hand; what begins in a page; and a coroutine
that goes on after it waited, if it then has no message in hand and calls nothing that belongs to the message.

The rule has two limits. A function that runs anyway and that the message needs is missing where it neither has the
message in hand nor calls what runs for messages only (a flush of what was decided is an example). And a function that
runs by itself, but more rarely than the idle time is long, would be taken for a step of the message.

What is called at one go, on one thread, stays together in the order; what two threads do at once is not mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PRODUCT = ("app", "agents", "tables")
PAGES = ("app/pages/", "app/web/", "app/http/")
# In the payload of the message that is followed, and of others that are needed beside it.
FOLLOWED = b"the message that is followed"
OTHER = b"another message"
ANOTHER_IN_HAND, IN_HAND = 1, 2


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function of the project.

    Attributes:
        at: `time.monotonic()` when it began.
        thread: On which thread.
        file: The function's file, as in the repository.
        function: Its name, with that of its class.
        caller: The number of the call in which it was called; -1 if none was under way on its thread.
        goes_on: A coroutine or generator that goes on after it waited.
        in_hand: `IN_HAND`: the message that is followed; `ANOTHER_IN_HAND`: another one alone; 0: none.
    """

    at: float
    thread: int
    file: str
    function: str
    caller: int
    goes_on: bool
    in_hand: int

    @property
    def name(self) -> tuple[str, str]:
        """File and function."""
        return self.file, self.function


@dataclass(frozen=True, slots=True)
class Span:
    """A time, by `time.monotonic()`."""

    begin: float
    end: float

    def __contains__(self, at: float) -> bool:
        return self.begin <= at < self.end


@dataclass(frozen=True, slots=True)
class Way:
    """The way of the message: what was called, in order; what is called several times in a row is there once."""

    steps: tuple[tuple[str, str], ...]

    @property
    def files(self) -> list[str]:
        """The files, in the order in which the message meets them."""
        return list(dict.fromkeys(file for file, _ in self.steps))

    @property
    def functions(self) -> int:
        """How many different functions."""
        return len(set(self.steps))

    @property
    def changes(self) -> int:
        """How often the next function is in another file; that a function returns is none."""
        return sum(before[0] != after[0] for before, after in zip(self.steps, self.steps[1:], strict=False))


def way(calls: Sequence[Call], span: Span, idle: Sequence[Span]) -> Way:
    """Return the way of the message that was under way in a span of time."""
    runs_anyway = {call.name for call in calls if any(call.at in quiet for quiet in idle)}
    steps: dict[int, int] = {}  # the call with which the work began that a step is part of, by step
    for number, call in enumerate(calls):
        if call.at not in span or (call.in_hand != IN_HAND and (call.goes_on or call.name in runs_anyway)):
            continue
        line = _line(calls, number, span)
        if not calls[line[-1]].file.startswith(PAGES) and not _is_of_another(calls, line):
            steps.update(dict.fromkeys(line, line[-1]))
    names = [calls[number].name for number in sorted(steps, key=lambda number: (steps[number], number))]
    return Way(tuple(name for place, name in enumerate(names) if not place or names[place - 1] != name))


def _line(calls: Sequence[Call], number: int, span: Span) -> list[int]:
    """Return a call, its caller, the caller's caller and so on; what began before the time runs for ever."""
    line = []
    while number >= 0 and calls[number].at in span:
        line.append(number)
        number = calls[number].caller
    return line


def _is_of_another(calls: Sequence[Call], line: Iterable[int]) -> bool:
    """Whether the nearest of the calls that has a message in hand has another one."""
    nearest = next((calls[number].in_hand for number in line if calls[number].in_hand), IN_HAND)
    return nearest == ANOTHER_IN_HAND
