"""The Kafka side from outside: TLS, sign-in, record keys, dead letters and their commands, topics that come late."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import pytest
import trustme
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from app.kafka.producer import KafkaProducer
from tests.support.oracle import read, wait_until
from tests.support.system import KAFKA_AWAY, Bridge, Publisher, wait_for_total
from tools.brokers import Kafka, free_port


def run(bridge: Bridge, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of the app with the bridge's settings until it ends."""
    command = [sys.executable, "-m", "faust", "-A", "app.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=bridge.directory,
        env=dict(bridge.environment()),
    )  # fmt: skip


def set_limit(kafka: Kafka, topic: str, max_message_bytes: int) -> None:
    """Change what a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(max_message_bytes), incremental_operation=AlterConfigOpType.SET)
    changes = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
    admin = kafka.admin()
    for future in admin.incremental_alter_configs(changes).values():
        future.result(10)


def incompressible(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


# ---- TLS and sign-in


@pytest.fixture(scope="module")
def secure_kafka(certificates, tmp_path_factory):
    """Return a Kafka with a second, encrypted listener."""
    with Kafka(tmp_path_factory.mktemp("secure-kafka"), certificates=certificates) as broker:
        yield broker


def test_messages_cross_over_tls(mosquitto, secure_kafka, certificates, names, new_bridge):
    """KAFKA_TLS with an authority of one's own."""
    secure_kafka.create_topic(names.kafka())
    bootstrap = f"127.0.0.1:{secure_kafka.tls_port}"
    with (
        new_bridge(kafka=bootstrap, kafka_tls="true", kafka_ca_file=certificates.ca_file) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 500)
        read(secure_kafka.bootstrap, [names.kafka()], 500).assert_each_once_in_order(publisher.sent)
        wait_for_total(bridge, "connector_kafka_connected", 1)


def test_what_topics_take_is_learned_however_the_producer_was_told_to_connect(secure_kafka, names):
    """The question goes the way of the records: here the certificate's authority is unknown and not asked for."""
    topic = names.kafka()
    secure_kafka.create_topic(topic, 1, **{"max.message.bytes": 20_000})
    producer = KafkaProducer({
        "metadata.broker.list": f"127.0.0.1:{secure_kafka.tls_port}",
        "security.protocol": "ssl",
        "enable.ssl.certificate.verification": "false",
    })  # fmt: skip
    producer.open()
    try:
        answer = producer.ask_topics([topic], 10)
    finally:
        producer.close()
    assert answer.known[topic].limit_bytes == 20_000


def test_an_authority_that_is_not_trusted_is_not_accepted(
    mosquitto, secure_kafka, certificates, names, tmp_path, new_bridge
):
    """The messages wait, safe, and the reason is in the log; with the right authority they arrive."""
    secure_kafka.create_topic(names.kafka())
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    bootstrap = f"127.0.0.1:{secure_kafka.tls_port}"
    bridge = new_bridge(kafka=bootstrap, kafka_tls="true", kafka_ca_file=other)
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 100, "100 stored messages")
        wait_until(lambda: "certificate verify failed" in bridge.log_path.read_text(), "the reason in the log")
        assert bridge.total("connector_kafka_connected") == 0
        assert bridge.get("/health/ready")[0] == 200
        bridge.stop()
        bridge.settings["KAFKA_CA_FILE"] = str(certificates.ca_file)
        bridge.start()
        read(secure_kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)


@pytest.fixture(scope="module")
def signing_kafka(tmp_path_factory):
    """Return a Kafka whose second listener wants a user name and a password, and the port of that."""
    broker = Kafka(tmp_path_factory.mktemp("signing-kafka"))
    base = broker._base_properties()
    port = free_port()
    broker._properties |= {
        "listeners": f"{base['listeners']},SIGNED://127.0.0.1:{port}",
        "listener.security.protocol.map": f"{base['listener.security.protocol.map']},SIGNED:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.signed.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.signed.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
        'required user_bridge="right";',
    }
    with broker:
        yield broker, port


