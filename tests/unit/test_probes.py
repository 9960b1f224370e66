"""Many short texts are looked for together: each is found, and their number hardly matters for the time."""

from __future__ import annotations

import random
import time

import pytest

from app.probes import SHORTEST_PROBE_CHARACTERS, Probes
from app.secret_forms import LONG_CHARACTERS, SHORTEST_CHARACTERS, SHOWN_INSTEAD, KnownSecrets

LINE = "2026-11-27 20:00:00 WARNING app.mqtt.client: the MQTT broker localhost:1883 cannot be reached: refused"


def key_lines(number: int) -> list[str]:
    """Return the lines of a key in PEM, the last of which is short."""
    drawn = random.Random(number)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return ["".join(drawn.choices(letters, k=64 if line else 17)) for line in range(number)]


@pytest.mark.parametrize("letters", ["ab", "abcdefghij"])
def test_each_probe_is_found_wherever_it_is_and_no_other_is(letters):
    """Of few letters, so that many begin alike, lie one in the other, or differ at their end."""
    drawn = random.Random(5)
    for _ in range(300):
        probes = {"".join(drawn.choices(letters, k=drawn.randint(8, 44))) for _ in range(20)}
        inside = "".join(drawn.sample(sorted(probes), 2))
        text = "".join(drawn.choices(letters, k=drawn.randint(0, 40))) + inside[drawn.randint(0, 9) :]
        assert Probes(probes).found_in(text) == {probe for probe in probes if probe in text}


def test_a_probe_is_found_at_the_beginning_and_at_the_end_of_a_text_and_as_all_of_it():
    for length in range(SHORTEST_PROBE_CHARACTERS, LONG_CHARACTERS + 2):
        probe = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[:length]
        for text in (probe, f"{probe} .", f". {probe}", f". {probe} ."):
            assert Probes([probe]).found_in(text) == {probe}
        for text in (probe[1:], probe[:-1], f"{probe[1:]}{probe[:-1]}", ""):
            assert Probes([probe]).found_in(text) == set()


def test_the_shortest_secret_is_no_shorter_than_the_shortest_probe():
    assert SHORTEST_CHARACTERS >= SHORTEST_PROBE_CHARACTERS


def test_each_line_of_a_key_is_hidden_and_a_part_of_it_too():
    lines = key_lines(50)
    guard = KnownSecrets(["\n".join(lines)])
    for line in lines:
        assert guard.hidden(f"said <{line}>") == f"said <{SHOWN_INSTEAD}>"
        if len(line) >= LONG_CHARACTERS:
            assert guard.hidden(f"said <{line[:30]}...>") == f"said <{SHOWN_INSTEAD}"


def test_a_key_of_fifty_lines_takes_as_long_as_one_secret():
    """Each line of the log took 17 ms with the 3,600 lines of all authorities of a system: one after the other."""
    one, many = KnownSecrets(["canary-password-1234"]), KnownSecrets(["\n".join(key_lines(50))])
    for text in (LINE, f"{LINE} \\u0061 \n 61 62 63", "a" * 16_384, ":// " * 4_096):
        assert seconds_for(many, text) < 2 * seconds_for(one, text) + 0.0001, text[:200]


def seconds_for(guard: KnownSecrets, text: str) -> float:
    """Return the least processor time of several, for twenty lines."""
    times = 1 + 2_000 // len(text)
    least = float("inf")
    for _ in range(7):
        begun = time.process_time()
        for _ in range(times):
            guard.hidden(text)
        least = min(least, time.process_time() - begun)
    return least / times


def test_of_parts_that_overlap_all_are_hidden_whichever_is_met_first():
    """It depended on the order of a set, another one in each process, how many of the first digits were shown."""
    digits = "0123456789"
    guard = KnownSecrets([(digits[place:] + digits[:place]) * 5 for place in range(10)])
    assert guard.hidden(f"said {digits * 3}") == f"said {SHOWN_INSTEAD}"
