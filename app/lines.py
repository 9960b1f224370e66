"""What the network sends, on one line: log lines, what a command prints, and what the pages and metrics show.

Topics, reasons and error texts come from others. A line feed in one would forge a log line, an escape sequence would
write on the operator's terminal, an invisible character would have two topics look alike; and a library or a server may
repeat a secret. So one formatter has every log line go through `escaped`, and nobody else has to think of it. What is
shown in another way goes through it too: `app.characters` is the rule for characters, `app.secret_forms` for secrets.

There are two of them: lines for people, and JSON for programs that collect logs, with the same texts in it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from datetime import datetime, timezone
from functools import lru_cache
from itertools import accumulate, chain, count
from typing import Any, TextIO

from app.characters import visible
from app.errors import ConnectorError
from app.secret_forms import MARGIN_CHARACTERS, known

# An MQTT topic may have 65,535 bytes. The end of a line says what is done about it, so the middle is left out.
LONGEST_CHARACTERS = 2_000
LONGEST_EVENT_CHARACTERS = 16_000  # as it is written, JSON or not: log collectors cut at 16 KiB
_KEPT_END_CHARACTERS = 500
_KEPT_BEGINNING_CHARACTERS = LONGEST_CHARACTERS - _KEPT_END_CHARACTERS
_SHORT_CHARACTERS = 150
LONGEST_WORDS_CHARACTERS = 300  # of what Kafka or the MQTT broker says, which may be of megabytes
_TRACEBACK_INDENT = "    "  # no line of a traceback may look like the beginning of an event
_LEVELS = {"CRITICAL": "fatal", "WARNING": "warn"}  # as LOG_LVL names them; the others have Python's names


class Shown(str):
    """A text that may be shown as it is; no secret is looked for in it once more."""

    __slots__ = ()


def escaped(text: str) -> str:
    """Return the text on one line, without secrets, its harmful characters as Python writes them, and not too long."""
    if len(text) <= LONGEST_CHARACTERS:
        plain = known.hidden(text)
        shown = visible(plain)
        return shown if len(shown) <= LONGEST_CHARACTERS else _cut(plain, plain, len(plain))
    beginning = known.hidden_beginning(text, _KEPT_BEGINNING_CHARACTERS)
    return _cut(beginning, known.hidden_end(text, _KEPT_END_CHARACTERS), len(text))


def shown_topic(topic: str) -> Shown:
    """Return the topic of a message for those who may read the pages alone, made visible and not too long.

    No secret is looked for: who publishes guesses of one must not see there which of them is right.
    """
    return Shown(visible(topic) if len(topic) <= LONGEST_CHARACTERS else _cut(topic, topic, len(topic)))


def short(text: Any) -> str:
    """Return a text of others, cut where it is longer than some sentences; still to be escaped where it is shown."""
    words = str(text)
    if len(words) <= LONGEST_WORDS_CHARACTERS:
        return words
    return f"{known.hidden_beginning(words, LONGEST_WORDS_CHARACTERS)[:LONGEST_WORDS_CHARACTERS]}..."


def escaped_message(record: logging.LogRecord) -> str:
    """Return what an event says, escaped: once for all handlers, as that costs most of a line."""
    made = vars(record).get("escaped")
    if made is None or made[0] != known.changes:
        made = vars(record)["escaped"] = known.changes, escaped(record.getMessage())
    return str(made[1])


def _cut(beginning: str, end: str, characters: int) -> str:
    """Return a beginning and an end, of a text of so many characters, that are short enough when they are visible."""
    first, last = beginning[:_KEPT_BEGINNING_CHARACTERS], end[-_KEPT_END_CHARACTERS:]
    while (longer := len(shown := visible(first))) > _KEPT_BEGINNING_CHARACTERS:
        first = first[: len(first) * _KEPT_BEGINNING_CHARACTERS // longer]
    while (longer := len(shown_last := visible(last))) > _KEPT_END_CHARACTERS:
        last = last[-(len(last) * _KEPT_END_CHARACTERS // longer) :]
    return f"{shown}{_left_out(characters - len(first) - len(last))}{shown_last}"


def _left_out(number: int, what: str = "characters") -> str:
    """Return what stands in the place of the middle of a text."""
    return f"...({number} {what} left out)..."


def escaped_lines(text: str) -> str:
    """Return a text of several lines, such as a report of ours, each line escaped."""
    return "\n".join(escaped(line) for line in known.hidden(text).split("\n"))  # a secret may have lines


def escaped_json(content: Any, indent: int | None = None) -> str:
    """Return content as JSON, each text in it escaped: what others named, and what a library said."""
    return json.dumps(escaped_values(content), indent=indent)


def escaped_values(content: Any) -> Any:
    """Return what is to become JSON with each text in it escaped."""
    if isinstance(content, Shown):
        return content
    if isinstance(content, str):
        return _escaped_again(content, known.changes) if len(content) <= _SHORT_CHARACTERS else escaped(content)
    if isinstance(content, dict):
        return {names.shown(name): escaped_values(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [value if isinstance(value, int | float) else escaped_values(value) for value in content]
    return content


@lru_cache(maxsize=8192)  # the names of all lanes and routes, which come with each answer
def _escaped_again(text: str, _changes: int) -> str:
    return escaped(text)


class Names:
    """Names of lanes, routes and the like, as pages and metrics show them: made once, and different ones differ.

    Of those that would look alike without their secrets, all but the first that is shown get a number.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._shown: dict[str, str] = {}
        self._taken: set[str] = set()
        self._changes = known.changes

    def shown(self, name: str) -> str:
        """Return a name on one line, without secrets; it is not cut, as names must differ."""
        if self._changes != known.changes:
            self._shown, self._taken, self._changes = {}, set(), known.changes
        if name not in self._shown:
            self._shown[name] = self._new(visible(known.hidden(name)))
        return self._shown[name]

    def _new(self, plain: str) -> str:
        numbered = (f"{plain} ({number})" for number in count(2))
        shown = next(text for text in chain([plain], numbered) if text not in self._taken)
        self._taken.add(shown)
        return shown


