"""What a fuzzer hears of the log and of its event loop: nothing unforeseen, and no secret."""

from __future__ import annotations

import logging
import traceback

MOST_LINES = 50  # of one input, and of LOG_LVL=info; what is throttled is said at debug all the same
NAMES_A_HOST = "asked the pages for the host"  # as the client names it, which may be by its own secret


class Heard(logging.Handler):
    """Everything that is logged; takes the place of all handlers.

    Attributes:
        secret: A text that must never be logged, at no level; empty: there is none.
    """

    def __init__(self, secret=""):
        super().__init__()
        self.secret = secret
        self.forget()
        root = logging.getLogger()
        root.handlers[:] = [self]
        self.setFormatter(logging.Formatter())

    def emit(self, record):
        line = self.format(record)
        self.lines.append(line)
        self.said += record.levelno >= logging.INFO
        if record.exc_info and record.levelno >= logging.WARNING:
            self.unforeseen.append(line)

    def on_loop_error(self, _loop, context):
        """Take what no task and no callback has dealt with."""
        error = context.get("exception")
        self.unforeseen.append(f"{context['message']}\n{''.join(traceback.format_exception(error)) if error else ''}")

    def forget(self):
        """Begin anew."""
        self.lines, self.unforeseen, self.said = [], [], 0

    def assert_calm(self):
        """Fail if anything unforeseen was heard, or too much."""
        lines = self.lines
        assert not self.unforeseen, self.unforeseen[0]
        assert self.said <= MOST_LINES, f"{self.said} lines of the log, the last one: {lines[-1]}"
        told = [line for line in lines if self.secret and self.secret in line and NAMES_A_HOST not in line]
        assert not told, f"a secret is logged: {told[0]}"
