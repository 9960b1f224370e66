"""Every secret has a value that is easy to find, and it is found nowhere: whatever fails, at the finest log level."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys

import psutil
import pytest
import trustme

from app.lines import LineFormatter
from app.settings import SECRET_NAMES, load_settings
from tests.support.oracle import wait_until
from tests.support.system import LOGS_ALL, Bridge, Publisher, UnreadyBridge, wait_until_acknowledged
from tools.brokers import Kafka, Mosquitto, find_mosquitto, free_port

CANARY = "canary-7d20e5"
# What follows it, so that each library gives it another form.
MALFORMED = ' "q" %41/+=&<\\x>ü\r'
# How it may look where somebody encoded it; as the beginning of what was encoded, or its middle.
FORMS = [
    CANARY.encode(),
    base64.b64encode(CANARY.encode())[:16],
    base64.b64encode(b"\0" + CANARY.encode())[2:18],
    CANARY.encode().hex().encode(),
]
PAGES = (
    "/",
    "/status",
    "/history",
    "/dead-letters",
    "/metrics",
    "/health/ready",
    "/health/live",
    "/unknown",
    "/table",
    "/status?x=%0a",
)
COMMANDS = (
    ["dead-letters", "list"],
    ["dead-letters", "delete", "x"],
    ["tables"],
    ["agents"],
    ["no-such-command"],
    ["worker", "--no-such-option"],
)
DEBUG = json.dumps({"debug": "all", "client.rack": f"{CANARY}-rack", "ssl.key.password": f"{CANARY}-key"})


def secrets_of(kind: str, endpoint: str) -> dict[str, str]:
    """Return settings with the canary as every secret that can be set at once: by password, or by token."""
    settings = {
        "MQTT_USER_NAME": "somebody",
        "MQTT_USER_PASSWORD": f"{CANARY}-mqtt{MALFORMED}",
        "KAFKA_PRODUCER_CONFIG": DEBUG,
    }
    settings["WEB_TOKEN"] = f"{CANARY}-web-token"
    if kind == "password":
        sign_in = {"MECHANISM": "PLAIN", "USERNAME": "someone", "PASSWORD": f"{CANARY}-kafka{MALFORMED}"}
        return settings | {f"KAFKA_SASL_{name}": value for name, value in sign_in.items()}
    sign_in = {"CLIENT_ID": "id", "CLIENT_SECRET": f"{CANARY}-oauth{MALFORMED}", "TOKEN_ENDPOINT_URI": endpoint}
    return settings | {"SASL_SSL": "true"} | {f"SASL_OAUTHBEARER_{name}": value for name, value in sign_in.items()}


def in_files(settings: dict[str, str], directory) -> dict[str, str]:
    """Return the settings with every secret in a file of its own."""
    directory.mkdir(parents=True)
    moved = {}
    for name, value in settings.items():
        if name in SECRET_NAMES:
            path = directory / name.lower()
            path.write_text(f"{value}\n", newline="")
            moved[f"{name}_FILE"] = str(path)
        else:
            moved[name] = value
    return moved


def assert_no_canary(what: str, data: bytes | str) -> None:
    data = data.encode() if isinstance(data, str) else data
    for form in FORMS:
        place = data.find(form)
        assert place < 0, f"{what}: {data[max(0, place - 200) : place + 50]!r}"


def run(bridge: Bridge, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "faust", "-A", "app.main", *arguments]
    return subprocess.run(
        command, capture_output=True, timeout=60, check=False, cwd=bridge.directory, env=dict(bridge.environment())
    )


def assert_nowhere(bridge: Bridge) -> None:
    """Look at everything that a worker leaves: its log and each file of its directories."""
    log = bridge.log_path.read_bytes()
    assert_no_canary("the log", log)
    found = [path for path in bridge.directory.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    assert len(found) > 5, "the data directory has files"
    for path in found:
        assert_no_canary(str(path), path.read_bytes())


@pytest.fixture(scope="module")
def guarded(certificates, tmp_path_factory):
    """Return a Mosquitto with a password file, and a Kafka with a listener that wants SASL/PLAIN, with its port."""
    directory = tmp_path_factory.mktemp("guarded")
    passwords = directory / "passwords"
    program = find_mosquitto().replace("sbin/mosquitto", "bin/mosquitto") + "_passwd"
    subprocess.run([program, "-b", "-c", passwords, "somebody", "another"], check=True, capture_output=True)
    kafka = Kafka(directory / "kafka", certificates=certificates)
    base, tls, port = kafka._base_properties(), kafka._tls_properties(), free_port()
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    kafka._properties |= {
        "listeners": f"{tls['listeners']},SIGNED://127.0.0.1:{port}",
        "listener.security.protocol.map": f"{base['listener.security.protocol.map']},SIGNED:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.signed.plain.sasl.jaas.config": f'{login} required user_someone="another";',
    }
    lines = f"allow_anonymous false\npassword_file {passwords}"
    with Mosquitto(directory / "mosquitto", extra_configuration=lines) as mosquitto, kafka:
        yield mosquitto, port


@pytest.mark.parametrize(("kind", "place"), [("password", "variable"), ("token", "file")])
def test_no_secret_is_anywhere_when_the_brokers_refuse_it(kind, place, guarded, certificates, names, tmp_path):
    """Wrong passwords, then a wrong authority; every page, every command, a stop: at LOG_LVL=trace, debug=all."""
    mosquitto, port = guarded
    settings = secrets_of(kind, f"https://127.0.0.1:{free_port()}/token")
    if place == "file":
        settings = in_files(settings, tmp_path / names.client_id / "secrets")
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    bridge = UnreadyBridge(
        tmp_path / names.client_id, mosquitto.port, f"127.0.0.1:{port}", mapping, log_lvl="trace", **settings
    )
    with bridge:
        refused = "the MQTT broker refused the connection"
        wait_until(lambda: refused in bridge.log_path.read_text(errors="replace"), refused)
        sign_in = "Kafka cannot be signed in to"
        wait_until(lambda: sign_in in bridge.log_path.read_text(errors="replace"), sign_in)
        for page in PAGES:
            assert_no_canary(page, bridge.get(page)[1])
        process = psutil.Process(bridge.pid)
        assert_no_canary("the process title", " ".join([process.name(), *process.cmdline()]))
        for command in COMMANDS:
            done = run(bridge, *command)
            assert_no_canary(str(command), done.stdout + done.stderr)
    assert bridge.exit_status == 0
    assert b"[thrd:" in bridge.log_path.read_bytes(), "librdkafka speaks of its threads: the log is a detailed one"
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    bridge.settings |= {"MQTT_TLS": "true", "MQTT_CA_FILE": str(stranger), "KAFKA_CA_FILE": str(stranger)}
    bridge.settings |= {"KAFKA_TLS": "true"} if kind == "password" else {"SASL_OAUTHBEARER_CA_FILE": str(stranger)}
    with bridge:
        wait_until(
            lambda: "cannot reach the MQTT broker" in bridge.log_path.read_text(errors="replace"), "no TLS there"
        )
    assert_nowhere(bridge)


FAILING = """
from agents.router import Router
from app.application import settings
from app.main import app

