"""Disks that fail: a file system of its own that loses power or fills up, and system calls that report errors.

Both need rights that root has on an ordinary machine. Where they are missing, tests skip and say what was missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from figures import note
from system import Bridge
from typing_extensions import Self

# linux/ext4.h: stop the file system at once; nothing that is not on the disk yet gets there, the journal included.
EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


def run(*command: object) -> None:
    """Run a program, or fail with what it said."""
    # Debian puts programs for root where the PATH of an ordinary user does not look.
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode != 0:
        raise OSError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")


class LoopDisk:
    """An ext4 file system in a file, mounted; a context manager.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, directory: Path, size_bytes: int = 512 * 1024 * 1024) -> None:
        """Make the file system; it is mounted from the start of the context on."""
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self.path.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        try:
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", self._image)
        except OSError as error:
            pytest.skip(f"no file system can be made here: {error}")

    def __enter__(self) -> Self:
        try:
            self.mount()
        except OSError as error:
            pytest.skip(f"a file system cannot be mounted here: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        run("umount", self.path)

    def mount(self) -> None:
        """Mount it; after a power cut, this is when the machine comes back."""
        run("mount", "-o", "loop", self._image, self.path)

    def unmount(self) -> None:
        """Unmount it; nobody may use it."""
        run("umount", self.path)

    def cut_power(self) -> None:
        """Lose everything that is not on the disk; from now on every write fails."""
        note("power cut")
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def fill(self, name: str = "filler", leave_bytes: int = 0) -> Path:
        """Fill it with a file, to the last byte unless some are to be left, and return its path."""
        path = self.path / name
        statistics = os.statvfs(self.path)
        free_bytes = statistics.f_bavail * statistics.f_frsize
        with path.open("wb", buffering=0) as file:
            # The file system needs some of it for itself; the rest is written until it says that it is full.
            os.posix_fallocate(file.fileno(), 0, max(1, free_bytes - max(leave_bytes, 1024 * 1024)))
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while not leave_bytes:
                    file.write(bytes(4096))
        return path


class InjectedBridge(Bridge):
    """A worker of which some system calls fail or are slow, as strace's `inject` says.

    Attributes:
        injection: For example `fdatasync:error=EIO:when=7`; empty for none.
    """

    injection = ""

    def command(self) -> Sequence[str]:
        """Return the command line."""
        if not self.injection:
            return super().command()
        program = shutil.which("strace")
        if program is None:
            pytest.skip("strace is not installed; `make brokers` installs it on Debian as root")
        call = self.injection.partition(":")[0]
        # -D: the worker is our child, and strace beside it.
        quiet = ["-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", "/dev/null"]
        return [program, *quiet, "-e", f"trace={call}", "-e", f"inject={self.injection}", *super().command()]
