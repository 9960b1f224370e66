"""What people see: nothing invisible, nothing that moves other text, and the letters of every script as they are."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import re
import time
import unicodedata
from pathlib import Path

import pytest

from app import metrics
from app.characters import MOST_MARKS, visible
from app.lines import JsonFormatter, LineFormatter, escaped, escaped_values
from app.pages import exposition
from app.pages.exposition import ConnectorCollector
from clients import subscriber_kafka

REPOSITORY = Path(__file__).resolve().parents[2]
# NFD as file systems have it; a word of Burmese with four marks on a letter; Hebrew with points.
DECOMPOSED, BURMESE, POINTED = "\u1112\u1161\u11ab\u1100\u1173\u11af", "မြို့", "בְּרֵאשִׁ֖ית"
HEBREW, ARABIC, HINDI, THAI = "בית/מטבח/טמפרטורה", "مصنع/خط/حرارة", "घर/रसोई/तापमान", "บ้าน/ห้องครัว/อุณหภูมิ"
# A kind, and one of it; each is to be read in the text, as what it is.
INVISIBLE = {
    "a control of C0": "\x1b",
    "a control of C1": "\x9b",
    "a line feed": "\n",
    "the next line": "\x85",
    "a line separator": "\u2028",
    "a paragraph separator": "\u2029",
    "a zero-width space": "\u200b",
    "a zero-width joiner": "\u200d",
    "a word joiner": "\u2060",
    "a byte order mark": "\ufeff",
    "a soft hyphen": "\xad",
    "an invisible operator": "\u2062",
    "a right-to-left override": "\u202e",
    "an isolate": "\u2067",
    "an Arabic letter mark": "\u061c",
    "a deprecated format character": "\u206e",
    "an interlinear annotation": "\ufff9",
    "a tag": "\U000e0041",
    "the tag of a language": "\U000e0001",
    "a variation selector": "\ufe0f",
    "a variation selector of the supplement": "\U000e0101",
    "a Mongolian variation selector": "\u180b",
    "a combining grapheme joiner": "\u034f",
    "a Tifinagh joiner": "\u2d7f",
    "a filler of Khitan": "\U00016fe4",
    "a vowel of Hangul that nothing carries": "\u1161",
    "a Devanagari sign on a Latin letter": "\u0902",
    "a Hangul filler": "\u3164",
    "a halfwidth Hangul filler": "\uffa0",
    "a Khmer vowel without a shape": "\u17b4",
    "an empty cell of Braille": "\u2800",
    "a musical format character": "\U0001d173",
    "a note without a head": "\U0001d159",
    "a blank that is none of ASCII": "\u00a0",
    "an ideographic space": "\u3000",
    "a character for private use": "\ue000",
    "one of a plane for private use": "\U0010fffd",
    "a lone surrogate": "\udc80",
    "no character": "\uffff",
    "a character that is not assigned": "\U000e0fff",
}


@pytest.mark.parametrize("kind", INVISIBLE)
def test_what_cannot_be_seen_is_written_out(kind):
    character = INVISIBLE[kind]
    written = visible(f"device{character}-1")
    assert written == f"device{character.encode('unicode_escape').decode()}-1"
    assert visible(written) == written


def test_no_character_of_the_categories_other_and_separator_passes_but_the_blank():
    planes = [*range(0x3100), *range(0xA000, 0x11000), *range(0x1D000, 0x1D200), *range(0xE0000, 0xE1001)]
    for number in planes:
        character = chr(number)
        passes = visible(f"a{character}") == f"a{character}"
        if unicodedata.category(character)[0] in "CZ":
            assert passes == (character == " "), f"U+{number:04X}"
        elif unicodedata.category(character)[0] == "L" and not 0x1160 <= number <= 0x11FF and number < 0xD7B0:
            assert passes or character in "\u115f\u3164\uffa0", f"U+{number:04X}"


@pytest.mark.parametrize(
    "text",
    [
        HEBREW,
        ARABIC,
        HINDI,
        THAI,
        DECOMPOSED,
        BURMESE,
        POINTED,
        "Grüße",
        "温度",
        "tế bào",
        "te\u0302\u0301 ba\u0300o",
        "🌡",
        "a\\nb",
    ],
)
def test_letters_of_all_scripts_stay(text):
    assert visible(text) == escaped(text) == text


def test_a_pile_of_marks_is_cut_and_a_mark_stands_on_a_letter_or_a_digit_only():
    pile = visible("a" + "\u0301" * 500)
    assert pile == "a" + "\u0301" * MOST_MARKS + "\\u0301" * (500 - MOST_MARKS)
    for carrier in ("", "/", "'", " ", "\u200b"):
        assert "\u0338" not in visible(f"{carrier}\u0338"), "it would be drawn across text of ours"
    assert "\u0301" not in visible("'" + "\u0301\u20dd" * 3)


def test_the_longest_hostile_topic_is_written_out_within_milliseconds():
    for text in ("\u0301" * 65_535, "\u202e" * 21_845, "://" * 21_845 + "@", "eyJ" * 21_845, "basic " * 10_922):
        begin = time.thread_time()
        escaped(text)
        assert time.thread_time() - begin < 0.05


LETTERS = [chr(number) for number in (*range(0x3400, 0xA000), *range(0xAC00, 0xD7A4))]
MARKS = [character for character in map(chr, range(0x20000)) if unicodedata.category(character).startswith("M")]
COSTLY = {
    "letters": LETTERS,
    "private": [chr(number) for number in range(0xE000, 0xF900)],
    "marks": MARKS,
    "marks on letters": [f"{letter}{mark}" for letter, mark in zip(LETTERS, MARKS, strict=False)],
}


def seconds_for(parts):
    """Return what 20,000 characters take, in which each of these parts comes as late as possible again."""
    text = "".join(itertools.islice(itertools.cycle(parts), 20_000))[:20_000]
    seconds = []
    for _ in range(5):
        begin = time.thread_time()
        visible(text)
        seconds.append(time.thread_time() - begin)
    return min(seconds)


@pytest.mark.parametrize("parts", COSTLY.values(), ids=list(COSTLY))
def test_thousands_of_different_characters_cost_little_more_than_a_few(parts):
    """Twelve times as much: 2,048 were remembered, and each was forgotten before it came again."""
    assert seconds_for(parts) < 6 * seconds_for(parts[1000:1005])


def test_every_way_out_has_the_same_rule(monkeypatch):
    """The log in both forms, JSON for the page, a label of a metric, the subscriber."""
    hostile = "".join(f"x{character}" for character in INVISIBLE.values())
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", (hostile,), None)
    name = "connector_received_total"
    monkeypatch.setattr(exposition, "METRICS", {name: exposition.METRICS[name]})
    accounts = metrics.Accounts()
    accounts[hostile].receive(1)
    collector = ConnectorCollector(accounts, metrics.Gauges(), {}, {})
    ways = {
        "text": LineFormatter("%(message)s").format(record),
        "json": json.loads(JsonFormatter().format(record))["message"],
        "page": str(escaped_values({hostile: [hostile, 1, None]})),
        "label": next(iter(collector.collect())).samples[0].labels["route"],
        "subscriber": subscriber_kafka._shown(hostile[:40].encode("utf-8", "surrogatepass")),
    }
    for way, text in ways.items():
        assert visible(text) == text != hostile, way


def calls(folder: str, names: set[str]):
    """Iterate over the calls of methods and functions with these names: the file, the function around it, the call."""
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names:
                        yield path, function, node


def test_no_command_and_no_page_forgets_the_rule():
    """What is said is constant or escaped, as `Told.line` is; JSON goes through one function, or is a number."""
    harmless = re.compile(r"escaped(_json)?\(|last_word\(|told\.line\(|'|f?'connector: \{escaped\(|[A-Z]+$")
    said = [
        f"{path.name}: {ast.unparse(call)}"
        for path, _, call in calls("app/commands", {"say", "print"})
        if not harmless.match(ast.unparse(call.args[0]))
    ]
    assert not said
    plain = {
        f"{function.name}: {ast.unparse(call)}"
        for _, function, call in calls("app/pages", {"json", "dumps"})
        if "escaped_values(" not in ast.unparse(call)
    }
    assert all("'alive'" in call for call in plain), "a truth value alone"
