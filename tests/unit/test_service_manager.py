"""What systemd is told, by a socket in its place: that nothing it does holds up or ends the worker."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest

from app import service_manager
from app.errors import StoreError
from app.service_manager import ServiceManager
from app.settings import notify_variables
from tests.support.app_settings import app_settings

with app_settings():
    from app.pages import registration


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """Yield the socket of systemd, and its name as NOTIFY_SOCKET has it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@connector-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0") if request.param == "abstract" else name)
        listener.settimeout(5)
        yield listener, name


@pytest.fixture
def made():
    """Yield what makes a way to systemd, which is kept for the life of a worker otherwise."""
    managers = []

    def make(*given, **named):
        managers.append(ServiceManager(*given, **named))
        return managers[-1]

    yield make
    for manager in managers:
        if manager._socket is not None:
            manager._socket.close()


def heard(listener):
    """Return the lines of the next datagram."""
    return listener.recv(65536).decode().split("\n")


def test_a_start_a_ping_a_reload_and_a_stop_are_told_in_the_words_of_the_protocol(systemd, made):
    listener, name = systemd
    manager = made(name, watchdog_seconds=60)
    assert manager.is_there
    manager.ready()
    assert heard(listener) == ["READY=1", "STATUS=The worker has started."]
    manager.alive("All is well.")
    assert heard(listener) == ["WATCHDOG=1", "READY=1", "STATUS=All is well."]
    before = time.monotonic_ns() // 1000
    with manager.reloading():
        word, stamp = heard(listener)
        assert word == "RELOADING=1"
        assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        manager.alive("All is well.")
        assert "READY=1" not in heard(listener), "systemd would take the reload for done"
    assert heard(listener) == ["READY=1"]
    manager.stopping(8)
    assert heard(listener) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=28000000", "STATUS=The worker is stopping."]


def test_a_reload_that_fails_is_over_too(systemd, made):
    """Else `systemctl reload` would wait for ever."""
    listener, name = systemd
    manager = made(name)
    with pytest.raises(ValueError, match="no file"), manager.reloading():
        raise ValueError("no file")
    assert [heard(listener)[0], heard(listener)[0]] == ["RELOADING=1", "READY=1"]


def test_a_stop_is_told_once_and_nothing_that_contradicts_it_after_it(systemd, made):
    listener, name = systemd
    manager = made(name)
    with manager.reloading():
        manager.stopping(8)
        manager.stopping(8)
    manager.alive("All is well.")
    assert [heard(listener)[0], heard(listener)[0]] == ["RELOADING=1", "STOPPING=1"]
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(listener)


def test_a_start_that_takes_long_asks_for_time_again_and_again_until_it_is_over(systemd, monkeypatch, made):
    monkeypatch.setattr(service_manager, "STARTING_SECONDS", 0.01)
    listener, name = systemd
    manager = made(name)
    manager.starting()
    asked = [heard(listener) for _ in range(3)]
    assert all(lines[0] == "EXTEND_TIMEOUT_USEC=180000000" for lines in asked)
    manager.ready()
    while heard(listener)[0] != "READY=1":
        pass
    thread = next((each for each in threading.enumerate() if each.name == "start-takes-time"), None)
    if thread is not None:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "text", ["refused\nSTOPPING=1", "refused\r\nMAINPID=1", "x" * 100_000, "\u20ac" * 3_000, "\udcff"]
)
def test_a_text_of_others_neither_adds_a_line_nor_makes_a_ping_too_long(systemd, text, made):
    """systemd leaves out what is longer than 4,096 bytes, with the WATCHDOG=1 in it, and would kill the worker."""
    listener, name = systemd
    made(name).alive(text)
    told = listener.recv(65536)
    assert len(told) <= 4096
    assert [line.partition(b"=")[0] for line in told.split(b"\n")] == [b"WATCHDOG", b"READY", b"STATUS"]
    told.decode()


