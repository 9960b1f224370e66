"""JSON for people with very much in it, made in pieces: ten thousand routes take some hundred milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from app.lines import escaped_values, names

_encode = json.JSONEncoder(indent=2).encode


def json_pieces(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `escaped_json(content, indent=2)` returns: a piece for each value of the object, and of those in it.

    A value may also be an iterator of names and values, which stands for an object; then they are made one by one.
    """
    separator = "{\n  "
    for name, value in content.items():
        yield f"{separator}{_encode(names.shown(name))}: "
        yield from _value(value)
        separator = ",\n  "
    yield "\n}"


def _value(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        yield from _members("[]", (_indented(each) for each in value))
    elif isinstance(value, Iterator | dict):
        pairs = value.items() if isinstance(value, dict) else value
        yield from _members("{}", (f"{_encode(names.shown(name))}: {_indented(each)}" for name, each in pairs))
    else:
        yield _encode(escaped_values(value))


def _members(brackets: str, members: Iterator[str]) -> Iterator[str]:
    separator = f"{brackets[0]}\n    "
    for member in members:
        yield f"{separator}{member}"
        separator = ",\n    "
    yield f"\n  {brackets[1]}" if separator[0] == "," else brackets


def _indented(value: Any) -> str:
    return _encode(escaped_values(value)).replace("\n", "\n    ")  # no text in JSON has a line feed of its own
