"""The two test clients, without brokers: what they send, what they find in what they read."""

from __future__ import annotations

import json

import pytest

from clients import publisher_mqtt, subscriber_kafka
from clients.options import address
from clients.publishing import make_payload
from clients.sequences import RecordCheck
from clients.subscriber_kafka import SequenceCheck
from tools.brokers import free_port

# --- numbers


@pytest.mark.parametrize(
    ("numbers", "gaps", "duplicates", "inversions"),
    [
        ([], 0, 0, 0),
        ([0, 1, 2, 3], 0, 0, 0),
        ([5, 6, 7], 0, 0, 0),
        ([0, 1, 4], 2, 0, 0),
        ([0, 1, 1, 2], 0, 1, 0),
        ([0, 2, 1, 3], 0, 0, 1),
        ([0, 3, 1, 2], 0, 0, 2),
        ([0, 2, 1, 1], 0, 1, 1),
        ([5, 2], 2, 0, 1),
    ],
)
def test_sequence_check_finds(numbers, gaps, duplicates, inversions):
    check = SequenceCheck()
    for number in numbers:
        check.add("a", number)
    found = (check.received, check.gaps, check.duplicates, check.inversions)
    assert found == (len(numbers), gaps, duplicates, inversions)


def test_sequence_check_misses_the_beginning_when_it_must_be_there():
    check = SequenceCheck(first=0)
    check.add("a", 2)
    assert check.gaps == 2


@pytest.mark.parametrize(("numbers", "said"), [([0, 1], "2 numbered, 0"), ([7, 8, 6], "3 numbered from 6 on, 0")])
def test_a_run_whose_first_messages_are_not_there_is_told_by_its_first_number(numbers, said):
    """As after a node was lost: what is below may be missing, and nothing else would tell."""
    check = RecordCheck()
    for number in numbers:
        check.add("records", json.dumps({"sequence": number}).encode(), [("mqtt-topic", b"a")])
    assert f"  a: {said} missing" in "\n".join(check.lines())


def test_sequence_check_keeps_topics_apart():
    check = SequenceCheck()
    for topic, number in [("a", 0), ("b", 0), ("a", 1), ("b", 2)]:
        check.add(topic, number)
    assert (check.topics["a"].missing, check.topics["b"].missing) == (set(), {1})


@pytest.mark.parametrize("number", [-1, 10**15])
def test_sequence_check_refuses_what_is_no_number_of_the_publisher(number):
    check = SequenceCheck(first=0)
    with pytest.raises(ValueError, match="cannot follow"):
        check.add("a", number)
    assert check.received == 0


@pytest.mark.parametrize("value", [None, b"", b"hello", b"\xff", b"[]", b'{"sequence": "1"}', b'{"sequence": true}'])
def test_records_of_others_are_counted_apart(value):
    check = RecordCheck()
    check.add("records", value, [("mqtt-topic", b"a")])
    assert (check.unnumbered, check.records) == (1, {"records": 1})


# --- publisher


def test_payload_has_the_length_that_was_asked_for():
    payload = make_payload('with "quotes"', 7, 300)
    assert len(payload) == 300
    assert {"topic": 'with "quotes"', "sequence": 7}.items() <= json.loads(payload).items()


def test_publisher_says_that_nobody_listens(capsys):
    port = free_port()
    assert publisher_mqtt.main(["--broker", f"127.0.0.1:{port}"]) == 1
    expected = f"publisher: cannot reach the MQTT broker at 127.0.0.1:{port}: Connection refused\n"
    assert capsys.readouterr().err == expected


def test_options_beat_the_environment_and_the_environment_beats_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PUBLISHER_QOS=0\nPUBLISHER_TOPIC_LIST=file\nMQTT_USER_NAME=file\n")
    monkeypatch.setenv("PUBLISHER_TOPIC_LIST", "environment")
    monkeypatch.setenv("MQTT_BROKER_URL", "environment.example")
    monkeypatch.setenv("MQTT_BROKER_PORT", "1884")
    monkeypatch.setenv("MQTT_USER_NAME", "environment")
    options = publisher_mqtt.parse_arguments(["--username", "option"])
    assert (options.qos, options.topics, options.user_name) == (0, ["environment"], "option")
    assert (options.host, options.port) == ("environment.example", 1884)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("PUBLISHER_QOS", "7", "'7' is not 0, 1 or 2"),
        ("PUBLISHER_INTERVAL_SEC", "-1", "'-1' is not a number of seconds"),
        ("PUBLISHER_TOTAL_MESSAGES", "many", "'many' is not a whole number"),
        ("PUBLISHER_TOPIC_LIST", ",", "at least one topic"),
        ("MQTT_BROKER_PORT", "http", "is not host or host:port"),
    ],
)
def test_a_wrong_value_in_the_environment_is_named(name, value, complaint, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        publisher_mqtt.parse_arguments([])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker", ("broker", 1883)),
        ("broker:1", ("broker", 1)),
        ("mqtt://broker:1/", ("broker", 1)),
        ("::1", ("::1", 1883)),
        ("[::1]:1", ("::1", 1)),
    ],
)
def test_address(text, expected):
    assert address(text) == expected


# --- subscriber


def test_subscriber_takes_broker_and_topics_from_the_environment(monkeypatch):
    monkeypatch.setenv("KAFKA_BROKER", "environment:1")
    monkeypatch.setenv("SUBSCRIBER_TOPIC_LIST", "a,b")
    options = subscriber_kafka.parse_arguments(["--broker", "option:2"])
    assert (options.broker, options.topics) == ("option:2", ["a", "b"])
