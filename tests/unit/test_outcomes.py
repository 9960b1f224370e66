"""What becomes of a record for each code that a produce can end with: the table."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from confluent_kafka import KafkaError

from app.kafka.codes import CODES, INVALID_RECORD, TOO_LARGE, Outcome
from app.kafka.outcomes import meaning_of, sentence
from tools.brokers.kafka import find_jars

PRINT_ERRORS = """
import org.apache.kafka.common.protocol.Errors;
class PrintErrors {
    public static void main(String[] arguments) {
        for (Errors error : Errors.values()) System.out.println(error.code() + " " + error.name());
    }
}
"""
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


@pytest.mark.skipif(shutil.which("java") is None or find_jars() is None, reason="needs Java and Apache Kafka")
def test_every_code_of_kafka_is_in_the_table(tmp_path):
    """Held against the list that Kafka's own jar has; names may be librdkafka's."""
    source = tmp_path / "PrintErrors.java"
    source.write_text(PRINT_ERRORS)
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{find_jars()}/*", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    kafkas = dict(line.split() for line in done.stdout.splitlines())
    assert {int(code) for code in kafkas} == {code for code in CODES if code >= -1}
    for code, name in kafkas.items():
        assert CODES[int(code)].name == name or "?" not in KafkaError(int(code)).name(), (code, name)


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
