"""What becomes of a record for each code that a produce can end with: the table."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from app.kafka.codes import CODES, INVALID_RECORD, TOO_LARGE, Outcome
from app.kafka.outcomes import meaning_of, sentence

LOCAL = [
    number
    for name, number in vars(KafkaError).items()
    if isinstance(number, int) and not name.startswith("__") and name.strip("_").isupper()
]


# ---- the table


@pytest.mark.parametrize("code", sorted({*CODES, *LOCAL}))
def test_each_code_has_one_outcome_and_a_sentence_that_says_what_to_do(code):
    meaning = CODES[code]
    known_as = KafkaError(code).name()
    assert meaning.name == known_as or "?" in known_as
    assert meaning.advice.endswith(".")
    assert meaning.advice[:1].isupper() or meaning.advice.startswith("`")
    assert bool(meaning.dead_reason) == (meaning.outcome is Outcome.NEVER)
    assert meaning.advice.rstrip(".") in sentence(KafkaError(code))
    assert str(code) in sentence(KafkaError(code))


def test_never_is_a_closed_list():
    never = {meaning.name: meaning.dead_reason for meaning in CODES.values() if meaning.outcome is Outcome.NEVER}
    assert never == {
        "MSG_SIZE_TOO_LARGE": TOO_LARGE,
        "RECORD_LIST_TOO_LARGE": TOO_LARGE,
        "INVALID_RECORD": INVALID_RECORD,
        "TOPIC_EXCEPTION": "illegal_kafka_topic",
    }


@pytest.mark.parametrize("code", [134, 999, -100, -300])
def test_a_code_that_nobody_knows_yet_is_tried_again_and_named(code):
    meaning = meaning_of(KafkaError(code))
    assert (meaning.outcome, meaning.name) == (Outcome.AGAIN, f"CODE_{code}")
    assert "Kafka's list of errors" in sentence(KafkaError(code))
