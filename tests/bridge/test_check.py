"""The command `check`: what it finds at real brokers, right and wrong ones, and that it disturbs nobody."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
import pytest
import trustme
from confluent_kafka.admin import AclOperation, AclPermissionType, ResourceType
from paho.mqtt.enums import CallbackAPIVersion

from tests.bridge.test_tls import WRONG, Listener, wrong_context
from tests.faults.test_kafka_changes import give_rights, rule, take_rights
from tests.support.disk import LoopDisk
from tests.support.oracle import read, wait_until
from tests.support.system import LOGS_ALL, Bridge, Publisher, Traffic
from tools.brokers import Kafka, Mosquitto, free_port

PASSWORD, WRONG_PASSWORD = "right-canary-4d1", "wrong-canary-9e7"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
PLUGIN = "mosquitto_dynamic_security.so"  # Debian's, which refuses filters; an acl_file grants all, and sends nothing


def check(bridge: Bridge, *arguments: str) -> tuple[int, list[dict], str]:
    """Run `check` with the settings of a worker; return exit code, findings and all that it wrote."""
    bridge.directory.mkdir(exist_ok=True, parents=True)
    command = [sys.executable, "-m", "app.connector", "check", "--json", *arguments]
    done = subprocess.run(
        command, env=dict(bridge.environment()), cwd=bridge.directory, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    *findings, last = [json.loads(line) for line in done.stdout.splitlines()] or [{}]
    counts = {
        verdict: sum(each["verdict"] == verdict for each in findings) for verdict in ("good", "doubtful", "wrong")
    }
    assert last == {"summary": counts}, done.stderr
    return done.returncode, findings, done.stdout + done.stderr


def of(findings: list[dict], area: str, name: str, subject: str = "") -> dict:
    """Return the only finding of an area with this name, and of a subject if one is given."""
    found = [
        each for each in findings
        if (each["area"], each["check"]) == (area, name) and subject in {"", each["subject"]}
    ]  # fmt: skip
    assert len(found) == 1, "\n".join(map(str, findings))
    return found[0]


def has_session(port: int, client_id: str) -> bool:
    """Tell whether a broker has a session for a client id."""
    found: list[bool] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
    client.on_connect = lambda _client, _data, flags, _code, _properties: found.append(flags.session_present)
    client.connect("127.0.0.1", port, clean_start=False)
    wait_until(lambda: client.loop(0.1) or found, "CONNACK")
    client.disconnect()
    client.on_connect = None
    return found[0]


# ---- brokers that are as they should be


@pytest.mark.parametrize("group", ["", "connectors"])
def test_right_brokers_are_found_good_beside_a_worker_that_notices_nothing(group, mosquitto, kafka, names, new_bridge):
    """P1 and P3: its connection and session stay, and each message arrives, once and in order."""
    kafka.create_topic(names.kafka())
    with new_bridge(mqtt_shared_group=group) as bridge, Publisher(mosquitto.port) as publisher:
        process = bridge.pid
        with Traffic(publisher, names.prefix, rate=500):
            bridge.wait_for_progress(100)
            code, findings, _ = check(bridge)
            bridge.wait_for_progress(100)
        read(kafka.bootstrap, [names.kafka()], sum(publisher.sent.values())).assert_each_once_in_order(publisher.sent)
        assert bridge.total("connector_mqtt_connections_total") == 1
        assert bridge.total("connector_mqtt_sessions_lost_total") == 0
    assert code == 0
    assert {each["verdict"] for each in findings if each["area"] in {"settings", "mqtt", "kafka"}} == {"good"}
    assert f"(process {process})" in of(findings, "disk", "worker")["text"]
    assert of(findings, "machine", "pages")["verdict"] == "good", "the port is its own worker's"
    assert of(findings, "mqtt", "filter")["subject"] == names.mqtt("#"), (
        "as a member of the group it would take messages"
    )
    assert "session expiry 604800 s" in of(findings, "mqtt", "limits")["text"]
    assert of(findings, "kafka", "write")["subject"] == names.kafka()


def test_nothing_is_left_at_the_broker_in_the_topic_and_on_the_disk(kafka, names, new_bridge, tmp_path):
    """P1: a subscription that stayed would queue for nobody, and one of the group would take messages from it."""
    kafka.create_topic(names.kafka())
    with Mosquitto(tmp_path / "mosquitto", extra_configuration=LOGS_ALL) as mosquitto:
        bridge = new_bridge(mosquitto, mqtt_shared_group="connectors")
        data = Path(bridge.settings["DB_PERSIST_PATH"])
        data.mkdir(parents=True, mode=0o700)
        code, findings, _ = check(bridge)
        assert code == 0, findings
        assert not list(data.iterdir())
        log = mosquitto.log_path.read_text()
        own = f"bridge-{names.client_id}-check-"
        (visitor,) = {word for word in log.split() if word.startswith(own)}
        assert f"{visitor} 1 {names.mqtt('#')}" in log
        assert "$share" not in log
        assert log.count(f"Client {visitor} disconnected.") == 2
        assert not has_session(mosquitto.port, visitor)
    assert read(kafka.bootstrap, [names.kafka()], 0).records == []


def test_mqtt_3_is_checked_as_well(mosquitto, kafka, names, new_bridge):
    """It has no limits in CONNACK, and retained messages come with each subscription; they are discarded."""
    kafka.create_topic(names.kafka())
    with Publisher(mosquitto.port) as publisher:
        publisher.raw(names.mqtt("a"), b"retained", retain=True)
        publisher.wait_for_acknowledgements()
        code, findings, _ = check(new_bridge(mqtt_version="3.1.1"))
        publisher.raw(names.mqtt("a"), b"", retain=True)
    assert code == 0
    assert "MQTT 3.1.1" in of(findings, "mqtt", "sign_in")["text"]
    assert of(findings, "mqtt", "filter")["verdict"] == "good"


# ---- what is wrong on the way to the brokers


def test_names_that_do_not_resolve_and_a_port_that_nobody_listens_at(names, new_bridge):
    """Each side is looked at, whatever the other one is like."""
    port = free_port()
    bridge = new_bridge(port, "no-such-host.invalid:9092", mqtt_broker_url="no-such-host.invalid")
    code, findings, _ = check(bridge)
    assert code == 1
    for area in ("mqtt", "kafka"):
        found = of(findings, area, "name")
        assert found["verdict"] == "wrong"
        assert "the name no-such-host.invalid" in found["text"]
    code, findings, _ = check(new_bridge(port, f"127.0.0.1:{port}"))
    assert code == 1
    for area in ("mqtt", "kafka"):
        found = of(findings, area, "connect")
        assert (found["verdict"], found["subject"]) == ("wrong", f"127.0.0.1:{port}")
        assert "Connection refused" in found["text"]


@pytest.mark.parametrize(
    ("what", "said", "advice"),
    [
        ("unknown authority", "unable to get local issuer certificate", "{}_CA_FILE"),
        ("expired", "certificate has expired", "Renew"),
        ("wrong host name", "not valid for '127.0.0.1'", "a name that the certificate has"),
    ],
)
def test_a_wrong_certificate_is_named_on_both_sides_with_what_to_do(what, said, advice, names, new_bridge, tmp_path):
    """No password goes to a server that is not who it should be."""
    assert what in WRONG
    trusted = trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Listener(wrong_context(what, trusted)) as mqtt, Listener(wrong_context(what, trusted)) as kafka:
        code, findings, output = check(new_bridge(
            mqtt.port, f"127.0.0.1:{kafka.port}", mqtt_tls=True, mqtt_ca_file=tmp_path / "ca.pem",
            mqtt_user_name="bridge", mqtt_user_password=PASSWORD, kafka_tls=True, kafka_ca_file=tmp_path / "ca.pem",
        ))  # fmt: skip
    assert code == 1
    for area, listener in (("mqtt", mqtt), ("kafka", kafka)):
        found = of(findings, area, "tls")
        assert found["verdict"] == "wrong"
        assert said in found["text"]
        assert advice.format(area.upper()) in found["advice"]
        assert listener.said == b""
    assert PASSWORD not in output


# ---- what brokers refuse


class Strict(NamedTuple):
    """Brokers with rules: one user at the MQTT broker may subscribe below `open/`, and Kafka has rules for a topic."""

    mosquitto: Mosquitto
    kafka: Kafka
    signed_port: int
    lost_port: int

    def settings(self, password: str = PASSWORD) -> dict[str, object]:
        """Return those that sign in at both, over TLS and with SASL."""
        return {
            "mqtt_user_name": "bridge", "mqtt_user_password": password, "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": "bridge", "kafka_sasl_password": password,
        }  # fmt: skip


def plugin() -> Path:
    """Return where Mosquitto's plugin is."""
    found = next((path for path in Path("/usr/lib").rglob(PLUGIN)), None)
    if found is None:
        pytest.skip(f"{PLUGIN} is not installed; Debian has it in the package mosquitto")
    return found


