"""Eclipse Mosquitto as a child process: the MQTT broker of the tests, and of the demonstration where it exists."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

from tools.brokers.process import HOST, Certificates, ProcessError, ServerProcess, accepts_connections, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SAVE_LIMIT_SECONDS = 10.0


def find_mosquitto() -> str | None:
    """Return the path of the program, or none where it is not installed."""
    # Debian puts it where the PATH of an ordinary user does not look.
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


class Mosquitto(ServerProcess):
    """A Mosquitto on a port of its own; anonymous, plain text, sessions kept on disk.

    Attributes:
        mqtt_version: the newest that it speaks.
        tls_port: the port of the second, encrypted listener; none without certificates.
    """

    title = "mosquitto"
    mqtt_version = "5"

    def __init__(
        self,
        directory: Path,
        *,
        extra_configuration: str = "",
        persistence: bool = True,
        certificates: Certificates | None = None,
        max_inflight_messages: int | None = None,
        max_queued_messages: int = 0,
    ) -> None:
        """Choose the ports; nothing is started.

        Args:
            directory: where configuration, sessions and log go.
            extra_configuration: lines for the end of mosquitto.conf; a line that belongs to a listener
                counts for the encrypted one if there is one, else for the plain one.
            persistence: whether sessions and queued messages outlive the process.
            certificates: files for a second, encrypted listener.
            max_inflight_messages: unacknowledged messages towards one client; none leaves the default.
            max_queued_messages: messages kept for one client; 0 is without limit.
        """
        super().__init__(directory)
        self.tls_port = free_port() if certificates is not None else None
        self.database_path = directory / "mosquitto.db"
        self._extra_configuration = extra_configuration
        self._persistence = persistence
        self._certificates = certificates
        self._max_inflight_messages = max_inflight_messages
        self._max_queued_messages = max_queued_messages

    def command(self) -> Sequence[str]:
        """Return the command line, or raise where Mosquitto is not installed."""
        program = find_mosquitto()
        if program is None:
            raise ProcessError("mosquitto is not installed; `make brokers` installs it")
        return [program, "-c", str(self._configuration_path)]

    def prepare(self) -> None:
        """Write mosquitto.conf."""
        lines = [*self._global_lines(), f"listener {self.port} {HOST}", *self._tls_lines(), self._extra_configuration]
        self._configuration_path.write_text("\n".join(lines) + "\n")

    def ready(self) -> bool:
        """Tell whether each listener accepts connections."""
        return all(accepts_connections(port) for port in (self.port, self.tls_port) if port is not None)

    def save(self) -> None:
        """Have the sessions written to disk now, and return when they are.

        Mosquitto writes once a second by itself; a test that kills it must not depend on when that was.
        """
        before = self._saved_nanoseconds()
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _SAVE_LIMIT_SECONDS
        while self._saved_nanoseconds() == before:
            if time.monotonic() > deadline:
                raise ProcessError(f"mosquitto did not save its sessions within {_SAVE_LIMIT_SECONDS:.0f} seconds")
            time.sleep(0.01)

    @property
    def _configuration_path(self) -> Path:
        return self.directory / "mosquitto.conf"

    def _saved_nanoseconds(self) -> int:
        return self.database_path.stat().st_mtime_ns if self.database_path.exists() else 0

    def _global_lines(self) -> list[str]:
        lines = ["allow_anonymous true", "log_dest stderr", f"max_queued_messages {self._max_queued_messages}"]
        if os.geteuid() == 0:
            # Else it gives up root for a user who may not write into this directory.
            lines.append("user root")
        if self._persistence:
            # With the interval in seconds, not in messages, so that a busy broker does not write all the time.
            lines += ["persistence true", f"persistence_location {self.directory}/", "autosave_interval 1"]
        if self._max_inflight_messages is not None:
            lines.append(f"max_inflight_messages {self._max_inflight_messages}")
        return lines

    def _tls_lines(self) -> list[str]:
        if self._certificates is None:
            return []
        return [
            f"listener {self.tls_port} {HOST}",
            f"cafile {self._certificates.ca_file}",
            f"certfile {self._certificates.certificate_file}",
            f"keyfile {self._certificates.key_file}",
        ]
