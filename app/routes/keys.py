"""The key of a record, made from the topic of its message."""

import re
from dataclasses import dataclass, field

MOST_REPEATS = 4  # a topic may have 65,535 bytes, and all of them are in memory

_KEY_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")
_KEY_LEVEL = re.compile(r"\{([1-9][0-9]{0,4})\}")


@dataclass(frozen=True, slots=True)
class RecordKey:
    """The template of a record's key: `{topic}`, `{1}`...`{n}` for a level of the topic, `{{` and `}}` for braces.

    Levels count from 1, one that the topic does not have is empty. The empty template means that records have no key.

    Raises:
        ValueError: with a sentence that says what is wrong with the template.
    """

    template: str
    # Literal text, a level's number, or None for the whole topic.
    _parts: tuple[str | int | None, ...] = field(init=False, repr=False, compare=False)
    _deepest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            self.template.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("the template is not valid UTF-8 text") from None
        parts = tuple(_key_part(piece, self.template) for piece in _KEY_PIECE.findall(self.template))
        repeated = [part for part in parts if not isinstance(part, str)]
        if any(repeated.count(part) > MOST_REPEATS for part in set(repeated)):
            raise ValueError(
                f"the template {self.template!r} names the same part of the topic more than {MOST_REPEATS} times"
            )
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_deepest", max((part for part in parts if isinstance(part, int)), default=0))

    def render(self, topic: str) -> bytes | None:
        """The key of a record from this topic, or None for no key."""
        if not self._parts:
            return None
        levels = topic.split("/", self._deepest) if self._deepest else []
        text = "".join(_rendered(part, topic, levels) for part in self._parts)
        return text.encode("utf-8", "surrogateescape")


def _key_part(piece: str, template: str) -> str | int | None:
    if piece in {"{{", "}}"}:
        return piece[0]
    if piece == "{topic}":
        return None
    if level := _KEY_LEVEL.fullmatch(piece):
        return int(level[1])
    if piece in {"{", "}"}:
        raise ValueError(f"the template {template!r} has a single {piece!r}: a brace as such is written {piece * 2!r}")
    if piece.startswith("{"):
        raise ValueError(f"the template {template!r} contains {piece}: allowed are {{topic}} and levels from {{1}} on")
    return piece


def _rendered(part: str | int | None, topic: str, levels: list[str]) -> str:
    if part is None:
        return topic
    if isinstance(part, str):
        return part
    return levels[part - 1] if part <= len(levels) else ""
