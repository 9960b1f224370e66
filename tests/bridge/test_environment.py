"""What surrounds the process: variables that others set for other programs, and the addresses of the pages.

Each test inherits the environment as a user's shell or container has it; those of the other tests begin empty.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import socket
import subprocess
import sys
from typing import ClassVar

import psutil
import pytest
from faust.types import _env as faust_environment
from faust.types.settings import Settings as FaustSettings

from app import command_line
from app.settings import NAMES
from app.web.listening import HINTS, listen
from tests.support.oracle import wait_until
from tests.support.system import Bridge, UnreadyBridge
from tools.brokers import free_port
from tools.worker import _REPOSITORY as REPOSITORY

FAUSTS_OWN = {setting.env_name for setting in FaustSettings.SETTINGS.values() if setting.env_name}
# Read elsewhere in Faust and what it is made of. Those that the command `faust` reads before it loads the worker are
# its command line's own: docs/guarantees.md names them.
READ_ELSEWHERE = {
    *(f"{prefix}{name}" for prefix in faust_environment.PREFICES for name in ("DEBUG", "STRICT", "DATADIR")),
    "FAUST_F_WEB_BIND",
    "F_WEB_BIND",
    "F_FORCE_BLOCKING_TIMEOUT",
    "AIOHTTP_NO_EXTENSIONS",
    "DEVLOG",
    "DJANGO_SETTINGS_MODULE",
    "NO_CYTHON",
}
FOREIGN = sorted((FAUSTS_OWN | READ_ELSEWHERE) - set(NAMES))
NASTY = ("release", "", "mqtt://b:1883", "0.0.0.0", "-1")
SHOW_CONFIGURATIONS = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from faust.types.settings import Settings
from app.application import create_app, settings
for changes in json.load(sys.stdin):
    os.environ.update(changes)
    conf = create_app(settings).conf
    print(json.dumps({name: repr(getattr(conf, name)) for name in Settings.SETTINGS if name != "reply_to"}))
    for name in changes:
        del os.environ[name]
"""
CONNECTED_NOWHERE = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "127.0.0.1",
    "MQTT_CLIENT_ID": "c",
    "KAFKA_BROKER": "127.0.0.1:1",
    "TOPIC_LIST": "a:b",
}


class InheritingBridge(UnreadyBridge):
    """A worker in the environment of this process, with all of Faust's variables."""

    variables: ClassVar[dict[str, str]] = dict.fromkeys(FOREIGN, "0.0.0.0")

    def environment(self):
        return {**os.environ, **self.variables, **super().environment()}


def lonely(kind, tmp_path, **settings):
    """Return a bridge that finds no broker, not started."""
    return kind(tmp_path, free_port(), f"127.0.0.1:{free_port()}", "a/#:b", **settings)


def configurations(*changes: dict[str, str]) -> list[dict[str, str]]:
    """Return what Faust is configured with when these variables are set."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW_CONFIGURATIONS],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **CONNECTED_NOWHERE},
        input=json.dumps(changes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def listening(bridge) -> set[str]:
    """Return the addresses at which the worker listens."""
    connections = psutil.Process(bridge.pid).net_connections("inet")
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def alive_at(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


# ---- variables of others


def test_no_variable_of_fausts_reaches_it_whatever_its_value():
    """Their list is Faust's own."""
    assert {"APP_VERSION", "BROKER_URL", "APP_DEBUG", "WEB_BIND", "TIMEZONE", "APP_ENV_PREFIX"} < set(FOREIGN)
    changes = [dict.fromkeys(FOREIGN, value) for value in NASTY]
    changes += [{name: value} for name in FOREIGN for value in NASTY[:2]]
    expected, *found = configurations({}, *changes, {"WEB_PORT": "", "WEB_HOST": ""})
    for variables, configuration in zip(changes, found, strict=False):
        assert configuration == expected, variables
    assert found[-1] == expected, "an empty variable is an unset one"


def test_a_worker_starts_and_stays_on_its_address_though_all_variables_of_fausts_are_set(tmp_path):
    bridge = lonely(InheritingBridge, tmp_path)
    with bridge:
        wait_until(lambda: "Connector has started" in bridge.log_path.read_text(), "the start")
        assert listening(bridge) == {"127.0.0.1"}
        said = bridge.log_path.read_text()
        assert "WEB_BIND is no setting of Connector and is ignored" in said
        assert "Traceback" not in said
    assert bridge.exit_status == 0


# ---- the address of the pages


def test_two_colons_serve_both_families_and_the_log_shows_a_url(tmp_path):
    """It is what an image needs that runs in clusters of either family."""
    bridge = lonely(UnreadyBridge, tmp_path, web_host="[::]")
    with bridge:
        assert alive_at("127.0.0.1", bridge.port)
        assert alive_at("::1", bridge.port)
        wait_until(lambda: f"pages at http://[::]:{bridge.port}/" in bridge.log_path.read_text(), "the address")


def test_a_port_that_is_taken_ends_with_1_and_a_sentence_at_an_address_of_ipv6(tmp_path):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "faust", "-A", "app.main", "worker"]
        environment = {**lonely(Bridge, tmp_path).environment(), "WEB_HOST": "::", "WEB_PORT": port}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert f"WEB_HOST ::, WEB_PORT {port}: cannot listen there" in done.stderr
    assert "another program listens there" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def addresses_of(host: str) -> set[str]:
    """Return where it is listened for a host."""
    listeners = asyncio.run(listen(host, free_port()))
    found = {listener.getsockname()[0] for listener in listeners}
    for listener in listeners:
        listener.close()
    return found


@pytest.mark.parametrize("host", ["::", "::1", "0.0.0.0", "127.0.0.1", "127.0.0.2", "0:0:0:0:0:0:0:1"])
def test_an_address_is_listened_at_as_it_is_written(host):
    assert addresses_of(host) == {host.replace("0:0:0:0:0:0:0:1", "::1")}


def test_a_name_is_all_its_addresses_that_this_host_has(monkeypatch):
    assert "127.0.0.1" in addresses_of("localhost")
    found = [(socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)
    assert addresses_of("name") == {"127.0.0.1"}


def test_without_ipv6_two_colons_are_every_address_of_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    real = socket.create_server

    def create(address, *, family=socket.AF_INET, **options):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", create)
    assert addresses_of("::") == {"0.0.0.0"}


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_is_none_of_this_host_is_an_error_with_its_number(host):
    with pytest.raises(OSError, match="annot assign") as caught:
        asyncio.run(listen(host, free_port()))
    assert "no address of this host" in HINTS[caught.value.errno]


@pytest.mark.parametrize(
    ("words", "command", "without"),
    [
        ("-A app.main plan --rate 1", "plan", True),
        ("--json -A app.main --help", "--help", True),
        ("-A app.main drain --help", "drain", True),
        ("-A app.main worker --help", "worker", True),
        ("-A app.main run", "run", False),
        ("-A app.main run --help", "run", True),
        ("-A app.main worker --logfile --help", "worker", False),
        ("-A app.main dead-letters delete plan", "dead-letters", False),
        ("-A app.main dead-letters delete -- --help", "dead-letters", False),
        ("-A app.main dead-letters list worker", "dead-letters", False),
        ("-A plan worker", "worker", False),
        ("-A", "", False),
        ("", "", False),
    ],
)
def test_only_the_command_itself_may_go_on_without_settings_and_no_word_among_its_arguments(
    words, command, without, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["faust", *words.split()])
    assert (command_line.command(), command_line.needs_no_settings()) == (command, without)
