"""What becomes of a record for each code that a produce can end with: Kafka's own list, and the bridge with each."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from confluent_kafka import KafkaError

from app.kafka.codes import CODES, Outcome
from tests.support.mock_kafka import MockKafka
from tests.support.oracle import payload, read, wait_until
from tests.support.scripted_broker import ScriptedBroker
from tests.support.system import Bridge
from tools.brokers.kafka import find_jars

PRINT_ERRORS = """
import org.apache.kafka.common.protocol.Errors;
class PrintErrors {
    public static void main(String[] arguments) {
        for (Errors error : Errors.values()) System.out.println(error.code() + " " + error.name());
    }
}
"""

# Kafka could answer with these; 0 is no error, and 46 says that it has the record, which is not so with the mock.
MESSAGES = 6
ANSWERS = [code for code in CODES if code >= -1 and code not in {0, 46}]


# ---- the table has every code of Kafka


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
