"""Secrets with backslashes, escaped in each of the ways that servers have: none of them is shown, nor a part of it.

Whether a backslash is meant or escapes what follows depends on the way, and nothing in the text tells which it is.
"""

from __future__ import annotations

import html
import json
import random
import re
import string
from urllib.parse import quote, quote_plus

import pytest

from app.lines import escaped
from app.secret_forms import SHOWN_INSTEAD, KnownSecrets, known

CHARACTERS = string.ascii_letters + string.digits + string.punctuation
MUSTACHE = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
    "/": "&#x2F;",
    "`": "&#x60;",
    "=": "&#x3D;",
}


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def coded(characters: str, code: str):
    """Return an escaping that makes codes of these characters."""
    return lambda text: "".join(code.format(ord(c)) if c in characters else c for c in text)


def in_html(text: str) -> str:
    return html.escape(text, quote=False).replace("'", "&#39;").replace('"', "&#34;")


ESCAPINGS = {
    "HTML of Go": in_html,
    "HTML of PHP": lambda text: html.escape(text).replace("&#x27;", "&#039;"),
    "XML": lambda text: html.escape(text).replace("&#x27;", "&apos;"),
    "Mustache": lambda text: "".join(MUSTACHE.get(c, c) for c in text),
    "ESAPI": lambda text: "".join(c if c.isalnum() else f"&#x{ord(c):x};" for c in text),
    "JSON": in_json,
    "JSON of Go": lambda text: coded("<>&", "\\u{:04x}")(in_json(text)),
    "JSON of PHP": lambda text: in_json(text).replace("/", r"\/"),
    "JSON in JSON of PHP": lambda text: in_json(in_json(text).replace("/", r"\/")),
    "JavaScript": lambda text: text.replace("\\", r"\\").replace("'", r"\'"),
    "JavaScript of Django": coded("\\'\"<>&=-;`", "\\u{:04X}"),
    "JavaScript of OWASP": lambda text: coded("\"'&<>", "\\x{:02x}")(text.replace("\\", r"\\").replace("/", r"\/")),
    "C": lambda text: re.sub(r"[\\\"'?]", r"\\\g<0>", text),
    "each sign after a backslash": lambda text: re.sub(r"[^\w]", r"\\\g<0>", text),
    "Python": lambda text: repr(f"{text}'\"")[1:-4],
    "query of a browser": coded(' "#<>', "%{:02X}"),
    "query of a browser, special": coded(" \"#<>'", "%{:02X}"),
    "fragment of a browser": coded(' "<>`', "%{:02X}"),
    "URI of a browser": lambda text: quote(text, safe=";,/?:@&=+$-_.!~*'()#"),
    "form of Java": lambda text: quote_plus(text, safe="*"),
    "path of Go": lambda text: quote(text, safe="$&+=:@-_.~"),
    "HTML in JSON": lambda text: in_json(in_html(text)),
    "JSON in HTML": lambda text: in_html(in_json(text)),
    "JSON of PHP in HTML": lambda text: in_html(in_json(text).replace("/", r"\/")),
    "JSON in a form": lambda text: quote_plus(in_json(text), safe="*"),
    "query of a browser in JSON": lambda text: in_json(coded(' "#<>', "%{:02X}")(text)),
}
AROUND = (
    '{{"password":"{}"}}',
    "the password {} is wrong",
    "'{}'",
    r"{{\"password\":\"{}\"}}",
    "<{}>",
    "a={}&b=1",
    "{}",
)
SECRETS = (
    "ab/cdefgh12345\\", r"ab\'cdefgh12345", r"\/\"ab'cdefgh", r"ab\\'cdefgh\\", r"a\n'b/cdefghij", r"a\12'b/cdefgh",
    r"a\x41'b/cdefgh", r"a\u0041<b/cdefgh", r"a\%41'b/cdefgh", r"a\&lt;'b/cdefgh", r"&ab;'/\cdefgh", r"a&#39;\'/bcdefg",
    r"a\N{x y}'/bcdefgh", r"a&lt5\'/bcdefgh", r"%\41a'/bcdefgh", r"a\\\'b/\\\\cdefgh", r"pä\ss'wö\rd/€",
    "\\'ab\\'cd" * 3, r"\nab'/cdefgh\n", "&rj;'b/\\cdefgh",
    "&#9999999;\\'abcdefgh", "\\U00990000\\'abcdefgh", "&NoSuchName;\\'abcdefgh",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_known_afterwards():
    yield
    known.know(())


def assert_hidden(secret: str, escaping: str) -> None:
    said = ESCAPINGS[escaping](secret)
    for around in AROUND:
        before, after = around.format("\0").split("\0")
        shown = escaped(f"{before}{said}{after}")
        shown_before, is_hidden, shown_after = shown.partition(SHOWN_INSTEAD)
        assert is_hidden and before.startswith(shown_before) and after.endswith(shown_after), (escaping, secret, shown)


@pytest.mark.parametrize("escaping", ESCAPINGS)
def test_a_secret_with_backslashes_is_hidden_however_it_is_escaped(escaping):
    """The last one of a secret, or one before a sign, was taken for an escape of what follows."""
    for secret in SECRETS:
        known.know([secret])
        assert_hidden(secret, escaping)


@pytest.mark.parametrize("escaping", ESCAPINGS)
def test_no_password_drawn_by_chance_is_shown_however_it_is_escaped(escaping):
    drawn = random.Random(3)
    for _ in range(60):
        secret = "".join(drawn.choices(CHARACTERS, k=drawn.choice([12, 16, 24, 48])))
        for _ in range(drawn.randrange(4)):
            at = drawn.randrange(len(secret) + 1)
            secret = f"{secret[:at]}\\{secret[at:]}"
        known.know([secret])
        assert_hidden(secret, escaping)


def test_what_is_beside_a_secret_stays_but_backslashes():
    guard = KnownSecrets(["ab/cdefgh12345\\"])
    assert guard.hidden(r'{"a":"ab\/cdefgh12345\\","b":"\/"}') == rf'{{"a":"{SHOWN_INSTEAD}","b":"\/"}}'
    assert guard.hidden("%22ab/cdefgh12345%5C%22 \n ab") == f"%22{SHOWN_INSTEAD}%22 \n ab"
    assert guard.hidden("ab/cdefgh%31%32345%5C\n \\ ab") == f"{SHOWN_INSTEAD}\n \\ ab"


def test_a_secret_that_is_mostly_backslashes_is_known_as_it_is_and_hides_no_other_text():
    guard = KnownSecrets(["\\" * 12, "\\a\\b\\c\\d"])
    for said in ("\\" * 12, "\\a\\b\\c\\d", json.dumps("\\a\\b\\c\\d")[1:-1]):
        assert guard.hidden(f"said {said}!") == f"said {SHOWN_INSTEAD}!"
    assert guard.hidden("abcd, a/b") == "abcd, a/b"
