"""The fuzzers of `fuzz`, each for 20 seconds; before that, what they and people have found so far.

The seed is made of the product's code: the same code is tried in the same way each time, and what is changed in another
one. `make fuzz` takes another seed each time, and as long as it is told.
"""

from __future__ import annotations

import zlib

import pytest

from tests.model.fuzz.child import TARGETS
from tests.model.fuzz.run import REPOSITORY, WHY_NOT, is_possible, run, try_corpus

SECONDS = 20


def seed_of_the_code():
    """Return another number for other code."""
    seed = 0
    for path in sorted(path for folder in ("app", "agents", "tables") for path in (REPOSITORY / folder).rglob("*.py")):
        seed = zlib.crc32(path.read_bytes(), seed)
    return seed % (2**31 - 1) + 1


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus_is_well(target):
    said, is_well = try_corpus(target)
    assert is_well, said


@pytest.mark.slow
@pytest.mark.skipif(not is_possible(), reason=WHY_NOT)
@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_finds_nothing_in_twenty_seconds(target):
    """The promises about what MQTT, the disk, commands and HTTP may bring; how many inputs that were is printed."""
    outcome = run(target, SECONDS, seed_of_the_code())
    print(outcome.text)
    assert not outcome.failed, outcome.text
    assert outcome.tried >= TARGETS[target], outcome.text