def test_messages_cross_with_user_name_and_password_and_wait_with_a_wrong_one(
    mosquitto, signing_kafka, names, new_bridge
):
    """KAFKA_SASL_...: with PLAIN; a wrong password is an outage, not a loss, and is not in the log."""
    kafka, port = signing_kafka
    kafka.create_topic(names.kafka())
    bridge = new_bridge(
        kafka=f"127.0.0.1:{port}",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="bridge",
        kafka_sasl_password="wrong-canary",
    )
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 100, "100 stored messages")
        wait_until(lambda: "uthentication failed" in bridge.log_path.read_text(), "the reason in the log")
        assert bridge.total("connector_kafka_connected") == 0
        bridge.stop()
        bridge.settings["KAFKA_SASL_PASSWORD"] = "right"
        bridge.start()
        read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
    assert "wrong-canary" not in bridge.log_path.read_text()


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ('{"no.such.property": "canary-1"}', "no.such.property"),
        ('{"socket.timeout.ms": "canary-2"}', "socket.timeout.ms"),
        ('{"debug": "canary-3"}', "debug"),
        ('{"linger.ms": -98765}', "linger.ms"),
        ('{"reconnect.backoff.ms": 398765, "reconnect.backoff.max.ms": 98765}', "reconnect.backoff.max.ms"),
    ],
)  # fmt: skip
def test_a_producer_config_that_librdkafka_refuses_ends_with_2(config, shown, new_bridge):
    """Told by the property's name; its value may be a secret."""
    done = run(new_bridge(kafka=KAFKA_AWAY, kafka_producer_config=config), "worker")
    assert done.returncode == 2, done.stderr
    assert "KAFKA_PRODUCER_CONFIG" in done.stderr
    assert shown in done.stderr
    assert not any(value in done.stdout + done.stderr for value in ("canary", "98765"))
    assert "Traceback" not in done.stderr


# ---- keys


@pytest.mark.parametrize(
    ("template", "key"),
    [("{1}/{3}", b"%(prefix)s/7"), ("device-{3}", b"device-7"), ("{topic}", b"%(prefix)s/b/7"), ("", None)],
)  # fmt: skip
def test_the_record_key_follows_its_template(template, key, mosquitto, kafka, names, new_bridge):
    """RECORD_KEY decides the partition; empty: no key at all, which is not an empty key."""
    kafka.create_topic(names.kafka())
    with (
        new_bridge(record_key=template),
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish(names.mqtt("b/7"))
        (record,) = read(kafka.bootstrap, [names.kafka()], 1).records
    assert record.key == (key and key % {b"prefix": names.prefix.encode()})


# ---- what Kafka refuses, and topics that come late


def dead_letters(bridge: Bridge) -> list[list[str]]:
    """Return the lines of `dead-letters list`, split."""
    done = run(bridge, "dead-letters", "list")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{len(lines) - 1} dead letters"
    return [line.split() for line in lines[:-1]]


def test_a_dead_letter_is_listed_beside_the_worker_and_sent_after_a_retry(mosquitto, kafka, names, new_bridge):
    """P5 and P8: set aside with its reason; after the cause is mended it arrives as if it had never waited."""
    topic = names.kafka()
    kafka.create_topic(topic, 1, **{"max.message.bytes": 20_000})
    data = incompressible(50_000)
    bridge = new_bridge()
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 50)
        publisher.raw(names.mqtt("large"), data)
        publisher.publish_many([names.mqtt("a")], 50)
        wait_until(lambda: bridge.total("connector_dead_lettered_total") == 1, "one dead letter")
        before = read(kafka.bootstrap, [topic], 100)
        before.assert_each_once_in_order(publisher.sent)
        bridge.assert_balanced()

        ((identifier, reason, shown_topic, mqtt_topic, size, *_),) = dead_letters(bridge)
        assert (reason, shown_topic, mqtt_topic, size) == ("too_large", topic, repr(names.mqtt("large")), "50000")
        done = run(bridge, "dead-letters", "retry", identifier)
        assert done.stdout.startswith("1 dead letters are sent once more"), done.stderr
        wait_until(lambda: bridge.total("connector_dead_lettered_total") == 2, "the dead letter, refused once more")
        bridge.assert_balanced()
        assert run(bridge, "dead-letters", "delete", identifier).returncode == 1, "it has a new id"
        assert bridge.get("/health/ready")[0] == 200, "the worker is not disturbed"
        bridge.stop()
        assert bridge.exit_status == 0

        set_limit(kafka, topic, 200_000)
        done = run(bridge, "dead-letters", "retry")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("1 dead letters will be sent")
        assert dead_letters(bridge) == []
        bridge.start()
        assert bridge.total("connector_recovered_total") == 1
        after = read(kafka.bootstrap, [topic], 101)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()
    assert len(after.records) == 101
    record = after.records[-1]
    assert record.value == data
    assert record.key == record.headers["mqtt-topic"] == names.mqtt("large").encode()
    assert (record.headers["mqtt-qos"], record.headers["mqtt-retain"]) == (b"1", b"0")
    client_id, start, counter = record.headers["connector-id"].decode().split("/")
    assert (client_id, start) == tuple(before.records[0].headers["connector-id"].decode().split("/")[:2])
    assert counter == "51", "the id that it got when it was received"
    assert not any(name.startswith("dead-letter") for name in record.headers)


