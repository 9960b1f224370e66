"""What a worker writes to the log: its forms, its levels, and what it writes when it cannot start."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess

import pytest

from tests.support.oracle import read, wait_until
from tests.support.system import KAFKA_AWAY, Publisher, UnreadyBridge
from tests.unit.test_logs import events
from tools.brokers import free_port

STARTED = "Connector has started"


# ---- the two forms


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_a_log_that_is_no_terminal_is_json_from_the_first_line_to_the_last(
    log_format, mosquitto, kafka, names, new_bridge
):
    kafka.create_topic(names.kafka())
    with (
        new_bridge(log_format=log_format) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 10)
        read(kafka.bootstrap, [names.kafka()], 10)
    found = events(bridge.log_path.read_text())
    said = [event["message"] for event in found]
    assert sum(STARTED in text for text in said) == 1
    assert any("connected to the MQTT broker" in text for text in said)
    assert said[-1].startswith("stopped: 0 messages wait")
    assert {event["level"] for event in found} <= {"info", "warn"}
    assert not [text for text in said if text.rstrip(".").endswith(("Starting", "Stopping", "Cleanup", "buffer"))]


@pytest.mark.parametrize(
    ("settings", "code"), [({"mqtt_receive_maximum": "-1"}, 2), ({"db_persist_path": "/proc/x"}, 3)]
)
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_refusal_is_one_event_in_the_form_of_the_log_and_no_banner_comes_before_it(
    settings, code, log_format, new_bridge
):
    bridge = new_bridge(
        free_port(), KAFKA_AWAY, kind=UnreadyBridge, log_format=log_format, site="oslo-1", **settings
    )  # fmt: skip
    done = subprocess.run(
        bridge.command(), capture_output=True, text=True, timeout=60, check=False, cwd=bridge.directory,
        env=dict(bridge.environment()),
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout == ""
    if log_format == "json":
        [event] = events(done.stderr)
        assert (event["level"], event["site"]) == ("fatal", "oslo-1")
        assert next(iter(settings)).upper() in event["message"]
    else:
        assert done.stderr.startswith("connector [oslo-1]: ")


def test_a_terminal_gets_lines_for_people(new_bridge):
    bridge = new_bridge(free_port(), KAFKA_AWAY, kind=UnreadyBridge, log_format="auto")
    ours, terminal = pty.openpty()
    worker = subprocess.Popen(
        bridge.command(), cwd=bridge.directory, env=dict(bridge.environment()), stdin=subprocess.DEVNULL,
        stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while STARTED.encode() not in shown:
            shown += os.read(ours, 4096)
        worker.send_signal(signal.SIGTERM)
        while b"stopped: " not in shown:
            shown += os.read(ours, 4096)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
        os.close(ours)
    assert all(line[:4].isdigit() for line in shown.decode().splitlines()), shown


# ---- levels


def levels_in(text: str) -> set[str]:
    """Return the levels of a log's lines."""
    return {event["level"] for event in events(text)}


@pytest.mark.parametrize(
    ("level", "is_written", "is_left_out"),
    [
        ("panic", [], ["fatal", "error", "warn", "info", "debug", "trace"]),
        ("fatal", [], ["fatal", "error", "warn", "info", "debug", "trace"]),
        ("error", ["error"], ["warn", "info", "debug", "trace"]),
        ("warn", ["error", "warn"], ["info", "debug", "trace"]),
        ("info", ["error", "warn", "info"], ["debug", "trace"]),
        ("debug", ["error", "warn", "info", "debug"], ["trace"]),
        ("trace", ["error", "warn", "info", "debug", "trace"], []),
    ],
)
def test_each_level_writes_what_its_name_says(level, is_written, is_left_out, mosquitto, names, new_bridge):
    """Kafka is away (error, warn), the worker starts (info), messages come (trace); nothing of it ends the worker."""
    with (
        new_bridge(kafka=KAFKA_AWAY, log_lvl=level, log_format="json") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 10)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 10, "ten stored messages")
        # That Kafka is away is said when it has been so for some seconds.
        wait_until(lambda: levels_in(bridge.log_path.read_text()) >= set(is_written), "a line of each level")
    levels = levels_in(bridge.log_path.read_text())
    assert not levels & set(is_left_out)


@pytest.mark.parametrize("level", ["panic", "fatal"])
def test_panic_and_fatal_write_what_ends_the_worker(level, new_bridge):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bridge = new_bridge(free_port(), KAFKA_AWAY, kind=UnreadyBridge, log_lvl=level, log_format="json")
        bridge.settings["WEB_PORT"] = str(taken.getsockname()[1])
        done = subprocess.run(
            bridge.command(), capture_output=True, text=True, timeout=60, check=False, cwd=bridge.directory,
            env=dict(bridge.environment()),
        )  # fmt: skip
    assert done.returncode == 1
    [event] = events(done.stderr)
    assert event["level"] == "fatal"
    assert "WEB_PORT" in event["message"]
