"""What a fuzzer hears of the log and of its event loop: nothing unforeseen, and no secret."""

from __future__ import annotations

import logging
import traceback

MOST_LINES = 50  # of one input


class Heard(logging.Handler):
    """Everything that is logged; takes the place of all handlers.

    Attributes:
        secret: A text that must never be logged; empty: there is none.
    """

    def __init__(self, secret=""):
        super().__init__()
        self.secret = secret
        self.lines = []
        self.unforeseen = []
        root = logging.getLogger()
        root.handlers[:] = [self]
        self.setFormatter(logging.Formatter())

    def emit(self, record):
        line = self.format(record)
        self.lines.append(line)
        if record.exc_info and record.levelno >= logging.WARNING:
            self.unforeseen.append(line)

    def on_loop_error(self, _loop, context):
        """Take what no task and no callback has dealt with."""
        error = context.get("exception")
        self.unforeseen.append(f"{context['message']}\n{''.join(traceback.format_exception(error)) if error else ''}")

    def forget(self):
        """Begin anew."""
        self.lines, self.unforeseen = [], []

    def assert_calm(self):
        """Fail if anything unforeseen was heard, or too much."""
        lines = self.lines
        assert not self.unforeseen, self.unforeseen[0]
        assert len(lines) <= MOST_LINES, f"{len(lines)} lines of the log, the last one: {lines[-1]}"
        told = [line for line in lines if self.secret and self.secret in line]
        assert not told, f"a secret is logged: {told[0]}"
