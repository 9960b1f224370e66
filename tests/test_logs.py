"""What is written to the log: its two forms, its levels, and that what repeats itself is said once a minute."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from oracle import read, wait_until
from system import Bridge, Publisher, UnreadyBridge

from app import throttle as throttling
from app.errors import StoreError
from app.kafka.log_filters import NoneEndsUs, OncePerMinute
from app.lines import JsonFormatter, LineFormatter
from app.throttle import KEPT_KINDS, KEPT_TROUBLES, LINES_A_MINUTE, Progress, Throttle
from clients.brokers import free_port

STARTED = "Connector has started"
FIELDS = ["time", "level", "logger", "message"]


def bridge_with(tmp_path, port, names, kafka=None, of_kind=Bridge, **settings) -> Bridge:
    """Return a bridge of one mapping, not started; without Kafka it is alive, not more."""
    kafka = kafka or f"127.0.0.1:{free_port()}"
    return of_kind(tmp_path / names.client_id, port, kafka, f"{names.mqtt('#')}:{names.kafka()}", **settings)


def lonely_bridge(tmp_path, names, **settings) -> Bridge:
    """Return a bridge that finds no broker."""
    return bridge_with(tmp_path, free_port(), names, of_kind=UnreadyBridge, **settings)


def events(text: str) -> list[dict]:
    """Return the events of a log in JSON; fail if a line is none."""
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        assert list(event)[:4] == FIELDS, event
        assert datetime.fromisoformat(event["time"].replace("Z", "+00:00")).tzinfo is not None
        assert len(event["time"]) == len("2026-01-31T00:00:00.000Z")
    return found


def record_of(text: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("app.x", logging.WARNING, "", 0, text, (), None)
    record.__dict__.update(fields)
    return record


# ---- the two forms


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_a_log_that_is_no_terminal_is_json_from_the_first_line_to_the_last(
    log_format, mosquitto, kafka, names, tmp_path
):
    kafka.create_topic(names.kafka())
    with (
        bridge_with(tmp_path, mosquitto.port, names, kafka.bootstrap, log_format=log_format) as bridge,
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
    settings, code, log_format, names, tmp_path
):
    bridge = lonely_bridge(tmp_path, names, log_format=log_format, **settings)
    done = subprocess.run(
        bridge.command(), capture_output=True, text=True, timeout=60, check=False, cwd=bridge.directory,
        env=dict(bridge.environment()),
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout == ""
    if log_format == "json":
        [event] = events(done.stderr)
        assert event["level"] == "fatal"
        assert next(iter(settings)).upper() in event["message"]
    else:
        assert done.stderr.startswith("connector: ")


def test_a_terminal_gets_lines_for_people(names, tmp_path):
    bridge = lonely_bridge(tmp_path, names, log_format="auto")
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


def test_an_error_that_the_operator_can_act_on_has_no_traceback_in_either_form():
    try:
        raise StoreError("the table cannot be read")
    except StoreError as error:
        record = record_of(f"Crashed reason={error!r}", exc_info=sys.exc_info())
    assert "\n" not in LineFormatter().format(record)
    assert "exception" not in json.loads(JsonFormatter().format(record))


def test_json_has_the_traceback_and_each_text_is_one_that_harms_nobody():
    try:
        raise ValueError("a\x1b[31m\nb")
    except ValueError:
        record = record_of("it\nfailed \u202e\ud800", exc_info=sys.exc_info())
    line = JsonFormatter().format(record)
    assert line.isascii() and "\n" not in line
    [event] = events(line)
    assert event["message"] == r"it\nfailed \u202e\ud800"
    assert event["level"] == "warn"
    assert event["exception"].splitlines()[0] == "    Traceback (most recent call last):"
    assert event["exception"].endswith("b") and "\x1b" not in event["exception"]


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
def test_each_level_writes_what_its_name_says(level, is_written, is_left_out, mosquitto, names, tmp_path):
    """Kafka is away (error, warn), the worker starts (info), messages come (trace); nothing of it ends the worker."""
    with (
        bridge_with(tmp_path, mosquitto.port, names, log_lvl=level, log_format="json") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 10)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 10, "ten stored messages")
        # That Kafka is away is said when it has been so for some seconds.
        wait_until(lambda: levels_in(bridge.log_path.read_text()) >= set(is_written), "a line of each level")
    levels = levels_in(bridge.log_path.read_text())
    assert not levels & set(is_left_out)


@pytest.mark.parametrize("level", ["panic", "fatal"])
def test_panic_and_fatal_write_what_ends_the_worker(level, names, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bridge = lonely_bridge(tmp_path, names, log_lvl=level, log_format="json")
        bridge.settings["WEB_PORT"] = str(taken.getsockname()[1])
        done = subprocess.run(
            bridge.command(), capture_output=True, text=True, timeout=60, check=False, cwd=bridge.directory,
            env=dict(bridge.environment()),
        )  # fmt: skip
    assert done.returncode == 1
    [event] = events(done.stderr)
    assert event["level"] == "fatal"
    assert "WEB_PORT" in event["message"]


def test_what_librdkafka_finds_fatal_does_not_end_the_worker_and_is_an_error(caplog):
    log = logging.getLogger("librdkafka-under-test")
    log.addFilter(NoneEndsUs())
    log.critical("FATAL [thrd:main]: Fatal error: out of order")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    log.setLevel(logging.CRITICAL)
    log.critical("FATAL [thrd:main]: Fatal error: out of order")
    assert len(caplog.records) == 1, "LOG_LVL=fatal is for what ends the worker"


# ---- what repeats itself


def test_what_librdkafka_repeats_is_said_once_and_another_reason_or_node_at_once(caplog):
    log = logging.getLogger("librdkafka-repeating")
    log.addFilter(OncePerMinute())
    for milliseconds in range(3):
        for node in ("one:9093/1", "two:9093/2"):
            for reason in ("Connection refused", "SSL handshake failed: certificate verify failed"):
                client = f"connector#producer-{milliseconds}"  # there is another one for each question
                text = "FAIL [%s] [thrd:%s]: %s: %s (after %dms in state CONNECT)"
                log.error(text, client, node, node, reason, milliseconds)
    assert [(record.args[1], record.args[3]) for record in caplog.records] == [
        ("one:9093/1", "Connection refused"),
        ("one:9093/1", "SSL handshake failed: certificate verify failed"),
        ("two:9093/2", "Connection refused"),
        ("two:9093/2", "SSL handshake failed: certificate verify failed"),
    ]


@pytest.fixture
def throttle():
    log = logging.getLogger("throttle-under-test")
    log.setLevel(logging.INFO)
    return Throttle(log)


def wait_a_minute(throttle: Throttle) -> None:
    """Turn the clock, in effect."""
    for trouble in throttle._troubles.values():
        trouble.due -= 60
    for kind in throttle._kinds.values():
        kind.ends_at -= 60


def test_trouble_is_said_at_once_and_then_once_a_minute_with_its_count(throttle, caplog):
    for _ in range(13):
        throttle.warning("full", "it is %s", "full")
    assert caplog.messages == ["it is full"]
    wait_a_minute(throttle)
    throttle.warning("full", "it is %s", "full")
    assert len(caplog.records) == 2
    assert " (12 times more since " in LineFormatter().format(caplog.records[1])
    [event] = events(JsonFormatter().format(caplog.records[1]))
    assert event["message"] == "it is full", "the same text, so that programs can count it"
    assert event["repeated"] == 12
    said_at = datetime.fromtimestamp(caplog.records[0].created, timezone.utc)
    assert abs(datetime.fromisoformat(event["since"].replace("Z", "+00:00")) - said_at) < timedelta(seconds=1)
    wait_a_minute(throttle)
    throttle.warning("full", "it is %s", "full")
    assert LineFormatter().format(caplog.records[2]).endswith("it is full"), "it was not left out in between"


def test_another_trouble_is_said_at_once(throttle, caplog):
    throttle.warning("a", "a")
    throttle.error("b", "b")
    assert caplog.messages == ["a", "b"]


def test_the_end_of_a_trouble_is_said_if_the_trouble_was(throttle, caplog):
    throttle.end("a", "a is over")
    assert not caplog.messages, "there was none"
    for _ in range(3):  # it comes and goes within the minute
        throttle.warning("a", "a")
        throttle.end("a", "a is over")
    assert caplog.messages == ["a", "a is over"]
    wait_a_minute(throttle)
    throttle.warning("a", "a")
    throttle.end("a", "a is over")
    assert caplog.messages == ["a", "a is over"] * 2


def test_what_is_left_out_is_there_for_whoever_looks_for_a_fault(throttle, caplog):
    throttle.log.setLevel(logging.DEBUG)
    throttle.warning("a", "a")
    throttle.warning("a", "a")
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]


def test_trouble_of_thousands_of_topics_is_a_few_lines_a_minute_and_how_many_more_there_were(throttle, caplog):
    """Its end as well, which is said of what was said alone."""

    def say_all(topics=5000):
        caplog.clear()
        for number in range(topics):
            throttle.warning(("waits", number), "the lane %s waits", number)

    say_all()
    assert caplog.messages == [f"the lane {number} waits" for number in range(LINES_A_MINUTE)]
    assert " (more of this kind are left out until " in LineFormatter().format(caplog.records[-1])
    [event] = events(JsonFormatter().format(caplog.records[-1]))
    assert "others_until" in event
    for number in range(5000):
        throttle.end(("waits", number), "the lane %s flows again", number)
    assert len(caplog.messages) == 2 * LINES_A_MINUTE
    throttle.warning("other", "it is %s", "full")
    assert caplog.messages[-1] == "it is full", "another kind has lines of its own"
    wait_a_minute(throttle)
    say_all()
    assert len(caplog.messages) == LINES_A_MINUTE
    assert f" (and {5000 - LINES_A_MINUTE} more of this kind since " in LineFormatter().format(caplog.records[0])
    [event] = events(JsonFormatter().format(caplog.records[0]))
    assert event["others"] == 5000 - LINES_A_MINUTE


def test_what_is_said_stays_known_however_many_other_troubles_come(throttle, caplog):
    """Of too many the oldest is forgotten, not all of them at once."""
    throttle._lines_a_minute = 2 * KEPT_TROUBLES
    for number in range(KEPT_TROUBLES + 1):
        throttle.warning(number, "trouble %d", number)
    caplog.clear()
    for number in range(1, KEPT_TROUBLES + 1):
        throttle.warning(number, "trouble %d", number)
    assert not caplog.messages


def test_troubles_without_number_take_no_memory_without_bound(throttle):
    throttle.log.setLevel(logging.CRITICAL)
    for number in range(3 * KEPT_TROUBLES):
        throttle.warning(number, f"trouble {number}")
    assert len(throttle._troubles) <= KEPT_TROUBLES
    assert len(throttle._kinds) <= KEPT_KINDS


def test_long_work_tells_now_and_then_how_far_it_is_and_short_work_nothing(monkeypatch):
    now = 0.0
    monkeypatch.setattr(throttling, "time", SimpleNamespace(monotonic=lambda: now))
    told = []
    progress = Progress(told.append)
    for steps in range(1, 193):
        now += 0.0625
        progress.reached(steps)
    assert told == [80, 160], "each five seconds of the twelve"
