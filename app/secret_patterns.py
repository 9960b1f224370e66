r"""What looks like a secret, whoever it belongs to: found by its form or by the name before it.

- user and password in a URL
- what follows `Authorization`, `Basic` and `Bearer`, OAuth's names of tokens, and `response` in a Digest
- a JWT: a JSON object in base64, and a dot; however its JSON is laid out

Each takes a time that grows with the length of the text and not faster: all of it comes from others.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

# As JSON has one, JSON within JSON, and HTML; bounded, as all of it comes from others.
_QUOTE = r"(?:\\{0,4}(?:[\"']|u0022)|&quot;|&#34;)?"
_PATTERNS = (
    # However malformed it is: up to the end of the line, or of the text that it is quoted in.
    re.compile(
        rf"authorization{_QUOTE}\s{{0,8}}[,:=]\s{{0,8}}\[?(?:b(?=[\"']))?{_QUOTE}"
        # Parameters have quotes of their own: `Digest username="..."`, `Token token="..."`.
        r"(?P<secret>(?:=\\{0,4}[\"'][^\"'\r\n]{0,4096}[\"']?|[^\r\n\"'`]){8,})",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:\b|(?<=u0022))(?:(?:(?:registration_)?access|refresh|id|subject|actor|oauth)_token|client_secret|client_assertion)"
        rf"{_QUOTE}\s{{0,8}}(?:=>?|:|%3[ad])\s{{0,8}}{_QUOTE}(?P<secret>(?:[^\s\"'&,;}}\\]|\\+[/u])+)",
        re.IGNORECASE,
    ),
    re.compile(rf"\bresponse{_QUOTE}\s{{0,8}}[:=]\s{{0,8}}{_QUOTE}(?P<secret>[0-9a-f]{{32,128}})", re.IGNORECASE),
)
_SCHEME = re.compile(r"\b(?:basic|bearer)\s{1,8}(?P<secret>[\w.~+/-]{16,}=*)", re.IGNORECASE)
_URL = re.compile(r"://[^\s\"<>]*")
# How base64 of a brace begins, with a quote, a blank or a line end behind or before it; enough to see a name behind it.
_JSON_BEGINS = re.compile(r"(?=((?:e[yw]|C[ngiQSX]|D[QSX]|I[CAH])[\w-]{14}))")
_OBJECT = re.compile(rb"\s*\{\s*(?:\"[\w./#-]*(?:\"|$)|$)")
_TOKEN = re.compile(r"[\w-]+((?:\.[\w-]*){0,4})")
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
        if start >= end and _OBJECT.match(base64.urlsafe_b64decode(beginning[1])):
            token = _TOKEN.match(text, start)
            end = token.end() if token else end
            if token and token[1]:
                yield start, end
