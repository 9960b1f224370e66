"""Repeated trouble is said at once, and then at most once a minute, with how often it was left out meanwhile.

And of long work it is said now and then how far it is, after some seconds in which it may end.

What of a trouble was left out is written at LOG_LVL=debug all the same. The counts travel as fields of the log record,
and `app.lines` writes them: `... (12 times more since 16:27)`. `LibraryFilter` does the same for lines of libraries.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

REPEAT_SECONDS = 60.0
PROGRESS_SECONDS = 5.0
# Of different troubles, far more than there are at a time; beyond, all are forgotten and each is said once more.
KEPT_TROUBLES = 1000
_VALUE = re.compile(r"[\n<({\[%=\d\"']")  # where the text of a library's line begins to differ from time to time


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

    def info(self, trouble: Hashable, text: str, *values: object) -> None:
        """Say what comes again and again and is no trouble; `trouble` tells what counts as the same one."""
        self.say(logging.INFO, trouble, text, *values)

    def warning(self, trouble: Hashable, text: str, *values: object) -> None:
        """Warn of a trouble."""
        self.say(logging.WARNING, trouble, text, *values)

    def error(self, trouble: Hashable, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """Log a trouble as an error, perhaps with its traceback."""
        self.say(logging.ERROR, trouble, text, *values, exc_info=exc_info)

    def say(
        self, level: int, trouble: Hashable, text: str, *values: object, exc_info: BaseException | None = None
    ) -> None:
        """Log a trouble at a level; at `debug` where it was said a moment ago."""
        counts = self.count(trouble)
        if counts is None:
            self.log.debug(text, *values)
        else:
            self.log.log(level, text, *values, extra=counts, exc_info=exc_info)

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


class LibraryFilter(logging.Filter):
    """Throttles what a library says again and again, and lets no error that it caught show what it received.

    For the loggers `asyncio` and `aiohttp.*`: what is the same trouble is told by the place in the code that says it.
    """

    def __init__(self, repeat_seconds: float = REPEAT_SECONDS) -> None:
        """Take how rarely the same thing is said."""
        super().__init__()
        self._throttle = Throttle(logging.getLogger(__name__), repeat_seconds)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be logged; its repetitions are counted in the next one."""
        kind = record.exc_info[0] if record.exc_info else None
        if record.levelno >= logging.INFO:
            counts = self._throttle.count((record.pathname, record.lineno, kind, _first_words(record)))
            if counts is None:
                return False
            vars(record).update(counts)
        if record.name.startswith("aiohttp") and kind is not None:
            record.msg, record.args = f"{_first_words(record)}: {kind.__name__}", None
            record.exc_info = record.exc_text = None
        return True


def _first_words(record: logging.LogRecord) -> str:
    """Return what a record says in every case: of its first line what stands before the first value."""
    return _VALUE.split(str(record.msg), maxsplit=1)[0].strip(" :")


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
