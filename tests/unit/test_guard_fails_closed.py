"""The last guard raises at no text: letters of all scripts are looked at, and what it cannot look at is not shown."""

from __future__ import annotations

import base64
import json
import logging
import random
import sys
import threading
import unicodedata

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app import metrics, secret_forms
from app.errors import SettingsError
from app.hardening import harden_process
from app.lines import (
    JsonFormatter,
    LineFormatter,
    LogHandler,
    escaped,
    escaped_json,
    escaped_lines,
    escaped_values,
    last_word,
    short,
    shown_topic,
)
from app.metric_definitions import METRICS
from app.pages.exposition import ConnectorCollector
from app.pages.problems import RecentProblems
from app.secret_forms import SHOWN_INSTEAD, KnownSecrets, known
from app.settings import load_settings

# Each begins as base64 of a brace does, goes on with letters that base64 has not, and has a dot behind.
BEGINNINGS = ("ey", "ew", "Cn", "Cg", "Ci", "CQ", "CS", "CX", "DQ", "DS", "DX", "IC", "IA", "IH")
NOT_ASCII = ("größe", "ЖЁЛТЫЙ", "温度計", "٣٤٥", "ⅷ²", "\U0001d7d8\U0001d7d9", "\u017fK", "é")
TOPIC = "a/Hockeyspielergröße12.x"
SECRETS = ["hunter2-correct+horse", "x" * 45 + "YZ", "pässwörd😀\\", "a\\'b/cdefgh", "пароль-от-брокера"]
FRAGMENTS = (
    "://", "authorization: [", " ", "\n", "\r", '"', "'", "\\", "\\\\", "\\1", "\\777", "\\u0041", "\\ud800", "\\udc00",
    "\\ud83d\\ude00", "%ud800", "%41", "%C3%A4", "%ff", "&#65;", "&#55296;",
    "&#x110000;", "&#1114112;", "&#0;", "&bne;",
    "&NotEqualTilde;", "&amp;#97;", "client_secret=", 'response="', "0" * 32, "basic ", "bearer ", "eyJhbGciOiJIUzI1",
    "ICAgICAgICAgICAgICAg", ".", "@", "u0022", "\\N{PLUS SIGN}", "\\N{\u017f K}", "\\u{110000}", "\\U00110000",
    "\\x", "ä",
    "\xed\xa0\x80", "\xf4\x90\x80\x80", "\udc80", "\ud83d", "😀", "K", "\u017f", "İ", "\u2028", "\x00", "\x85",
    "\xa0", "é",
    "0x41 0x42", "41-42;43", "\U0001d7d8", "٣", "²", ")", "]", "}", ";", ",", "=>", "`", "größe", "温度計",
    "ЖЁЛТЫЙ", *BEGINNINGS,
    *SECRETS,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_known_afterwards():
    known.know(())
    yield
    known.know(())


def ways_out(text: str) -> list[str]:
    """Return what all that shows a text makes of it."""
    record = logging.LogRecord("x", logging.WARNING, "", 0, "said: %s", (text,), None)
    lines = [formatter.format(record) for formatter in (LineFormatter(), JsonFormatter())]
    values = [
        json.dumps(escaped_values({text: [text]})),
        escaped_json([text]),
        escaped(short(text)),
        escaped_lines(text),
    ]
    return [*lines, *values, escaped(text), *(last_word(text, as_json=as_json) for as_json in (False, True))]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_what_begins_as_a_token_and_goes_on_in_another_script_is_shown(beginning):
    """A topic with such a word ended commands, had the pages answer 500, and lost the lines of the log."""
    for word in NOT_ASCII:
        for text in (TOPIC, *(f"{beginning}{'x' * at}{word}{'y' * 30}.z" for at in (0, 9))):
            assert all(SHOWN_INSTEAD not in said for said in ways_out(text))
            assert all(SHOWN_INSTEAD not in said for said in ways_out(f"{text}\n.{text * 20}"))
            assert escaped(text) == text


@pytest.mark.parametrize("letter", "ä温٣\u017f😀")
def test_a_token_beside_letters_of_another_script_is_hidden(letter):
    coded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256"}, {"b": 2})
    ]
    token = ".".join([*coded, "Zm9vYmFyZm9vYmFy"])
    for text in (f"{letter}{token}{letter}", f"{TOPIC} {token} {TOPIC}"):
        assert coded[0] not in escaped(text) and coded[1] not in escaped(text)
    for name in ("access_token=abcdefgh1", f"response={'0a' * 16}", "Bearer abcdefgh12345678"):
        assert name[-8:] not in escaped(f"{letter}{name}"), "a letter before it is no part of the name"
    assert "cdef" not in escaped("access_token=ab\xa0cdef\u2003cdef"), "a blank of another script ends no token"


