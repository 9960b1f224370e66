"""A file in YAML as plain values, and the line of each: of YAML only what a settings file needs.

Aliases are refused, as a few of them can stand for gigabytes, and so are tags and keys that stand twice, of which YAML
would take the last one in silence. A value that YAML does not read as text (`no`, `1.0`, a date) is an `Unquoted`, for
the field to accept or refuse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from app.settings.files import shown

MOST_DEPTH = 16
MOST_EVENTS = 1_000_000  # a file of routes has some 25 for each
_TEXT, _PREFIX = "tag:yaml.org,2002:str", "tag:yaml.org,2002:"
_PLAIN_MAPPING, _PLAIN_SEQUENCE = {None, "!", f"{_PREFIX}map"}, {None, "!", f"{_PREFIX}seq"}
_READ_AS = {
    "bool": "true or false",
    "null": "nothing",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "merge": "a merge of mappings",
    "value": "a value of its own kind",
}
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A value that is no text to YAML as it is not in quotes.

    Attributes:
        text: How it is written.
        kind: What YAML reads it as: int, bool, null, float, timestamp.
    """

    text: str
    kind: str

    @property
    def read_as(self) -> str:
        """What YAML reads it as, for people."""
        return _READ_AS.get(self.kind, self.kind)


@dataclass(frozen=True, slots=True)
class Document:
    """What is in a file.

    Attributes:
        value: Mappings as dict, sequences as list, texts as str, and `Unquoted`.
        lines: The line of each value, by its place: the keys and numbers that lead to it.
        problems: What is wrong with it, by line.
    """

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def line_of(self, place: Place) -> int:
        """Return the line of a place, or of what is around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_yaml(text: str) -> Document:
    """Read a text in YAML.

    Raises:
        ValueError: It is none, or has aliases, or is nested deeply; with a sentence that names the line.
    """
    loader = yaml.CSafeLoader(text)
    try:
        return _Reader(loader).read()
    except yaml.MarkedYAMLError as error:
        reason = _sentence(error, text)
    except yaml.YAMLError:
        reason = "is no YAML: it has a character that YAML does not allow"
    finally:
        loader.dispose()
    raise ValueError(reason)


def _sentence(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"line {number + 1}: is indented with a tab, and YAML allows blanks only"
    return f"line {number + 1}: is no YAML ({error.problem})"


def _problem_of(event: yaml.Event, depth: int, count: int) -> str:
    if isinstance(event, yaml.AliasEvent):
        return "has an alias (*), write the value out instead"
    if depth > MOST_DEPTH:
        return f"is nested more than {MOST_DEPTH} deep"
    return f"has more than {MOST_EVENTS} values" if count > MOST_EVENTS else ""


class _Reader:
    """Makes values of a text, event by event.

    Not by way of the tree that PyYAML makes: to look through its many objects for garbage, and to free them in the end,
    holds up all other threads.
    """

    def __init__(self, loader: yaml.CSafeLoader) -> None:
        self._loader = loader
        self._depth = 0
        self._events = 0
        self._lines: dict[Place, int] = {}
        self._problems: list[tuple[int, str]] = []

    def read(self) -> Document:
        """Return what the text has, which is one document or none."""
        self._next()  # the stream begins
        value = None
        if isinstance(self._next(), yaml.DocumentStartEvent):
            value = self._value(self._next(), ())
            self._next()  # the document ends
            if isinstance(more := self._next(), yaml.DocumentStartEvent):
                raise ValueError(f"line {more.start_mark.line + 1}: is no YAML (it has another document)")  # noqa: TRY004, for what reads it
        return Document(value, self._lines, self._problems)

    def _next(self) -> yaml.Event:
        """Return the next event, if it is one of those that are allowed."""
        event = self._loader.get_event()
        self._depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if problem := _problem_of(event, self._depth, self._events):
            raise ValueError(f"line {event.start_mark.line + 1}: {problem}")
        self._events += 1
        return event

    def _value(self, event: yaml.Event, place: Place) -> Any:
        """Return the value that begins with an event."""
        line = event.start_mark.line + 1
        self._lines.setdefault(place, line)
        if isinstance(event, yaml.MappingStartEvent) and event.tag in _PLAIN_MAPPING:
            return self._mapping(place)
        if isinstance(event, yaml.SequenceStartEvent) and event.tag in _PLAIN_SEQUENCE:
            return self._sequence(place)
        tag = self._tag(event)
        kind = tag.removeprefix(_PREFIX)
        if kind not in _READ_AS and tag != _TEXT:
            self._problems.append((line, "has a tag (!), write the plain value"))
            self._pass_over(event)
            return None
        return event.value if tag == _TEXT else Unquoted(event.value, kind)

    def _mapping(self, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(key := self._next(), yaml.MappingEndEvent):
            line, at = key.start_mark.line + 1, (*place, getattr(key, "value", ""))
            if self._tag(key) != _TEXT:
                self._problems.append((line, "has a key that is no text; put it into quotes"))
                self._pass_over(key)
            elif key.value in values:
                first = self._lines[at]
                self._problems.append((line, f"has the key {shown(key.value)} again, which stands in line {first}"))
            else:
                self._lines[at] = line
                values[key.value] = self._value(self._next(), at)
                continue
            self._pass_over(self._next())
        return values

    def _sequence(self, place: Place) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            values.append(self._value(event, (*place, len(values))))
        return values

    def _tag(self, event: yaml.Event) -> str:
        """Return what YAML takes a text for; no kind of text if it is none."""
        if not isinstance(event, yaml.ScalarEvent):
            return ""
        is_written = event.tag not in {None, "!"}
        return str(event.tag if is_written else self._loader.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _pass_over(self, event: yaml.Event) -> None:
        """Read to the end of the value that begins with an event."""
        around = self._depth - isinstance(event, yaml.CollectionStartEvent)
        while self._depth > around:
            self._next()
