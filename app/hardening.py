"""What the process does for its own safety: files for its owner alone, no core files, and a look at its directory."""

from __future__ import annotations

import logging
import os
import resource
import stat
from pathlib import Path

from app.errors import DataDirectoryError
from app.open_files import raise_file_limit

log = logging.getLogger(__name__)

OWNER_ONLY = 0o077  # as a umask: what others may not do


def harden_process() -> None:
    """Keep what the process holds to itself, from now on: called where a worker or a command begins, not on import."""
    # RocksDB makes files all the time, with rights that only the umask limits.
    os.umask(OWNER_ONLY)
    # A core file would hold payloads and passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise_file_limit()


def check_directory(directory: Path, database: Path) -> None:
    """Look at the rights of the data directory; call it when both directories exist.

    A directory that everybody may write to is no more than a warning: that is how Kubernetes makes a volume. The
    database in it is our own.

    Raises:
        DataDirectoryError: Others could change the database.
    """
    if database.stat().st_mode & stat.S_IWOTH:
        raise DataDirectoryError(
            f"DB_PERSIST_PATH {directory}: everybody on this host may write to {database}, and with it change messages "
            "that wait; check them, then take that right away (chmod o-w)"
        )
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        log.warning(
            "everybody on this host may write to DB_PERSIST_PATH %s, and could put another table in the place of this "
            "one; take that right away (chmod o-w)",
            directory,
        )