def test_dead_letters_are_deleted_one_by_one_or_all_and_never_by_mistake(mosquitto, kafka, names, new_bridge):
    """`delete` wants ids or --all; an unknown id deletes nothing."""
    topic = names.kafka()
    kafka.create_topic(topic, 1, **{"max.message.bytes": 20_000})
    bridge = new_bridge()
    with bridge, Publisher(mosquitto.port) as publisher:
        for number in range(4):
            publisher.raw(names.mqtt(f"large/{number}"), incompressible(30_000, number))
        wait_until(lambda: bridge.total("connector_dead_lettered_total") == 4, "four dead letters")
        assert bridge.total("connector_dead_letter_messages") == 4
    found = dead_letters(bridge)
    assert [line[3] for line in found] == [repr(names.mqtt(f"large/{number}")) for number in range(4)], "oldest first"
    for arguments in (["delete"], ["forget"], ["delete", "no-such-id"], ["delete", found[0][0], "no-such-id"],
                      ["retry", "no-such-id"]):  # fmt: skip
        done = run(bridge, "dead-letters", *arguments)
        assert done.returncode != 0
        assert "Traceback" not in done.stdout + done.stderr
        assert ("no-such-id" in done.stderr) == (arguments[-1] == "no-such-id"), done.stderr
    assert dead_letters(bridge) == found
    done = run(bridge, "dead-letters", "delete", found[1][0])
    assert done.returncode == 0, done.stderr
    assert "1 dead letters deleted" in done.stdout
    assert dead_letters(bridge) == [found[0], *found[2:]]
    with bridge:
        name = found[0][0]
        for ids in ([name, name], [name, name.upper() + " "], [f" {name}"], [name, f"{name[:4]} {name[4:]}"]):
            done = run(bridge, "dead-letters", "delete", *ids)
            assert (done.returncode, done.stdout) == (1, ""), done.stdout
            assert "nothing was changed: " in done.stderr
        assert bridge.total("connector_dead_letter_messages") == 3
    assert run(bridge, "dead-letters", "delete", "--all").returncode == 0
    assert dead_letters(bridge) == []


def test_without_a_data_directory_the_dead_letters_cannot_be_listed(new_bridge):
    """They are in the worker's memory, and the command says so."""
    done = run(new_bridge(kafka=KAFKA_AWAY, db_persist_path=""), "dead-letters", "list")
    assert done.returncode == 1
    assert "DB_PERSIST_PATH is not set" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_before_the_first_start_there_is_nothing_to_list(new_bridge):
    """A sentence, and no directory is made."""
    bridge = new_bridge(kafka=KAFKA_AWAY)
    done = run(bridge, "dead-letters", "list")
    assert done.returncode == 3
    assert "holds no table yet, as it does not exist: set DB_PERSIST_PATH" in done.stderr
    assert not (bridge.directory / "data").exists()


