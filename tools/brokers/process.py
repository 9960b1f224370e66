"""A server as a child process: owns its port, its log, its readiness and its end.

Brokers and the bridge itself are started this way by the tests and by the demonstration. A server
keeps its port and its directory for life, so that it can be stopped or killed and started again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

HOST = "127.0.0.1"
# Below the range that the kernel hands out for outgoing connections: a port from that range could be
# taken by some client while its server is down, and the server could not come back on it.
_PORTS = range(20_000, 30_000)
_PROBE_INTERVAL_SECONDS = 0.05
_LOG_TAIL_LINES = 25
_given_ports: set[int] = set()


class ProcessError(RuntimeError):
    """A server is not installed, did not become ready, or ended by itself."""


class Certificates(Protocol):
    """PEM files of a server: the authority, the certificate chain and its private key."""

    @property
    def ca_file(self) -> Path:
        """The authority that signed the certificate."""

    @property
    def certificate_file(self) -> Path:
        """The certificate, followed by its chain."""

    @property
    def key_file(self) -> Path:
        """The private key, not encrypted."""


def free_port() -> int:
    """Return a port that nobody listens on and that was not given before."""
    while True:
        port = secrets.choice(_PORTS)
        if port not in _given_ports and _is_free(port) and _reserve(port):
            _given_ports.add(port)
            return port


@cache
def _reservations() -> IO[bytes]:
    """Open the file whose bytes stand for ports; it stays open, as its locks end with it."""
    path = Path(tempfile.gettempdir()) / f"connector-ports-{os.getuid()}"
    return path.open("ab")


def _reserve(port: int) -> bool:
    """Take a port for this process, against others that have chosen it and do not listen yet; False if it is taken."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def accepts_connections(port: int) -> bool:
    """Tell whether something listens on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


class ServerProcess(ABC):
    """One server process; a context manager that starts and stops it.

    Attributes:
        directory: where the server keeps its configuration, its data and its log.
        host: the address that it listens on.
        port: the port, the same over every restart.
        exit_status: of the last process that was ended here; negative for a signal.
        log_path: what it wrote to standard output and standard error, over every restart.
    """

    title: ClassVar[str]
    start_limit_seconds: ClassVar[float] = 60.0
    stop_limit_seconds: ClassVar[float] = 20.0

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.host = HOST
        self.port = free_port()
        self.log_path = directory / f"{self.title}.log"
        self.exit_status: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command line that starts the server."""

    def environment(self) -> Mapping[str, str] | None:
        """Return the environment of the server; none means that of this process."""
        return None

    def prepare(self) -> None:  # noqa: B027 - not every server has something to write
        """Write what the server needs before its start."""

    def ready(self) -> bool:
        """Tell whether the server serves."""
        return accepts_connections(self.port)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ProcessError(f"{self.title} is not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and return when it serves."""
        if self.running:
            raise ProcessError(f"{self.title} is already started")
        self.prepare()
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C on the terminal must reach the one who stops things in order.
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = _guard(self._process.pid)
        try:
            self._wait_until_ready()
        except BaseException:
            # Ctrl-C while it starts must not leave it behind either.
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End the server with SIGTERM; with SIGKILL when it does not follow. Harmless when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL. Harmless when it is not running."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server and start it again on the same port and directory."""
        self.stop()
        self.start()

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _end(self, signal_number: signal.Signals) -> None:
        process, guard, self._process, self._guard = self._process, self._guard, None, None
        if process is not None:
            process.send_signal(signal_number)
            try:
                process.wait(self.stop_limit_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.exit_status = process.returncode
        if guard is not None:
            guard.kill()
            guard.communicate()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.start_limit_seconds
        while self._process.poll() is None:
            if self.ready():
                return
            if time.monotonic() > deadline:
                self._fail(f"was not ready within {self.start_limit_seconds:.0f} seconds")
            time.sleep(_PROBE_INTERVAL_SECONDS)
        self._fail(f"ended with status {self._process.returncode} before it was ready")

    def _fail(self, what: str) -> None:
        raise ProcessError(f"{self.title} {what}; the end of its log:\n{self.log_tail()}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _guard(pid: int) -> subprocess.Popen[bytes]:
    """Start a shell that kills the process when this Python ends in whatever way.

    The shell waits for the end of a pipe of which this Python holds the only other end. The signal
    that Linux can send on a parent's death follows the thread that started the child instead, and a
    test may start a broker in a thread.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -KILL "$1" 2>/dev/null', "guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