def test_a_systemd_that_reads_nothing_holds_nobody_up_and_is_told_later(systemd, made):
    listener, name = systemd
    manager = made(name)
    began = time.monotonic()
    empty = fill(listener, manager)
    assert time.monotonic() - began < 5
    empty()
    manager.alive("Kafka is not reachable.")
    assert "STATUS=Kafka is not reachable." in heard(listener)


def fill(listener, manager):
    """Have the socket full; return what empties it."""
    for _ in range(10_000):
        manager.alive("All is well.")

    def empty():
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                listener.recv(65536)

    return empty


def test_a_reload_that_could_not_be_said_to_begin_is_said_with_its_end(systemd, made):
    """`Type=notify-reload`: systemd takes READY=1 alone for no end of a reload, and `systemctl reload` would fail."""
    listener, name = systemd
    manager = made(name)
    empty = fill(listener, manager)
    with manager.reloading():
        empty()
    assert [line.partition("=")[0] for line in heard(listener)] == ["RELOADING", "MONOTONIC_USEC", "READY"]
    manager.alive("All is well.")
    assert heard(listener)[0] == "WATCHDOG=1", "it is said once"


@pytest.mark.parametrize("is_reloading", [False, True])
def test_a_stop_that_could_not_be_said_is_said_by_the_next_ping_alone(systemd, made, is_reloading):
    """Else a stop that takes long would end by the watchdog, or after TimeoutStopSec."""
    listener, name = systemd
    manager = made(name)
    empty = fill(listener, manager)
    with manager.reloading() if is_reloading else contextlib.nullcontext():
        manager.stopping(8)
    empty()
    manager.alive("All is well.")
    assert heard(listener) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=28000000", "STATUS=The worker is stopping."]
    manager.alive("All is well.")
    with pytest.raises(BlockingIOError):
        heard(listener)


def test_a_systemd_that_is_not_there_any_more_ends_nothing(tmp_path, made):
    manager = made(str(tmp_path / "gone"))
    manager.ready()
    manager.alive("All is well.")


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative", "tcp:1"])
def test_where_nobody_wants_to_be_told_nothing_is_sent(address, made):
    manager = made(address)
    assert not manager.is_there
    manager.starting()
    manager.ready()
    with manager.reloading():
        manager.alive("All is well.")
    manager.stopping(8)
    assert "start-takes-time" not in {each.name for each in threading.enumerate()}


@pytest.mark.parametrize(("watchdog_seconds", "interval_seconds"), [(0, 10), (60, 10), (15, 5), (0.3, 0.1)])
def test_pings_come_three_times_as_often_as_they_must(watchdog_seconds, interval_seconds, made):
    assert made("", watchdog_seconds).interval_seconds == pytest.approx(interval_seconds)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, ("", 0.0)),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, ("/run/systemd/notify", 0.0)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, ("@a", 60.0)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "500000"}, ("@a", 0.5)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, ("@a", 0.0)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "soon"}, ("@a", 0.0)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "0"}, ("@a", 0.0)),
    ],
)
def test_the_variables_of_systemd_are_read_and_nonsense_is_none(monkeypatch, variables, wanted):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert notify_variables() == wanted


class StatusOf:
    """A status of which the headline, or the error in its place, is chosen."""

    def __init__(self, headline="", *, is_alive=True, error=None):
        self.is_alive, self._headline, self._error = is_alive, headline, error

    def headline(self):
        if self._error:
            raise self._error
        return self._headline


def test_the_watchdog_hears_nothing_while_health_live_is_503_and_the_headline_while_it_is_200(systemd, made):
    listener, name = systemd
    manager = made(name, 60)
    for status in (
        StatusOf("not told", is_alive=False),
        StatusOf("refused: \x1b[1m\nSTOPPING=1"),
        StatusOf(error=StoreError("the table cannot be read")),
    ):
        registration.tell_service_manager(manager, status)
    assert heard(listener) == ["WATCHDOG=1", "READY=1", "STATUS=refused: \\x1b[1m\\nSTOPPING=1"]
    assert heard(listener)[2] == "STATUS=the table cannot be read"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(listener)
