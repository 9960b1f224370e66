"""The last guard before a text is shown: what is known to be secret is taken out, in the forms that libraries give it.

No secret is given to a text on purpose. But a library may log what it received, a server may repeat what it was sent
(as a token endpoint does in its errors), and a traceback may have it. So each text that leaves the process by the log,
a page or a command goes through here:

- Each secret of the settings, as it is, as base64 at any place of a longer text, in hexadecimal, and escaped for JSON,
  URLs, HTML and Python, whichever of its characters a server escapes, and how. Of a long one a beginning or an end is
  enough, as libraries cut what they show; then all that follows it, or comes before it, is left out. So a guess that is
  right in part looks as one that is wrong in the rest.
- What looks like a secret whoever it belongs to (`app.secret_patterns`).

A text is looked at up to five times: as it is, as what it stands for if something in it is escaped, with the bytes of
UTF-8 made characters, without its line ends, as base64 may be broken into lines, and with the bytes in hexadecimal
moved together (`app.unescaped`).

A text at which something fails here, as nobody expects, is not shown at all.

Text that is shorter than 8 characters is not looked for: it could be part of any word, and would tell by its absence.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote, quote_plus

from app.probes import SHORTEST_PROBE_CHARACTERS, Probes
from app.secret_patterns import secrets_in, tokens_in
from app.unescaped import View, as_utf8, digits_together, on_one_line, unescaped

SHOWN_INSTEAD = "(not shown)"
SHORTEST_CHARACTERS = SHORTEST_PROBE_CHARACTERS  # shorter ones `Probes` would not find
# Of a secret that is at least so long, this many characters at its beginning or end are taken for it: more than anybody
# guesses by publishing topics and looking which of them are shown.
LONG_CHARACTERS, PROBE_CHARACTERS = 40, 20
# Looked at beside what is kept of a text, so that no cut goes through a secret: a token may have thousands of them,
# and a library may have cut the text within it, so that its beginning alone tells what it is.
MARGIN_CHARACTERS = 8_192
# What ends the user and password of a URL, or the first part of a JWT, which may be longer than that.
_MAY_FOLLOW = ".@"
# No secret that is longer goes on behind these, unless it is broken into lines.
_WORD_END = re.compile(r"(?<!\s)[ \t]+(?!\s)|[\"<>]")
# How a text is looked at, each time behind the last; and what is looked for there, whoever it belongs to.
_STEPS: tuple[tuple[Callable[[str], View | None], Callable[[str], Iterable[tuple[int, int]]]], ...] = (
    (unescaped, secrets_in),
    (as_utf8, lambda _: ()),
    (on_one_line, tokens_in),
    (digits_together, lambda _: ()),
)

_WayBack = Callable[[int, int], tuple[int, int]]


class KnownSecrets:
    """The secrets of this process.

    Attributes:
        changes: How often they became others.
        failures: How many texts could not be looked at, and were not shown for it.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Take the secrets."""
        self.changes = self.failures = 0
        self._longest = 0
        self._as_written = self._unescaped = _Forms(())
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """Look for these secrets from now on, and for no others."""
        plain_texts = set(_texts_of(secrets))
        self._longest = max(map(len, plain_texts), default=0)
        forms = {form for plain in plain_texts for form in _forms_of(plain)}
        plain_forms = {form.replace("\\", "") for form in forms}  # as no escaped text stands for a backslash
        meant = {text for form in forms | plain_forms for text in _meant_by(form)}
        self._as_written, self._unescaped = _Forms(forms), _Forms(plain_forms | meant)
        self.changes += 1

    def hidden(self, text: str) -> str:
        """Return the text without them."""
        return _without(text, spans) if (spans := self._places_in(text)) else text

    def hidden_beginning(self, text: str, characters: int, margin: int = MARGIN_CHARACTERS) -> str:
        """Return so many characters from the beginning of a text, without secrets; none of them is cut in two.

        Args:
            text: The text.
            characters: How many are kept.
            margin: How many behind them are looked at.
        """
        looked_at = text[: characters + margin]
        is_all = len(looked_at) == len(text)
        found = self._places_in(looked_at if is_all else looked_at + _MAY_FOLLOW)
        if not is_all and self._longest > MARGIN_CHARACTERS:
            found.append((_last_word_in(looked_at), len(looked_at)))
        spans = [span for span in found if span[0] < characters]
        return _without(looked_at[: max([characters, *(end for _, end in spans)])], spans)

    def hidden_end(self, text: str, characters: int) -> str:
        """Return so many characters from the end of a text, without secrets; none of them is cut in two."""
        looked_at = text[-characters - MARGIN_CHARACTERS :]
        kept_from = len(looked_at) - min(characters, len(looked_at))
        found = self._places_in(looked_at)
        if len(looked_at) < len(text):
            found.append((0, _first_word_in(looked_at)))
        spans = [span for span in found if span[1] > kept_from]
        first = min([kept_from, *(start for start, _ in spans)])
        return _without(looked_at[first:], [(start - first, end - first) for start, end in spans])

    def _places_in(self, text: str) -> list[tuple[int, int]]:
        if len(text) < SHORTEST_CHARACTERS:
            return []
        try:
            return self._found_in(text)
        except Exception:  # noqa: BLE001, whatever fails here must neither show a secret nor end who only shows a text
            self.failures += 1
            return [(0, len(text))]

    def _found_in(self, text: str) -> list[tuple[int, int]]:
        spans = [*self._as_written.places_in(text), *secrets_in(text)]
        seen = text
        ways_back: list[_WayBack] = []
        wide_ways_back: list[_WayBack] = []  # with backslashes at its ends, which may be of the secret
        for look_behind, others in _STEPS:
            view = look_behind(seen)
            if view is not None:
                seen = view.text
                ways_back.append(view.span_of)
                wide_ways_back.append(view.wide_span_of if look_behind is unescaped else view.span_of)
                spans += [_span_behind(wide_ways_back, span) for span in self._unescaped.places_in(seen)]
                spans += [_span_behind(ways_back, span) for span in others(seen)]
        return spans


class _Forms:
    """What is looked for in a text as it is: forms of secrets."""

    def __init__(self, forms: Iterable[str]) -> None:
        self._whole: dict[str, list[str]] = {}  # by what is looked for of them
        self._heads: set[str] = set()
        self._tails: set[str] = set()
        for form in {form for form in forms if len(form) >= SHORTEST_CHARACTERS}:
            head = form
            if len(form) >= LONG_CHARACTERS:
                head = form[:PROBE_CHARACTERS]
                self._heads.add(head)
                self._tails.add(form[-PROBE_CHARACTERS:])
            self._whole.setdefault(head, []).append(form)
        self._probes = Probes({*self._whole, *self._tails})

    def places_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the places of them in a text; a part of a long one stands for all beside it."""
        found = self._probes.found_in(text)
        if not found:
            return
        rest = text  # in which parts are looked for: not in what is whole, or all beside it would go too
        for form in (form for probe in found for form in self._whole.get(probe, ())):
            yield from _places(form, text)
            rest = rest.replace(form, "\0" * len(form))
        if starts := [start for head in found & self._heads if (start := rest.find(head)) >= 0]:
            yield min(starts), len(text)
            rest = rest[: min(starts)]
        if ends := [start + len(tail) for tail in found & self._tails if (start := rest.rfind(tail)) >= 0]:
            yield 0, max(ends)


