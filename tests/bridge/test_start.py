"""Starts and stops: what is refused before anything is connected, with which exit code, and what a signal does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.oracle import read, wait_until
from tests.support.system import KAFKA_AWAY, Bridge, Publisher
from tools.brokers import Mosquitto, free_port

REPOSITORY = Path(__file__).resolve().parents[2]


def run(bridge: Bridge, *arguments: str, seconds: float = 60, **options) -> subprocess.CompletedProcess:
    """Run a command of the app with the bridge's settings until it ends."""
    command = [sys.executable, "-m", "faust", "-A", "app.main", *arguments]
    options = {"cwd": bridge.directory, "env": dict(bridge.environment())} | options
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, **options)


def said(done: subprocess.CompletedProcess) -> str:
    return done.stdout + done.stderr


def ended(bridge: Bridge) -> int:
    """Wait until the worker has ended by itself, and return its exit code."""
    wait_until(lambda: not bridge.running, "the end of the worker", 20)
    code = bridge._process.returncode
    bridge.stop()
    return code


@pytest.fixture
def own_mosquitto(tmp_path):
    """Return a broker that nobody else uses, for what its log says."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


# ---- the data directory


def test_a_second_worker_on_the_same_directory_is_refused_before_it_touches_mqtt(
    own_mosquitto, kafka, names, new_bridge
):
    """P10: exit code 3 with a sentence; the first one stays connected and goes on."""
    kafka.create_topic(names.kafka())
    bridge = new_bridge(own_mosquitto)
    with bridge, Publisher(own_mosquitto.port) as publisher:
        connections = own_mosquitto.log_path.read_text().count(f"as {bridge.settings['MQTT_CLIENT_ID']}")
        assert connections == 1
        second = run(bridge, "worker", env={**bridge.environment(), "WEB_PORT": str(free_port())})
        assert second.returncode == 3
        assert "in use by another worker" in second.stderr
        assert "Traceback" not in said(second)

        publisher.publish_many([names.mqtt("a")], 100)
        read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
        log = own_mosquitto.log_path.read_text()
        assert log.count(f"as {bridge.settings['MQTT_CLIENT_ID']}") == connections, "one connection, the first one"
        assert bridge.total("connector_mqtt_connected") == 1
        assert "connection to the MQTT broker ended" not in bridge.log_path.read_text()
    assert bridge.exit_status == 0


def test_a_data_directory_that_is_a_file_is_a_wrong_setting(tmp_path, new_bridge):
    """Told with the other settings, before anything is opened."""
    (tmp_path / "file").write_text("kept")
    done = run(new_bridge(kafka=KAFKA_AWAY, db_persist_path=tmp_path / "file"), "worker")
    assert done.returncode == 2
    assert "DB_PERSIST_PATH" in done.stderr and "is a file" in done.stderr
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("what", ["below a file", "read-only"])
def test_an_unusable_data_directory_ends_with_3_and_a_sentence(what, own_mosquitto, names, tmp_path, new_bridge):
    """Exit code 3, no traceback, MQTT not touched."""
    directory = tmp_path / "place" / "data"
    directory.mkdir(parents=True)
    mounted = False
    if what == "below a file":
        (tmp_path / "place" / "file").write_text("")
        directory = tmp_path / "place" / "file" / "data"
    else:
        # A mount, as root may write whatever the rights say.
        command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(directory)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a read-only file system cannot be mounted here")
        mounted = True
    try:
        done = run(new_bridge(own_mosquitto, KAFKA_AWAY, db_persist_path=directory), "worker")
    finally:
        if mounted:
            subprocess.run(["umount", str(directory)], check=True)
    assert done.returncode in ({2, 3} if what == "below a file" else {3}), said(done)
    assert "DB_PERSIST_PATH" in done.stderr
    assert "Traceback" not in said(done)
    assert names.client_id not in own_mosquitto.log_path.read_text()


def test_without_a_data_directory_messages_cross_and_the_log_warns(mosquitto, kafka, names, new_bridge):
    """In memory: said loudly, and connector_store_durable is 0."""
    kafka.create_topic(names.kafka())
    with (
        new_bridge(db_persist_path="") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 500)
        read(kafka.bootstrap, [names.kafka()], 500).assert_each_once_in_order(publisher.sent)
        assert "WARNING" in next(line for line in bridge.log_path.read_text().splitlines() if "is not set" in line)
        assert bridge.total("connector_store_durable") == 0
        bridge.assert_balanced()
    assert bridge.exit_status == 0
    assert {path.name for path in bridge.directory.iterdir()} == {"worker.log"}


def test_a_worker_makes_no_directory_but_its_own(tmp_path, new_bridge):
    """Design: the working directory may be read-only; only DB_PERSIST_PATH is written, for its owner alone."""
    with new_bridge(kafka=KAFKA_AWAY, db_persist_path=tmp_path / "there" / "data") as bridge:
        assert {path.name for path in bridge.directory.iterdir()} == {"worker.log"}
        made = {path.name for path in (tmp_path / "there" / "data").iterdir()}
        assert {"undelivered", "ballast"} <= made <= {"undelivered", "ballast", "control.sock", "synced-mark", "format"}
        assert (tmp_path / "there" / "data").stat().st_mode & 0o077 == 0


# ---- settings


def test_all_wrong_settings_are_in_one_report_and_nothing_is_connected(own_mosquitto, names, new_bridge):
    """Exit code 2: every problem by name, no traceback, no data directory, no connection."""
    bridge = new_bridge(own_mosquitto, KAFKA_AWAY, mqtt_qos="3", store_after_ms="-1", kafka_broker="", web_port="x")
    bridge.settings["WEB_PORT"] = "no-port"
    done = run(bridge, "worker")
    assert done.returncode == 2
    for name in ("MQTT_QOS", "STORE_AFTER_MS", "KAFKA_BROKER", "WEB_PORT"):
        assert f"  {name}: " in done.stderr
    assert "4 setting(s) to correct" in done.stderr
    assert "Traceback" not in said(done)
    assert not (bridge.directory / "data").exists()
    assert names.client_id not in own_mosquitto.log_path.read_text()


@pytest.mark.parametrize("field", ["name", "from"])
def test_routes_of_one_line_that_cannot_be_told_apart_end_with_2_and_a_sentence(field, new_bridge, tmp_path):
    """It was a traceback and 1, at which systemd starts the worker again and again."""
    path = tmp_path / "routes.yaml"
    routes = [{"name": "a", "from": "a/#", "to": "k"}, {"name": "b", "from": "b/#", "to": "k"}]
    routes[1][field] = routes[0][field]
    path.write_text(json.dumps({"routes": routes}))
    path.chmod(0o644)
    bridge = new_bridge(kafka=KAFKA_AWAY, topic_list="", wildcard_topic_list="", routes_file=path)
    for words in (["worker"], ["check", "--offline"], ["routes"]):
        done = run(bridge, *words)
        assert done.returncode == 2, said(done)
        assert "route 1 of the file, in the same line, has " in done.stderr
        assert "Traceback" not in said(done)


# ---- brokers that are away, ports that are taken


def test_the_worker_starts_without_mqtt_broker_and_connects_when_it_comes(kafka, names, tmp_path, new_bridge):
    """P7: not ready, but alive, until the broker is there."""
    kafka.create_topic(names.kafka())
    broker = Mosquitto(tmp_path / "mosquitto")
    bridge = new_bridge(broker)
    bridge.ready = lambda: bridge.status("/health/live") == 200
    with bridge:
        status, text = bridge.get("/health/ready")
        assert status == 503 and "the MQTT broker is not connected" in text
        wait_until(lambda: "cannot reach the MQTT broker" in bridge.log_path.read_text(), "a line that says why")
        with broker, Publisher(broker.port) as publisher:
            wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a connection")
            publisher.publish_many([names.mqtt("a")], 200)
            read(kafka.bootstrap, [names.kafka()], 200).assert_each_once_in_order(publisher.sent)
    assert bridge.exit_status == 0


def test_a_port_in_use_ends_with_1_and_a_sentence_that_names_it(own_mosquitto, names, new_bridge):
    """Nothing was received by then, and no traceback hides the cause."""
    bridge = new_bridge(own_mosquitto, KAFKA_AWAY)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", bridge.port))
        taken.listen()
        done = run(bridge, "worker")
    assert done.returncode == 1, said(done)
    assert "WEB_PORT" in done.stderr and str(bridge.port) in done.stderr
    assert "Traceback" not in said(done)
    assert names.client_id not in own_mosquitto.log_path.read_text()


def test_the_pages_are_on_the_loopback_alone_and_none_of_faust_is_served(new_bridge):
    """Design: Faust's own pages show and route what is nobody's business, and its default is every interface."""
    with new_bridge(kafka=KAFKA_AWAY) as bridge:
        addresses = {
            connection.laddr.ip
            for connection in psutil.Process(bridge.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {"127.0.0.1"}
        for path in ("/table", "/table/", "/tables/", "/router/", "/router", "/graph", "/graph/", "/production_index/"):
            assert bridge.get(path)[0] == 404, path
        for path in ("/metrics", "/health/live", "/health/ready", "/status"):
            assert bridge.get(path)[0] == 200, path
        assert "python_info" not in bridge.get("/metrics")[1]


# ---- signals


def test_what_waits_at_the_mqtt_broker_goes_straight_to_kafka_after_a_start(mosquitto, kafka, names, new_bridge):
    """The limits of the topics are known before the first message comes, so that it need not be tried out alone."""
    kafka.create_topic(names.kafka())
    bridge = new_bridge()
    with bridge:
        pass  # its session stays at the broker
    with Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt(str(number)) for number in range(5)], 5000)
        publisher.wait_for_acknowledgements()
        with bridge:
            read(kafka.bootstrap, [names.kafka()], publisher.sent).assert_each_once_in_order(publisher.sent)
            # A machine that stands still for a moment has some stored; before, it was nearly all of them.
            assert bridge.total("connector_stored_total") < 2500


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_the_signals_for_developers_of_faust_are_ignored(name, mosquitto, kafka, names, new_bridge):
    """Faust would write all variables, passwords among them; or open a debugger, and the bridge would stand still."""
    kafka.create_topic(names.kafka())
    with (
        new_bridge() as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        os.kill(bridge.pid, signal.Signals[name])
        wait_until(lambda: f"{name} is ignored" in bridge.log_path.read_text(), "a line about it")
        publisher.publish_many([names.mqtt("a")], 100)
        read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
        assert "LOCAL VARIABLES" not in bridge.log_path.read_text()


@pytest.mark.parametrize(
    "signals", [[signal.SIGHUP], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]]
)
def test_signals_end_the_worker_in_order(signals, mosquitto, kafka, names, new_bridge):
    """P10: Ctrl-C and a closed terminal are a SIGTERM, no second signal cuts a stop short; QoS 0 stays."""
    bridge = new_bridge(kafka=KAFKA_AWAY, store_after_ms=60_000, mqtt_qos=0)
    with bridge, Publisher(mosquitto.port, qos=0) as publisher:
        publisher.publish_many([names.mqtt("a")], 300)
        wait_until(lambda: bridge.total("connector_received_total") == 300, "300 received messages")
        process = psutil.Process(bridge.pid)
        for number in signals:
            # It stops within little more than a second: one who looks later finds no page and no process any more.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            wait_until(lambda: "the worker stops" in bridge.log_path.read_text(), "the beginning of the stop")
        assert ended(bridge) == 0
        assert "Traceback" not in bridge.log_path.read_text()
        bridge.settings["KAFKA_BROKER"] = kafka.bootstrap
        kafka.create_topic(names.kafka())
        bridge.start()
        read(kafka.bootstrap, [names.kafka()], 300).assert_each_once_in_order(publisher.sent)


@pytest.mark.parametrize("moment", ["the app loads", "the log begins", "the table is there", "the pages are there"])
def test_sigterm_during_the_start_ends_it_cleanly(moment, new_bridge):
    """A start that is called off is no failure, and the next one finds nothing broken."""
    bridge = new_bridge(kafka=KAFKA_AWAY)
    came = {
        "the app loads": lambda: True,
        "the log begins": lambda: bridge.log_path.stat().st_size > 0,
        "the table is there": (bridge.directory / "data" / "undelivered" / "CURRENT").exists,
        "the pages are there": lambda: bridge.status("/health/live") == 200,
    }[moment]
    bridge.ready = came
    bridge.start()
    os.kill(bridge.pid, signal.SIGTERM)
    code = ended(bridge)
    # Before Python has installed anything, a signal ends a process the way signals do.
    assert code == 0 or (moment == "the app loads" and code == -signal.SIGTERM), bridge.log_tail()
    assert "Traceback" not in bridge.log_path.read_text()
    del bridge.ready
    with bridge:
        assert bridge.get("/health/ready")[0] == 200


def test_sighup_during_the_start_ends_nothing_and_the_routes_are_read_anew_after_it(new_bridge, names, tmp_path):
    """A deployment that writes the file and reloads may meet a worker that was just started again."""
    path = tmp_path / "routes.yaml"
    path.write_text(f"routes: [{{name: one, from: {names.mqtt('a')}, to: {names.kafka('a')}}}]")
    path.chmod(0o644)
    bridge = new_bridge(kafka=KAFKA_AWAY, topic_list="", wildcard_topic_list="", routes_file=path)
    bridge.ready = (bridge.directory / "data" / "undelivered" / "CURRENT").exists
    bridge.start()
    path.write_text(path.read_text().replace("name: one", "name: two"))
    os.kill(bridge.pid, signal.SIGHUP)
    del bridge.ready
    try:
        wait_until(lambda: "the routes were read anew: 1 added (two)" in bridge.log_path.read_text(), "the new routes")
        wait_until(bridge.ready, "the worker")
    finally:
        bridge.stop()


# ---- loading and commands

IMPORT = """
import asyncio, os, socket, sys, threading
def refuse(*_args, **_options):
    raise AssertionError("no socket before the start")
