"""What others may send or do: forged log lines, files that others read, web clients that never end a request."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from app.lines import LONGEST_EVENT_CHARACTERS
from app.web.accepting import LIMIT_CONNECTIONS
from clients import subscriber_kafka
from tests.support.oracle import read, wait_until
from tests.support.scripted_broker import PUBACK, ScriptedBroker, packet_of, variable_byte_integer
from tests.support.system import KAFKA_AWAY, Bridge, Publisher, wait_for_total
from tests.unit.test_security import HARMFUL, assert_harmless

EVENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z0-9 ]+ [\w.]+: ")


def run(bridge: Bridge, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of the app with the bridge's settings until it ends."""
    command = [sys.executable, "-m", "faust", "-A", "app.main", *arguments]
    return subprocess.run(
        command, capture_output=True, timeout=60, check=False, cwd=bridge.directory, env=dict(bridge.environment())
    )


def texts_of(content: object) -> list[str]:
    """Return all texts in what was JSON."""
    if isinstance(content, dict):
        return [text for pair in content.items() for part in pair for text in texts_of(part)]
    return [text for part in content for text in texts_of(part)] if isinstance(content, list) else [str(content)]


# ---- log lines and terminals


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_hostile_topics_reasons_and_properties_forge_no_log_line_and_no_line_of_a_command(
    log_format, names, new_bridge
):
    """At the finest log level, with everything hostile that a broker can put into a packet; the messages are kept."""
    hostile = [HARMFUL.encode(), b"\xff\xfe\n\x1b]0;x\x07", HARMFUL.replace("\0", "").encode(), b"+\x1b[31m"]
    text = HARMFUL.translate({0: None, 0xFEFF: None}).encode()  # with these paho takes no text
    reason = b"\x1f" + len(text).to_bytes(2, "big") + text
    reason = variable_byte_integer(len(reason)) + reason
    with (
        ScriptedBroker() as broker,
        new_bridge(broker, KAFKA_AWAY, log_lvl="trace", log_format=log_format) as bridge,
    ):
        broker.wait_for_subscriptions(1)
        for number, topic in enumerate(hostile, 1):
            broker.publish(names.mqtt("").encode() + topic, HARMFUL.encode(), 1, number)
        broker.publish(HARMFUL, b"no route matches it", 1, len(hostile) + 1)
        broker.publish("x" * 65_535, b"nor this long one", 1, len(hostile) + 2)
        broker.wait_for(PUBACK, len(hostile) + 2)
        broker.send(packet_of(0xE0, b"\x80" + reason))  # DISCONNECT with a reason string
        wait_until(lambda: "the connection to the MQTT broker ended" in bridge.log_path.read_text(), "the end, logged")
        pages = [json.loads(bridge.get(page)[1]) for page in ("/status", "/dead-letters", "/health/ready")]
        listed = run(bridge, "dead-letters", "list")
        unknown = run(bridge, "dead-letters", "delete", HARMFUL.replace("\0", ""))
    lines = assert_harmless(bridge.log_path.read_bytes())
    assert "forged" in "".join(lines), "it is in the log, as text"
    assert [line for line in lines if "no route matches" in line and "characters left out" in line]
    assert max(map(len, lines)) <= LONGEST_EVENT_CHARACTERS
    if log_format == "json":
        for text in (json.loads(line)["message"] for line in lines):
            assert_harmless(text.encode())
    else:
        assert not [line for line in lines if not EVENT.match(line) and not line.startswith("    ")]
    for text in texts_of(pages):
        assert_harmless(text.encode())
    *letters, last = assert_harmless(listed.stdout)
    assert last == f"{len(letters)} dead letters"
    assert len(letters) == 5, "three with topics that MQTT forbids, two that no route matches"
    assert_harmless(unknown.stdout + unknown.stderr)
    assert b"forged" in unknown.stderr


def test_the_subscriber_prints_hostile_header_names_as_text(kafka, names, capsys, new_bridge):
    """A user property's name becomes the name of a header, and so reaches the terminal of whoever reads the topic."""
    kafka.create_topic(names.kafka())
    properties = b"".join(
        b"\x26" + len(part).to_bytes(2, "big") + part + b"\x00\x01x" for part in (b"\x1b[31m\n", b"\xff", b"", b"a\0b")
    )
    topic = names.mqtt("a").encode()
    with ScriptedBroker() as broker, new_bridge(broker):
        broker.wait_for_subscriptions(1)
        head = len(topic).to_bytes(2, "big") + topic + b"\x00\x01" + bytes([len(properties)]) + properties
        broker.send(packet_of(0x32, head + b"payload"))
        broker.wait_for(PUBACK)
        arguments = ["--broker", kafka.bootstrap, "--topics", names.kafka(), "--from-beginning", "--until-messages"]
        assert subscriber_kafka.main([*arguments, "1"]) == 0
    (line,) = assert_harmless(capsys.readouterr().out.encode())
    assert "mqtt-user-\\x1b[31m\\n=x" in line


# ---- files


