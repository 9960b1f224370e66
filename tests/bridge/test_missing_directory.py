"""Commands where DB_PERSIST_PATH is mistyped: none makes a directory or a table, each says which path is missing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.command_table import COMMANDS
from tests.support.stored_messages import Maker, add_dead_letter, opened

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "mqtt://127.0.0.1:1",
    "MQTT_CLIENT_ID": "c",
    "KAFKA_BROKER": "127.0.0.1:1",
    "WILDCARD_TOPIC_LIST": "a/#:k",
}
ID = "0" * 24
CHANGING = ("dead-letters list", "dead-letters retry", f"dead-letters retry {ID}", "dead-letters delete --all")
# With their exit codes.
NO_TABLE = dict.fromkeys((*CHANGING, f"dead-letters delete {ID}"), 3)
NO_WORKER = {"dead-letters move k": 1, "drain": 1, "reload": 1, "tap": 1, "routes": 0}
# `run` makes the directory, which is written in README.md; `plan` has nothing to do with one.
OTHERS = {"run", "plan"}


def connector(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **SETTINGS}
    return subprocess.run(
        [sys.executable, "-m", "app.connector", *shlex.split(command)],
        env=environment | {"DB_PERSIST_PATH": directory.name},
        cwd=directory.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_each_command_is_tried_here():
    tried = {command.split()[0] for command in (*NO_TABLE, *NO_WORKER, "check")}
    assert tried | OTHERS == set(COMMANDS)


@pytest.mark.parametrize(("command", "exit_code"), [*NO_TABLE.items(), *NO_WORKER.items()])
def test_no_command_makes_a_directory_and_each_says_which_path_is_missing(command, exit_code, tmp_path):
    """`retry` and `delete` made an empty table there, and ended with 0: the dead letters seemed to be gone."""
    directory = tmp_path / "mistyped"
    done = connector(command, directory)
    assert done.returncode == exit_code
    assert str(directory) in done.stderr
    assert "does not exist: set DB_PERSIST_PATH as the worker has it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", CHANGING)
def test_no_command_makes_a_table_where_there_is_none(command, tmp_path):
    """The directory is another one, such as that above the right one."""
    directory = tmp_path / "above"
    directory.mkdir(mode=0o700)
    (directory / "worker-1").mkdir(mode=0o700)
    done = connector(command, directory)
    assert done.returncode == 3
    assert done.stderr.startswith(f"connector: DB_PERSIST_PATH {directory} holds no table yet: set DB_PERSIST_PATH as ")
    assert [path.name for path in directory.iterdir()] == ["worker-1"]


def test_a_check_says_that_the_directory_does_not_exist_and_makes_none(tmp_path):
    directory = tmp_path / "mistyped"
    done = connector("check", directory)
    (told,) = [line for line in done.stdout.splitlines() if "does not exist" in line]
    assert str(directory) in told
    assert not any(tmp_path.iterdir())


def test_a_table_that_is_there_is_changed_as_before(tmp_path):
    directory = tmp_path / "data"
    with opened(directory) as table:
        add_dead_letter(table, Maker(table)(), "alpha")
    done = connector("dead-letters delete --all", directory)
    assert (done.returncode, done.stdout) == (0, "1 dead letters deleted\n"), done.stderr


@pytest.mark.parametrize("place", ["salvage-copy", "undelivered"])
def test_a_table_of_which_a_repair_was_interrupted_counts_as_one(place, tmp_path):
    """What the next start mends is not called missing."""
    directory = tmp_path / "data"
    with opened(directory) as table:
        add_dead_letter(table, Maker(table)(), "alpha")
    (directory / "undelivered").rename(directory / place)
    done = connector("dead-letters retry", directory)
    assert "holds no table yet" not in done.stderr
