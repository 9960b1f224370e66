"""The pages of docs/day-two, held to the code where that is cheap: what they type exists, and says what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from app.command_table import COMMANDS
from app.settings import NAMES
from app.settings.all_settings import SECRET_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
INDEX = (REPOSITORY / "docs" / "day-two.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "day-two").glob("*.md")}
LONGEST_LINES = 80


def typed(text):
    """Return the lines of a document's shell commands."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_each_page_is_short_and_the_index_leads_to_it():
    assert sorted(re.findall(r"\(day-two/([\w-]+\.md)\)", INDEX)) == sorted(PAGES)
    assert not [name for name, text in PAGES.items() if len(text.splitlines()) > LONGEST_LINES]


def test_each_command_and_setting_that_is_typed_exists():
    lines = [line for text in PAGES.values() for line in typed(text)]
    commands = {found for line in lines for found in re.findall(r"(?:^|[A-Z_]+=\S+ )connector ([a-z][a-z-]*)", line)}
    assert {"check", "reload", "routes", "plan"} <= commands <= set(COMMANDS)
    assigned = {found for line in lines for found in re.findall(r"\b([A-Z][A-Z_]+)=", line)}
    assert {"DB_PERSIST_PATH", "MQTT_BROKER_URL", "WEB_PORT"} <= assigned <= set(NAMES)


def test_what_is_said_to_be_read_at_a_start_alone_is_every_secret():
    row = re.search(r"^\| (.*) \| at a start \| restart \|\n\| (.*?) \| at a start", PAGES["secrets.md"], re.MULTILINE)
    assert set(re.findall(r"`([A-Z][A-Z_]+)`", f"{row[1]} {row[2]}")) == {*SECRET_NAMES, "WEB_TOKEN_FILE"}


def test_the_plan_in_the_page_is_what_the_command_says():
    part = re.search(r"<!-- plan -->(.*)<!-- end of plan -->", PAGES["capacity.md"], re.DOTALL)[1]
    command, said = re.search(r"```sh\nconnector (.*?)\n```\n\n```text\n(.*?)```", part, re.DOTALL).groups()
    done = subprocess.run(
        [sys.executable, "-m", "app.connector", *command.split()], capture_output=True, text=True, check=True,
        cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout == said
