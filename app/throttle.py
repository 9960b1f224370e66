"""Repeated trouble is said at once, and then at most once a minute, with how often it was left out meanwhile.

And of long work it is said now and then how far it is, after some seconds in which it may end.

What of a trouble was left out is written at LOG_LVL=debug all the same. The counts travel as fields of the log record,
and `app.lines` writes them: `... (12 times more since 16:27)`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

REPEAT_SECONDS = 60.0
PROGRESS_SECONDS = 5.0
# Of different troubles, far more than there are at a time; beyond, all are forgotten and each is said once more.
KEPT_TROUBLES = 1000


@dataclass(slots=True)
class _Trouble:
    due: float
    since: float
    more: int = 0
    is_over: bool = False


class Throttle:
    """What one room says again and again; for one thread.

    Attributes:
        log: The logger to speak with.
    """

    def __init__(self, log: logging.Logger, repeat_seconds: float = REPEAT_SECONDS) -> None:
        """Take the logger, and how rarely the same thing is said."""
        self.log = log
        self._repeat_seconds = repeat_seconds
        self._troubles: dict[Hashable, _Trouble] = {}

    def warning(self, trouble: Hashable, text: str, *values: object) -> None:
        """Warn of a trouble; `trouble` tells what counts as the same one."""
        self._say(logging.WARNING, trouble, text, values)

    def error(self, trouble: Hashable, text: str, *values: object) -> None:
        """Log a trouble as an error."""
        self._say(logging.ERROR, trouble, text, values)

    def _say(self, level: int, trouble: Hashable, text: str, values: tuple[object, ...]) -> None:
        counts = self.count(trouble)
        if counts is None:
            self.log.debug(text, *values)
        else:
            self.log.log(level, text, *values, extra=counts)

    def count(self, trouble: Hashable) -> dict[str, float] | None:
        """Return what a log record shall say of the repetitions; None: it is to be left out."""
        now = time.monotonic()
        known = self._troubles.get(trouble)
        if known is not None and now < known.due:
            known.more += 1
            return None
        if known is None and len(self._troubles) >= KEPT_TROUBLES:
            self._troubles.clear()
        self._troubles[trouble] = _Trouble(now + self._repeat_seconds, time.time())
        return {"repeated": known.more, "since": known.since} if known is not None and known.more else {}

    def lasts(self, trouble: Hashable) -> bool:
        """Tell whether a trouble was said whose end was not."""
        known = self._troubles.get(trouble)
        return known is not None and not known.is_over

    def end(self, trouble: Hashable, text: str, *values: object) -> None:
        """Say that a trouble is over, if it is news."""
        if self.lasts(trouble):
            self._troubles[trouble].is_over = True
            self.log.info(text, *values)


class Progress:
    """Tells how far a work is that takes long."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        """Take what tells it, given how many steps are done."""
        self._tell = tell
        self._due = time.monotonic() + PROGRESS_SECONDS

    def reached(self, steps: int) -> None:
        """Take note of how many steps are done."""
        if time.monotonic() >= self._due:
            self._due += PROGRESS_SECONDS
            self._tell(steps)
