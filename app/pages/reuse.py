"""Answers that are costly to make are given again for a while, so that many requests cost little more than one.

An answer is used again for four times as long as it took to make. So however many requests come, an answer takes a
fifth of the processor at most, and one that is made quickly is always fresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")

TIMES_AS_LONG = 4.0
LONGEST_SECONDS = 5.0


class Reused(Generic[Made]):
    """What a function returned, for a while."""

    def __init__(self, make: Callable[[], Made], version: Callable[[], object] = object) -> None:
        """Take what makes it, and what is another value whenever another one would be made; by default always."""
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
            began = time.thread_time()  # not by the clock: a machine that is busy with others makes nothing costly
            made = self._made = self._make()
            took = time.thread_time() - began
            self._made_of, self._until = version, time.monotonic() + min(TIMES_AS_LONG * took, LONGEST_SECONDS)
        return made

    def forget(self) -> None:
        """Make it anew next time."""
        self._made = None