def rules_of_mosquitto() -> str:
    """Return the plugin's file."""
    salt = os.urandom(12)
    hashed = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, 101, 64)
    role = [{"acltype": "subscribePattern", "topic": "open/#", "allow": True, "priority": 0}]
    return json.dumps({
        "defaultACLAccess": {
            "publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True,
        },
        "clients": [{
            "username": "bridge", "password": base64.b64encode(hashed).decode(),
            "salt": base64.b64encode(salt).decode(), "iterations": 101, "roles": [{"rolename": "bridge"}],
        }],
        "roles": [{"rolename": "bridge", "acls": role}],
    })  # fmt: skip


@pytest.fixture(scope="module")
def strict(certificates, tmp_path_factory):
    """Return such brokers."""
    directory = tmp_path_factory.mktemp("strict")
    (directory / "rules.json").write_text(rules_of_mosquitto())
    lines = f"allow_anonymous false\nplugin {plugin()}\nplugin_opt_config_file {directory / 'rules.json'}"
    kafka = Kafka(directory / "kafka", certificates=certificates, acl=True)
    base, tls, port, lost = kafka._base_properties(), kafka._tls_properties(), free_port(), free_port()
    kinds = f"{base['listener.security.protocol.map']},SIGNED:SASL_PLAINTEXT,LOST:PLAINTEXT"
    own = f"PLAINTEXT://{kafka.bootstrap},SSL://127.0.0.1:{kafka.tls_port},SIGNED://127.0.0.1:{port}"
    kafka._properties |= {
        "listeners": f"{tls['listeners']},SIGNED://127.0.0.1:{port},LOST://127.0.0.1:{lost}",
        "advertised.listeners": f"{own},LOST://kafka.invalid:9092",
        "listener.security.protocol.map": kinds,
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.signed.plain.sasl.jaas.config": f'{LOGIN} required user_bridge="{PASSWORD}";',
    }
    with Mosquitto(directory / "mosquitto", certificates=certificates, extra_configuration=lines) as mosquitto, kafka:
        yield Strict(mosquitto, kafka, port, lost)


