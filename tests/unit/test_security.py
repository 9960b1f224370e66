"""Forged log lines: what others send is one line, and harmless."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from app.characters import visible
from app.lines import LONGEST_CHARACTERS, LONGEST_EVENT_CHARACTERS, JsonFormatter, LineFormatter, escaped, last_word

FORGED = "2026-01-01 00:00:00,000 CRITICAL app: forged"
HARMFUL = (
    f"\n{FORGED}\r\x1b[2J\x00\x7f\x9b\x85\u2028\u2029\u202e\u2067\ufeff\u200b\u00ad\u3164\ufe0f\ufff9\ue000"
    "\U000e0041\U000e0101a" + "\u0301" * 20
)


def assert_harmless(data: bytes) -> list[str]:
    """Fail if the bytes would do something to a terminal or forge a line; return the lines."""
    text = data.decode("utf-8")
    for character in text.replace("\n", ""):
        assert character.isprintable(), (
            f"{character!r} in {next(line for line in text.split(chr(10)) if character in line)!r}"
        )
    lines = text.removesuffix("\n").split("\n")
    assert not [line for line in lines if line.startswith(FORGED)]
    assert lines == [visible(line) for line in lines]
    return lines


# ---- log lines and terminals


def test_one_event_is_one_line_however_long_and_hostile_it_is():
    record = logging.LogRecord("app.x", logging.WARNING, "", 0, "topic %s is %s", (HARMFUL * 3000, "dropped"), None)
    line = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format(record)
    assert_harmless(line.encode())
    assert "\n" not in line
    assert line.endswith("is dropped"), "what became of it stays to be read"
    assert "characters left out" in line
    assert len(line.partition(": ")[2]) <= LONGEST_CHARACTERS + len("...(65535 characters left out)...")


LONG = {
    "lines": "a line of an error\n" * 3_000,
    "few lines": ("y " * 999 + "y\n") * 9,
    "one line": "x" * 300_000 + " ",
    "harmful": HARMFUL * 5_000,
    "letters that JSON escapes": "\U00010400" * 5_000,
    "quotes": '\\"' * 5_000,
    "what is written out": "\U000e0041" * 1_990,
}


@pytest.mark.parametrize("kind", LONG)
def test_an_event_has_a_bound_with_its_traceback_and_after_it_is_escaped_in_both_formats(kind):
    """A traceback of 3,000 lines was one event, and a line of JSON could have 24,000 characters."""
    try:
        raise ValueError(LONG[kind] + "the end of it")
    except ValueError:
        errors = sys.exc_info()
    for message in ("it failed", LONG[kind] + "it failed"):
        for formatter in (LineFormatter("%(levelname)s %(message)s"), JsonFormatter()):
            text = formatter.format(
                logging.LogRecord("app.x", logging.ERROR, "", 0, message, (), errors, None, LONG[kind])
            )
            assert len(text) <= LONGEST_EVENT_CHARACTERS
            told = json.loads(text) if isinstance(formatter, JsonFormatter) else {"message": text, "exception": text}
            assert "it failed" in told["message"] and "the end of it" in told["exception"] + text
            assert isinstance(formatter, LineFormatter) and text == "\n".join(assert_harmless(text.encode()))
    assert len(last_word(LONG[kind], as_json=False)) <= LONGEST_EVENT_CHARACTERS
    assert len(last_word(LONG[kind], as_json=True)) <= LONGEST_EVENT_CHARACTERS
    assert len(escaped(LONG[kind])) <= LONGEST_CHARACTERS + 60


def test_a_traceback_is_readable_and_none_of_its_lines_looks_like_an_event():
    try:
        raise ValueError(HARMFUL)
    except ValueError:
        record = logging.LogRecord("app.x", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    text = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format(record)
    first, *rest = assert_harmless(text.encode())
    assert first.endswith("it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    assert "raise ValueError(HARMFUL)" in text


@pytest.mark.parametrize("text", ["Grüße 温度 🌡", "a\\nb", "plain", ""])
def test_what_harms_nobody_stays_as_it_is(text):
    assert escaped(text) == text
