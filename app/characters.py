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

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from typing import NamedTuple

# More are in no living script; a pile of hundreds is drawn across the lines above and below.
MOST_MARKS = 5
_MARKS = frozenset({"Mn", "Mc", "Me"})
_CONJOINING = frozenset(map(chr, (*range(0x1160, 0x1200), *range(0xD7B0, 0xD800))))
# What has no shape although its category says so: Unicode's Default_Ignorable_Code_Point outside of the category Other,
# and fillers, joiners and symbols that are drawn as nothing.
_WITHOUT_SHAPE = frozenset({
    "\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", "\u2800", "\u2d7f",
    "\u3164", "\uffa0", "\U0001107f", "\U00013441", "\U00013442", "\U00016fe4", "\U0001d159",
    *map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0)),
})  # fmt: skip
# Letters and digits, and what ASCII shows, need no look, but for these letters. Whether a text has some is asked first,
# as to look for everything at once takes ten times as long.
_UNUSUAL_LETTERS = _WITHOUT_SHAPE | _CONJOINING
_UNUSUAL = re.compile(r"[^\w -~]+")
_UNUSUAL_WITH_LETTERS = re.compile(rf"(?:[^\w -~]|[{''.join(sorted(_UNUSUAL_LETTERS))}])+")
FEW_BYTES = 256  # that `text_of` shows as well as Python can
# How a character carries marks, and what a mark needs.
_NO_CARRIER, _OF_ASCII, _BEYOND_ASCII = range(3)


def visible(text: str) -> str:
    """Return the text with everything visible and on one line, each character in the place where it stands."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_each(text))


def _each(text: str) -> Iterator[str]:
    """Yield the text in parts: as it is what needs no look, which is most of it, and the rest by its characters."""
    unusual = _UNUSUAL if _UNUSUAL_LETTERS.isdisjoint(text) else _UNUSUAL_WITH_LETTERS
    carrier, marks, end = _NO_CARRIER, 0, 0
    for found in unusual.finditer(text):
        start = found.start()
        if start > end:
            yield text[end:start]
            carrier, marks = _carried_by(text[start - 1]), 0
        end = found.end()
        for part in _parts(found[0]):
            if not part.isprintable():
                carrier, marks = _NO_CARRIER, 0
                yield _written(part)
                continue
            for character in part:
                needed, is_shown, written = _kind(character)
                if needed:
                    marks += 1
                    is_shown = is_shown and needed <= carrier and marks <= MOST_MARKS
                else:
                    carrier, marks = (_BEYOND_ASCII if is_shown else _NO_CARRIER), 0
                yield character if is_shown else written
    yield text[end:]


def _parts(text: str) -> Iterable[str]:
    """Return the parts of a text of which each is printable, or has nothing printable in it."""
    if len(text) == 1 or text.isprintable():
        return (text,)
    return ("".join(part) for _, part in groupby(text, str.isprintable))


def _written(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _carried_by(character: str) -> int:
    """Return which marks stand on a character that is shown and none itself."""
    if not character.isascii():
        return _BEYOND_ASCII
    return _OF_ASCII if character.isalnum() else _NO_CARRIER


class _Kind(NamedTuple):
    """What is to be known of a character that needs a look: what it has to stand on, and how it is written out."""

    needed: int  # `_NO_CARRIER` if it is no mark
    has_shape: bool
    written: str


@cache  # Unicode has some 11,000 marks and symbols, and no others come here
def _kind(character: str) -> _Kind:
    return _Kind(_needed_by(character), character not in _WITHOUT_SHAPE, _written(character))


def _needed_by(character: str) -> int:
    if character in _CONJOINING:
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
