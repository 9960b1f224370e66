"""The two test clients with real brokers: what they send, what they find, and what they say when it does not work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import paho.mqtt.client as mqtt
import pytest
from confluent_kafka import Producer
from paho.mqtt.enums import CallbackAPIVersion

from clients import publisher_mqtt, subscriber_kafka
from clients.publishing import make_payload


def produce(kafka, topic, numbers, *, mqtt_topic="plant/a", identities=None):
    """Write records as the bridge would, with the publisher's numbers."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for position, number in enumerate(numbers):
        identity = identities[position] if identities else b"%d" % position
        headers = [("mqtt-topic", mqtt_topic.encode()), ("connector-id", identity)]
        producer.produce(topic, make_payload(mqtt_topic, number, 0), headers=headers)
    assert producer.flush(30) == 0


def lines_of(capsys):
    return capsys.readouterr().out.splitlines()


# --- publisher


class Listener:
    """A subscriber that reads when it is told to; the broker keeps the messages meanwhile."""

    def __init__(self, broker, topic):
        self.payloads = []
        self._granted = False
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=2)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda _client, _data, message: self.payloads.append(json.loads(message.payload))
        self._client.connect(broker.host, broker.port)
        self._turn(lambda: self._granted)

    def read(self, count):
        self._turn(lambda: len(self.payloads) >= count)
        self._client.disconnect()
        return self.payloads

    def _on_subscribe(self, *_):
        self._granted = True

    def _turn(self, until):
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline
            self._client.loop(0.05)


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_publisher_numbers_each_topic(qos, mosquitto, names, capsys):
    listener = Listener(mosquitto, names.mqtt("#"))
    topics = f"{names.mqtt('a')},{names.mqtt('b')}"
    arguments = ["--broker", f"127.0.0.1:{mosquitto.port}", "--topics", topics, "--messages", "60"]
    assert publisher_mqtt.main([*arguments, "--interval-seconds", "0", "--qos", qos]) == 0
    assert lines_of(capsys)[-1].startswith("60 messages to ")
    payloads = listener.read(60)
    for name in ("a", "b"):
        numbers = [payload["sequence"] for payload in payloads if payload["topic"] == names.mqtt(name)]
        assert numbers == list(range(30))


def test_publisher_ends_with_a_summary_on_interrupt(mosquitto, names):
    listener = Listener(mosquitto, names.prefix)
    command = [sys.executable, "-m", "clients.publisher_mqtt", "--broker", f"127.0.0.1:{mosquitto.port}"]
    command += ["--topics", names.prefix, "--interval-seconds", "0.001"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as publisher:
        listener.read(3)
        publisher.send_signal(signal.SIGINT)
        output = publisher.communicate(timeout=60)[0]
    assert publisher.returncode == 130
    assert " messages a second" in output
    assert "Traceback" not in output


# --- subscriber


def test_count_finds_what_is_wrong(kafka, names, capsys):
    topic = names.kafka()
    kafka.create_topic(topic)
    identities = [b"a", b"b", b"b", b"c", b"d"]
    produce(kafka, topic, [0, 1, 1, 4, 3], identities=identities)
    arguments = ["--broker", kafka.bootstrap, "--topics", topic, "--from-beginning", "--count"]
    assert subscriber_kafka.main([*arguments, "--until-messages", "5"]) == 1
    assert lines_of(capsys) == [
        f"{topic}: 5 records",
        "  plant/a: 5 numbered, 1 missing, 1 duplicates, 1 out of order",
        "1 records with a connector-id that was there before",
        "0 records without the publisher's number",
    ]


def test_idle_subscriber_ends(kafka, names, capsys):
    kafka.create_topic(names.kafka())
    produce(kafka, names.kafka(), [0])
    arguments = ["--broker", kafka.bootstrap, "--topics", names.kafka(), "--latest", "--count", "--idle-seconds", "1"]
    assert subscriber_kafka.main(arguments) == 1
    assert lines_of(capsys)[0] == "no records"


def test_a_record_is_one_line_without_control_characters(kafka, names, capsys):
    topic = names.kafka()
    kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, b"two\nlines \x1b[31m" + b"x" * 1000, key=b"k\xff", headers=[("mqtt-topic", b"a/b")])
    producer.flush(30)
    arguments = ["--broker", kafka.bootstrap, "--topics", topic, "--from-beginning", "--until-messages", "1"]
    assert subscriber_kafka.main(arguments) == 0
    (line,) = lines_of(capsys)
    assert line.startswith(f"{topic}[0]@0 key=k\\xff {{mqtt-topic=a/b}} two\\nlines \\x1b[31mxxx")
    assert line.endswith("x… (1015 bytes)")


def test_subscriber_says_that_a_topic_does_not_exist(kafka, names, capsys):
    assert subscriber_kafka.main(["--broker", kafka.bootstrap, "--topics", names.kafka()]) == 1
    assert capsys.readouterr().err == f"subscriber: Kafka has no topic {names.kafka()!r}\n"


def test_interrupted_subscriber_prints_what_it_counted(kafka, names):
    kafka.create_topic(names.kafka())
    produce(kafka, names.kafka(), range(10))
    command = [sys.executable, "-u", "-m", "clients.subscriber_kafka", "--broker", kafka.bootstrap]
    command += ["--topics", names.kafka(), "--from-beginning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as printing:
        assert names.kafka() in printing.stdout.readline()
        printing.send_signal(signal.SIGINT)
        printing.communicate(timeout=60)
    assert printing.returncode == 130
