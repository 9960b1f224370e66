"""The brokers of the tests do what the tests rely on: start, come back on the same port, keep what they were given."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from paho.mqtt.enums import CallbackAPIVersion

from clients.publishing import Options, Publisher
from clients.subscriber_kafka import KafkaReader
from tools.brokers import Amqtt, Kafka, Mosquitto, ProcessError, Tansu, kafka_broker, mqtt_broker

WAIT_SECONDS = 30


def subscriber(broker, names, *, port=None, tls=None):
    """Return a connected client with a persistent session, and the list that its messages go to."""
    received = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=names.client_id, clean_session=False)
    client.on_message = lambda _client, _data, message: received.append(message.payload)
    if tls:
        client.tls_set_context(tls)
    client.connect(broker.host, port or broker.port)
    return client, received


def turn(client, until):
    """Serve a client until a condition holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not until():
        assert time.monotonic() < deadline
        client.loop(0.05)


def subscribe(client, topic):
    granted = []
    client.on_subscribe = lambda *_: granted.append(True)
    turn(client, client.is_connected)
    client.subscribe(topic, qos=1)
    turn(client, lambda: granted)


def publish(broker, names, messages):
    publisher = Publisher(Options(broker.host, broker.port, [names.prefix], 0, messages))
    publisher.connect()
    publisher.run()
    assert publisher.drain()
    publisher.close()


def produce(broker, topic, values, **settings):
    settings = {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "log_level": 0, **settings}
    producer = Producer({"compression.type": "lz4", **settings})
    errors = []
    for value in values:
        headers = [("mqtt-topic", b"a/b"), ("connector-id", value)]
        producer.produce(topic, value, headers=headers, timestamp=1, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(WAIT_SECONDS) == 0
    assert [error for error in errors if error] == []


def records(broker, topic, count):
    deadline = time.monotonic() + WAIT_SECONDS
    with closing(KafkaReader(broker.bootstrap, [topic], from_beginning=True)) as reader:
        found = []
        while len(found) < count:
            assert time.monotonic() < deadline
            found += reader.read()
    return found


@pytest.mark.parametrize("kind", [Mosquitto, Amqtt])
def test_an_mqtt_broker_keeps_a_session_while_its_client_is_away(kind, tmp_path, names):
    with kind(tmp_path) as broker:
        client, received = subscriber(broker, names)
        subscribe(client, names.prefix)
        client.disconnect()
        publish(broker, names, 50)
        client.reconnect()
        turn(client, lambda: len(received) == 50)
        client.disconnect()


def test_mosquitto_keeps_sessions_and_port_over_a_kill(tmp_path, names):
    with Mosquitto(tmp_path) as broker:
        client, received = subscriber(broker, names)
        subscribe(client, names.prefix)
        client.disconnect()
        publish(broker, names, 50)
        broker.save()
        port, pid = broker.port, broker.pid
        broker.kill()
        broker.start()
        assert (broker.port, broker.pid == pid) == (port, False)
        client.reconnect()
        turn(client, lambda: len(received) == 50)
        client.disconnect()


def test_mosquitto_has_an_encrypted_listener(tmp_path, names, certificates):
    with Mosquitto(tmp_path, certificates=certificates) as broker:
        tls = ssl.create_default_context(cafile=certificates.ca_file)
        client, _ = subscriber(broker, names, port=broker.tls_port, tls=tls)
        turn(client, client.is_connected)
        client.disconnect()


def test_mosquitto_takes_limits_and_further_lines(tmp_path):
    broker = Mosquitto(tmp_path, max_inflight_messages=7, max_queued_messages=8, extra_configuration="max_keepalive 9")
    broker.prepare()
    lines = (tmp_path / "mosquitto.conf").read_text().splitlines()
    assert {"max_inflight_messages 7", "max_queued_messages 8", "max_keepalive 9"} <= set(lines)


def test_kafka_keeps_records_and_port_over_a_kill(tmp_path, names):
    with Kafka(tmp_path) as broker:
        broker.create_topic(names.kafka(), partitions=2, retention_ms=-1)
        produce(broker, names.kafka(), [b"first"])
        port = broker.port
        broker.kill()
        broker.start()
        assert broker.port == port
        produce(broker, names.kafka(), [b"second"])
        assert {record.value() for record in records(broker, names.kafka(), 2)} == {b"first", b"second"}


def test_kafka_gives_a_topic_its_settings(kafka, names):
    kafka.create_topic(names.kafka(), max_message_bytes=1234)
    resource = ConfigResource(ConfigResource.Type.TOPIC, names.kafka())
    admin = kafka.admin()
    settings = admin.describe_configs([resource])[resource].result(WAIT_SECONDS)
    assert settings["max.message.bytes"].value == "1234"


def test_kafka_has_an_encrypted_listener_and_access_rules(tmp_path, names, certificates):
    with Kafka(tmp_path, certificates=certificates, acl=True, properties={"log.retention.ms": "777"}) as broker:
        broker.create_topic(names.kafka())
        tls = {
            "bootstrap.servers": f"127.0.0.1:{broker.tls_port}",
            "security.protocol": "ssl",
            "ssl.ca.location": str(certificates.ca_file),
        }
        produce(broker, names.kafka(), [b"encrypted"], **tls)
        assert AdminClient(tls).list_topics(timeout=WAIT_SECONDS).topics.keys() >= {names.kafka()}
        admin = broker.admin()
        assert admin.describe_acls(any_rule()).result(WAIT_SECONDS) == []
        assert "log.retention.ms=777\n" in (tmp_path / "server.properties").read_text()


def any_rule():
    return AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )


def test_the_embedded_kafka_broker_takes_what_the_bridge_writes(tmp_path, names):
    with Tansu(tmp_path) as broker:
        broker.create_topic(names.kafka())
        produce(broker, names.kafka(), [b"%d" % number for number in range(1000)])
        found = records(broker, names.kafka(), 1000)
        assert [record.value() for record in found] == [b"%d" % number for number in range(1000)]
        assert found[0].headers() == [("mqtt-topic", b"a/b"), ("connector-id", b"0")]
        assert found[0].timestamp()[1] == 1
        broker.restart()


def test_the_environment_can_ask_for_the_embedded_brokers(tmp_path, monkeypatch):
    assert isinstance(mqtt_broker(tmp_path), Mosquitto)
    assert isinstance(kafka_broker(tmp_path), Kafka)
    monkeypatch.setenv("CONNECTOR_EMBEDDED", "1")
    assert isinstance(mqtt_broker(tmp_path), Amqtt)
    assert isinstance(kafka_broker(tmp_path), Tansu)


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path):
    broker = Mosquitto(tmp_path, extra_configuration="no_such_option true")
    with pytest.raises(ProcessError, match=r"mosquitto ended with status \d+ before it was ready(.|\n)*no_such_option"):
        broker.start()
    assert not broker.running


def test_a_broker_does_not_outlive_the_python_that_started_it(tmp_path):
    code = (
        "import sys, pathlib, time\n"
        "from tools.brokers import Mosquitto\n"
        "print(Mosquitto(pathlib.Path(sys.argv[1])).start().pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())}) as parent:
        broker = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + WAIT_SECONDS
    # Without an init process nobody collects what is left of it.
    while broker.is_running() and broker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
