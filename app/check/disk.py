"""DB_PERSIST_PATH: rights, file system, free space, and how long a synced write takes; beside a running worker too.

The table is never opened. What is written is a file of its own, which has no name any more before anything is in it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.check.findings import Finding, Looking, Report, Step
from app.control import worker_process
from app.data_directory import DATABASE, SET_ASIDE, DirectoryCheck, real_directory
from app.errors import ConnectorError, DataDirectoryError
from app.own_files import open_own
from app.plan import bytes_text
from tables.engine.ballast import SCARCE_BYTES, free_bytes
from tables.metadata import FREE_SPACE_SHARE
from tables.sizes import disk_bytes, volume_bytes

if TYPE_CHECKING:
    from app.settings import Settings

REPORT = Report("disk")
ANSWER_SECONDS = 20.0  # for a disk: one that hangs is given up
WRITTEN_BYTES, WRITES = 4096, 5
# While Kafka is away an acknowledgement waits for STORE_AFTER_MS (100) and a sync: more than that doubles it.
SLOW_SYNC_SECONDS = 0.1
MOST_FILES = 20_000  # that are counted; a table of the largest size has fewer
NETWORK_KINDS = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "afs", "lustre", "virtiofs", "gpfs", "ocfs")
DOUBTFUL_KINDS = {
    "tmpfs": "it is memory: what is stored there is gone after a restart of the machine",
    "ramfs": "it is memory: what is stored there is gone after a restart of the machine",
    "overlay": "it is the layer of a container: what is stored there is gone with the container",
    "aufs": "it is the layer of a container: what is stored there is gone with the container",
}
NETWORK = "it is on the network: a sync takes longer, may not be one, and locks may not keep a second worker away"


class Mount(NamedTuple):
    """A file system: its kind, where it is mounted, and whether nothing can be written to it."""

    kind: str
    path: str
    is_read_only: bool


def disk(settings: Settings) -> Looking[bool]:
    """Look at the directory as far as it goes; return whether a worker runs on it."""
    directory = real_directory(settings.db_persist_path)
    if directory is None:
        yield REPORT.doubtful(
            "directory",
            "",
            "DB_PERSIST_PATH is not set: what Kafka does not have yet is in memory, and lost when the worker ends",
            "Set it to a directory on a disk of this machine.",
        )
        return False
    has_worker = False
    yield Step(f"looking at {directory}")
    try:
        for found in within(ANSWER_SECONDS, lambda: list(_of_place(directory))):
            has_worker = has_worker or found.check == "worker"
            yield found
        if directory.is_dir():
            yield Step(f"writing to {directory}, synced")
            yield from within(ANSWER_SECONDS, lambda: [_of_sync(directory)])
            yield from within(ANSWER_SECONDS, lambda: list(_of_space(settings, directory)))
    except TimeoutError as error:
        yield REPORT.wrong("answer", str(directory), f"{directory}: {error}", "Look at the disk, or at its server.")
    return has_worker


def within(seconds: float, look: Callable[[], list[Finding]]) -> Iterator[Finding]:
    """Yield what a function returns, on a thread of its own, as a disk may not answer.

    Raises:
        TimeoutError: It did not return in time.
    """
    found: list[Finding | BaseException] = []

    def run() -> None:
        try:
            found.extend(look())
        except BaseException as error:  # noqa: BLE001, it is raised where it is waited for
            found.append(error)

    thread = threading.Thread(target=run, name="disk", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    for each in found:
        if isinstance(each, BaseException):
            raise each
        yield each


def _of_place(directory: Path) -> Iterator[Finding]:
    """Judge whose the directory is, who uses it, and on which file system it lies."""
    subject = str(directory)
    try:
        exists = directory.exists()
        yield _of_rights(directory) if exists else _of_parent(directory)
        if exists and (process := worker_process(directory)) is not None:
            yield REPORT.good("worker", subject, f"a worker runs on {directory} (process {process}), and is left alone")
    except (ConnectorError, OSError) as error:
        yield REPORT.wrong("directory", subject, str(error), "See docs/deploy.md on the data directory.")
    mount = mount_of(directory, _mounts())
    if mount is not None:
        yield of_mount(directory, mount)


def _of_rights(directory: Path) -> Finding:
    """Judge by the rules of the worker.

    Raises:
        DataDirectoryError: It would refuse to start.
    """
    DirectoryCheck(directory).check(tidy=False)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise DataDirectoryError(f"DB_PERSIST_PATH {directory}: the user {os.geteuid()} may not write there")
    found = directory.stat()
    text = f"{directory} belongs to the user {found.st_uid}, mode {found.st_mode & 0o7777:o}, and can be written to"
    return REPORT.good("directory", str(directory), text)


def _of_parent(directory: Path) -> Finding:
    """Judge whether the directory, which is missing, can be made."""
    parent = next(each for each in directory.parents if each.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        text = f"{directory} does not exist, and the worker can make it; nothing was written"
        return REPORT.good("directory", str(directory), text)
    return REPORT.wrong(
        "directory",
        str(directory),
        f"{directory} does not exist, and the user {os.geteuid()} cannot make it in {parent}",
        "Make it, and give it to the user of the worker (chown, chmod 700).",
    )


def _mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return []


def mount_of(directory: Path, lines: list[str]) -> Mount | None:
    """Return the file system of a path, of the lines of mountinfo; None if they do not tell."""
    best: Mount | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        parts = before.split(" ")
        path = parts[4].replace("\\040", " ")
        kind, _, rest = after.partition(" ")
        is_above = path == "/" or directory == Path(path) or Path(path) in directory.parents
        if is_above and (best is None or len(path) >= len(best.path)):  # what is mounted last hides the others
            options = [*parts[5].split(","), *rest.rpartition(" ")[2].split(",")]
            best = Mount(kind, path, "ro" in options)
    return best


def of_mount(directory: Path, mount: Mount) -> Finding:
    """Return the finding of a file system."""
    subject, text = str(directory), f"{directory} is on {mount.kind} ({mount.path})"
    advice = "Give DB_PERSIST_PATH a directory on a disk of this machine, or on a block device."
    if mount.is_read_only:
        return REPORT.wrong("file_system", subject, f"{text}, which is read-only", advice)
    if mount.kind in DOUBTFUL_KINDS:
        return REPORT.doubtful("file_system", subject, f"{text}; {DOUBTFUL_KINDS[mount.kind]}", advice)
    if mount.kind.startswith(NETWORK_KINDS):
        return REPORT.doubtful("file_system", subject, f"{text}; {NETWORK}", advice)
    return REPORT.good("file_system", subject, text)


def _of_sync(directory: Path) -> Finding:
    """Write to a file without a name, sync it some times, and judge the slowest sync."""
    path = directory / f".check-{os.getpid()}"
    try:
        descriptor = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            path.unlink()
            slowest = max(_sync_seconds(descriptor) for _ in range(WRITES))
        finally:
            os.close(descriptor)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = "Give it room." if full else "Give the directory to the user of the worker, and look at the disk."
        return REPORT.wrong("sync", str(directory), f"nothing can be written to {directory}: {error.strerror}", advice)
    return of_sync(directory, slowest)


def _sync_seconds(descriptor: int) -> float:
    began = time.monotonic()
    os.write(descriptor, bytes(WRITTEN_BYTES))
    os.fdatasync(descriptor)
    return time.monotonic() - began


def of_sync(directory: Path, slowest_seconds: float) -> Finding:
    """Return the finding of how long the slowest sync took."""
    text = f"a synced write to {directory} took {slowest_seconds * 1000:.1f} ms, the slowest of {WRITES}"
    if slowest_seconds <= SLOW_SYNC_SECONDS:
        return REPORT.good("sync", str(directory), text)
    advice = "Take a faster disk, or raise MQTT_RECEIVE_MAXIMUM: while Kafka is away, acknowledgements wait for it."
    return REPORT.doubtful("sync", str(directory), text, advice)


def _of_space(settings: Settings, directory: Path) -> Iterator[Finding]:
    """Judge the free space; what the table has already counts as free for it."""
    free = free_bytes(directory)
    yield of_space(settings.undelivered_max_bytes, directory, free, _used_bytes(directory))


def of_space(limit_bytes: int | None, directory: Path, free: int, used: int) -> Finding:
    """Return the finding of the free space.

    Args:
        limit_bytes: UNDELIVERED_MAX_BYTES; None: it is unset.
        directory: Of the table.
        free: Bytes that are free.
        used: Bytes that the directory has.
    """
    subject, text = str(directory), f"{bytes_text(free)} are free for {directory}, which has {bytes_text(used)}"
    if free < SCARCE_BYTES:
        advice = f"Give it room: below {bytes_text(SCARCE_BYTES)} the worker stores nothing."
        return REPORT.wrong("space", subject, text, advice)
    if limit_bytes is None:
        chosen = f"about {bytes_text(FREE_SPACE_SHARE * free)} at a first start"
        if (directory / DATABASE).exists():  # a larger disk does not change it
            chosen = "the table keeps the limit of its first start (connector_store_limit_bytes), until it is set"
        return REPORT.good("space", subject, f"{text}; UNDELIVERED_MAX_BYTES is unset: {chosen}")
    needed, with_copy = disk_bytes(limit_bytes), volume_bytes(limit_bytes)
    text = f"{text}; a full table (UNDELIVERED_MAX_BYTES={limit_bytes}) may take {bytes_text(needed)}"
    if free + used >= with_copy:
        return REPORT.good("space", subject, text)
    otherwise = "the disk is full before the table is"
    if free + used >= needed:
        text = f"{text}, and with its copy, if it is damaged one day, {bytes_text(with_copy)}"
        otherwise = "a full table that is damaged cannot be repaired before the disk is enlarged"
    advice = f"Take a larger disk, or lower UNDELIVERED_MAX_BYTES: else {otherwise}."
    return REPORT.doubtful("space", subject, text, advice)


def _used_bytes(directory: Path) -> int:
    """Return what the files of the table take, of which some may go meanwhile; not those that a repair set aside."""
    used = 0
    for count, path in enumerate(directory.rglob("*")):
        if count >= MOST_FILES:
            break
        if path.relative_to(directory).parts[0].startswith(SET_ASIDE):
            continue
        try:
            used += path.lstat().st_blocks * 512
        except OSError:
            continue
    return used