def test_dead_letters_go_to_their_topic_with_everything_that_they_had(mosquitto, kafka, names, new_bridge):
    """DEAD_LETTER_TOPIC: original key, value and headers, the reason and the topic; and the accounts balance."""
    topic, graveyard = names.kafka(), names.kafka("dead")
    kafka.create_topic(topic, 1, **{"max.message.bytes": 20_000})
    kafka.create_topic(graveyard)
    data = incompressible(50_000)
    with (
        new_bridge(dead_letter_topic=graveyard) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 20)
        for number in range(3):
            publisher.raw(names.mqtt(f"large/{number}"), data + bytes([number]))
        publisher.publish_many([names.mqtt("a")], 20)
        read(kafka.bootstrap, [topic], 40).assert_each_once_in_order(publisher.sent)
        letters = read(kafka.bootstrap, [graveyard], 3).records
        wait_for_total(bridge, "connector_dead_lettered_total", 3)
        wait_for_total(bridge, "connector_delivered_total", 40)
        assert bridge.total("connector_undelivered_messages") == 0
        assert bridge.total("connector_dead_letter_messages") == 0
        bridge.assert_balanced()
    assert [record.value for record in letters] == [data + bytes([number]) for number in range(3)]
    for number, record in enumerate(letters):
        assert record.key == record.headers["mqtt-topic"] == names.mqtt(f"large/{number}").encode()
        assert record.headers["dead-letter-reason"] == b"too_large"
        assert record.headers["dead-letter-topic"] == topic.encode()
        assert record.headers["connector-id"].startswith(b"bridge-")


def test_a_record_larger_than_a_batch_arrives_between_small_ones_in_order(mosquitto, kafka, names, new_bridge):
    """P2 and P5: what the topic takes arrives, whatever its size; nothing is passed and nothing repeated."""
    topic = names.kafka()
    kafka.create_topic(topic, 1, **{"max.message.bytes": 900_000})
    with (
        new_bridge(kafka_compression="none") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        for _ in range(10):
            for size_bytes in (100, 70_000, 60_000, 500_000, 100):
                publisher.publish(names.mqtt("a"), size_bytes)
        oracle = read(kafka.bootstrap, [topic], 50)
        oracle.assert_each_once_in_order(publisher.sent)
        assert bridge.total("connector_dead_lettered_total") == 0
    sizes = [len(record.value) for record in oracle.records]
    assert sizes == [100, 70_000, 60_000, 500_000, 100] * 10


def test_a_topic_that_is_created_late_flows_without_a_restart(mosquitto, kafka, names, new_bridge):
    """P5: the messages wait, the log says why, the other topic is not touched."""
    mappings = f"{names.mqtt('late')}:{names.kafka('late')},{names.mqtt('there')}:{names.kafka('there')}"
    kafka.create_topic(names.kafka("there"))
    with (
        new_bridge(mappings=mappings) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("late"), names.mqtt("there")], 400)
        read(kafka.bootstrap, [names.kafka("there")], 200).assert_each_once_in_order({names.mqtt("there"): 200})
        wait_until(lambda: bridge.status_page()["lanes"][names.kafka("late")]["trouble"], "a reason why it waits")
        missing = f"Kafka shows no topic named {names.kafka('late')}"
        wait_until(lambda: missing in bridge.log_path.read_text(), missing)
        bridge.assert_balanced()
        kafka.create_topic(names.kafka("late"))
        read(kafka.bootstrap, [names.kafka("late")], 200).assert_each_once_in_order({names.mqtt("late"): 200})
        publisher.publish_many([names.mqtt("late")], 200)
        read(kafka.bootstrap, [names.kafka("late")], 400).assert_each_once_in_order({names.mqtt("late"): 400})
        wait_until(lambda: not bridge.status_page()["lanes"][names.kafka("late")]["behind"], "a direct lane")
        wait_until(
            lambda: bridge.status_page()["lanes"][names.kafka("late")]["trouble"] == "", "the end of the trouble"
        )
        shown = f"Kafka shows the topic {names.kafka('late')} now"
        wait_until(lambda: shown in bridge.log_path.read_text(), shown)
        bridge.assert_balanced()


def test_kafka_restarts_under_traffic_and_everything_arrives_once_in_order(mosquitto, tmp_path, names, new_bridge):
    """P2 and P3: a planned restart repeats nothing, as the producer lives on."""
    with (
        Kafka(tmp_path / "kafka") as kafka,
        new_bridge(kafka=kafka) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        kafka.create_topic(names.kafka(), 3)
        topics = [names.mqtt(str(number)) for number in range(10)]
        sender = threading.Thread(target=publisher.publish_many, args=(topics, 40_000, 4_000))
        sender.start()
        for delivered in (4_000, 14_000):
            wait_until(lambda delivered=delivered: bridge.total("connector_delivered_total") > delivered, "deliveries")
            kafka.restart()
        sender.join()
        oracle = read(kafka.bootstrap, [names.kafka()], 40_000)
        oracle.assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()