def test_filters_and_topics_are_judged_one_by_one(strict, certificates, new_bridge):
    """Over TLS with a right password; what is wrong with one topic is said of that one alone."""
    kafka, day = strict.kafka, 86_400_000
    kafka.create_topic("fine")
    kafka.create_topic("short", retention_ms=day // 2)
    kafka.create_topic("compacted", cleanup_policy="compact")
    kafka.create_topic("strict-times", message_timestamp_before_max_ms=1000, message_timestamp_after_max_ms=500)
    kafka.create_topic("tiny", max_message_bytes=50)
    kafka.create_topic("locked")
    admin = kafka.admin()
    allowed = [
        rule(ResourceType.TOPIC, "locked", operation, AclPermissionType.ALLOW)
        for operation in (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    ]
    for future in admin.create_acls(allowed).values():
        future.result(10)
    topics = ("fine", "short", "compacted", "strict-times", "tiny", "locked", "absent")
    mappings = ",".join(f"open/{topic}:{topic}" for topic in topics) + ",closed/#:fine,open/+/x:fine"
    code, findings, _ = check(new_bridge(
        strict.mosquitto.tls_port, f"127.0.0.1:{kafka.tls_port}", mappings, mqtt_tls=True, kafka_tls=True,
        mqtt_ca_file=certificates.ca_file, kafka_ca_file=certificates.ca_file, mqtt_user_name="bridge",
        mqtt_user_password=PASSWORD, record_key="", dead_letter_topic="dead",
    ))  # fmt: skip
    assert code == 1
    for area in ("mqtt", "kafka"):
        found = of(findings, area, "tls")
        assert found["verdict"] == "good"
        assert all(word in found["text"] for word in ("TLSv1.3", "Testing CA", "counts until"))
    refused = of(findings, "mqtt", "filter", "closed/#")
    assert (refused["verdict"], "Not authorized" in refused["text"]) == ("wrong", True)
    assert of(findings, "mqtt", "filter", "open/+/x")["verdict"] == "good"
    not_good = {
        (each["subject"], each["check"], each["verdict"])
        for each in findings if each["area"] == "kafka" and each["verdict"] != "good"
    }  # fmt: skip
    assert not_good == {
        ("short", "retention", "doubtful"), ("compacted", "cleanup", "wrong"), ("strict-times", "age", "doubtful"),
        ("strict-times", "clock", "doubtful"), ("tiny", "size", "wrong"), ("locked", "write", "wrong"),
        ("absent", "topic", "wrong"), ("dead", "topic", "wrong"),
    }  # fmt: skip
    assert "12h" in of(findings, "kafka", "retention")["text"]


def test_wrong_passwords_are_said_of_both_sides_and_not_shown(strict, new_bridge):
    code, findings, output = check(new_bridge(
        strict.mosquitto.tls_port, f"127.0.0.1:{strict.signed_port}", "open/a:fine", mqtt_tls=True,
        mqtt_ca_file=strict.mosquitto._certificates.ca_file, **strict.settings(WRONG_PASSWORD),
    ))  # fmt: skip
    assert code == 1
    assert of(findings, "mqtt", "sign_in")["verdict"] == of(findings, "kafka", "sign_in")["verdict"] == "wrong"
    assert "MQTT_USER_PASSWORD" in of(findings, "mqtt", "sign_in")["advice"]
    assert "KAFKA_SASL_" in of(findings, "kafka", "sign_in")["advice"]
    assert WRONG_PASSWORD not in output


def test_a_port_that_wants_tls_and_is_asked_without_is_named_as_that(strict, new_bridge):
    """Such a server closes the connection, and no client says why."""
    tls = strict.kafka.tls_port
    _, findings, _ = check(new_bridge(strict.mosquitto.tls_port, f"127.0.0.1:{tls}", "open/a:fine"))
    assert "mqtts://" in of(findings, "mqtt", "sign_in")["advice"]
    assert "KAFKA_TLS" in of(findings, "kafka", "tls")["advice"]


def test_a_producer_that_may_not_write_idempotently_is_found(strict, new_bridge):
    """The worker's producer fails for good without that right; no other client would notice."""
    admin = strict.kafka.admin()
    take_rights(admin)
    try:
        _, findings, _ = check(new_bridge(1, strict.kafka.bootstrap, "open/a:fine"))
    finally:
        give_rights(admin)
    found = of(findings, "kafka", "idempotent_write")
    assert found["verdict"] == "wrong"
    assert "IdempotentWrite" in found["advice"]


def test_a_kafka_that_advertises_addresses_that_cannot_be_reached_is_found(strict, new_bridge):
    """Its first address answers, and sends clients on to another one: as with a Kafka in a container."""
    code, findings, _ = check(new_bridge(1, f"127.0.0.1:{strict.lost_port}", "open/a:records"))
    assert code == 1
    found = of(findings, "kafka", "node")
    assert (found["verdict"], found["subject"]) == ("wrong", "kafka.invalid:9092")
    assert "advertised.listeners" in found["advice"]


# ---- the disk


def test_a_disk_that_is_full_and_one_that_cannot_be_written_to(names, new_bridge, tmp_path):
    """A worker would refuse to start, or store nothing."""
    with LoopDisk(tmp_path) as disk:
        data = disk.path / "data"
        data.mkdir(mode=0o700)
        disk.fill()
        bridge = new_bridge(1, "127.0.0.1:1", db_persist_path=data)
        code, findings, _ = check(bridge)
        assert code == 1
        assert of(findings, "disk", "sync")["verdict"] == of(findings, "disk", "space")["verdict"] == "wrong"
        subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
        code, findings, _ = check(bridge)
        assert "read-only" in of(findings, "disk", "file_system")["text"]
        assert of(findings, "disk", "directory")["verdict"] == "wrong"


# ---- the command itself


def test_ctrl_c_ends_it_at_once_with_what_was_found(names, new_bridge):
    """Whatever it waits for; here an MQTT broker that accepts a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bridge = new_bridge(silent.getsockname()[1], "127.0.0.1:1")
        bridge.directory.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "app.connector", "check"]
        process = subprocess.Popen(
            command, env=dict(bridge.environment()), cwd=bridge.directory, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            for line in process.stderr:
                if "signing in" in line:
                    break
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=5)
    assert process.returncode == 1
    assert "interrupted" in err
    assert "Traceback" not in err
    assert out.splitlines()[-1].endswith(" 0 wrong")


def test_offline_looks_at_the_settings_alone_and_wrong_ones_end_it_with_2(names, new_bridge):
    bridge = new_bridge(1, "127.0.0.1:1", f"{names.mqtt('#')}:records,{names.mqtt('+')}:others")
    code, findings, _ = check(bridge, "--offline")
    assert code == 0
    assert {each["area"] for each in findings} == {"settings"}
    assert "never gets a message" in of(findings, "settings", "route")["text"]
    bridge.settings["MQTT_QOS"] = "7"
    with contextlib.suppress(AssertionError):  # nothing is found then
        check(bridge, "--offline")
    done = subprocess.run(
        [sys.executable, "-m", "app.connector", "check"], env=dict(bridge.environment()),
        cwd=bridge.directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "MQTT_QOS" in done.stderr
