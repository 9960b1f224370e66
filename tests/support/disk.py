"""Disks that fail: a file system of its own that loses power or fills up, and system calls that report errors.

Both need rights that root has on an ordinary machine. Where they are missing, tests skip and say what was missing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typing_extensions import Self

from tests.support.figures import note
from tests.support.system import Bridge

# After it every write to a file in memory fails, and it cannot be taken back.
POWER_OFF = fcntl.F_SEAL_WRITE


def run(*command: object) -> str:
    """Run a program, and return what it printed, or fail with what it said."""
    # Debian puts programs for root where the PATH of an ordinary user does not look.
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode != 0:
        raise OSError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Iterate over the parts of a sparse file that are not holes."""
    size_bytes = os.fstat(descriptor).st_size
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole to the end
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


class LoopDisk:
    """An ext4 file system on a disk of its own, mounted; a context manager.

    The disk is a file in memory behind a loop device. Sealing that file is the power cut: a write to the disk happened
    before it, or fails. Ext4's own shutdown (EXT4_IOC_SHUTDOWN) is no such thing: an fdatasync that is under way when
    it comes returns 0 although nothing reaches the disk (seen in one cut of eight, with Linux 6.18).

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, directory: Path, size_bytes: int = 512 * 1024 * 1024) -> None:
        """Make the file system; it is mounted from the start of the context on."""
        self.path = directory / "disk"
        self.path.mkdir(parents=True)
        self._size_bytes = size_bytes
        self._memory = self._make_memory()
        try:
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", self._device_file)
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
        os.close(self._memory)

    def _make_memory(self) -> int:
        memory = os.memfd_create("disk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, self._size_bytes)
        return memory

    @property
    def _device_file(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._memory}"

    def mount(self) -> None:
        """Mount it; after a power cut, this is when the machine comes back."""
        if fcntl.fcntl(self._memory, fcntl.F_GET_SEALS) & POWER_OFF:
            self._replace_memory()
        device = run("losetup", "--find", "--show", self._device_file)
        try:
            run("mount", device, self.path)
        finally:
            run("losetup", "--detach", device)  # when nothing is mounted from it any more

    def _replace_memory(self) -> None:
        """Go on with a copy of what the disk holds: a seal cannot be removed."""
        old, self._memory = self._memory, self._make_memory()
        for start, end in _data_ranges(old):
            os.lseek(old, start, os.SEEK_SET)
            os.lseek(self._memory, start, os.SEEK_SET)
            missing = end - start
            while missing:
                missing -= os.sendfile(self._memory, old, None, missing)
        os.close(old)

    def unmount(self) -> None:
        """Unmount it; nobody may use it."""
        run("umount", self.path)

    def cut_power(self) -> None:
        """Lose everything that is not on the disk; from now on every write to it fails."""
        note("power cut")
        fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, POWER_OFF)

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
