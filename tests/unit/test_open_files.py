"""Few files that may be open, and a table of many: it works within the limit, or the limit is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.web.accepting import LIMIT_CONNECTIONS
from tables.engine.opening import FEWEST_TABLE_FILES, table_files
from tests.support.stored_messages import contents, opened
from tests.unit.test_table import REPOSITORY


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program, with the project where it imports from."""
    command = [sys.executable, *program.split(), *map(str, arguments)]
    path = str(REPOSITORY)
    return subprocess.run(
        command, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY
    )


@pytest.mark.parametrize("limit", [110, 64])
def test_a_table_of_many_files_needs_few_that_are_open(limit, tmp_path):
    """Written, read, put together and salvaged with fewer files open than it has; the worker needs 40 for the rest."""
    done = run("-m tests.support.open_files", tmp_path, limit, 40 * limit)
    files, most, messages = map(int, done.stdout.split())
    assert files > limit and messages == 40 * limit, done.stderr
    assert most <= 50


def test_where_no_file_can_be_opened_the_limit_is_named_and_nothing_is_lost(tmp_path):
    """The error says the number and how to raise it; with a higher limit everything is there."""
    with opened(tmp_path):
        pass
    said = run("-m tests.support.open_files", tmp_path, 9, 600)
    assert "the limit of open files is 9; raise it" in said.stdout, said.stderr
    assert "LimitNOFILE" in said.stdout
    with opened(tmp_path) as table:
        assert table.lost_messages == 0 and len(contents(table, "alpha")) == table.total_messages


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(tmp_path):
    """Most systems give a program 1,024 until it asks for more."""
    program = tmp_path / "limits.py"
    program.write_text(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 900))\n"
        "from app.hardening import harden_process\n"
        "from app.open_files import file_limit\n"
        "harden_process()\n"
        "print(file_limit())\n"
    )
    assert run(str(program)).stdout == "900\n"


def test_the_shares_of_the_limit_leave_room_for_the_rest():
    """Three databases of a salvage, the pages and 40 files of the worker fit, from a limit of 256 on."""
    for limit in (256, 1024, 4096):
        assert table_files(limit) + min(LIMIT_CONNECTIONS, limit // 4) + 40 <= limit
    assert table_files(10) == FEWEST_TABLE_FILES
