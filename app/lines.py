"""What the network sends, on one line: log lines, and what a command prints.

Topics, reasons and error texts come from others. A line feed in one would forge a log line, an escape sequence would
write on the operator's terminal. So one formatter escapes every log line, and nobody else has to think of it.

There are two of them: lines for people, and JSON for programs that collect logs, with the same texts in it.
"""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import datetime, timezone

from app.errors import ConnectorError

# Control characters (C0, DEL, C1), what some viewers take for the end of a line, what turns the direction of the text
# (and shows another one than there is), and lone surrogates, which cannot be written as UTF-8.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# An MQTT topic may have 65,535 bytes. The end of a line says what is done about it, so the middle is left out.
LONGEST_CHARACTERS = 2_000
_KEPT_END_CHARACTERS = 500
_TRACEBACK_INDENT = "    "  # no line of a traceback may look like the beginning of an event
_LEVELS = {"CRITICAL": "fatal", "WARNING": "warn"}  # as LOG_LVL names them; the others have Python's names


def escaped(text: str) -> str:
    """Return the text on one line, harmful characters as Python writes them in a literal, and not too long."""
    if len(text) > LONGEST_CHARACTERS:
        left_out = len(text) - LONGEST_CHARACTERS
        text = (
            f"{text[: LONGEST_CHARACTERS - _KEPT_END_CHARACTERS]}...({left_out} characters left out)..."
            f"{text[-_KEPT_END_CHARACTERS:]}"
        )
    return _HARMFUL.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Return a text of several lines, such as a report of ours, each line escaped."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class LineFormatter(logging.Formatter):
    """One event, one line; a traceback follows on lines of its own, each escaped and indented."""

    def __init__(self, layout: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
        """Take how the line is laid out; JSON is not."""
        super().__init__(layout)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the name is logging's
        """Return the event's line."""
        text = super().formatMessage(record)
        if times := getattr(record, "repeated", 0):
            text += f" ({times} times more since {time.strftime('%H:%M', time.localtime(_since(record)))})"
        return escaped(text)

    def formatException(self, ei: object) -> str:  # noqa: N802, the name is logging's
        """Return the traceback; none of an error that the operator can act on, whose sentence says everything."""
        if isinstance(ei, tuple) and isinstance(ei[1], ConnectorError):
            return ""
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802, the name is logging's
        """Return the stack that a log call asked for."""
        return _indented(super().formatStack(stack_info))


class JsonFormatter(LineFormatter):
    """One event, one JSON object on one line, in ASCII; its texts are escaped before, as they are read without JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line."""
        event = _event(record.created, record.levelname, record.name, escaped(record.getMessage()))
        if times := getattr(record, "repeated", 0):
            event |= {"repeated": times, "since": _utc(_since(record))}
        if record.exc_info and record.exc_info[0] is not None and (said := self.formatException(record.exc_info)):
            event["exception"] = said
        if record.stack_info:
            event["stack"] = self.formatStack(record.stack_info)
        return json.dumps(event)


def last_word(text: str, *, as_json: bool) -> str:
    """Return why the process ends, as it is written where there is no log yet, or none any more."""
    if as_json:
        return json.dumps(_event(time.time(), "fatal", "connector", escaped_lines(text)))
    return f"connector: {escaped_lines(text)}"


def _event(seconds: float, level: str, logger: str, message: str) -> dict[str, object]:
    return {"time": _utc(seconds), "level": _LEVELS.get(level, level.lower()), "logger": logger, "message": message}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _since(record: logging.LogRecord) -> float:
    return float(getattr(record, "since", record.created))


def _indented(text: str) -> str:
    return "\n".join(_TRACEBACK_INDENT + line for line in escaped_lines(text).split("\n"))
