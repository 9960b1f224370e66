"""Which characters of others' text may be seen as they are; all else is shown as Python writes it in a literal.

One rule for the log, the pages, the metrics and what commands print. It follows from the categories of Unicode:

- Of the categories Other (control, format, surrogate, private use, not assigned) and Separator nothing is shown as it
  is but the plain blank. Among them are line ends, escape sequences, zero-width and tag characters, and marks that turn
  the direction of text.
- Nor are the few letters and marks without a shape: fillers, variation selectors, the empty cell of Braille.
- A mark is shown on what carries it: one for every script (its name begins with COMBINING) on a letter, a digit, or a
  character beyond ASCII; that of one script on a character beyond ASCII. No more than five of them are. The vowels and
  finals of Hangul's conjoining letters are marks in this sense, as terminals give them no width.

Letters of all scripts stay, those that are written from right to left too. Letters that look alike are not told apart.
A topic or a name may be no text at all: `text_of` makes one of its bytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# More are in no living script; a pile of hundreds is drawn across the lines above and below.
MOST_MARKS = 5
_MARKS = frozenset({"Mn", "Mc", "Me"})
_CONJOINING = (("\u1160", "\u11ff"), ("\ud7b0", "\ud7ff"))
# What has no shape although its category says so: Unicode's Default_Ignorable_Code_Point outside of the category Other,
# and fillers, joiners and symbols that are drawn as nothing.
_WITHOUT_SHAPE = frozenset({
    "\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", "\u2800", "\u2d7f",
    "\u3164", "\uffa0", "\U0001107f", "\U00013441", "\U00013442", "\U00016fe4", "\U0001d159",
    *map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0)),
})  # fmt: skip
FEW_BYTES = 256  # that `text_of` shows as well as Python can
# How a character carries marks, and what a mark needs.
_NO_CARRIER, _OF_ASCII, _BEYOND_ASCII = range(3)


def visible(text: str) -> str:
    """Return the text with everything visible and on one line, each character in the place where it stands."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_each(text))


def _each(text: str) -> Iterator[str]:
    carrier, marks = _NO_CARRIER, 0
    for character in text:
        kind = _kind(character)
        if kind.needs_carrier:
            marks += 1
            is_shown = kind.is_shown and kind.needs_carrier <= carrier and marks <= MOST_MARKS
        else:
            marks, carrier, is_shown = 0, kind.carrier, kind.is_shown
        yield character if is_shown else kind.written


class _Kind(NamedTuple):
    """What is to be known of a character: what it needs to stand on, what it carries, how it is written out."""

    needs_carrier: int
    carrier: int
    is_shown: bool
    written: str


@lru_cache(maxsize=2048)  # of the characters of a few scripts; the longest topic would take a tenth of a second without
def _kind(character: str) -> _Kind:
    is_shown = character.isprintable() and character not in _WITHOUT_SHAPE
    carrier = _NO_CARRIER
    if is_shown and not character.isascii():
        carrier = _BEYOND_ASCII
    elif character.isalnum() and character.isascii():
        carrier = _OF_ASCII
    return _Kind(_needed_by(character), carrier, is_shown, character.encode("unicode_escape").decode("ascii"))


def _needed_by(character: str) -> int:
    if any(first <= character <= last for first, last in _CONJOINING):
        return _BEYOND_ASCII
    if unicodedata.category(character) not in _MARKS:
        return _NO_CARRIER
    return _OF_ASCII if unicodedata.name(character, "").startswith("COMBINING ") else _BEYOND_ASCII


def text_of(data: bytes) -> str:
    """Return bytes as text for people, what is not UTF-8 as Python writes bytes.

    Python's own way takes 50 ms for the longest topic, if none of it is UTF-8; of long ones all is escaped instead.
    """
    try:
        return data.decode("utf-8", "strict" if len(data) > FEW_BYTES else "backslashreplace")
    except UnicodeDecodeError:
        return escaped_bytes(data)


def escaped_bytes(data: bytes) -> str:
    """Return bytes as ASCII text, in a time that even the longest ones hardly take."""
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")
