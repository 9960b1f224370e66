"""The last guard before a text is shown: what is known to be secret is taken out, in the forms that libraries give it.

No secret is given to a text on purpose. But a library may log what it received, a server may repeat what it was sent
(as a token endpoint does in its errors), and a traceback may have it. So each text that leaves the process by the log,
a page or a command goes through here:

- Each secret of the settings, as it is, as base64 at any place of a longer text, in hexadecimal, and escaped for JSON,
  URLs, HTML and Python. Of a long one a beginning or an end is enough, as libraries cut what they show.
- What looks like a secret whoever it belongs to: user and password in a URL, the header `Authorization`, a JWT, and
  tokens by their name in OAuth.

Text that is shorter than 8 characters is not looked for: it could be part of any word, and would tell by its absence.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHOWN_INSTEAD = "(not shown)"
SHORTEST_CHARACTERS = 8
# Of a secret that is at least so long, this many characters at its beginning or end are taken for it.
LONG_CHARACTERS, PROBE_CHARACTERS = 24, 12

_PATTERNS = (
    (re.compile(r"(?<=://)[^\s\"'<>]{1,500}@"), f"{SHOWN_INSTEAD}@"),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){1,4}"), SHOWN_INSTEAD),
    # However malformed it is: up to the end of the line, or of the text that it is quoted in.
    (
        re.compile(r"(authorization(?:[\"']\s*,|[\"']?\s*[:=])\s*(?:b(?=[\"']))?[\"']?)[^\r\n\"'`]{8,}", re.IGNORECASE),
        rf"\1{SHOWN_INSTEAD}",
    ),
    (re.compile(r"\b((?:basic|bearer)\s+)[\w.~+/-]{16,}=*", re.IGNORECASE), rf"\1{SHOWN_INSTEAD}"),
    (
        re.compile(
            r"\b((?:access_token|refresh_token|id_token|client_secret|client_assertion)[\"']?[:=] *[\"']?)"
            r"[^\s\"'&,;}]+",
            re.IGNORECASE,
        ),
        rf"\1{SHOWN_INSTEAD}",
    ),
)
_HINTS = re.compile(r"://|eyJ|authoriz|basic |bearer |_token|client_", re.IGNORECASE)


class KnownSecrets:
    """The secrets of this process."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Take the secrets."""
        self._forms: tuple[str, ...] = ()
        self._heads: dict[str, list[str]] = {}
        self._tails: dict[str, list[str]] = {}
        self._probes: tuple[str, ...] = ()
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """Look for these secrets from now on, and for no others."""
        forms = {form for secret in secrets for form in _forms_of(secret) if len(form) >= SHORTEST_CHARACTERS}
        # The long ones first: else a part of one would be taken out of another.
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        self._heads, self._tails = {}, {}
        for form in self._forms:
            if len(form) >= LONG_CHARACTERS:
                self._heads.setdefault(form[:PROBE_CHARACTERS], []).append(form)
                self._tails.setdefault(form[-PROBE_CHARACTERS:], []).append(form)
        short = (form for form in self._forms if len(form) < LONG_CHARACTERS)
        self._probes = tuple({*self._heads, *self._tails, *short})

    def hidden(self, text: str) -> str:
        """Return the text without them."""
        if len(text) < SHORTEST_CHARACTERS:
            return text
        if any(probe in text for probe in self._probes):
            for form in self._forms:
                text = text.replace(form, SHOWN_INSTEAD)
            for head, forms in self._heads.items():
                text = _without_beginnings(text, head, forms)
            for tail, forms in self._tails.items():
                text = _without_ends(text, tail, forms)
        if _HINTS.search(text):
            for pattern, instead in _PATTERNS:
                text = pattern.sub(instead, text)
        return text


def _without_beginnings(text: str, head: str, forms: Iterable[str]) -> str:
    """Take out what begins as forms do, as far as it goes with one of them."""
    while (place := text.find(head)) >= 0:
        length = max(_common_characters(text[place : place + len(form)], form) for form in forms)
        text = f"{text[:place]}{SHOWN_INSTEAD}{text[place + length :]}"
    return text


def _without_ends(text: str, tail: str, forms: Iterable[str]) -> str:
    """Take out what ends as forms do, as far back as it goes with one of them."""
    while (place := text.find(tail)) >= 0:
        end = place + len(tail)
        length = max(_common_characters(text[max(0, end - len(form)) : end][::-1], form[::-1]) for form in forms)
        text = f"{text[: end - length]}{SHOWN_INSTEAD}{text[end:]}"
    return text


def _common_characters(one: str, other: str) -> int:
    """Return how many characters are the same at the beginning of both."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _forms_of(secret: str) -> Iterator[str]:
    """Yield what a secret may look like; each of its lines is one too, as a log has one line for each."""
    for plain in {secret, secret.strip(), *map(str.strip, secret.splitlines())}:
        if len(plain) >= SHORTEST_CHARACTERS:
            yield plain
            yield from _escaped(plain)
            yield from _encoded(plain.encode("utf-8", "surrogatepass"))


def _escaped(plain: str) -> Iterator[str]:
    yield json.dumps(plain)[1:-1]
    yield json.dumps(plain, ensure_ascii=False)[1:-1]
    yield repr(plain)[1:-1]
    yield html.escape(plain)
    data = plain.encode("utf-8", "surrogatepass")
    yield repr(data)[2:-1]
    yield data.decode("latin-1")
    for url in (quote(data), quote(data, safe=""), quote_plus(data)):
        yield url
        yield re.sub("%..", lambda code: code[0].lower(), url)


def _encoded(data: bytes) -> Iterator[str]:
    for digits in (data.hex(), data.hex(" "), data.hex(":")):
        yield digits
        yield digits.upper()
    # Three bytes are four characters: what the neighbours in the same three have a share in is left out.
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        middle = whole[(0, 2, 3)[before] : len(whole) - ((before + len(data)) % 3 > 0)]
        yield middle
        yield middle.replace("+", "-").replace("/", "_")


known = KnownSecrets()
