"""Salvage: a new database from all that can be read of a damaged one, which is set aside and never deleted.

It works on a copy: RocksDB changes what it opens. The copy is opened without regard to damaged log records, or repaired
by RocksDB where its own bookkeeping is damaged; everything readable goes into the new database, around the blocks that
are not. Only then do the two change places, so a salvage that is interrupted begins again.

It needs as much space again as the table takes. What was lost is found afterwards, by `tables.damage`, for which the
new database has a note that it is one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rocksdict import DBRecoveryMode, Options, Rdict, RdictIter, WriteBatch

from app.throttle import Progress
from tables import layout

log = logging.getLogger(__name__)

BATCH_BYTES = 4 * 1024 * 1024
# A damaged block hides this many keys at most, if they follow each other; beyond, steps double.
NEAR_KEYS = 4096


def salvage(path: Path, options: Options) -> None:
    """Put a new database in the place of a damaged one.

    Args:
        path: The damaged database's directory; it is renamed.
        options: How databases are opened here; changed by this function.

    Raises:
        OSError: The disk is full, for example; the damaged database is where it was.
    """
    copy, building, new = (path.with_name(f"salvage-{name}") for name in ("copy", "building", "new"))
    leftovers = (copy, building, new)
    _remove(leftovers)
    log.error("the table's files are damaged; all that can be read of them is copied, which may take a while")
    try:
        _copy(path, copy)
        _rebuild(copy, building, options)
        building.rename(new)
    except BaseException:
        _remove(leftovers)
        raise
    aside = _free_name(path.with_name(f"damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    path.rename(aside)
    new.rename(path)
    _sync_directory(path.parent)
    _remove(leftovers)
    log.error("the damaged files are kept in %s; nothing reads them again", aside)


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _free_name(path: Path) -> Path:
    """Return the name, or one like it that nothing has."""
    names = (path if not number else path.with_name(f"{path.name}-{number}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def finish(path: Path) -> None:
    """End a salvage that was interrupted between its two renames."""
    new = path.with_name("salvage-new")
    if new.exists() and not path.exists():
        new.rename(path)


def _copy(source: Path, target: Path) -> None:
    """Copy a database; its tables, which RocksDB never changes, by a second name where the file system has that."""
    target.mkdir(mode=0o700)
    for file in source.iterdir():
        if not file.is_file():
            continue
        if file.suffix == ".sst":
            with contextlib.suppress(OSError):
                os.link(file, target / file.name)
                continue
        shutil.copy2(file, target / file.name)


def _rebuild(copy: Path, new: Path, options: Options) -> None:
    """Fill a new database from a copy of the damaged one, and note in it what kind of damage that was."""
    target = Rdict(str(new), options)
    options.set_wal_recovery_mode(DBRecoveryMode.skip_any_corrupted_record())
    options.set_paranoid_checks(False)
    in_tables = False
    try:
        source = Rdict(str(copy), options)
    except Exception as error:  # noqa: BLE001, rocksdict raises nothing more special
        log.warning("RocksDB repairs the copy: %s", error)
        in_tables = True
        Rdict.repair(str(copy), options)
        source = Rdict(str(copy), options)
    batch = WriteBatch(raw_mode=True)
    progress = Progress(lambda entries: log.warning("%d entries of the table are copied so far", entries))
    for entries, (key, value) in enumerate(_readable(source)):
        progress.reached(entries)
        if value is None:
            in_tables = True
            continue
        batch.put(key, value)
        if batch.size_in_bytes() >= BATCH_BYTES:
            target.write(batch)
            batch = WriteBatch(raw_mode=True)
    batch.put(layout.SALVAGED, layout.pack(in_tables))
    target.write(batch)
    target.flush()
    target.close()
    source.close()


def _readable(source: Rdict) -> Iterator[tuple[bytes, bytes | None]]:
    """Iterate over all entries that can be read; a value of None stands for a place that cannot."""
    first: bytes | None = b"\0"
    while first is not None:
        last = first
        iterator = source.iter()  # a new one: one that has met damage does not get over it
        iterator.seek(first)
        while iterator.valid():
            last = iterator.key()
            yield last, iterator.value()
            iterator.next()
        if _is_sound(iterator):
            return
        yield last, None
        first = _next_readable(source, last)


def _next_readable(source: Rdict, last: bytes) -> bytes | None:
    """Find where reading goes on after a damaged block; None: nothing more is readable.

    Keys are taken for numbers. Those that follow each other are tried one by one, at the length of the last one. Then
    steps double, and the end of the block is found between the last two, at the length of the longest key there is.
    """
    for step in range(1, NEAR_KEYS):
        number = int.from_bytes(last, "big") + step
        found = _look(source, number.to_bytes(len(last) + 1, "big")[1:])
        if found is not None:
            return found or None
    length = max(layout.LONGEST_KEY_BYTES, len(last))
    damaged = int.from_bytes(last.ljust(length, b"\0"), "big")
    step = 1
    while (found := _look_at_number(source, damaged + step, length)) is None:
        damaged, step = damaged + step, 2 * step
    sound = damaged + step
    while sound - damaged > 1:  # between the two is the end of the block
        middle = (damaged + sound) // 2
        between = _look_at_number(source, middle, length)
        if between is None:
            damaged = middle
        else:
            sound, found = middle, between
    return found or None


def _look_at_number(source: Rdict, number: int, length: int) -> bytes | None:
    return b"" if number >= 1 << 8 * length else _look(source, number.to_bytes(length, "big"))


def _look(source: Rdict, key: bytes) -> bytes | None:
    """Seek a key; return the one found there, empty at the end, None in a damaged block."""
    iterator = source.iter()
    iterator.seek(key)
    if not _is_sound(iterator):
        return None
    return bytes(iterator.key()) if iterator.valid() else b""


def _is_sound(iterator: RdictIter) -> bool:
    """Tell whether an iterator stands where it is because of its seek, not because of damage."""
    try:
        iterator.status()
    except Exception:  # noqa: BLE001, rocksdict raises nothing more special
        return False
    return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
