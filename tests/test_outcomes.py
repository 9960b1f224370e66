"""What becomes of a record for each code that a produce can end with: the table, and the bridge with each of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from confluent_kafka import KafkaError
from mock_kafka import MockKafka
from oracle import payload, read, wait_until
from scripted_broker import ScriptedBroker
from system import Bridge

from app.kafka.codes import CODES, INVALID_RECORD, TOO_LARGE, Outcome
from app.kafka.outcomes import meaning_of, sentence
from clients.brokers.kafka import find_jars

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
# Kafka could answer with these; 0 is no error, and 46 says that it has the record, which is not so with the mock.
MESSAGES = 6
ANSWERS = [code for code in CODES if code >= -1 and code not in {0, 46}]


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


# ---- the bridge, with a Kafka that answers with each of them


def topic_of(code: int) -> str:
    return f"code.{code}"


def run_through(codes, names, tmp_path, kafka, times):
    """Answer with each code on a topic of its own while messages come in; return the bridge's last metrics."""
    kafka.create_topics(map(topic_of, codes))
    mappings = ",".join(f"{names.mqtt(code)}:{topic_of(code)}" for code in codes)
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path / names.client_id, broker.port, kafka.bootstrap, mappings) as bridge,
    ):
        broker.wait_for_subscriptions(len(codes))

        def publish(number):
            for code in codes:
                broker.publish(names.mqtt(code), payload(names.mqtt(code), number))

        def settled():
            metrics = bridge.metrics()
            names = ("connector_delivered_total", "connector_dead_lettered_total")
            return sum(sum(metrics[name].values()) for name in names)

        publish(0)
        wait_until(lambda: settled() == len(codes), "the first of each")
        kafka.answer({topic_of(code): code for code in codes}, times)
        for number in range(1, MESSAGES):
            publish(number)
        wait_until(lambda: settled() == MESSAGES * len(codes), "everything in Kafka or among the dead letters")
        metrics = bridge.metrics()
        bridge.assert_balanced(metrics)
        delivered = int(sum(metrics["connector_delivered_total"].values()))
        records = read(kafka.bootstrap, map(topic_of, codes), delivered, **{"fetch.wait.max.ms": 10})
    return metrics, records


def test_whatever_kafka_answers_nothing_is_lost_doubled_or_reordered(names, tmp_path):
    """Every code at once, each on a topic of its own, twice: all arrive, but for those that are never taken."""
    codes = [code for code in ANSWERS if CODES[code].outcome is not Outcome.REPLACE_CLIENT]
    with MockKafka() as kafka:
        metrics, records = run_through(codes, names, tmp_path, kafka, 2)
    never = {code for code in codes if CODES[code].outcome is Outcome.NEVER}
    numbers = records.numbers()
    for code in codes:
        found = numbers[names.mqtt(code)]
        assert found == sorted(set(found)), (code, "doubled or reordered")
        if code not in never:
            assert found == list(range(MESSAGES)), (code, "lost")
    reasons = {CODES[code].dead_reason for code in never}
    assert {reason for _, reason in metrics["connector_dead_lettered_total"]} == reasons
    counted = {code for (code,) in metrics["connector_kafka_refusals_total"]}
    assert {CODES[code].name for code in never} <= counted
    assert {"POLICY_VIOLATION", "INVALID_TIMESTAMP", "UNKNOWN", "UNSUPPORTED_COMPRESSION_TYPE"} <= counted


def test_codes_that_a_client_cannot_go_on_after_replace_it_and_lose_nothing(names, tmp_path):
    """Said of a record that went alone; with the next client it is taken, and the order stays."""
    codes = [code for code in ANSWERS if CODES[code].outcome is Outcome.REPLACE_CLIENT]
    with MockKafka() as kafka:
        metrics, records = run_through(codes, names, tmp_path, kafka, 2)
    assert sum(metrics["connector_delivered_total"].values()) == MESSAGES * len(codes)
    assert records.inversions() == 0
    assert not any(records.lost({names.mqtt(code): MESSAGES}) for code in codes)
    log = (tmp_path / names.client_id / "worker.log").read_text()
    assert "the Kafka producer failed for good and is replaced" in log
