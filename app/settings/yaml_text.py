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
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        reason = _sentence(error, text)
    except yaml.YAMLError:
        reason = "is no YAML: it has a character that YAML does not allow"
    else:
        document = Document(None)
        value = None if root is None else _value(root, (), document)
        return Document(value, document.lines, document.problems)
    raise ValueError(reason)


def _check_events(text: str) -> None:
    """Look for what must not be composed, as it is read event by event.

    Raises:
        ValueError: It has an alias, is nested deeply, or has a great many values.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if problem := _problem_of(event, depth, count):
            raise ValueError(f"line {event.start_mark.line + 1}: {problem}")


def _problem_of(event: yaml.Event, depth: int, count: int) -> str:
    if isinstance(event, yaml.AliasEvent):
        return "has an alias (*), write the value out instead"
    if depth > MOST_DEPTH:
        return f"is nested more than {MOST_DEPTH} deep"
    return f"has more than {MOST_EVENTS} values" if count > MOST_EVENTS else ""


def _sentence(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"line {number + 1}: is indented with a tab, and YAML allows blanks only"
    return f"line {number + 1}: is no YAML ({error.problem})"


def _value(node: yaml.Node, place: Place, document: Document) -> Any:
    document.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_PREFIX}map":
        return _mapping(node, place, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_PREFIX}seq":
        return [_value(item, (*place, number), document) for number, item in enumerate(node.value)]
    kind = node.tag.removeprefix(_PREFIX)
    if not isinstance(node, yaml.ScalarNode) or (kind not in _READ_AS and node.tag != _TEXT):
        document.problems.append((node.start_mark.line + 1, "has a tag (!), write the plain value"))
        return None
    return node.value if node.tag == _TEXT else Unquoted(node.value, kind)


def _mapping(node: yaml.MappingNode, place: Place, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
            document.problems.append((line, "has a key that is no text; put it into quotes"))
            continue
        at = (*place, key.value)
        if key.value in values:
            first = document.lines[at]
            document.problems.append((line, f"has the key {shown(key.value)} again, which stands in line {first}"))
        else:
            document.lines[at] = line
            values[key.value] = _value(item, at, document)
    return values
