"""What a release's wheel installs: the command `connector`, in an environment of its own, without the sources."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from app.command_table import COMMANDS
from app.version import VERSION
from tests.support.oracle import wait_until
from tests.support.system import KAFKA_AWAY
from tools.brokers import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
# A directory in which somebody works: Python would take these in place of ours if it looked there first.
FOREIGN = ("app", "agents", "tables", "clients")


@pytest.fixture(scope="module")
def connector(tmp_path_factory):
    """Return the command of a wheel, in an environment that has the dependencies and nothing of this repository."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "source"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    wanted = ["app", "agents", "tables", "clients", "pyproject.toml", "README.md", "LICENSE"]
    tracked = subprocess.run([*listing, *wanted], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation", "--wheel"]
    subprocess.run([*build, "--python", sys.executable, "--out-dir", str(place)], cwd=copy, check=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", symlinks=True)
    python = place / "venv" / "bin" / "python"
    install = ["install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return place / "venv" / "bin" / "connector"


@pytest.fixture
def elsewhere(tmp_path):
    """Return a directory with packages of the same names as ours, which must not be loaded."""
    for name in FOREIGN:
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text("raise SystemExit('somebody else')")
    return tmp_path / "work"


def call(connector, directory, *arguments, **settings):
    """Run a command with these settings alone."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | settings
    return subprocess.run([connector, *arguments], capture_output=True, text=True, check=False, cwd=directory,
                          env=environment, timeout=60)  # fmt: skip


def test_it_lists_its_commands_and_its_version_without_settings(connector, elsewhere):
    listed = call(connector, elsewhere, "--help")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.findall(r"^  ([a-z-]+)  ", listed.stdout.partition("Commands:")[2], re.MULTILINE) == list(COMMANDS)
    version = call(connector, elsewhere, "--version")
    assert (version.returncode, version.stdout) == (0, f"connector {VERSION}\n")
    assert f'\nversion = "{VERSION}"\n' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def test_the_list_loads_no_faust():
    """It comes at once, and where the dependencies are broken."""
    code = (
        "import sys; from app.connector import program; program(['--help'], standalone_mode=False)\n"
        "raise SystemExit(any(name in sys.modules for name in ('faust', 'mode', 'app.settings')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_an_example_and_without_settings(connector, elsewhere, name):
    done = call(connector, elsewhere, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: connector {name} ")
    assert re.search(rf"Examples?:\n    connector {name}", done.stdout)
    assert name == "run" or "--json" in done.stdout


@pytest.mark.parametrize(("name", "meant"), [("drian", "drain"), ("worker", "run"), ("dead-letter", "dead-letters")])
def test_a_misspelled_command_is_told_the_nearest(connector, elsewhere, name, meant):
    done = call(connector, elsewhere, name)
    assert done.returncode == 2
    assert f"did you mean `connector {meant}`?" in done.stderr


def test_without_settings_it_ends_with_2_and_names_them(connector, elsewhere):
    for command in (["run"], ["dead-letters", "list"]):
        done = call(connector, elsewhere, *command)
        assert done.returncode == 2
        for name in ("MQTT_BROKER_URL", "MQTT_CLIENT_ID", "KAFKA_BROKER"):
            assert f"{name}: is required" in done.stderr


def test_a_plan_is_for_people_and_for_programs(connector, elsewhere):
    arguments = ["plan", "--rate", "1000", "--message-bytes", "200", "--outage", "8h"]
    assert "UNDELIVERED_MAX_BYTES" in call(connector, elsewhere, *arguments).stdout
    done = call(connector, elsewhere, *arguments, "--json")
    assert json.loads(done.stdout)["messages"] == 28_800_000, done.stderr


def test_it_runs_the_worker_which_commands_reach_and_sigterm_stops(connector, elsewhere, new_bridge):
    """P7: also without its neighbours. It is the process itself: no other stands between it and a signal."""
    bridge = new_bridge(free_port(), KAFKA_AWAY)
    environment = dict(bridge.environment())
    del environment["PYTHONPATH"]
    settings = {name: environment[name] for name in environment if name not in {"PATH", "HOME"}}
    with (elsewhere / "log").open("w") as log:
        worker = subprocess.Popen([connector, "run"], cwd=elsewhere, env=environment, stderr=log, stdout=log)
    try:
        wait_until(lambda: bridge.status("/health/live") == 200, "the worker's pages", 30)
        listed = call(connector, elsewhere, "dead-letters", "list", "--json", **settings)
        assert json.loads(listed.stdout) == {"dead_letters": 0, "bytes": 0}, listed.stderr
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
