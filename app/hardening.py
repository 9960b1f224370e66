"""What the process does for its own safety: files for its owner alone, no core, nothing raw on standard error."""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
from types import TracebackType

from app.lines import LineFormatter, LogHandler
from app.open_files import raise_file_limit

log = logging.getLogger(__name__)

OWNER_ONLY = 0o077  # as a umask: what others may not do


def harden_process() -> None:
    """Keep what the process holds to itself, from now on: called where a worker or a command begins, not on import."""
    # RocksDB makes files all the time, with rights that only the umask limits.
    os.umask(OWNER_ONLY)
    _have_no_core()
    raise_file_limit()
    _tell_of_errors_escaped()


def _have_no_core() -> None:
    """Have a crash leave no core, which would hold payloads and passwords.

    A limit of 0 is for files alone. With one of 1 byte Linux gives none to a program either (systemd-coredump, apport).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if most == resource.RLIM_INFINITY or most >= 1 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _tell_of_errors_escaped() -> None:
    """Have Python itself write nothing as it came: errors that nobody caught, and log lines before there is a log."""
    sys.excepthook = lambda kind, error, trace: _tell("an error that nobody expected", kind, error, trace)
    threading.excepthook = lambda found: _tell(
        f"the thread {found.thread.name if found.thread else 'unknown'} ended", *found[:3]
    )
    sys.unraisablehook = lambda found: _tell(
        "an error that could not be raised", found.exc_type, found.exc_value, found.exc_traceback
    )
    logging.lastResort = LogHandler(sys.stderr)
    logging.lastResort.setLevel(logging.WARNING)
    logging.lastResort.setFormatter(LineFormatter("%(message)s"))


def _tell(what: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit | KeyboardInterrupt):
        log.critical("%s: %s", what, kind.__name__, exc_info=(kind, error, trace) if error else None)
