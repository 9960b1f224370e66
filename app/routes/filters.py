"""MQTT filters: what is legal in one, and wildcards that have names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from app.routes.templates import Level

MAX_FILTER_BYTES = 65535

# What brokers have before a filter: its messages come under topics without it. EMQX, NanoMQ, BifroMQ, VerneMQ.
SHARING = ("$share/", "$oshare/", "$queue/")
PREFIXES = (*SHARING, "$exclusive/", "$delayed/")

LONGEST_NAME = 40
_NAME = re.compile(rf"\{{([A-Za-z_][A-Za-z0-9_]{{0,{LONGEST_NAME - 1}}})(#?)\}}")
_WHOLE_TOPIC = "topic"  # what `{topic}` means in templates
_BRACE = re.compile(r"\{\{|\}\}|[{}]")


class Pattern(NamedTuple):
    """A filter, and the names that its wildcards have.

    Attributes:
        mqtt_filter: The filter as it is subscribed to, with + and #.
        captures: Which part of a topic each name stands for.
    """

    mqtt_filter: str
    captures: Mapping[str, Level]


def parse_pattern(text: str) -> Pattern:
    """Read a filter in which `{name}` is a + with a name, and `{name#}` at the end a #; `{{` and `}}` are braces.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    captures: dict[str, Level] = {}
    levels = []
    for number, level in enumerate(text.split("/"), start=1):
        found = _NAME.fullmatch(level)
        levels.append(_level(text, level) if found is None else "#" if found[2] else "+")
        if found is None:
            continue
        if found[1] == _WHOLE_TOPIC:
            raise ValueError(f"the MQTT filter {text!r} names a wildcard {{topic}}, which means the whole topic")
        if found[1] in captures:
            raise ValueError(f"the MQTT filter {text!r} has the name {{{found[1]}}} twice, each must be another one")
        captures[found[1]] = Level(number, with_all_below=bool(found[2]))
    mqtt_filter = "/".join(levels)
    validate_topic_filter(mqtt_filter)
    return Pattern(mqtt_filter, captures)


def _level(text: str, level: str) -> str:
    """Return a level without a name as it is subscribed to."""
    if any(brace in "{}" for brace in _BRACE.findall(level)):
        raise ValueError(
            f"the MQTT filter {text!r} has {level!r}: a wildcard with a name is a whole level, {{name}} or at the end "
            f"{{name#}}, of 1 to {LONGEST_NAME} of a-z, A-Z, 0-9 and _, and begins with no digit; a brace as such is "
            "written {{ or }}"
        )
    return _BRACE.sub(lambda brace: brace[0][0], level)


def has_wildcard(mqtt_filter: str) -> bool:
    """Whether the filter can match more than one topic."""
    return "+" in mqtt_filter or "#" in mqtt_filter


def validate_topic_filter(text: str) -> None:
    """Check a topic filter by the rules of MQTT.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if not text:
        raise ValueError("the MQTT filter is empty, it must have at least one character")
    if "\0" in text:
        raise ValueError("the MQTT filter contains the character NUL, which MQTT does not allow")
    _validate_filter_encoding(text)
    _validate_prefix(text)
    _validate_wildcards(text)


def _validate_prefix(text: str) -> None:
    # The messages arrive under their plain topics: no route would match them.
    prefix = next((prefix for prefix in PREFIXES if text.startswith(prefix)), "")
    if prefix in SHARING:
        raise ValueError(
            f"the MQTT filter {text!r} is a shared subscription, which cannot be written as a filter: write the plain "
            "one, and set MQTT_SHARED_GROUP"
        )
    if prefix:
        raise ValueError(
            f"the MQTT filter {text!r} begins with {prefix}, with which some brokers mark a special kind of "
            "subscription, not a topic: write the plain filter"
        )


def _validate_filter_encoding(text: str) -> None:
    try:
        size_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"the MQTT filter {text!r} is not valid UTF-8 text") from None
    if size_bytes > MAX_FILTER_BYTES:
        raise ValueError(f"the MQTT filter is {size_bytes} bytes long in UTF-8, at most {MAX_FILTER_BYTES} are allowed")


def _validate_wildcards(text: str) -> None:
    levels = text.split("/")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(
            f"the MQTT filter {text!r} mixes '+' with other characters, it must be a whole level as in a/+/b"
        )
    if any("#" in level and level != "#" for level in levels):
        raise ValueError(
            f"the MQTT filter {text!r} mixes '#' with other characters, it must be a whole level as in a/#"
        )
    if "#" in levels[:-1]:
        raise ValueError(f"the MQTT filter {text!r} has a '#' before its end, it must be the last level as in a/#")
