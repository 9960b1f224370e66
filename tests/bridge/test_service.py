"""The worker as a service: what systemd hears of it, and the commands beside it, which get its settings from a file.

A socket stands for systemd, whose part of the protocol is to listen. `make systemd-test` has a real one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.support.oracle import wait_until
from tests.support.system import KAFKA_AWAY, UnreadyBridge
from tools.worker import _REPOSITORY as REPOSITORY

WATCHDOG_SECONDS = 0.9  # three pings in that time


class Systemd:
    """Listens as systemd does, and keeps what it heard."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.heard = []

    def listen(self):
        """Return the lines of all datagrams so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self.socket.recv(65536).decode().split("\n"))
        return self.heard

    def waits_for(self, line):
        """Wait for a datagram with a line that begins so, and return the line."""
        wait_until(lambda: any(each.startswith(line) for lines in self.listen() for each in lines), line)
        return next(each for lines in self.heard for each in lines if each.startswith(line))

    def forget(self):
        """Forget what was heard so far."""
        self.listen()
        self.heard.clear()


@pytest.fixture
def systemd(tmp_path):
    """Yield what listens, at a path that is short enough."""
    listener = Systemd(tmp_path / "notify")
    yield listener
    listener.socket.close()


def service(new_bridge, systemd, tmp_path, **settings):
    """Return a worker that is run as by systemd."""
    given = {"notify_socket": tmp_path / "notify", "watchdog_usec": int(WATCHDOG_SECONDS * 1e6), **settings}
    return new_bridge(kafka=KAFKA_AWAY, kind=UnreadyBridge, **given)


def test_systemd_hears_of_start_pings_headline_reload_and_stop_and_its_sighup_ends_nothing(
    new_bridge, systemd, tmp_path
):
    """`systemctl reload` with Type=notify-reload sends SIGHUP, and there is no file of routes: the worker runs on."""
    with service(new_bridge, systemd, tmp_path) as worker:
        systemd.waits_for("READY=1")
        assert systemd.heard[0][0].startswith("EXTEND_TIMEOUT_USEC="), "a start may take long"
        systemd.waits_for("STATUS=Kafka is not reachable")
        assert ["WATCHDOG=1", "READY=1"] in [lines[:2] for lines in systemd.heard]
        systemd.forget()
        os.kill(worker.pid, signal.SIGHUP)
        systemd.waits_for("RELOADING=1")
        systemd.waits_for("READY=1")
        wait_until(lambda: "the routes are not read anew" in worker.log_path.read_text(), "a reason")
        assert worker.get("/health/live")[0] == 200
    systemd.waits_for("STOPPING=1")
    assert worker.exit_status == 0
    last = [lines[0] for lines in systemd.heard]
    assert "WATCHDOG=1" not in last[last.index("STOPPING=1") :]


def test_the_watchdog_hears_nothing_while_the_worker_does_not_move(new_bridge, systemd, tmp_path):
    """Then systemd ends it, as Kubernetes does when `/health/live` does not answer."""
    with service(new_bridge, systemd, tmp_path) as worker:
        systemd.waits_for("WATCHDOG=1")
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            time.sleep(0.1)  # what it was about to send
            systemd.forget()
            time.sleep(2 * WATCHDOG_SECONDS)
            assert not systemd.listen()
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        systemd.waits_for("WATCHDOG=1")


def connector(bridge, *arguments, **environment):
    """Run `connector` as an operator does beside a service: with none of its variables."""
    outside = {name: value for name, value in bridge.environment().items() if name not in bridge.settings}
    command = [sys.executable, "-m", "app.connector", *map(str, arguments)]
    outside["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.run(
        command, env={**outside, **environment}, cwd=bridge.directory, capture_output=True, text=True, check=False
    )


def test_a_command_beside_a_worker_gets_its_settings_from_the_file_that_is_named(new_bridge, mosquitto, tmp_path):
    """And without it the error says what it needs."""
    worker = new_bridge(kafka=KAFKA_AWAY, kind=UnreadyBridge)
    path = tmp_path / "connector.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in worker.settings.items()))
    with worker:
        done = connector(worker, "--env-file", path, "drain", "--timeout-seconds", "1")
        assert done.returncode == 1, done.stderr
        log = worker.log_path.read_text()
        assert "drain: unsubscribing" in log
        assert "the settings were read from the environment alone" in log
        done = connector(worker, f"--env-file={path}", "routes")
        assert done.returncode == 0, done.stderr
        by_variable = connector(worker, "dead-letters", "list", CONNECTOR_ENV_FILE=str(path))
        assert (by_variable.returncode, by_variable.stdout) == (0, "0 dead letters\n"), by_variable.stderr
    (tmp_path / "empty.env").write_text("")
    done = connector(worker, "--env-file", tmp_path / "empty.env", "reload")
    assert done.returncode == 2
    assert "MQTT_CLIENT_ID: is required" in done.stderr
    assert re.search(r"\na command beside a worker needs the worker's settings .*--env-file FILE", done.stderr)
    done = connector(worker, "--env-file", tmp_path / "gone", "drain")
    assert done.returncode == 2
    assert f"--env-file: '{tmp_path}/gone': cannot be read" in done.stderr
