"""The last guard before a text is shown: what is known to be secret is taken out, in the forms that libraries give it.

No secret is given to a text on purpose. But a library may log what it received, a server may repeat what it was sent
(as a token endpoint does in its errors), and a traceback may have it. So each text that leaves the process by the log,
a page or a command goes through here:

- Each secret of the settings, as it is, as base64 at any place of a longer text, in hexadecimal, and escaped for JSON,
  URLs, HTML and Python, whichever of its characters a server escapes, and how. Of a long one a beginning or an end is
  enough, as libraries cut what they show; then all that follows it, or comes before it, is left out. So a guess that is
  right in part looks as one that is wrong in the rest.
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
from functools import lru_cache
from html.entities import html5
from urllib.parse import quote, quote_plus

SHOWN_INSTEAD = "(not shown)"
SHORTEST_CHARACTERS = 8
# Of a secret that is at least so long, this many characters at its beginning or end are taken for it: more than anybody
# guesses by publishing topics and looking which of them are shown.
LONG_CHARACTERS, PROBE_CHARACTERS = 40, 20

# As JSON has one, JSON within JSON, and HTML; bounded, as all of it comes from others.
_QUOTE = r"(?:\\{0,4}(?:[\"']|u0022)|&quot;|&#34;)?"
_PATTERNS = (
    (re.compile(r"(?<=://)[^\s\"'<>]{1,500}@"), f"{SHOWN_INSTEAD}@"),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){1,4}"), SHOWN_INSTEAD),
    # However malformed it is: up to the end of the line, or of the text that it is quoted in.
    (
        re.compile(
            rf"(authorization{_QUOTE}\s{{0,8}}[,:=]\s{{0,8}}\[?(?:b(?=[\"']))?{_QUOTE})[^\r\n\"'`]{{8,}}", re.IGNORECASE
        ),
        rf"\1{SHOWN_INSTEAD}",
    ),
    (re.compile(r"\b((?:basic|bearer)\s+)[\w.~+/-]{16,}=*", re.IGNORECASE), rf"\1{SHOWN_INSTEAD}"),
    (
        re.compile(
            r"(?:\b|(?<=u0022))((?:access_token|refresh_token|id_token|client_secret|client_assertion)"
            rf"{_QUOTE}\s{{0,8}}(?:=>?|:|%3[ad])\s{{0,8}}{_QUOTE})(?:[^\s\"'&,;}}\\]|\\+[/u])+",
            re.IGNORECASE,
        ),
        rf"\1{SHOWN_INSTEAD}",
    ),
)
_UNCHANGED = re.compile("[0-9A-Za-z]+")
LONGEST_MIXED = 512  # a longer one is a key, and has lines
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
        self._mixed: tuple[tuple[str, str], ...] = ()
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """Look for these secrets from now on, and for no others."""
        secrets = tuple(secrets)
        forms = {form for plain in _texts_of(secrets) for form in _forms_of(plain) if len(form) >= SHORTEST_CHARACTERS}
        self.changes += 1
        # The long ones first: else a part of one would be taken out of another.
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        long_ones = [form for form in self._forms if len(form) >= LONG_CHARACTERS]
        self._heads = tuple({form[:PROBE_CHARACTERS] for form in long_ones})
        self._tails = tuple({form[-PROBE_CHARACTERS:] for form in long_ones})
        runs = ((max(_UNCHANGED.findall(plain), key=len, default=""), plain) for plain in _texts_of(secrets))
        self._mixed = tuple((run, plain) for run, plain in runs if run != plain and len(plain) <= LONGEST_MIXED)
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
        for run, plain in self._mixed:
            if run in text:
                text = _in_any_escape(plain).sub(SHOWN_INSTEAD, text)
        if _HINTS.search(text):
            for pattern, instead in _PATTERNS:
                text = pattern.sub(instead, text)
        return text


def _texts_of(secrets: Iterable[str]) -> Iterator[str]:
    """Yield the secrets; each of their lines is one too, as a log has one line for each."""
    for secret in secrets:
        for plain in {secret, secret.strip(), *map(str.strip, secret.splitlines())}:
            if len(plain) >= SHORTEST_CHARACTERS:
                yield plain


def _forms_of(plain: str) -> Iterator[str]:
    """Yield what a secret may look like as a whole."""
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


@lru_cache(maxsize=64)  # made when a part of the secret is seen
def _in_any_escape(plain: str) -> re.Pattern[str]:
    r"""Return what finds a secret of which each character may be escaped in its own way: servers have habits.

    JSON may have a slash as `\/` and a plus as `\u002B`, HTML an apostrophe as `&#39;`. Letters and digits of ASCII
    nobody escapes.
    """
    return re.compile("".join(map(_ways_of, re.findall(r"[0-9A-Za-z]+|\\+|.", plain, re.DOTALL))))


def _ways_of(part: str) -> str:
    """Return a pattern for letters and digits, for a row of backslashes (one each, or up to four), or a character."""
    if _UNCHANGED.fullmatch(part):
        return part
    times = len(part)
    character = part[0]
    literal = rf"\\{{{times},{4 * times}}}" if character == "\\" else rf"\\{{0,3}}{re.escape(character)}"
    ways = "|".join(_escapes_of(character))
    return f"(?:{literal}|(?i:{ways}){{{times}}})"


def _escapes_of(character: str) -> Iterator[str]:
    code, data = ord(character), character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    backslash = r"\\{1,4}"
    yield "".join(f"{backslash}u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    yield "".join(f"{backslash}x{byte:02x}" for byte in data)
    yield f"{backslash}(?:x{code:02x}|U{code:08x})"
    yield "".join(f"%(?:25)?{byte:02x}" for byte in data)
    yield f"&(?:amp;)?#(?:0*{code}|x0*{code:x});"
    yield from (f"&{name}" for name, meant in html5.items() if meant == character and name.endswith(";"))
    yield re.escape(data.decode("latin-1"))
    if character.isspace():
        yield re.escape(json.dumps(character)[1:-1])
        yield r"\+"


known = KnownSecrets()
