"""Salvage: a new database from all that can be read of a damaged one, which is set aside and never deleted.

It works on a copy: RocksDB changes what it opens. The copy is opened without regard to damaged log records, or repaired
by RocksDB where its own bookkeeping is damaged; everything readable goes into the new database, around the blocks that
are not. Only then do the two change places, so a salvage that is interrupted begins again.

What was lost is found afterwards, by `tables.damage`.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rocksdict import DBRecoveryMode, Options, Rdict, WriteBatch

log = logging.getLogger(__name__)

BATCH_ENTRIES = 1000
# A damaged block hides this many keys at most, if they follow each other; beyond, steps double.
NEAR_KEYS = 4096


class Salvaged(NamedTuple):
    """What a salvage found.

    Attributes:
        aside: Where the damaged database is now.
        in_tables: Blocks of table files could not be read, not only records of the log.
    """

    aside: Path
    in_tables: bool


def salvage(path: Path, options: Options) -> Salvaged:
    """Put a new database in the place of a damaged one.

    Args:
        path: The damaged database's directory; it is renamed.
        options: How databases are opened here; changed by this function.

    Raises:
        OSError: The disk is full, for example; the damaged database is where it was.
    """
    copy, new = path.with_name("salvage-copy"), path.with_name("salvage-new")
    for leftover in (copy, new):
        shutil.rmtree(leftover, ignore_errors=True)
    log.error("the table's files are damaged; all that can be read of them is copied, which may take a while")
    _copy(path, copy)
    in_tables = _rebuild(copy, new, options)
    aside = _free_name(path.with_name(f"damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    path.rename(aside)
    new.rename(path)
    _sync_directory(path.parent)
    shutil.rmtree(copy)
    log.error("the damaged files are kept in %s; nothing reads them again", aside)
    return Salvaged(aside, in_tables)


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
    """Copy a database; its tables, which RocksDB never changes, by a second name."""
    target.mkdir(mode=0o700)
    for file in source.iterdir():
        if file.suffix == ".sst":
            os.link(file, target / file.name)
        elif file.is_file():
            shutil.copy2(file, target / file.name)


def _rebuild(copy: Path, new: Path, options: Options) -> bool:
    """Fill a new database from a copy of the damaged one; return whether more than the log was damaged."""
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
    for key, value in _readable(source):
        if value is None:
            in_tables = True
            continue
        batch.put(key, value)
        if batch.len() >= BATCH_ENTRIES:
            target.write(batch)
            batch = WriteBatch(raw_mode=True)
    target.write(batch)
    target.flush()
    target.close()
    source.close()
    return in_tables


def _readable(source: Rdict) -> Iterator[tuple[bytes, bytes | None]]:
    """Iterate over all entries that can be read; a value of None stands for a place that cannot."""
    iterator = source.iter()
    iterator.seek_to_first()
    last = b"\0"
    while True:
        while iterator.valid():
            last = iterator.key()
            yield last, iterator.value()
            iterator.next()
        if _is_sound(iterator):
            return
        yield last, None
        following = _next_readable(iterator, last)
        if following is None:
            return
        iterator.seek(following)


def _next_readable(iterator: object, last: bytes) -> bytes | None:
    """Find where reading goes on after a damaged block; None: nothing more is readable."""
    number, length = int.from_bytes(last, "big"), len(last)
    for step in range(1, NEAR_KEYS):
        found = _look(iterator, number + step, length)
        if found is not None:
            return found or None
    damaged, step = number + NEAR_KEYS - 1, NEAR_KEYS
    while (found := _look(iterator, number + step, length)) is None:
        damaged, step = number + step, 2 * step
    sound = number + step
    while sound - damaged > 1:  # between the two is the end of the block
        middle = (damaged + sound) // 2
        between = _look(iterator, middle, length)
        if between is None:
            damaged = middle
        else:
            sound, found = middle, between
    return found or None


def _look(iterator: object, number: int, length: int) -> bytes | None:
    """Seek a key, given as a number; return the key found there, empty at the end, None in a damaged block."""
    if number >= 1 << 8 * length:
        return b""
    iterator.seek(number.to_bytes(length, "big"))  # type: ignore[attr-defined]
    if not _is_sound(iterator):
        return None
    return bytes(iterator.key()) if iterator.valid() else b""  # type: ignore[attr-defined]


def _is_sound(iterator: object) -> bool:
    """Tell whether an iterator stands where it is because of its seek, not because of damage."""
    try:
        iterator.status()  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001, rocksdict raises nothing more special
        return False
    return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
