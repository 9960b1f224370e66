"""Salvage: a new database from all that can be read of a damaged one, which is moved away and never deleted.

It works on copies, as RocksDB changes what it opens. Each step looks for what the one before did not find:

1. A copy is opened for reading without regard to damaged log records, and read around what is damaged.
2. What that cannot read is looked for in a second copy, put in order by RocksDB's own repair, which leaves out whole
   files that are damaged and finds those that the list of files (MANIFEST) has lost.
3. Large values that neither can read are looked for in their files (tables.repair.large_values).
4. What is found nowhere is lost; if that is everything, the new database is empty.

Only then do old and new change places, so a salvage that is interrupted begins again. It fails for want of space (it
needs as much again as the table takes), never for what is in the files. What was lost is found afterwards, by
`tables.repair.damage`, for which the new database has a note that it is one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, DBRecoveryMode, Options, Rdict, WriteBatch

from app.data_directory import SALVAGES, SET_ASIDE
from app.errors import DataDirectoryError
from app.own_files import open_own
from app.throttle import Progress
from tables import layout
from tables.engine.ballast import free_bytes
from tables.repair.large_values import LargeValues
from tables.repair.reading import Hole, between, readable

log = logging.getLogger(__name__)

BATCH_BYTES = 4 * 1024 * 1024
MEGABYTE = 1_000_000
SECTOR_BYTES = 4096
# RocksDB makes these anew; a damaged one is not worth a thought.
NOT_COPIED = ("LOCK", "LOG", "OPTIONS", "IDENTITY", "rocksdict-config")


def salvage(path: Path, options: Options) -> None:
    """Put a new database in the place of a damaged one.

    Args:
        path: The damaged database's directory; it is renamed.
        options: How databases are opened here; changed by this function.

    Raises:
        BlockingIOError: A worker has it open.
        OSError: The disk is full, for example; the damaged database is where it was.
    """
    copy, repaired, building, new = _leftovers(path)
    with _lock(path):
        clean(path)
        log.error("the table's files are damaged; all that can be read of them is copied, which may take a while")
        try:
            _copy(path, copy)
            _copy(path, repaired)
            _rebuild(copy, repaired, building, options)
            building.rename(new)
        except BaseException:
            clean(path)
            raise
        aside = _free_name(path.with_name(f"{SET_ASIDE}{time.strftime('%Y%m%d-%H%M%S')}"))
        path.rename(aside)
        new.rename(path)
        _sync_directory(path.parent)
        clean(path)
    log.error("the damaged files are kept in %s; nothing reads them again: copy or delete them", aside)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock that RocksDB takes: nothing of the database is open meanwhile."""
    descriptor = open_own(path / "LOCK", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def no_room(path: Path) -> DataDirectoryError:
    """Make the error for a disk that is too full for the copy."""
    files = (file.stat().st_size for suffix in ("*.sst", "*.blob", "*.log") for file in path.glob(suffix))
    wanted, free = sum(files), free_bytes(path.parent)
    return DataDirectoryError(
        f"DB_PERSIST_PATH {path.parent} has damaged files, and no room for a copy of what can be read of them: that "
        f"takes up to {math.ceil(wanted / MEGABYTE)} MB, and {free // MEGABYTE} MB are free. Nothing in it was "
        "changed: enlarge the disk, or free some space, as in damaged-* of earlier repairs, and start again"
    )


def _leftovers(path: Path) -> list[Path]:
    return [path.with_name(name) for name in SALVAGES]


def clean(path: Path) -> None:
    """Remove what a salvage that was killed has left; its caller has the database open, or its lock."""
    for directory in _leftovers(path):
        shutil.rmtree(directory, ignore_errors=True)


def _free_name(path: Path) -> Path:
    """Return the name, or one like it that nothing has."""
    names = (path if not number else path.with_name(f"{path.name}-{number}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def finish(path: Path) -> bool:
    """End a salvage that was interrupted between its two renames; return whether there was one."""
    new = _leftovers(path)[-1]
    if path.exists() or not new.exists():
        return False
    new.rename(path)
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a database; its tables, which RocksDB never changes, by a second name where the file system has that."""
    target.mkdir(mode=0o700)
    for file in source.iterdir():
        if file.is_symlink() or not file.is_file() or file.name.startswith(NOT_COPIED):
            continue
        if file.suffix in {".sst", ".blob"}:
            with contextlib.suppress(OSError):
                os.link(file, target / file.name)
                continue
        try:
            shutil.copyfile(file, target / file.name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            _copy_around(file, target / file.name)


def _copy_around(source: Path, target: Path) -> None:
    """Copy a file of which the disk cannot read some parts; there are zeros in their place."""
    log.warning("the disk cannot read all of %s", source)
    with source.open("rb", buffering=0) as old, target.open("wb") as new:
        size_bytes = os.fstat(old.fileno()).st_size
        for position in range(0, size_bytes, SECTOR_BYTES):
            try:
                part = os.pread(old.fileno(), SECTOR_BYTES, position)
            except OSError:
                part = bytes(SECTOR_BYTES)
            new.write(part)
        new.truncate(size_bytes)


def _rebuild(copy: Path, repaired: Path, new: Path, options: Options) -> None:
    """Fill a new database from copies of the damaged one; nothing is left open, so that files that go give space."""
    target = Rdict(str(new), options)
    options.set_wal_recovery_mode(DBRecoveryMode.skip_any_corrupted_record())
    options.set_paranoid_checks(False)
    sources = _Sources(copy, repaired, options)
    try:
        _fill(target, sources)
    except BaseException:
        with contextlib.suppress(Exception):  # what it failed for is known
            target.close()
        raise
    finally:
        sources.close()
    target.close()


def _fill(target: Rdict, sources: _Sources) -> None:
    """Write everything readable into a database, and note in it what kind of damage there was."""
    batch = WriteBatch(raw_mode=True)
    progress = Progress(lambda entries: log.warning("%d entries of the table are copied so far", entries))
    for entries, (key, value) in enumerate(sources.entries()):
        progress.reached(entries)
        if key == layout.SALVAGED:  # of a salvage whose damage was not put right yet
            sources.note_reach(int(layout.unpack_single(key, value)))
            continue
        batch.put(key, value)
        if batch.size_in_bytes() >= BATCH_BYTES:
            target.write(batch)
            batch = WriteBatch(raw_mode=True)
    batch.put(layout.SALVAGED, layout.pack(sources.reach))
    target.write(batch)
    target.flush()


class _Sources:
    """What a damaged database can be read from.

    Attributes:
        reach: What could not be read: 0: nothing but what the log held, so missing writes leave a gap; otherwise
            `layout.IN_TABLES`, or `layout.IN_ACCOUNTS` where that may be the accounts as well.
    """

    def __init__(self, copy: Path, repaired: Path, options: Options) -> None:
        self.reach = 0
        self._copy = copy
        self._repaired = repaired
        self._options = options
        self._opened: dict[Path, Rdict | None] = {}
        self._large_values: LargeValues | None = None

    def note_reach(self, reach: int) -> None:
        """Take note of what an earlier salvage could not read."""
        self.reach = max(self.reach, reach)

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over everything readable, in order."""
        source = self._open(self._copy)
        for found in [Hole(b"", None)] if source is None else readable(source):
            if isinstance(found, Hole):
                self.reach = max(self.reach, layout.IN_TABLES, _hides_accounts(found) and layout.IN_ACCOUNTS)
                yield from self._fill(found)
            else:
                yield found

    def _fill(self, hole: Hole) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over what there is elsewhere of what the one copy cannot read: in the other, and in files."""
        if self._repaired not in self._opened:
            self._repair()
        source = self._open(self._repaired)
        for found in [hole] if source is None else between(source, hole):
            if isinstance(found, Hole):
                self._large_values = self._large_values or LargeValues(self._copy)
                yield from self._large_values.within(found, source)
            else:
                yield found

    def _repair(self) -> None:
        log.warning("RocksDB repairs a copy, for what cannot be read otherwise")
        try:
            Rdict.repair(str(self._repaired), self._options)
        except Exception as error:  # noqa: BLE001, rocksdict raises nothing more special
            log.warning("RocksDB cannot repair the copy: %s", error)

    def _open(self, path: Path) -> Rdict | None:
        """Open a copy for reading, once; None if that is not possible."""
        if path not in self._opened:
            try:
                self._opened[path] = Rdict(str(path), self._options, access_type=AccessType.read_only(False))
            except Exception as error:  # noqa: BLE001, rocksdict raises nothing more special
                log.warning("the copy %s cannot be opened: %s", path.name, error)
                self._opened[path] = None
        return self._opened[path]

    def close(self) -> None:
        """Close what was opened; whether that succeeds does not matter."""
        for database in self._opened.values():
            with contextlib.suppress(Exception):
                if database is not None:
                    database.close()


def _hides_accounts(hole: Hole) -> bool:
    return hole.after < layout.after_prefix(layout.ACCOUNT) and (hole.before is None or hole.before > layout.ACCOUNT)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