names = Names()


class LineFormatter(logging.Formatter):
    """One event, one line; a traceback follows on lines of its own, each escaped and indented."""

    def __init__(
        self, layout: str = "%(asctime)s %(levelname)s %(name)s: %(message)s", site: str | None = None
    ) -> None:
        """Take how the line is laid out (JSON is not), and the site that is named in each after its time."""
        self._site = site
        super().__init__(layout.replace("%(asctime)s", f"%(asctime)s [{site}]", 1) if site else layout)

    def format(self, record: logging.LogRecord) -> str:
        """Return the event: of one that is too long the first lines and the last."""
        return _lines_within(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the name is logging's
        """Return the event's line."""
        vars(record)["message"] = escaped_message(record)
        text = visible(super().formatMessage(record))  # of the rest, a logger's name may be a library's
        if times := getattr(record, "repeated", 0):
            text += f" ({times} times more since {_clock(_since(record))})"
        if others := getattr(record, "others", 0):
            text += f" (and {others} more of this kind since {_clock(record.__dict__['others_since'])})"
        if until := getattr(record, "others_until", 0):
            text += f" (more of this kind are left out until {_clock(until)})"
        return text

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
        event = _event(record.created, record.levelname, record.name, escaped_message(record), self._site)
        if times := getattr(record, "repeated", 0):
            event |= {"repeated": times, "since": _utc(_since(record))}
        if others := getattr(record, "others", 0):
            event |= {"others": others, "others_since": _utc(record.__dict__["others_since"])}
        if until := getattr(record, "others_until", 0):
            event["others_until"] = _utc(until)
        if record.exc_info and record.exc_info[0] is not None and (said := self.formatException(record.exc_info)):
            event["exception"] = said
        if record.stack_info:
            event["stack"] = self.formatStack(record.stack_info)
        return _json_within(event)


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error; a line that cannot be written is told without what it was made from."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        """Say which call of a log cannot be written."""
        tell_of_lost(record, self.stream)


def tell_of_lost(record: logging.LogRecord, stream: TextIO | None) -> None:
    """Say which call of a log cannot be written; by itself `logging` would write all its values, and a stack."""
    error = sys.exc_info()[0]
    reason = error.__name__ if error else "error"
    with contextlib.suppress(Exception):
        if stream is not None:
            stream.write(f"a log line of {record.name} ({record.filename}:{record.lineno}) is lost: {reason}\n")


def last_word(text: str, *, as_json: bool, site: str | None = None) -> str:
    """Return why the process ends, as it is written where there is no log yet, or none any more."""
    if as_json:
        return _json_within(_event(time.time(), "fatal", "connector", escaped_lines(text), site))
    return _lines_within(f"connector{f' [{site}]' if site else ''}: {escaped_lines(text)}")


def _event(seconds: float, level: str, logger: str, message: str, site: str | None) -> dict[str, object]:
    level = _LEVELS.get(level, level.lower())
    event: dict[str, object] = {"time": _utc(seconds), "level": level, "logger": logger, "message": message}
    return {**event, "site": site} if site else event


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clock(seconds: float) -> str:
    """Return the time of day."""
    return time.strftime("%H:%M", time.localtime(seconds))


def _since(record: logging.LogRecord) -> float:
    return float(getattr(record, "since", record.created))


def _indented(text: str) -> str:
    """Return a traceback escaped and indented, of a long one its beginning and its end, where the error's text is."""
    half = LONGEST_EVENT_CHARACTERS // 2
    if len(text) > 2 * (half + MARGIN_CHARACTERS):
        beginning, end = known.hidden_beginning(text, half), known.hidden_end(text, half)
        text = f"{beginning[:half]}\n{_left_out(len(text) - 2 * half)}\n{end[-half:]}"
    return "\n".join(_TRACEBACK_INDENT + line for line in escaped_lines(text).split("\n"))


def _lines_within(text: str) -> str:
    """Return lines as far as an event may have them: as many of the first and of the last as there is room for."""
    if len(text) <= LONGEST_EVENT_CHARACTERS:
        return text
    lines = text.split("\n")
    half = LONGEST_EVENT_CHARACTERS // 2 - 50  # for the line between them
    first, last = _as_many(lines, half), _as_many(lines[::-1], half)[::-1]
    left_out = _left_out(len(lines) - len(first) - len(last), "lines")
    return "\n".join((*first, f"{_TRACEBACK_INDENT}{left_out}", *last))


def _as_many(lines: list[str], characters: int) -> list[str]:
    ends = accumulate(len(line) + 1 for line in lines)
    return [line for line, end in zip(lines, ends, strict=True) if end <= characters]


def _json_within(event: dict[str, object]) -> str:
    """Return an event as JSON; of its longest text as much is left out of the middle as must be."""
    while len(line := json.dumps(event)) > LONGEST_EVENT_CHARACTERS:
        name = max(
            (name for name, text in event.items() if isinstance(text, str)), key=lambda name: len(str(event[name]))
        )
        text = str(event[name])
        kept = max(0, len(text) * LONGEST_EVENT_CHARACTERS // len(line) - 100) // 2
        event[name] = f"{text[:kept]}{_left_out(len(text) - 2 * kept)}{text[len(text) - kept :]}"
    return line
