"""The last guard before a text is shown: what is known to be secret is taken out, in the forms that libraries give it.

No secret is given to a text on purpose. But a library may log what it received, a server may repeat what it was sent
(as a token endpoint does in its errors), and a traceback may have it. So each text that leaves the process by the log,
a page or a command goes through here:

- Each secret of the settings, as it is, as base64 at any place of a longer text, in hexadecimal, and escaped for JSON,
  URLs, HTML and Python. Of a long one a beginning or an end is enough, as libraries cut what they show; then all that
  follows it, or comes before it, is left out. So a guess that is right in part looks as one that is wrong in the rest.
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
# Of a secret that is at least so long, this many characters at its beginning or end are taken for it: more than anybody
# guesses by publishing topics and looking which of them are shown.
LONG_CHARACTERS, PROBE_CHARACTERS = 40, 20

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
    """The secrets of this process.

    Attributes:
        changes: How often they became others.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Take the secrets."""
        self.changes = 0
        self._forms: tuple[str, ...] = ()
        self._heads: tuple[str, ...] = ()
        self._tails: tuple[str, ...] = ()
        self._probes: tuple[str, ...] = ()
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """Look for these secrets from now on, and for no others."""
        forms = {form for secret in secrets for form in _forms_of(secret) if len(form) >= SHORTEST_CHARACTERS}
        self.changes += 1
        # The long ones first: else a part of one would be taken out of another.
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        long_ones = [form for form in self._forms if len(form) >= LONG_CHARACTERS]
        self._heads = tuple({form[:PROBE_CHARACTERS] for form in long_ones})
        self._tails = tuple({form[-PROBE_CHARACTERS:] for form in long_ones})
        self._probes = (*self._heads, *self._tails, *(form for form in self._forms if len(form) < LONG_CHARACTERS))

    def hidden(self, text: str) -> str:
        """Return the text without them."""
        if len(text) < SHORTEST_CHARACTERS:
            return text
        if any(probe in text for probe in self._probes):
            for form in self._forms:
                text = text.replace(form, SHOWN_INSTEAD)
            for head in self._heads:
                before, found, _ = text.partition(head)
                text = before + SHOWN_INSTEAD if found else text
            for tail in self._tails:
                _, found, after = text.rpartition(tail)
                text = SHOWN_INSTEAD + after if found else text
        if _HINTS.search(text):
            for pattern, instead in _PATTERNS:
                text = pattern.sub(instead, text)
        return text


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