def _places(form: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + len(form))


def _first_word_in(text: str) -> int:
    """Return where the first word ends: it may be the rest of a secret that begins before the text."""
    end = _WORD_END.search(text)
    return end.start() if end else len(text)


def _last_word_in(text: str) -> int:
    """Return where the last word begins: it may be the beginning of a secret that goes on behind the text."""
    return max((end.end() for end in _WORD_END.finditer(text)), default=0)


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return the text without some places, which may overlap."""
    parts: list[str] = []
    shown_to = 0
    for start, end in sorted(spans):
        if start >= shown_to:
            parts += [text[shown_to:start], SHOWN_INSTEAD]
        shown_to = max(shown_to, end)
    return "".join((*parts, text[shown_to:]))


def _span_behind(ways_back: Sequence[_WayBack], span: tuple[int, int]) -> tuple[int, int]:
    """Return where in the text under all views is what the last of them shows at a place."""
    for way_back in reversed(ways_back):
        span = way_back(*span)
    return span


def _meant_by(form: str) -> Iterator[str]:
    """Yield what a form stands for at each look behind it, as it is looked for in what a text stands for."""
    for look_behind in (unescaped, as_utf8, on_one_line):
        view = look_behind(form)
        form = view.text if view else form
        yield form


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


known = KnownSecrets()