def fail(*_):
    password = settings.mqtt_user_password.get_secret_value()
    raise RuntimeError(f"an agent fails with {settings!r}")

Router._address = fail
"""


def test_no_secret_is_anywhere_when_the_worker_fails_or_is_killed(names, tmp_path):
    """An agent that fails, with a traceback that has the settings in it; SIGABRT, which would leave a core file."""
    with Mosquitto(tmp_path / "mosquitto", extra_configuration=LOGS_ALL) as mosquitto:
        see_a_worker_fail_and_be_killed(mosquitto, names, tmp_path)


def see_a_worker_fail_and_be_killed(mosquitto, names, tmp_path):
    bridge = Bridge(
        tmp_path / names.client_id, mosquitto.port, f"127.0.0.1:{free_port()}", f"{names.mqtt('#')}:{names.kafka()}",
        log_lvl="trace", pythonasynciodebug="1", pythondevmode="1", **secrets_of("password", ""),
    )  # fmt: skip
    with bridge:
        with Publisher(mosquitto.port) as publisher:
            publisher.publish_many([names.mqtt("a")], 10)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 10, "10 stored messages")
        wait_until_acknowledged(mosquitto, 10)  # else they come again, and the next worker fails before it is ready
        os.kill(bridge.pid, signal.SIGABRT)
        wait_until(lambda: not bridge.running, "the end of the worker")
    (tmp_path / "broken.py").write_text(FAILING)
    bridge.command = lambda: [sys.executable, "-m", "faust", "-A", "broken:app", "worker"]
    bridge.settings["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{bridge.environment()['PYTHONPATH']}"
    with contextlib.ExitStack() as stack:
        bridge.start()
        stack.callback(bridge.stop)
        with Publisher(mosquitto.port) as publisher:
            publisher.publish_many([names.mqtt("a")], 1)
        wait_until(lambda: not bridge.running, "the end of the worker")
        assert bridge._process.returncode == 1
    log = bridge.log_path.read_text(errors="replace")
    assert "an agent fails with Settings(" in log
    assert "mqtt_user_password=SecretStr('**********')" in log
    assert_nowhere(bridge)


@pytest.mark.parametrize(
    "wrong",
    [
        {"MQTT_QOS": "9"},
        {"KAFKA_PRODUCER_CONFIG": json.dumps({"acks": f"{CANARY}"})},
        {"KAFKA_PRODUCER_CONFIG": json.dumps({"socket.timeout.ms": f"{CANARY}"})},
        {"KAFKA_PRODUCER_CONFIG": f"{{{CANARY}"},
        {"KAFKA_BROKER": f"user:{CANARY}@host"},
        {"MQTT_BROKER_URL": f"mqtt://user:{CANARY}@host"},
        {"WEB_TOKEN": CANARY},
        {"MQTT_USER_PASSWORD_FILE": "/nowhere"},
    ],
    ids=lambda wrong: f"{next(iter(wrong))}",
)
def test_no_secret_is_in_a_refusal_of_settings(wrong, names, tmp_path):
    """Exit code 2, the variable named, no value of a secret shown; with every other secret set, too."""
    bridge = Bridge(
        tmp_path / "b", 1, "127.0.0.1:1", "a:a", **(secrets_of("password", "") | {"LOG_LVL": "trace"} | wrong)
    )
    done = run(bridge, "worker")
    assert done.returncode == 2, done.stderr
    assert next(iter(wrong)).encode() in done.stderr
    assert_no_canary("what it says", done.stdout + done.stderr)


def test_no_secret_is_in_the_text_of_settings_or_in_the_log_of_an_error_about_them():
    settings = load_settings(
        {
            "RUN_MODE": "PRODUCTION",
            "MQTT_BROKER_URL": "a",
            "MQTT_CLIENT_ID": "a",
            "KAFKA_BROKER": "a",
            "TOPIC_LIST": "a:b",
        }
        | secrets_of("password", "")
    )
    assert settings.kafka_configuration()["sasl.password"] == f"{CANARY}-kafka{MALFORMED}", "where it is needed"
    try:
        raise ValueError(settings)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "%s %r", (settings, settings), sys.exc_info())
    for text in (repr(settings), str(settings), f"{settings.model_dump()}", settings.model_dump_json(),
                 LineFormatter("%(message)s").format(record)):  # fmt: skip
        assert_no_canary("a text of the settings", text)