def test_no_text_of_all_scripts_makes_the_guard_fail():
    """By chance: letters and digits of all scripts, halves of characters, escapes of what is no character."""
    drawn = random.Random(7)
    letters = [chr(code) for code in range(0x80, 0x20000) if unicodedata.category(chr(code))[0] in "LNMZC"]
    known.know(SECRETS)
    for _ in range(250):
        pieces = [*FRAGMENTS, *drawn.choices(letters, k=20)]
        text = "".join(drawn.choices(pieces, k=drawn.choice([3, 8, 30, 200])))
        ways_out(text)
        shown_topic(text)
        known.hidden_beginning(text, 30)
        known.hidden_end(text, 30)
    assert known.failures == 0


@pytest.fixture
def broken_guard(monkeypatch):
    """Have a part of the guard fail at each text that it is given, as nobody expects."""

    def fails(_):
        raise ValueError("canary-7d20e5")

    monkeypatch.setattr(secret_forms, "secrets_in", fails)


@pytest.mark.usefixtures("broken_guard")
def test_what_the_guard_cannot_look_at_is_not_shown_and_raises_nowhere():
    for text in ("hunter2-correct", "hunter2-correct " * 1_000, "hunter2-correct\n" * 3_000):
        said = ways_out(text)
        assert all("hunter2" not in each and SHOWN_INSTEAD in each for each in said)
    guard = KnownSecrets()
    assert guard.hidden("hunter2-correct") == SHOWN_INSTEAD
    assert guard.hidden_beginning("hunter2-correct" * 1_000, 300) == SHOWN_INSTEAD
    assert guard.hidden_end("hunter2-correct" * 1_000, 300) == SHOWN_INSTEAD
    assert guard.failures == 3


@pytest.mark.usefixtures("broken_guard")
def test_pages_metrics_and_settings_go_on_though_the_guard_fails():
    accounts = metrics.Accounts()
    accounts["a/hunter2-correct:t"].received = 1
    accounts["b/hunter2-correct:t"].received = 2
    registry = CollectorRegistry()
    histograms = {name: metrics.Histogram() for name, (kind, *_) in METRICS.items() if kind == "histogram"}
    registry.register(ConnectorCollector(accounts, metrics.Gauges(), histograms, {}))
    scraped = generate_latest(registry).decode()
    assert "hunter2" not in scraped and f'route="{SHOWN_INSTEAD} (2)"' in scraped
    with pytest.raises(SettingsError) as refused:
        load_settings({"TOPIC_LIST": TOPIC, "MQTT_BROKER_URL": "hunter2-correct:x"})
    assert "hunter2" not in last_word(str(refused.value), as_json=False)


@pytest.mark.parametrize("handler", ["log", "page", "before there is a log"])
@pytest.mark.parametrize("text", ["%d", "%s"])
def test_a_line_that_no_handler_can_write_is_told_without_its_values(handler, text, capsys, monkeypatch):
    """`logging` itself writes all values of such a call, and a stack, to standard error."""

    class Unspeakable:
        def __str__(self) -> str:
            raise ValueError("hunter2-correct")

        __repr__ = __str__

    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    logger = logging.Logger("connector", logging.DEBUG)  # noqa: LOG001, one that nobody else has
    if handler == "before there is a log":
        harden_process()
    else:
        logger.addHandler(LogHandler(sys.stderr) if handler == "log" else RecentProblems())
    logger.warning(text, "hunter2-correct" if text == "%d" else Unspeakable())
    said = capsys.readouterr().err
    assert said.startswith("a log line of connector (test_guard_fails_closed.py:")
    assert "hunter2" not in said and said.count("\n") == 1
