"""The ballast: a file beside the database that is given up when the disk is full, so that RocksDB can open and drain.

It is made again at a start, if there is room for it. A disk is *scarce* when RocksDB could fail at its next write:
nothing more is accepted then, as after a failed write the database could not even remove what Kafka has.
"""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path

from app.errors import StoreError
from app.own_files import open_own

log = logging.getLogger(__name__)

BALLAST_BYTES = 64 * 1024 * 1024
# Four of RocksDB's write buffers (tables.engine.opening): two that are flushed, and their logs.
SCARCE_BYTES = 32 * 1024 * 1024
LOOK_SECONDS = 0.25


class Ballast:
    """The reserve on the disk of one directory.

    Attributes:
        path: The file.
        free_bytes: What the disk had free at the last look, for the metrics; not a number before the first.
    """

    def __init__(self, directory: Path) -> None:
        """Name the file; nothing is made."""
        self.path = directory / "ballast"
        self.free_bytes = math.nan
        self._directory = directory
        self._look_at = 0.0
        self._scarce = False

    def check_scarce(self) -> bool:
        """Tell whether the disk has hardly any room left, and give the ballast up if it has none.

        Looked up a few times a second, as it costs a system call.

        Raises:
            StoreError: The data directory is gone.
        """
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            try:
                self.free_bytes = free_bytes(self._directory)
            except OSError as error:
                raise StoreError(
                    f"the data directory {self._directory} is gone: {error.strerror}. Was it deleted, renamed or "
                    "unmounted while the worker ran? Bring it back before the next start: messages that wait for Kafka "
                    "are in it alone"
                ) from error
            self._scarce = self.free_bytes < SCARCE_BYTES
            if self.free_bytes < SCARCE_BYTES // 2:
                self.give_up()
        return self._scarce

    def give_up(self) -> bool:
        """Remove the file; return whether there was one."""
        if self._size_bytes() < 0:
            return False
        log.warning("the disk is full: the ballast file gives its space, so that the table can open and drain")
        self.path.unlink()
        self._look_at = 0.0
        return True

    def make(self) -> None:
        """Reserve space, as long as it is a small part of what is free."""
        if self._size_bytes() >= BALLAST_BYTES or free_bytes(self._directory) < 4 * BALLAST_BYTES:
            return
        try:
            descriptor = open_own(self.path, os.O_WRONLY | os.O_CREAT)
            try:
                os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:  # a quota, say; without it the table works all the same
            log.warning("no ballast file can be made: %s", error.strerror)
            self.path.unlink(missing_ok=True)

    def _size_bytes(self) -> int:
        """Return the size of what is there, a link's own if it is one; -1 if nothing is."""
        try:
            return self.path.lstat().st_size
        except FileNotFoundError:
            return -1


def free_bytes(directory: Path) -> int:
    """Return the free space of a directory's file system."""
    statistics = os.statvfs(directory)
    return statistics.f_bavail * statistics.f_frsize
