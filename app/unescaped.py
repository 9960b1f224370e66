r"""What an escaped text stands for, and where in it each character comes from.

JSON, URLs, HTML, JavaScript and Python may escape any character, letters too, and base64 may be broken into lines. Who
looks for something in such a text looks into the text that it stands for, and then finds its place by `View.span_of`.
One pass undoes one escaping, and the same within JSON once more (`\\\\u0061`, `%2561`, `&amp;#97;`).

Nobody can tell whether a backslash escapes what follows, or is one that is meant: in HTML and URLs it is, in JSON each
second one is. So no backslash is in what a text stands for, and who looks for something with backslashes looks for it
without them. That way it does not matter either what follows the last one of a secret.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from html.entities import html5

_BACKSLASH = r"\\{1,4}"  # before the rest of an escape
_END = r"(?:\\{0,4};|%3b)"  # of a name or number of HTML
_ESCAPE = re.compile(
    rf"""
    (?:{_BACKSLASH}|%)u(?P<high>d[89ab][0-9a-f]{{2}})(?:{_BACKSLASH}|%)u(?P<low>d[c-f][0-9a-f]{{2}})
    | {_BACKSLASH}(?-i:U)00(?P<six>[0-9a-f]{{6}})
    | (?:{_BACKSLASH}|%)u(?P<four>[0-9a-f]{{4}})
    | {_BACKSLASH}u\{{(?P<braced>[0-9a-f]{{1,6}})\}}
    | (?:{_BACKSLASH}x|%(?:25)?)(?P<two>[0-9a-f]{{2}})
    | &(?:amp;)?\#x0{{0,8}}(?P<hexadecimal>[0-9a-f]{{1,6}}){_END}?
    | &(?:amp;)?\#0{{0,8}}(?P<decimal>[0-9]{{1,7}}){_END}?
    | &(?:amp;)?(?P<name>[a-z][a-z0-9]{{1,31}}){_END}
    | &(?:amp;)?(?P<bare_name>quot|amp|lt|gt)
    | {_BACKSLASH}N\{{(?P<unicode_name>[a-z0-9 -]{{2,88}})\}}
    | {_BACKSLASH}(?P<octal>[0-3]?[0-7]{{1,2}})
    | {_BACKSLASH}(?P<letter>(?-i:[nrtbfva]))
    | (?P<backslashes>\\{{1,4}})
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MAY_BE_ESCAPED = re.compile(r"[\\%&]")
_LINE_END = re.compile(r"[ \t]{0,8}(?:\r\n|[\r\n])[ \t]{0,8}")  # a header that goes on begins with a blank
_BYTES_OF_UTF8 = re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_BETWEEN_BYTES = re.compile(r"(?<=[0-9a-f]{2})(?:[ :,;-]{1,2}(?:0x)?|0x)(?=[0-9a-f]{2})", re.IGNORECASE)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}
_OCTAL, _DECIMAL, _HEXADECIMAL = 8, 10, 16
_BASES = {"octal": _OCTAL, "decimal": _DECIMAL}
_LAST_CHARACTER = 0x10FFFF


class View:
    """A text in which some pieces of another one are replaced.

    Attributes:
        text: The text.
    """

    def __init__(self, original: str, pieces: re.Pattern[str], meant: Callable[[re.Match[str]], str]) -> None:
        """Replace each piece by what is meant by it."""
        parts: list[str] = []
        self._here, self._there = [0], [0]  # where each part begins, in this text and in the original
        here = there = 0
        for found in pieces.finditer(original):
            start, end = found.span()
            for part, next_there in ((original[there:start], start), (meant(found), end)):
                parts.append(part)
                here, there = here + len(part), next_there
                self._here.append(here)
                self._there.append(there)
        parts.append(original[there:])
        self.text = "".join(parts)

    def span_of(self, start: int, end: int) -> tuple[int, int]:
        """Return where in the original text the characters from `start` to before `end` are."""
        first = bisect_right(self._here, start) - 1
        last = bisect_left(self._here, end)
        if last < len(self._here) and self._here[last] == end:
            return self._at(first, start), self._there[last]
        return self._at(first, start), self._at(last - 1, end)

    def wide_span_of(self, start: int, end: int) -> tuple[int, int]:
        """Return the same, with what is beside it in the original and stands for nothing."""
        first, last = bisect_left(self._here, start), bisect_right(self._here, end) - 1
        is_begun = self._here[first : first + 1] == [start]
        return self._there[first] if is_begun else self._at(first - 1, start), self._at(last, end)

    def _at(self, part: int, here: int) -> int:
        return self._there[part] + here - self._here[part]


def unescaped(text: str) -> View | None:
    """Return what an escaped text stands for; None if nothing in it is escaped."""
    return View(text, _ESCAPE, _meant) if _MAY_BE_ESCAPED.search(text) and _ESCAPE.search(text) else None


def as_utf8(text: str) -> View | None:
    """Return the text with each character for which it has the bytes of UTF-8 instead; None if it has no such bytes."""
    return View(text, _BYTES_OF_UTF8, lambda found: _decoded(found[0])) if _BYTES_OF_UTF8.search(text) else None


def on_one_line(text: str) -> View | None:
    """Return the text without line ends and the blanks beside them; None if it has none."""
    return View(text, _LINE_END, lambda _: "") if "\n" in text or "\r" in text else None


def digits_together(text: str) -> View | None:
    """Return the text without what stands between two bytes in hexadecimal; None if it has nothing like that."""
    return View(text, _BETWEEN_BYTES, lambda _: "") if _BETWEEN_BYTES.search(text) else None


def _decoded(data: str) -> str:
    return data.encode("latin-1").decode("utf-8", "replace")


def _meant(found: re.Match[str]) -> str:
    try:
        meant = unicodedata.lookup(found["unicode_name"]) if found["unicode_name"] else _meant_by_code(found)
    except KeyError:  # no character has that name
        meant = _no_code(found)
    return meant.replace("\\", "")  # one that was a code


def _meant_by_code(found: re.Match[str]) -> str:
    kind = found.lastgroup
    value = found[kind] if kind else ""
    if kind == "low":
        return (bytes.fromhex(found["high"]) + bytes.fromhex(value)).decode("utf-16-be")
    if kind == "backslashes":
        return ""
    if kind == "letter":
        return _LETTERS[value]
    if kind in {"name", "bare_name"}:
        return html5.get(f"{value};") or _no_code(found)
    code = int(value, _BASES.get(kind or "", _HEXADECIMAL))
    return chr(code) if code <= _LAST_CHARACTER else _no_code(found)


def _no_code(found: re.Match[str]) -> str:
    """Return what looks like an escape and is none, as it would be without the escaping around it."""
    return found[0].replace("\\", "").replace("&amp;", "&").replace("%3B", ";").replace("%3b", ";")
