"""A trouble that repeats is logged at once, and then at most once a minute, with how often it was left out meanwhile.

Trouble of one kind, such as that of thousands of topics, makes a bounded number of lines a minute, however it differs.
The progress of long work is logged every few seconds.

Lines that are left out are written with LOG_LVL=debug. The counts travel as fields of the log record,
and `app.lines` writes them: `... (12 times more since 16:27)`, `... (and 480 more of this kind since 16:27)`.
`LibraryFilter` does the same for lines of libraries.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

REPEAT_SECONDS = 60.0
PROGRESS_SECONDS = 5.0
LINES_A_MINUTE = 30  # of one kind; who reads the log has seen by then what it is
# Different troubles, far more than there are at a time. Beyond, the oldest is forgotten and may be logged once more.
KEPT_TROUBLES, KEPT_KINDS = 1000, 100
_VALUE = re.compile(r"[\n<({\[%=\d\"']")  # where the text of a library's line begins to differ from time to time


@dataclass(slots=True)
class _Trouble:
    due: float
    since: float
    more: int = 0
    is_over: bool = False

    def repeat(self) -> None:
        """Count that it was left out once more."""
        self.more += 1

    def end(self) -> None:
        """Note that it is over."""
        self.is_over = True


@dataclass(slots=True)
class _Kind:
    """The lines of one kind in its minute.

    Attributes:
        ends_at: `time.monotonic()` of the minute's end.
        since: `time.time()` of its beginning.
        lines: How many were written.
        more: How many were left out.
    """

    ends_at: float
    since: float
    lines: int = 0
    more: int = 0

    def takes_line(self, most: int) -> bool:
        """Count one more; False if it is to be left out."""
        takes = self.lines < most
        self.lines += takes
        self.more += not takes
        return takes


class Throttle:
    """What one module logs again and again; for one thread.

    Attributes:
        log: The logger.
    """

    def __init__(
        self, log: logging.Logger, repeat_seconds: float = REPEAT_SECONDS, lines_a_minute: int = LINES_A_MINUTE
    ) -> None:
        """Take the logger, how rarely the same trouble is logged, and how many lines of one kind are in that time."""
        self.log = log
        self._repeat_seconds = repeat_seconds
        self._lines_a_minute = lines_a_minute
        self._troubles: dict[Hashable, _Trouble] = {}
        self._kinds: dict[Hashable, _Kind] = {}

    def info(self, trouble: Hashable, text: str, *values: object) -> None:
        """Log what repeats and is no trouble; `trouble` tells what counts as the same."""
        self.log_at(logging.INFO, trouble, text, *values)

    def warning(self, trouble: Hashable, text: str, *values: object) -> None:
        """Warn of a trouble."""
        self.log_at(logging.WARNING, trouble, text, *values)

    def error(self, trouble: Hashable, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """Log a trouble as an error, perhaps with its traceback."""
        self.log_at(logging.ERROR, trouble, text, *values, exc_info=exc_info)

    def log_at(
        self, level: int, trouble: Hashable, text: str, *values: object, exc_info: BaseException | None = None
    ) -> None:
        """Log a trouble at a level; at `debug` if it was logged a moment ago, or too many with its text were."""
        counts = self.count(trouble, text)
        if counts is None:
            self.log.debug(text, *values)
        else:
            self.log.log(level, text, *values, extra=counts, exc_info=exc_info)

    def count(self, trouble: Hashable, kind: Hashable = "") -> dict[str, float] | None:
        """Return the fields of a log record that count the repetitions; None: it is to be left out.

        Args:
            trouble: What counts as the same one.
            kind: What bounds the lines of all troubles that share it.
        """
        now = time.monotonic()
        known = self._troubles.get(trouble)
        if known is not None and now < known.due:
            known.repeat()
            return None
        counts = self._counts_of(kind, now)
        if counts is None:
            return None
        if known is not None:
            counts |= {"repeated": known.more, "since": known.since} if known.more else {}
            del self._troubles[trouble]  # the newest is last
        _make_room(self._troubles, KEPT_TROUBLES)
        self._troubles[trouble] = _Trouble(now + self._repeat_seconds, time.time())
        return counts

    def _counts_of(self, kind: Hashable, now: float) -> dict[str, float] | None:
        """Count a line of a kind; return the fields that count those left out before, None: it is to be left out."""
        told: dict[str, float] = {}
        known = self._kinds.get(kind)
        if known is None or now >= known.ends_at:
            if known is not None:
                told = {"others": known.more, "others_since": known.since} if known.more else {}
                del self._kinds[kind]
            _make_room(self._kinds, KEPT_KINDS)
            known = self._kinds[kind] = _Kind(now + self._repeat_seconds, time.time())
        if not known.takes_line(self._lines_a_minute):
            return None
        if known.lines == self._lines_a_minute:
            told["others_until"] = time.time() + known.ends_at - now
        return told

    def lasts(self, trouble: Hashable) -> bool:
        """Tell whether a trouble was logged, and its end was not."""
        known = self._troubles.get(trouble)
        return known is not None and not known.is_over

    def end(self, trouble: Hashable, text: str, *values: object) -> None:
        """Log that a trouble is over, if it was logged and its end was not."""
        if self.lasts(trouble):
            self._troubles[trouble].end()
            counts = self._counts_of(text, time.monotonic())
            self.log.log(logging.DEBUG if counts is None else logging.INFO, text, *values, extra=counts)


def _make_room(known: dict[Any, Any], most: int) -> None:
    """Forget the oldest."""
    while len(known) >= most:
        del known[next(iter(known))]


class LibraryFilter(logging.Filter):
    """Throttles what a library logs again and again, and keeps what it received out of the errors that it logs.

    For the loggers `asyncio` and `aiohttp.*`: the same place in the code counts as the same trouble.
    """

    def __init__(self, repeat_seconds: float = REPEAT_SECONDS) -> None:
        """Take how rarely the same trouble is logged."""
        super().__init__()
        self._throttle = Throttle(logging.getLogger(__name__), repeat_seconds)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be logged; its repetitions are counted in the next one."""
        kind = record.exc_info[0] if record.exc_info else None
        if record.levelno >= logging.INFO:
            counts = self._throttle.count((record.pathname, record.lineno, kind, _first_words(record)), record.name)
            if counts is None:
                return False
            vars(record).update(counts)
        if record.name.startswith("aiohttp") and kind is not None:
            record.msg, record.args = f"{_first_words(record)}: {kind.__name__}", None
            record.exc_info = record.exc_text = None
        return True


def _first_words(record: logging.LogRecord) -> str:
    """Return the part of a record that is always the same: of its first line what stands before the first value."""
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
