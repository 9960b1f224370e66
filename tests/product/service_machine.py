"""A machine with a systemd of its own, for `service_checks`: an empty Debian, booted by systemd-nspawn.

It shares the network of the process that boots it, so that brokers of the tests are on its loopback; `make
systemd-test` runs all of it in a network that has nothing else. What the machine writes is gone when it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from tests.support.oracle import wait_until

BOOT_SECONDS = 60
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """The machine; commands run in it as root."""

    def __init__(self, root: Path, given: Path, log_path: Path) -> None:
        """Boot it.

        Args:
            root: The Debian, of which nothing is changed.
            given: A file that is in /media in there.
            log_path: What it writes to its console.
        """
        self._log = log_path.open("wb")
        # No unit of this machine's systemd, which may not run, and its overlay keeps what is written in memory.
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", "--volatile=overlay",
            f"--directory={root}", f"--bind-ro={given}:/media/{given.name}", "--machine=connector-test", "--boot",
        ]  # fmt: skip
        # systemd from 256 on knows no other control groups, and 252 has no use for more.
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        self._nspawn = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        wait_until(self._is_up, "systemd to be up", BOOT_SECONDS)

    @property
    def _first_process(self) -> int:
        """The process 1 of the machine, as this machine numbers it."""
        children = (
            Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text(encoding="ascii").split()
        )
        return int(children[0])

    def _is_up(self) -> bool:
        assert self._nspawn.poll() is None, "systemd-nspawn ended"
        with contextlib.suppress(IndexError, OSError):
            return self.run("systemctl is-system-running").stdout.strip() in {"running", "degraded"}
        return False

    def run(self, script: str, directory: str = "/") -> subprocess.CompletedProcess[str]:
        """Run a script as root; return its exit code and what it said."""
        command = [
            "nsenter", f"--target={self._first_process}", "--mount", "--uts", "--ipc", "--pid", "--root",
            f"--wdns={directory}", "env", "--ignore-environment", f"PATH={PATH}", "sh", "-c", script,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def do(self, script: str, directory: str = "/") -> str:
        """Run a script that must succeed; return what it printed."""
        done = self.run(f"set -e\n{script}", directory)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def property_of(self, name: str, unit: str = "connector") -> str:
        """Return a property of a unit."""
        return self.do(f"systemctl show --property {name} --value {unit}").strip()

    def journal(self) -> str:
        """Return what the service has logged."""
        return self.do("journalctl --unit connector --output cat")

    def end(self) -> None:
        """Shut it down, as far as it lets itself."""
        if self._nspawn.poll() is None:
            self._nspawn.send_signal(signal.SIGTERM)
            try:
                self._nspawn.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._nspawn.pid, signal.SIGKILL)
                self._nspawn.wait()
        self._log.close()