def test_files_are_their_owners_alone_whatever_the_directory_and_the_umask_allow(mosquitto, names, new_bridge):
    """A directory that was there keeps its rights; what the worker puts into it is for its user alone."""
    bridge = new_bridge(kafka=KAFKA_AWAY)
    data = bridge.directory / "data"
    data.mkdir()
    data.chmod(0o755)
    link = bridge.directory / "link"
    link.symlink_to(data)
    bridge.settings["DB_PERSIST_PATH"] = str(link)
    before = os.umask(0)
    try:
        bridge.start()
    finally:
        os.umask(before)
    with bridge_running(bridge), Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 2000, size_bytes=20_000)  # several files' worth
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 2000, "2000 stored messages")
        assert stat.S_IMODE((data / "control.sock").stat().st_mode) == 0o600
        found = modes_of(data)
        assert len(found) > 8
        assert not {path: oct(mode) for path, mode in found.items() if mode & 0o077}
    log = bridge.log_path.read_text()
    assert "everybody on this host" not in log
    assert f"table in {link} (a link; it is {data} until the worker ends)" in log


def modes_of(directory):
    """Return the rights of everything in a directory, as far as it is still there: RocksDB removes files by itself."""
    found = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = stat.S_IMODE(path.stat().st_mode)
    return found


@contextlib.contextmanager
def bridge_running(bridge):
    """Stop a bridge that is started already."""
    try:
        yield bridge
    finally:
        bridge.stop()


def test_a_directory_or_database_that_others_may_write_to_ends_the_worker_with_3_and_a_sentence(new_bridge):
    bridge = new_bridge(1, KAFKA_AWAY)
    data = bridge.directory / "data"
    (data / "undelivered").mkdir(parents=True)
    for path in (data, data / "undelivered"):
        path.chmod(0o777)
        done = run(bridge, "worker")
        assert done.returncode == 3
        assert f"everybody on this host may write to {path}".encode() in done.stderr
        assert b"Traceback" not in done.stderr
        path.chmod(0o700)


def test_a_crash_leaves_no_core_file(new_bridge):
    """It would hold payloads and passwords; the limit holds even where the one who starts it asks for core files."""
    bridge = new_bridge(kafka=KAFKA_AWAY)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        bridge.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    with bridge_running(bridge):
        # A limit of 1 byte is for the kernel none at all, for a program that takes cores (systemd-coredump) neither.
        assert psutil.Process(bridge.pid).rlimit(psutil.RLIMIT_CORE) == (min(1, before[1] % 2**63),) * 2
        os.kill(bridge.pid, signal.SIGABRT)
        wait_until(lambda: not bridge.running, "the end of the worker")
        assert bridge._process.returncode == -signal.SIGABRT
    assert not [path.name for path in bridge.directory.rglob("*core*")]


# ---- the web port


ATTACKS = (
    b"",
    b"GET /metrics HT",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
    b"\x16\x03\x01",
    b"GET /page/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200,  # and none of the answers is read
    b"POST /dead-letters/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000,
)


def attack(stack: contextlib.ExitStack, bridge: Bridge, times: int) -> None:
    """Open connections that never come to an end by themselves."""
    for number in range(times):
        connection = stack.enter_context(socket.socket())
        connection.settimeout(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        with contextlib.suppress(OSError):  # it is cut before it took all of it
            connection.connect((bridge.host, bridge.port))
            connection.setblocking(False)
            connection.send(ATTACKS[number % len(ATTACKS)])


def test_clients_that_never_end_a_request_do_not_stop_the_pages_or_the_bridge(mosquitto, kafka, names, new_bridge):
    """With files enough, then with hardly one left: messages flow, pages come, the log is short."""
    kafka.create_topic(names.kafka())
    bridge = new_bridge(pythonprofileimporttime=1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bridge)
        publisher = stack.enter_context(Publisher(mosquitto.port))
        publisher.publish_many([names.mqtt("a")], 500)
        wait_for_total(bridge, "connector_delivered_total", 500)
        said_before = bridge.log_path.stat().st_size
        worker = psutil.Process(bridge.pid)
        files_before = worker.num_fds()
        attack(stack, bridge, 3 * LIMIT_CONNECTIONS)
        assert bridge.get("/health/ready")[0] == 200
        assert bridge.get("/" + "x" * 7_000)[0] == 404
        assert worker.num_fds() <= files_before + LIMIT_CONNECTIONS + 20

        few = files_before + 16
        worker.rlimit(psutil.RLIMIT_NOFILE, (few, few))
        attack(stack, bridge, LIMIT_CONNECTIONS)
        publisher.publish_many([names.mqtt("a")], 500)
        read(kafka.bootstrap, [names.kafka()], 1000).assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.get("/health/ready")[0] == 200, "the pages")
        assert bridge.total("connector_delivered_total") == 1000
        refused = bridge.metrics()["connector_web_refusals_total"]
        assert refused["too_many",] + refused["no_files",] > 3 * LIMIT_CONNECTIONS
    assert bridge.exit_status == 0
    said = bridge.log_path.read_bytes()[said_before:]
    assert len(said) < 20_000
    assert b"import time:" not in said, "what must be loaded when no file can be opened is there from the start"
