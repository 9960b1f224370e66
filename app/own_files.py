"""Files that are ours alone: whose a file may be, and how one is opened in a place where others may have put something.

The data directory may be a volume that others can write to. So a file in it is never reached by a link, nor by a second
name, which could both lead to a file elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def is_trusted(user: int) -> bool:
    """Tell whether what belongs to a user may be taken for ours."""
    return user in {0, os.geteuid()}


def open_own(path: Path, flags: int) -> int:
    """Open a file of a data directory, and nothing else that may have been put in its place.

    Args:
        path: The file; its directory is followed by name, the file itself never is.
        flags: As for `os.open`, without O_TRUNC: what is behind another name must not be cut.

    Returns:
        The descriptor; a file that is made is its owner's alone.

    Raises:
        OSError: It cannot be opened, or is a link, no file, another user's, or has a second name.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        safely = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        descriptor = os.open(path.name, flags | safely, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and is_trusted(found.st_uid):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EPERM, "it is not a file of this directory alone", str(path))


def read_own(path: Path, most_bytes: int) -> bytes:
    """Return the beginning of a file of a data directory.

    Raises:
        OSError: See `open_own`.
    """
    descriptor = open_own(path, os.O_RDONLY)
    try:
        return os.read(descriptor, most_bytes)
    finally:
        os.close(descriptor)