socket.socket.bind = socket.socket.connect = socket.socket.listen = refuse
before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
import app.main
assert threading.active_count() == 1, threading.enumerate()
assert asyncio._get_running_loop() is None
policy = asyncio.get_event_loop_policy()
assert getattr(policy._local, "_loop", None) is None, "an event loop was made"
targets = [os.readlink(f"/proc/self/fd/{name}") for name in set(os.listdir("/proc/self/fd")) - before
           if os.path.exists(f"/proc/self/fd/{name}")]
assert not [target for target in targets if target.startswith("socket:")], targets
print("imported", os.listdir("."))
"""


def test_importing_the_program_starts_connects_and_makes_nothing(new_bridge):
    """Design: nothing happens before the worker starts; so commands and tools may import it."""
    bridge = new_bridge(free_port(), KAFKA_AWAY)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False, cwd=bridge.directory,
        env=dict(bridge.environment()), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, said(done)
    assert done.stdout == "imported []\n"


def test_faust_lists_our_table_and_agents(new_bridge):
    """Design: the program is an ordinary Faust app; its commands show what there is."""
    bridge = new_bridge(free_port(), KAFKA_AWAY)
    tables = run(bridge, "tables")
    assert tables.returncode == 0, said(tables)
    assert "undelivered" in tables.stdout
    agents = run(bridge, "agents", "--local")
    assert agents.returncode == 0, said(agents)
    for name in ("router", "writer", "remover", "replayer"):
        assert name in agents.stdout
    assert list(bridge.directory.iterdir()) == [], "a command that only lists makes nothing"


def test_a_broken_agents_module_is_an_error_and_not_a_warning(tmp_path, new_bridge):
    """Design: with Faust's autodiscovery the worker would run without the agent."""
    copy = tmp_path / "tree"
    for package in ("app", "agents", "tables"):
        shutil.copytree(REPOSITORY / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    bridge = new_bridge(free_port(), KAFKA_AWAY)
    environment = {**bridge.environment(), "PYTHONPATH": str(copy)}
    assert run(bridge, "agents", env=environment).returncode == 0
    with (copy / "agents" / "writer.py").open("a") as file:
        file.write("\nraise RuntimeError('broken on purpose')\n")
    done = run(bridge, "agents", env=environment)
    assert done.returncode != 0
    assert "broken on purpose" in said(done)


def test_no_secret_is_in_the_log_at_its_finest_level_and_what_weakens_tls_is_everywhere(mosquitto, names, new_bridge):
    """Passwords, keys and every value of KAFKA_PRODUCER_CONFIG stay out of log, pages and process title."""
    canary = "canary-3f9c"
    bridge = new_bridge(
        kafka=f"127.0.0.1:{free_port()}",
        log_lvl="trace",
        mqtt_user_name="somebody",
        mqtt_user_password=f"{canary}-mqtt",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="someone",
        kafka_sasl_password=f"{canary}-kafka",
        kafka_tls="true",
        kafka_producer_config=json.dumps(
            {"client.rack": f"{canary}-rack", "debug": "all", "enable.ssl.certificate.verification": False}
        ),
    )
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 50)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 50, "50 stored messages")
        pages = "".join(bridge.get(path)[1] for path in ("/metrics", "/status", "/health/ready", "/health/live"))
        assert canary not in pages
        assert canary not in " ".join(psutil.Process(bridge.pid).cmdline())
        weakened = bridge.metrics()["connector_tls_weakened"]
        assert {way[0] for way, value in weakened.items() if value} == {"kafka_certificate_unchecked"}
        status = json.loads(bridge.get("/status")[1])
        assert set(status["tls_weakened"]) == {"kafka_certificate_unchecked"}
        assert [each["level"] for each in status["findings"] if "TLS is weakened" in each["text"]] == ["trouble"]
    log = bridge.log_path.read_text()
    assert "librdkafka" in log, "the log is a detailed one"
    assert "TLS is weakened: Kafka's certificate is not checked" in log
    assert canary not in log, next(line for line in log.splitlines() if canary in line)
