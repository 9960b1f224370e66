r"""What looks like a secret, whoever it belongs to: found by its form or by the name before it.

- user and password in a URL
- what follows `Authorization`, `Basic` and `Bearer`, OAuth's names of tokens, and `response` in a Digest
- a JWT: a JSON object in base64, and a dot; however its JSON is laid out

Each takes a time that grows with the length of the text and not faster: all of it comes from others.

All of it may have letters, digits and blanks of any script. What is decoded as base64 must be ASCII. A value does not
end at a blank beyond ASCII, as passwords may have them, and a name begins behind a letter beyond ASCII, too.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

# As JSON has one, JSON within JSON, and HTML; bounded, as all of it comes from others.
_NEEDED_QUOTE = r"(?:\\{0,4}(?:[\"']|u0022)|&quot;|&#34;)"
_QUOTE = rf"{_NEEDED_QUOTE}?"
_BLANKS = r"\s{0,40}"
# What is between a name and its value, in JSON, forms, XML and Python's reprs; a comma behind a quote alone: a sentence
# has commas too.
_JOINT = rf"(?:{_QUOTE}{_BLANKS}(?:[:=>]>?|%3[ad])|{_NEEDED_QUOTE}{_BLANKS},){_BLANKS}"
# The value may be bytes, and in a list, as `parse_qs` has it and servers give headers; then all of the list is meant.
_BYTES = r"(?:b(?=\\{0,4}[\"']))?"
_LIST = rf"(?P<list>[\[(]{_BLANKS})?"
_NEXT = rf"{_NEEDED_QUOTE}{_BLANKS},{_BLANKS}{_BYTES}{_NEEDED_QUOTE}"
_VALUE = r"(?:(?a:[^\s\"'&,;}\\])|\\+[/u])+"
_NAME_BEGINS = r"(?a:\b)"
# It has quotes of its own: `Digest username="..."`, `Token token="..."`, `Token '...'`.
_PARAMETER = r"[= \t]\\{0,4}[\"'][^\"'\r\n]{0,4096}[\"']?"
_PATTERNS = (
    # However malformed it is: up to the end of the line, or of the text that it is quoted in.
    re.compile(
        rf"authorization{_QUOTE}{_BLANKS}[,:=>]{_BLANKS}{_LIST}{_BYTES}{_QUOTE}"
        rf"(?P<secret>(?=[^\r\n`]{{8}})(?:{_PARAMETER}|[^\r\n\"'`]|(?(list){_NEXT}|(?!)))+)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:{_NAME_BEGINS}|(?<=u0022))"
        r"(?:(?:(?:registration_)?access|refresh|id|subject|actor|oauth)_token|client_secret|client_assertion)"
        rf"{_JOINT}{_LIST}{_BYTES}{_QUOTE}(?P<secret>{_VALUE}(?(list)(?:{_NEXT}{_VALUE})*))",
        re.IGNORECASE,
    ),
    re.compile(rf"{_NAME_BEGINS}response{_JOINT}{_QUOTE}(?P<secret>[0-9a-f]{{32,128}})", re.IGNORECASE),
)
_SCHEME = re.compile(
    rf"{_NAME_BEGINS}(?:basic|bearer)(?:\s{{1,8}}|{_JOINT}){_BYTES}{_QUOTE}(?P<secret>[\w.~+/-]{{16,}}=*)",
    re.IGNORECASE,
)
_URL = re.compile(r"://[^\s\"<>]*", re.ASCII)  # a no-break space may be part of a password
# How base64 of a brace begins, with a quote, a blank or a line end behind or before it; enough to see what is behind.
_JSON_BEGINS = re.compile(r"(?=((?:e[yw]|C[ngiQSX]|D[QSX]|I[CAH])[\w-]{14}(?:[\w-]{4}){0,4}))", re.ASCII)
# Any string may be the first name. What is no JSON has bytes that are no UTF-8, or none that a text has.
_OBJECT = re.compile('\\s*\\{\\s*(?:"[^\0-\x08\x0e-\x1f\x7f\ufffd]*\ufffd?)?')  # it may be cut within a character
_TOKEN = re.compile(r"[\w-]+={0,2}((?:\.[\w-]*={0,2}){0,4})", re.ASCII)
_HINTS = re.compile(r"authoriz|_token|client_|response", re.IGNORECASE)
_SCHEME_HINTS = re.compile(r"basic|bearer", re.IGNORECASE)


def secrets_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield the place of each, from its first character to before its end; they may overlap."""
    yield from tokens_in(text)
    if "://" in text:
        for url in _URL.finditer(text):
            end = url[0].rfind("@")
            if end > len("://"):
                yield url.start() + len("://"), url.start() + end
    if _HINTS.search(text):
        for pattern in _PATTERNS:
            yield from (found.span("secret") for found in pattern.finditer(text))


def tokens_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield those that line ends may break."""
    if _SCHEME_HINTS.search(text):
        yield from (found.span("secret") for found in _SCHEME.finditer(text))
    end = 0
    for beginning in _JSON_BEGINS.finditer(text) if "." in text else ():
        start = beginning.start()
        if start >= end and _is_json(base64.urlsafe_b64decode(beginning[1])):
            token = _TOKEN.match(text, start)
            end = token.end() if token else end
            if token and token[1]:
                yield start, end


def _is_json(beginning: bytes) -> bool:
    return _OBJECT.fullmatch(beginning.decode("utf-8", "replace")) is not None
