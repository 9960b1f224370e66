"""The store driver: RocksDB as a Faust store, with group commits.

A write goes to the log of RocksDB without waiting for the disk; `sync` waits for it, outside the interpreter lock and
off the event loop, for all writes so far. Without a directory the database lives in memory.

How it is opened, on a full disk and with damaged files too, is in `tables.engine.opening`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import tempfile
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rocksdict import Env, Rdict, RdictIter, WriteBatch, WriteOptions

from app.errors import StoreError
from app.open_files import NO_FILE_LEFT, file_limit_advice
from tables.engine.faust_mapping import FaustMapping
from tables.engine.opening import Opener, is_damage, options
from tables.engine.seeker import Seeker

log = logging.getLogger(__name__)


MOST_UNFLUSHED_BUFFERS = 1  # of four (tables.engine.opening): with three, a write waits for 60 to 280 ms


class Store(FaustMapping):
    """The database of one table.

    Attributes:
        directory: Where it is; None in memory.
        durable: Whether it survives the process.
        found_damage: Damage was met since it was opened; the next opening salvages what is readable.
    """

    def __init__(self, *args: Any, directory: Path | None, **kwargs: Any) -> None:
        """Make a store that is not open."""
        self.directory = directory
        self.durable = directory is not None
        self.found_damage = False
        self._opener = None if directory is None else Opener(directory)
        self._database: Rdict | None = None
        self._read_only = False
        self._executor: ThreadPoolExecutor | None = None
        self._env = None if self.durable else Env.mem_env()
        self._beside: tempfile.TemporaryDirectory[str] | None = None
        self._write_options = WriteOptions()
        super().__init__(*args, **kwargs)

    # ---- opening

    def open(self, *, read_only: bool = False) -> None:
        """Open the database.

        Args:
            read_only: Read beside a worker that has it open; sees what was written before, and changes nothing.

        Raises:
            DataDirectoryError: It is in use, its rights are wrong, or the disk is full.
        """
        self._read_only = read_only
        self.found_damage = False
        if self._opener is None:
            # Without a log, as a log in memory protects nothing.
            self._write_options.disable_wal = True
            # rocksdict writes a file of its own beside the database, in memory or not.
            self._beside = tempfile.TemporaryDirectory(prefix="connector-memory-")
            self._database = Rdict(self._beside.name, options(self._env))
        elif read_only:
            self._database = self._opener.open_beside()
        else:
            self._database = self._opener.open()
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="table-sync")

    def note_format(self) -> None:
        """Note the format's version where the next start looks before it opens anything."""
        if self._opener is not None:
            self._opener.note_format()

    def use_reserve(self) -> None:
        """Give up the ballast."""
        if self._opener is not None:
            self._opener.ballast.give_up()

    def check_disk_full(self) -> bool:
        """Tell whether the disk has hardly any room left; gives the ballast up when it has none."""
        return self._opener is not None and self._opener.ballast.check_scarce()

    @property
    def disk_free_bytes(self) -> float:
        """What its disk had free when `check_disk_full` looked last; not a number in memory."""
        return math.nan if self._opener is None else self._opener.ballast.free_bytes

    def _error(self, what: str, error: Exception) -> StoreError:
        """Make the error that ends the worker; the next start deals with damage."""
        if self._opener is not None and not self._read_only and is_damage(str(error)):
            self._opener.note_damage()
            self.found_damage = True
            return StoreError(f"{what}: {error}. The next start sets the damaged files aside")
        if NO_FILE_LEFT in str(error):
            return StoreError(f"{what}: {error}. Nothing that was acknowledged is lost: {file_limit_advice()}")
        return StoreError(f"{what}: {error}")

    def missing(self, key: bytes) -> StoreError:
        """Make the error for a value that should be there, and is not: damage of a kind that RocksDB does not see."""
        return self._error("the table cannot be read", StoreError(f"Corruption: {key.hex()} is missing"))

    def close(self) -> None:
        """Close the database; it can be opened again.

        What was synced is safe whatever RocksDB says of its close: an error there is for the log, and the next start.
        """
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
        if self._database is not None:
            database, self._database = self._database, None
            if self.durable:  # in memory it has no log to sync, and its close says so
                try:
                    database.close()
                except Exception as error:  # noqa: BLE001, rocksdict raises nothing more special
                    log.error("%s", self._error("the table cannot be closed in order", error))  # noqa: TRY400
            del database
        if self._beside is not None:
            self._beside.cleanup()
            self._beside = None

    async def on_stop(self) -> None:
        """Close with the service."""
        self.close()

    # ---- using

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._database is not None

    @property
    def database(self) -> Rdict:
        """The open database."""
        if self._database is None:
            raise StoreError("the table is not open")
        return self._database

    def write(self, batch: WriteBatch) -> None:
        """Write a batch, all of it or nothing; not synced.

        Raises:
            StoreError: Whether it is written is unknown.
        """
        try:
            self.database.write(batch, self._write_options)
        except StoreError:
            raise
        except Exception as error:
            raise self._error("the table cannot be written", error) from error

    def sync_now(self) -> None:
        """Wait until all writes so far are on disk (blocks).

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        if self.durable and not self._read_only:
            try:
                self.database.flush_wal(True)
            except Exception as error:
                raise self._error("the table cannot be synced", error) from error

    async def sync(self) -> None:
        """Wait until all writes so far are on disk; one at a time, as the caller sees to.

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        if self._executor is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self.sync_now)

    async def flush(self) -> None:
        """Write what is in memory to table files, so that RocksDB can remove what was deleted; a sync waits for it.

        Raises:
            StoreError: It cannot be written.
        """
        if self._executor is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._flush_now)
        elif self.is_open:
            self._flush_now()

    def _flush_now(self) -> None:
        try:
            self.database.flush()
        except Exception as error:
            raise self._error("the table cannot be written", error) from error

    @property
    def is_flushing(self) -> bool:
        """Whether RocksDB is so far behind with its files that a write may soon have to wait for it."""
        unflushed = self.database.property_int_value("rocksdb.num-immutable-mem-table")
        return int(unflushed or 0) > MOST_UNFLUSHED_BUFFERS

    @property
    def file_bytes(self) -> int:
        """What its table files take, with those of large values."""
        names = ("rocksdb.total-sst-files-size", "rocksdb.total-blob-file-size")
        return sum(int(self.database.property_int_value(name) or 0) for name in names)

    def value(self, key: bytes) -> bytes | None:
        """Return the value of any key.

        Raises:
            StoreError: It cannot be read.
        """
        try:
            found: bytes | None = self.database.get(key)
        except StoreError:
            raise
        except Exception as error:
            raise self._error("the table cannot be read", error) from error
        return found

    def entries(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values from the first key on, in order; as they are now.

        Raises:
            StoreError: They cannot be read; not before the damaged place is reached.
        """
        last = first
        for key, value in self.database.items(from_key=first):
            last = key
            yield key, value
        self._check_end(last)

    def _check_end(self, last: bytes) -> None:
        """See that nothing follows the last entry: the iteration ends in silence where a block cannot be read."""
        iterator = self.database.iter()
        iterator.seek(last)
        if iterator.valid():
            iterator.next()
        self._check_readable(iterator)

    def _check_readable(self, iterator: RdictIter) -> None:
        """See that an iterator is at its end because nothing follows, and not because a block cannot be read."""
        try:
            iterator.status()
        except Exception as error:
            raise self._error("the table cannot be read", error) from error

    def entries_of_now(self, prefix: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        """Iterate over keys and values with a prefix as they are when the first is asked for, whatever is written then.

        Raises:
            StoreError: They cannot be read; the end of the iteration is the end of them.
        """
        iterator = self.database.snapshot().iter()
        iterator.seek(prefix)
        while iterator.valid() and iterator.key().startswith(prefix):
            yield iterator.key(), iterator.value()
            iterator.next()
        self._check_readable(iterator)

    def seeker(self) -> Seeker:
        """Return what looks for single entries, as they are now."""
        return Seeker(self.database.iter(), self._check_readable)

    def with_prefix(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the keys that begin with a prefix, and their values."""
        for key, value in self.entries(prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def ranges_without(self, kept: Iterable[bytes], first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the ranges, from one key up to another, that have all entries but the kept ones.

        There are few ranges where the kept ones lie side by side. One that cannot be read counts as one with entries.
        """
        iterator = self.database.iter()
        for key in [*sorted(kept), end]:
            iterator.seek(first)
            if not iterator.valid() or iterator.key() < key:
                yield first, key
            first = key + b"\0"
