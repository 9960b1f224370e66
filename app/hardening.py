"""What the process does for its own safety: files for its owner alone, and no core files."""

from __future__ import annotations

import os
import resource

from app.open_files import raise_file_limit

OWNER_ONLY = 0o077  # as a umask: what others may not do


def harden_process() -> None:
    """Keep what the process holds to itself, from now on: called where a worker or a command begins, not on import."""
    # RocksDB makes files all the time, with rights that only the umask limits.
    os.umask(OWNER_ONLY)
    # A core file would hold payloads and passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise_file_limit()
