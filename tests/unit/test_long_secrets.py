"""A secret that is longer than what is looked at beside a cut: what may be a part of it is not shown."""

from __future__ import annotations

import base64
import json
import random
import re
import time

import pytest

from app.lines import LONGEST_CHARACTERS, LineFormatter, escaped, short
from app.secret_forms import MARGIN_CHARACTERS, SHOWN_INSTEAD, known

DRAWN = random.Random(7)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LENGTHS = (2_000, MARGIN_CHARACTERS - 10, MARGIN_CHARACTERS + 400, MARGIN_CHARACTERS + 1_600, 60_000)


def word(length: int) -> str:
    return "".join(DRAWN.choices(LETTERS, k=length))


def coded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


KINDS = {
    "JWT": lambda secret: f"{coded({'alg': 'HS256'})}.{secret}.{secret[:80]}",
    "JWT with a long header": lambda secret: f"{coded({'alg': 'RS256', 'x5c': ['']})}{secret}.{secret[:80]}.x",
    "JWT in lines": lambda secret: in_lines(f"{coded({'alg': 'HS256'})}.{secret}.{secret[:80]}", "\n"),
    "JWT in a header that goes on": lambda secret: in_lines(f"{coded({'alg': 'HS256'})}.{secret}", "\r\n "),
    "token": lambda secret: f"access_token={secret}",
    "token in JSON": lambda secret: json.dumps({"access_token": secret, "x": 1}),
    "token in a list": lambda secret: f"{{'client_secret': ['{secret}']}}",
    "user of a URL": lambda secret: f"https://{secret}:x@host/",
    "password of a URL": lambda secret: f"https://user:{secret}@host/",
    "password of an escaped URL": lambda secret: json.dumps(f"https://user:{secret}@host/").replace("/", "\\/"),
    "Authorization": lambda secret: f"authorization: Basic {secret}",
    "Bearer": lambda secret: f"Bearer {secret}",
}


def in_lines(text: str, end: str) -> str:
    return end.join(text[place : place + 76] for place in range(0, len(text), 76))


@pytest.fixture(autouse=True)
def _nothing_is_known_afterwards():
    known.know(())
    yield
    known.know(())


def pieces_of(text: str) -> set[str]:
    """Return what may be a part of a secret: 12 of its letters, one after the other."""
    words = re.findall("[A-Za-z0-9_-]{12,}", text)
    return {word[place : place + 12] for word in words for place in range(len(word) - 11)}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_of_ours_shows_a_part_of_a_strangers_secret_however_long_it_is(kind, length):
    secret = word(length)
    pieces, text = pieces_of(secret), KINDS[kind](secret)
    for before in ("", "said ", "x " * 740):
        for after in ("", " refused", " y" * 240):
            whole = f"{before}{text}{after}"
            shortened = short(whole)
            for said in (escaped(whole), shortened, traceback_of(whole), escaped(shortened)):
                assert not pieces & pieces_of(said), said[-700:]


def traceback_of(text: str) -> str:
    try:
        raise ValueError(text)
    except ValueError as error:
        return LineFormatter().formatException((ValueError, error, error.__traceback__))


@pytest.mark.parametrize("length", LENGTHS)
def test_no_cut_of_ours_shows_a_part_of_a_long_secret_of_the_settings_that_a_library_cut(length):
    secret = word(length)
    known.know([secret])
    pieces = pieces_of(secret)
    for cut in (secret, secret[: length * 11 // 12], "..." + secret[length // 12 :]):
        for before in ("", "said ", "x " * 740):
            for said in (escaped(f"{before}{cut}"), short(f"{before}{cut} refused"), escaped(f"{before}{cut} refused")):
                assert not pieces & pieces_of(said), said[-700:]


def test_the_end_of_a_line_stays_behind_the_word_that_was_cut():
    for gap in (" ", '"', " <"):
        said = escaped(f"said access_token={'A1' * 6_000}{gap}and so the broker refused it")
        assert said.endswith(f"{SHOWN_INSTEAD}{gap}and so the broker refused it")


def test_a_long_topic_is_shown_and_of_one_that_is_longer_than_what_is_looked_at_the_beginning():
    """It is a word without an end, and may be the rest of a secret; its beginning tells what it is."""
    for length in (LONGEST_CHARACTERS - 30, LONGEST_CHARACTERS, MARGIN_CHARACTERS):
        topic = "plant/hall/" * (length // 11)
        said = escaped(f"unmapped {topic}, dropped")
        assert said.startswith("unmapped plant/hall/plant/") and said.endswith("/hall/, dropped")
        assert SHOWN_INSTEAD not in said
    said = escaped(f"unmapped {'plant/hall/' * 5_000}, dropped")
    assert said.startswith("unmapped plant/hall/plant/")
    assert said.endswith(f"{SHOWN_INSTEAD} dropped")


def test_texts_with_words_are_cut_as_before():
    for text in ('{"a":1},' * 4_000, "the broker is away; " * 2_000, '  File "x.py", line 1, in y\n' * 1_000):
        assert SHOWN_INSTEAD not in escaped(text)


@pytest.mark.parametrize("piece", [" ", "\n", " \n", "\t", "a", '"', "a  \n", ".@", "://"])
def test_a_cut_takes_a_time_that_grows_with_the_text_and_not_faster(piece):
    known.know([word(20_000)])
    small, large = (min(seconds_for(piece, size) for _ in range(3)) for size in (MARGIN_CHARACTERS, 1_000_000))
    assert large < 6 * small + 0.01


def seconds_for(piece: str, size: int) -> float:
    text = piece * (size // len(piece))
    begun = time.process_time()
    known.hidden_beginning(text, LONGEST_CHARACTERS)
    known.hidden_end(text, LONGEST_CHARACTERS)
    return time.process_time() - begun
