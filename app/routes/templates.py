"""Texts that are made from the MQTT topic of a message: a record's key and headers, and a derived Kafka topic."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

MOST_REPEATS = 4  # a topic may have 65,535 bytes, and all of them are in memory
MOST_PARTS = 32  # of the topic, in one template: each is looked for in each new topic

_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")
_LEVEL = re.compile(r"\{([1-9][0-9]{0,4})\}")


class Level(NamedTuple):
    """A part of the topic: one level of it, or a level and all below it.

    Attributes:
        number: Of the level, from 1 on.
        with_all_below: Whether the levels below belong to it, with their slashes.
    """

    number: int
    with_all_below: bool = False

    def of(self, topic: str) -> str:
        """Return what the topic has there; empty if it has fewer levels."""
        levels = topic.split("/", self.number - 1 if self.with_all_below else self.number)
        return levels[self.number - 1] if self.number <= len(levels) else ""


@dataclass(frozen=True, slots=True)
class Template:
    """`{topic}`, `{1}`...`{n}` for a level of the topic, `{name}` for a wildcard with a name, `{{` and `}}` for braces.

    Levels count from 1, one that the topic does not have is empty. Names became parts of the topic when the template
    was read: to render it needs nothing but the topic.

    Attributes:
        text: The template as it was written.
        is_fixed: Whether it says the same for every topic.

    Raises:
        ValueError: with a sentence that says what is wrong with the template.
    """

    text: str
    captures: InitVar[Mapping[str, Level] | None] = None
    # Literal text, a part of the topic, or None for the whole topic.
    _parts: tuple[str | Level | None, ...] = field(init=False, repr=False)
    is_fixed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self, captures: Mapping[str, Level] | None) -> None:
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("the template is not valid UTF-8 text") from None
        parts = tuple(_part(piece, self.text, captures or {}) for piece in _PIECE.findall(self.text))
        named = Counter(part for part in parts if not isinstance(part, str))
        if any(times > MOST_REPEATS for times in named.values()):
            raise ValueError(
                f"the template {self.text!r} names the same part of the topic more than {MOST_REPEATS} times"
            )
        if (count := sum(named.values())) > MOST_PARTS:
            raise ValueError(f"the template names {count} parts of the topic, at most {MOST_PARTS} are allowed")
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "is_fixed", not named)

    @property
    def is_whole_topic(self) -> bool:
        """Whether it says the MQTT topic and nothing else."""
        return self._parts == (None,)

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts that stand in it as they are, in order; "" for each part of the topic."""
        return tuple(part if isinstance(part, str) else "" for part in self._parts)

    @property
    def parts(self) -> tuple[Level | None, ...]:
        """The parts of the topic that it names, in order; None for the whole topic."""
        return tuple([part for part in self._parts if not isinstance(part, str)])

    def values(self, topic: str) -> tuple[str, ...]:
        """What the topic has for each part that is no literal text, in order."""
        return tuple(_rendered(part, topic) for part in self._parts if not isinstance(part, str))

    def render(self, topic: str) -> bytes | None:
        """What it says for this topic; None if the template is empty, which means no key."""
        if not self._parts:
            return None
        return self.fill(topic).encode("utf-8", "surrogateescape")

    def fill(self, topic: str) -> str:
        """What it says for this topic, as text."""
        return "".join([_rendered(part, topic) for part in self._parts])


def _part(piece: str, template: str, captures: Mapping[str, Level]) -> str | Level | None:
    if piece in {"{{", "}}"}:
        return piece[0]
    if piece == "{topic}":
        return None
    if level := _LEVEL.fullmatch(piece):
        return Level(int(level[1]))
    if piece in {"{", "}"}:
        raise ValueError(f"the template {template!r} has a single {piece!r}: a brace as such is written {piece * 2!r}")
    if not piece.startswith("{"):
        return piece
    if piece[1:-1] in captures:
        return captures[piece[1:-1]]
    names = f", and the names in its MQTT filter: {', '.join(f'{{{name}}}' for name in captures)}" if captures else ""
    raise ValueError(
        f"the template {template!r} contains {piece}: allowed are {{topic}} and levels from {{1}} on{names}"
    )


def _rendered(part: str | Level | None, topic: str) -> str:
    if part is None:
        return topic
    return part if isinstance(part, str) else part.of(topic)
