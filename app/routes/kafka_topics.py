"""Names of Kafka topics: what is legal, and names that are derived from MQTT topics.

A derived name is chosen by publishers. So it begins with text of the operator's, a character that Kafka does not allow
becomes `_`, and what is no legal name all the same makes a dead letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from app.routes.templates import Level, Template

LONGEST_KAFKA_TOPIC = 249
# Reasons of dead letters.
ILLEGAL_KAFKA_TOPIC = "illegal_kafka_topic"
TOO_MANY_KAFKA_TOPICS = "too_many_kafka_topics"  # ROUTES_MAX_TOPICS of them are made from MQTT topics already

_KAFKA_TOPIC = re.compile(rf"[a-zA-Z0-9._-]{{1,{LONGEST_KAFKA_TOPIC}}}")
_LITERAL = re.compile(r"[a-zA-Z0-9._-]*")
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9._-]")
_OF_KAFKA = "__"  # with which the names of Kafka's own topics begin


def validate_kafka_topic(text: str) -> None:
    """Check the name of a Kafka topic by Kafka's own rules.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if text in {".", ".."} or not _KAFKA_TOPIC.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a legal Kafka topic: allowed are 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', "
            "but not '.' or '..'"
        )


def parse_kafka_topic(text: str, captures: Mapping[str, Level] | None = None) -> Template:
    """Read the name of a Kafka topic, or a template for names.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if "{" not in text and "}" not in text:
        validate_kafka_topic(text)
        return Template(text)
    template = Template(text, captures)
    literals = template.literals
    if not literals[0] or literals[0].startswith(_OF_KAFKA):
        raise ValueError(
            f"the template {text!r} must begin with text that is no part of the MQTT topic, and not with '__': else "
            "publishers could write to any Kafka topic"
        )
    if not all(_LITERAL.fullmatch(literal) for literal in literals) or sum(map(len, literals)) >= LONGEST_KAFKA_TOPIC:
        raise ValueError(
            f"the template {text!r} makes no legal Kafka topic: allowed are at most 249 characters of a-z, A-Z, 0-9, "
            "'.', '_' and '-'"
        )
    return template


def derived_kafka_topic(template: Template, topic: str) -> str:
    """Return the Kafka topic that a template makes of an MQTT topic.

    Raises:
        ValueError: It is no legal one, with a sentence without the name, which its publisher chose.
    """
    if not all(template.values(topic)):
        raise ValueError("a part of the MQTT topic that its name is made of is empty")
    text = template.fill(topic)
    if len(text) > LONGEST_KAFKA_TOPIC:  # before each of its characters is looked at, as there may be 260,000
        raise ValueError(f"its name would have {len(text)} characters, and Kafka allows {LONGEST_KAFKA_TOPIC}")
    name = _NOT_ALLOWED.sub("_", text)
    if name.startswith(_OF_KAFKA):
        raise ValueError("its name would begin with '__', as those of Kafka's own topics do")
    validate_kafka_topic(name)
    return name


class DerivedNames:
    """Which names of Kafka topics templates can make; also of topics that an earlier start had messages for."""

    def __init__(self, templates: Iterable[Template]) -> None:
        """Take the templates of the routes, of which those that say the same for every topic do not count."""
        # By the texts that a name begins and ends with, as there may be thousands of templates.
        self._patterns: dict[tuple[str, str], set[tuple[str, ...]]] = {}
        self._end_lengths: dict[str, set[int]] = {}
        self._beginning_lengths: set[int] = set()
        self.add(templates)

    def add(self, templates: Iterable[Template]) -> None:
        """Take more of them."""
        for template in templates:
            if not template.is_fixed:
                first, *rest = template.literals
                last = rest[-1] if rest else ""
                self._patterns.setdefault((first, last), set()).add(tuple(rest))
                self._end_lengths.setdefault(first, set()).add(len(last))
                self._beginning_lengths.add(len(first))

    def may_have(self, name: str) -> bool:
        """Tell whether a template can have made this name."""
        return self.literals_of(name) is not None

    def literals_of(self, name: str) -> tuple[str, ...] | None:
        """Return the literals of a template that can have made this name; None if there is none."""
        beginnings = (name[:length] for length in self._beginning_lengths)
        for first in beginnings:
            for length in self._end_lengths.get(first, ()):
                for rest in self._patterns.get((first, name[len(name) - length :]), ()):
                    if _can_be_made(name[len(first) :], rest):
                        return first, *rest
        return None


def _can_be_made(text: str, literals: tuple[str, ...]) -> bool:
    """Tell whether a text has these literals in this order, with something for each part of a topic ("")."""
    last = literals[-1] if literals else ""
    if not text.endswith(last):
        return False
    end, position, least = len(text) - len(last), 0, 0
    for literal in literals[:-1] if last else literals:
        if not literal:
            least += 1
            continue
        found = text.find(literal, position + least, end)
        if found < 0:
            return False
        position, least = found + len(literal), 0
    return end - position >= least
