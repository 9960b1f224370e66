"""The unit of systemd and what is installed with it, by their texts; `make systemd-test` has them run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.command_table import COMMANDS
from app.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "image" / "systemd"
UNIT, SCRIPT, INSTALLER = (
    (FOLDER / name).read_text(encoding="utf-8") for name in ("connector.service", "connector", "install.sh")
)
MOST_EXPOSURE = 2.0


def value(name):
    """Return the value of a line of the unit that comes once."""
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_unit_leaves_the_worker_little_that_it_may_do():
    """A line that systemd does not know would count for nothing, and be named here."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(FOLDER / "connector.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    exposure = float(re.search(r"Overall exposure level for connector.service: ([0-9.]+)", done.stdout)[1])
    assert exposure < MOST_EXPOSURE
    assert not done.stderr
    document = " ".join((REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8").split())
    said = re.search(r"`systemd-analyze security connector` says ([0-9]+\.[0-9]+)", document)
    assert float(said[1]) == exposure, "docs/deploy.md says another"


def test_unit_script_and_installation_speak_of_the_same_program_settings_user_and_directory():
    program, settings = re.fullmatch(r"(\S+) --env-file (\S+) run", value("ExecStart")).groups()
    assert value("ExecReload") == f"{program} --env-file {settings} reload"
    assert {"run", "reload"} <= set(COMMANDS)
    assert f'{program} --env-file {settings} "$@"' in SCRIPT
    user, directory = value("User"), f"/var/lib/{value('StateDirectory')}"
    assert f"user={user}\n" in SCRIPT
    assert f"place={value('WorkingDirectory')} settings={settings} user={user}\n" in INSTALLER
    assert program.startswith(f"{value('WorkingDirectory')}/venv/bin/")
    assert f"DB_PERSIST_PATH={directory}|" in INSTALLER
    assert f'"$user" {directory}\n' in INSTALLER
    example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    for name in re.findall(r"\^#(\w+)=", INSTALLER):
        assert f"\n#{name}=" in example, f"install.sh sets {name} in a copy of .env.example, which has no such line"


def test_the_unit_gives_a_stop_of_the_default_length_its_time():
    """Should systemd not hear that the worker asks for more."""
    assert int(value("TimeoutStopSec")) > Settings.model_fields["stop_budget_sec"].default + 2
    assert value("RestartPreventExitStatus") == "2"
