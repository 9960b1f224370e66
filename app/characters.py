"""Which characters of others' text may be seen as they are; all else is shown as Python writes it in a literal.

One rule for the log, the pages, the metrics and what commands print. It follows from the categories of Unicode:

- Of the categories Other (control, format, surrogate, private use, not assigned) and Separator nothing is shown as it
  is but the plain blank. Among them are line ends, escape sequences, zero-width and tag characters, and marks that turn
  the direction of text.
- Nor are the few letters and marks without a shape: fillers, variation selectors, the empty cell of Braille.
- A mark is shown on what carries one: a letter, a digit, or a character beyond ASCII; and no more than four of them.

Letters of all scripts stay, those that are written from right to left too. Letters that look alike are not told apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# More are in no living script; a pile of hundreds is drawn across the lines above and below.
MOST_MARKS = 4
_MARKS = frozenset({"Mn", "Me"})
# What has no shape although its category says so: Unicode's Default_Ignorable_Code_Point outside of the category Other,
# and two symbols that are drawn as nothing.
_WITHOUT_SHAPE = frozenset({
    "\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", "\u2800", "\u3164",
    "\uffa0", "\U0001d159", *map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0)),
})  # fmt: skip


def visible(text: str) -> str:
    """Return the text with everything visible and on one line, each character in the place where it stands."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_each(text))


def _each(text: str) -> Iterator[str]:
    carries, marks = False, 0
    for character in text:
        kind = _kind(character)
        if kind.is_mark:
            marks += 1
            yield character if carries and marks <= MOST_MARKS and kind.is_shown else kind.written
        else:
            marks, carries = 0, kind.carries
            yield character if kind.is_shown else kind.written


class _Kind(NamedTuple):
    """What is to be known of a character: also whether it carries marks, and how it is written out."""

    is_mark: bool
    is_shown: bool
    carries: bool
    written: str


@lru_cache(maxsize=2048)  # of the characters of a few scripts; the longest topic would take a tenth of a second without
def _kind(character: str) -> _Kind:
    is_shown = character.isprintable() and character not in _WITHOUT_SHAPE
    return _Kind(
        unicodedata.category(character) in _MARKS,
        is_shown,
        is_shown and (character.isalnum() or not character.isascii()),
        character.encode("unicode_escape").decode("ascii"),
    )
