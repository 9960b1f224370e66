"""The last warnings and errors of the log, for the page; repeated ones once, with their count."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from typing import Any

from mode import Service

from app.lines import escaped_message, tell_of_lost

LONGEST_LIST = 20
LONGEST_TEXT_CHARACTERS = 600


class RecentProblems(logging.Handler):
    """Keeps the last log lines from WARNING on (any thread)."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._entries: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, as the last one; the oldest gives way."""
        try:
            text = escaped_message(record)[:LONGEST_TEXT_CHARACTERS]
        except Exception:  # noqa: BLE001, as all handlers: a log call with wrong arguments must not end what it is in
            self.handleError(record)
            return
        entry = self._entries.pop((record.levelname, text), None)
        if entry is None:
            entry = {"level": record.levelname, "text": text, "times": 0, "first_seconds": round(record.created, 3)}
        entry["times"] += 1
        entry["last_seconds"] = round(record.created, 3)
        self._entries[record.levelname, text] = entry
        if len(self._entries) > LONGEST_LIST:
            self._entries.popitem(last=False)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        """Say which line cannot be kept, and none of its values."""
        tell_of_lost(record, sys.stderr)

    def as_list(self) -> list[dict[str, Any]]:
        """Return the lines, newest first."""
        self.acquire()
        try:
            return [dict(entry) for entry in reversed(self._entries.values())]
        finally:
            self.release()


class ProblemsService(Service):
    """Listens to the log while the worker runs: what sets the log up at the start removes earlier handlers."""

    mundane_level = "debug"

    def __init__(self, problems: RecentProblems, **kwargs: Any) -> None:
        """Make the service; it only acts when it starts."""
        self._problems = problems
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Begin to listen."""
        logging.getLogger().addHandler(self._problems)

    async def on_stop(self) -> None:
        """Listen no more."""
        logging.getLogger().removeHandler(self._problems)
