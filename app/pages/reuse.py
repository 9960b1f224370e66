"""Answers that are costly to make are given again for a while, so that many requests cost little more than one.

Each answer is used again for five times as long as all of them together took to make, each the last time. So however
many ask for whichever of them, making them takes a fifth of the processor at most, none waits for ever because another
is asked for more often, and those that are made quickly are always fresh. An answer is used for five seconds at most,
as people are not to see older figures: where all together take more than a second, that is more than a fifth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from app.turns import next_part

Made = TypeVar("Made")

TIMES_AS_LONG = 5.0
LONGEST_SECONDS = 5.0


class Share:
    """What the costly answers of a worker take together."""

    def __init__(self) -> None:
        """Begin without any."""
        self._took: dict[object, float] = {}

    def note(self, answer: object, seconds: float) -> float:
        """Note how long an answer took to make; return for how long it is used."""
        self._took[answer] = seconds
        return min(TIMES_AS_LONG * sum(self._took.values()), LONGEST_SECONDS)


class Reused(Generic[Made]):
    """What a function returned, for a while."""

    def __init__(self, share: Share, make: Callable[[], Made], version: Callable[[], object] = object) -> None:
        """Take what makes it, and what is another value whenever another one would be made; by default always."""
        self._share = share
        self._make = make
        self._version = version
        self._made: Made | None = None
        self._made_of: object = None
        self._until = 0.0

    def __call__(self) -> Made:
        """Return it; it is made anew if it is too old and something has changed."""
        made = self._made
        if made is not None and time.monotonic() < self._until:
            return made
        version = self._version()
        if made is None or version != self._made_of:
            made = self._made = self._make_anew()
            self._made_of = version
        return made

    def _make_anew(self) -> Made:
        now, began = time.monotonic(), time.thread_time()  # a machine that is busy with others makes nothing costly
        made = self._make()
        self._until = now + self._share.note(self, time.thread_time() - began)
        return made

    def forget(self) -> None:
        """Make it anew next time."""
        self._made = None


class ReusedText:
    """A text that is made in parts, with turns for all others between them, and used for a while."""

    def __init__(self, share: Share, pieces: Callable[[], Iterator[str]]) -> None:
        """Take what makes its pieces."""
        self._share = share
        self._pieces = pieces
        self._text = ""
        self._times_made = 0
        self._until = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self) -> str:
        """Return it; it is made anew if it is too old. Those who ask meanwhile get the one that is being made."""
        if time.monotonic() >= self._until:
            times_made = self._times_made
            async with self._one_at_a_time:
                if self._times_made == times_made:
                    await self._make_anew()
        return self._text

    async def _make_anew(self) -> None:
        now, seconds, text, is_over = time.monotonic(), 0.0, "", False
        pieces = None
        while not is_over:
            began = time.thread_time()  # without the others' turns
            pieces = pieces or self._pieces()
            part = next_part(pieces)
            text, is_over = text + "".join(part), not part
            seconds += time.thread_time() - began
            await asyncio.sleep(0)
        self._text, self._times_made = text, self._times_made + 1
        self._until = now + self._share.note(self, seconds)
