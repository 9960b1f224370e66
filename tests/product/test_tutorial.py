"""The tutorial's commands, run one after the other as they stand there, on ports of their own; and what they print.

A block of commands that begins with `# terminal` is started and left running, as in a terminal of its own. What stands
in a block of text must appear, line by line, numbers aside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import called_programs
from tests.support.oracle import wait_until
from tools.brokers import free_port
from tools.brokers.mosquitto import find_mosquitto

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# They change the machine, or were done before the tests could run.
NOT_RUN = ("# as root", "make setup")
# 12 seconds of messages in the place of 50.
IN_LESS_TIME = ("--messages 1000 --interval-seconds 0.05", "--messages 600 --interval-seconds 0.02")
LIMIT_SECONDS = 60.0


class Terminals:
    """The terminals of whoever follows the tutorial.

    Attributes:
        shown: what the last command printed that has ended.
    """

    def __init__(self, directory: Path) -> None:
        for name in ("app", "agents", "tables", "clients", "tools"):
            (directory / name).symlink_to(REPOSITORY / name)
        (directory / ".venv").symlink_to(sys.prefix)
        self._directory = directory
        self._ports = {name: free_port() for name in ("1883", "9092", "6066")}
        path = f"{os.environ['PATH']}{os.pathsep}{Path(find_mosquitto() or '').parent}"
        self._environment = {"PATH": path, "HOME": str(directory), "LOG_FORMAT": "text", "PYTHONUNBUFFERED": "1"}
        self._running: list[subprocess.Popen] = []
        self.shown = ""

    def _on_our_ports(self, commands: str) -> str:
        for usual, ours in self._ports.items():
            commands = re.sub(rf"\b{usual}\b", str(ours), commands)
        commands = commands.replace("mosquitto_pub ", f"mosquitto_pub -p {self._ports['1883']} ")
        return commands.replace("DB_PERSIST_PATH=data\n", f"DB_PERSIST_PATH=data\nWEB_PORT={self._ports['6066']}\n")

    def run(self, commands: str) -> None:
        """Run commands until they end, or start them in a terminal of their own."""
        options = {"cwd": self._directory, "env": self._environment, "stdin": subprocess.DEVNULL, "text": True}
        commands = self._on_our_ports(commands)
        if commands.startswith("# terminal"):
            with (self._directory / f"terminal-{len(self._running)}.txt").open("w") as output:
                self._running.append(
                    subprocess.Popen(["bash", "-c", commands], stdout=output, stderr=subprocess.STDOUT,
                                     start_new_session=True, **options)
                )  # fmt: skip
            self.shown = ""
            return
        done = subprocess.run(["bash", "-c", commands], capture_output=True, timeout=60, check=False, **options)
        self.shown = done.stdout + done.stderr
        # The kill may have led to repetitions, which the subscriber reports by its exit code as well. And what may be
        # too early is asked for again.
        assert done.returncode == 0 or "--count" in commands or commands.startswith("curl"), self.shown

    def outputs(self) -> list[str]:
        """Return what there is to be seen: of the last command, or in all terminals."""
        files = sorted(self._directory.glob("terminal-*.txt"))
        return [self.shown] if self.shown else [file.read_text() for file in files]

    def wait_for_the_end(self) -> None:
        """Wait until everything that was started has ended."""
        wait_until(lambda: all(each.poll() is not None for each in self._running), "the end of it all", LIMIT_SECONDS)

    def close(self) -> None:
        """End what is left."""
        for each in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()


def programs_missing() -> list[str]:
    """Return the programs that the tutorial's commands call and that are not there."""
    blocks = "\n".join(text for kind, text in BLOCK.findall(TUTORIAL) if kind == "sh" and not text.startswith(NOT_RUN))
    # The broker is started by our own program, which finds it where an ordinary user's PATH does not look.
    without_broker = set() if find_mosquitto() else {"mosquitto"}
    return sorted({name for name in called_programs.of_shell(blocks) if shutil.which(name) is None} | without_broker)


def pattern(text: str) -> re.Pattern[str]:
    """Return what finds the lines of a block in their order, whatever else is printed.

    Any number may be another one, but a single 0 means 0, and a number of `/status` above 0 means that.
    """
    lines = []
    for line in text.splitlines():
        pieces = re.split(r"(\.\.\.$|(?<= )0(?=[ ,])|\d+)", line)
        number = {"...": ".*", "0": "0"}
        other = r"[1-9]\d*" if '": ' in line else r"\d+"
        lines.append("".join(number.get(p, other) if i % 2 else re.escape(p) for i, p in enumerate(pieces)))
    return re.compile("^" + ".*?^".join(lines), re.DOTALL | re.MULTILINE)


def is_all_there(terminals: Terminals, commands: str) -> bool:
    """Count again, if the last count came before the last message; tell whether each is there, in order."""
    found = r"(\d+) numbered, 0 missing, \d+ duplicates, 0 out of order"
    if re.findall(found, terminals.shown) != ["300", "300"]:
        terminals.run(commands)
    return re.findall(found, terminals.shown) == ["300", "300"]


def is_shown(terminals: Terminals, text: str, commands: str) -> bool:
    """Tell whether what is expected can be seen; a page is asked for again, as the tutorial says."""
    if commands.startswith("curl"):
        terminals.run(commands)
    return any(pattern(text).search(output) for output in terminals.outputs())


@pytest.mark.slow
def test_each_command_of_the_tutorial_does_what_the_tutorial_shows(tmp_path):
    missing = programs_missing()
    assert not missing, f"the tutorial calls {', '.join(missing)}, which `make brokers` installs"
    terminals = Terminals(tmp_path)
    commands = ""
    try:
        for kind, text in BLOCK.findall(TUTORIAL):
            if kind == "sh":
                commands = text.replace(*IN_LESS_TIME)
                if not commands.startswith(NOT_RUN):
                    terminals.run(commands)
                continue
            shown = lambda text=text: is_shown(terminals, text, commands)  # noqa: E731, B023
            counted = lambda: "--count" not in commands or is_all_there(terminals, commands)  # noqa: E731, B023
            try:
                wait_until(lambda: counted() and shown(), "what the tutorial shows", LIMIT_SECONDS)  # noqa: B023
            except AssertionError as error:
                raise AssertionError(f"expected:\n{text}\nseen:\n{terminals.outputs()}") from error
        terminals.wait_for_the_end()
    finally:
        terminals.close()
