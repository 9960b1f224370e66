"""What systemd is told about the worker (sd_notify(3)): a datagram of lines, sent to the socket in NOTIFY_SOCKET.

    READY=1                 it has started: the table is open and the pages are served
    EXTEND_TIMEOUT_USEC=    it is starting or stopping, and that may take longer than the unit allows
    WATCHDOG=1              both threads move, as `/health/live` says; without it systemd kills the worker
    STATUS=                 the headline of the status page, for `systemctl status`
    RELOADING=1             the routes are read anew, until the next READY=1
    STOPPING=1              it stops

Without that variable nothing is sent. The libraries for it wait while the socket is full, are not maintained, or bring
compiled code for one datagram. Here a datagram that cannot be sent at once, as the socket is full, is left out: nothing
that systemd does holds up the event loop or ends the worker. What it said is said again by the next one. So are
RELOADING and STOPPING, which are said once otherwise: without the first `systemctl reload` would wait for it until it
fails (Type=notify-reload; RELOADING and READY in one datagram are a reload that is over), without the second the
watchdog would kill a worker that stops by itself and takes longer. What was sent is not lost: it waits in the socket.

A worker may also be run from a terminal; `has_terminal` tells.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

# systemd leaves out longer ones as a whole, with the WATCHDOG=1 in them (PIPE_BUF, 4096).
LONGEST_STATUS_BYTES = 2_000
STATUS_SECONDS = 10.0  # how often the headline is told
# Three pings within the time after which systemd kills the worker, so that one may be late and one be left out.
PINGS = 3
STARTING_SECONDS = 10.0  # how often it is said that a start takes its time
# The time that each of these datagrams asks for: RocksDB may hold the interpreter while it reads its log, and no thread
# runs meanwhile.
STARTING_ALLOWED_SECONDS = 180.0
STOPPING_SPARE_SECONDS = 20.0  # beyond STOP_BUDGET_SEC: for closing the table


class ServiceManager:
    """The way to systemd; each method may be called where there is none, from any thread, and never waits.

    Attributes:
        is_there: Somebody wants to be told.
        interval_seconds: How often `alive` is to be called.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """Make the socket; nothing is sent yet.

        Args:
            address: NOTIFY_SOCKET: a path, or a name in the abstract name space after an `@`; empty: nobody is told.
            watchdog_seconds: After how long without WATCHDOG=1 the worker is killed; 0: it is not.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = _datagrams() if address.startswith(("/", "@")) else None
        self.is_there = self._socket is not None
        self.interval_seconds = min(STATUS_SECONDS, watchdog_seconds / PINGS or STATUS_SECONDS)
        self._started = threading.Event()
        self._is_reloading = False
        self._is_stopping = False
        self._owed: tuple[str, ...] = ()  # what is said once, and could not be sent

    def starting(self) -> None:
        """Say that it starts, again and again in a thread until it is `ready` or stops: opening a table takes long."""
        if self.is_there:
            threading.Thread(target=self._ask_for_time, name="start-takes-time", daemon=True).start()

    def _ask_for_time(self) -> None:
        while True:
            self._tell(
                _extended(STARTING_ALLOWED_SECONDS),
                _status("The worker starts. A large or damaged table takes its time."),
            )
            if self._started.wait(STARTING_SECONDS):
                return

    def ready(self) -> None:
        """Say that it has started."""
        self._started.set()
        self._tell("READY=1", _status("The worker has started."))

    def alive(self, headline: str) -> None:
        """Say that both threads move, and how it is; READY=1 once more, should its datagram have been left out."""
        if self._is_stopping:
            self._tell_owed()
        else:
            self._tell("WATCHDOG=1", *(() if self._is_reloading else ("READY=1",)), _status(headline))

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the routes are read anew, and at the end, however it ends, that this is done."""
        self._is_reloading = True
        self._tell_once("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self._is_reloading = False
            if not self._is_stopping:
                self._tell("READY=1")

    def stopping(self, budget_seconds: float) -> None:
        """Say that it stops, and how long that may take; only the first time."""
        self._started.set()
        if not self._is_stopping:
            self._is_stopping = True
            allowed = _extended(budget_seconds + STOPPING_SPARE_SECONDS)
            self._tell_once("STOPPING=1", allowed, _status("The worker is stopping."))

    def _tell_once(self, *lines: str) -> None:
        """Say what is not said again, unless this datagram is left out."""
        self._owed = lines
        self._tell_owed()

    def _tell_owed(self) -> None:
        if self._owed:
            self._tell()

    def _tell(self, *lines: str) -> None:
        """Say it, behind what could not be said before."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # nobody is there any more, or has no time
            self._socket.sendto("\n".join((*self._owed, *lines)).encode(errors="replace"), self._address)
            self._owed = ()


def has_terminal() -> bool:
    """Tell whether a terminal controls this process, which sends SIGHUP when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _datagrams() -> socket.socket | None:
    """Return a socket that never waits; kept, as later there may be no descriptor left. None where there are none."""
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:
        return None
    return made


def _extended(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


def _status(text: str) -> str:
    """Return the line of a text of ours or of others, which cannot become a second line."""
    line = " ".join(text.split()).encode(errors="replace")[:LONGEST_STATUS_BYTES]
    return f"STATUS={line.decode(errors='ignore')}"
