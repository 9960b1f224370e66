"""The store driver: RocksDB as a Faust store, with group commits.

A write goes to the log of RocksDB without waiting for the disk; `sync` waits for it, outside the interpreter lock and
off the event loop, for all writes so far. Without a directory the database lives in memory.

A *ballast* file beside the database is given up when the disk is (nearly) full at the start, so that RocksDB can open
and drain; it is made again when there is room.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from faust.stores.base import SerializedStore
from rocksdict import AccessType, Env, Options, Rdict, WriteBatch, WriteOptions

from app.errors import DataDirectoryError, StoreError
from tables import layout

log = logging.getLogger(__name__)

BALLAST_BYTES = 64 * 1024 * 1024
WRITE_BUFFER_BYTES = 16 * 1024 * 1024
LOG_LIMIT_BYTES = 64 * 1024 * 1024
# With less than this free, RocksDB may open and then fail at the first write or flush.
SCARCE_BYTES = 2 * WRITE_BUFFER_BYTES


def _options(env: Env | None) -> Options:
    """Tune RocksDB for a queue: appended at one end of each lane, deleted at the other, read in order."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_max_total_wal_size(LOG_LIMIT_BYTES)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1024 * 1024)
    options.set_max_background_jobs(2)
    # A burst is bounded by the byte limit; to slow writes down would block the event loop.
    options.set_level_zero_slowdown_writes_trigger(64)
    options.set_level_zero_stop_writes_trigger(256)
    if env is not None:
        options.set_env(env)
    return options


class Store(SerializedStore[bytes, bytes]):
    """The database of one table.

    Attributes:
        directory: Where it is; None in memory.
        durable: Whether it survives the process.
    """

    def __init__(self, *args: Any, directory: Path | None, **kwargs: Any) -> None:
        """Make a store that is not open."""
        self.directory = directory
        self.durable = directory is not None
        self._database: Rdict | None = None
        self._read_only = False
        self._executor: ThreadPoolExecutor | None = None
        self._env = None if self.durable else Env.mem_env()
        self._write_options = WriteOptions()
        super().__init__(*args, **kwargs)

    # ---- opening

    def open(self, *, read_only: bool = False) -> None:
        """Open the database.

        Args:
            read_only: Read beside a worker that has it open; sees what was written before, and changes nothing.

        Raises:
            DataDirectoryError: It is in use, its rights are wrong, the disk is full, or it is damaged.
        """
        self._read_only = read_only
        if self.directory is None:
            # Without a log, as a log in memory protects nothing.
            self._write_options.disable_wal = True
            self._database = Rdict("/memory", _options(self._env))
            return
        path = self.directory / "undelivered"
        previous_mask = os.umask(0o077)
        try:
            if read_only:
                self._database = self._open_database(path, AccessType.read_only(False))
                return
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            self._open_with_ballast(path)
            self._make_ballast()
        except OSError as error:
            raise DataDirectoryError(f"DB_PERSIST_PATH {self.directory} cannot be used: {error.strerror}") from error
        finally:
            os.umask(previous_mask)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="table-sync")

    def _open_with_ballast(self, path: Path) -> None:
        assert self.directory is not None
        if free_bytes(self.directory) < SCARCE_BYTES:
            self._give_up_ballast()
        try:
            self._database = self._open_database(path, AccessType.read_write())
        except DataDirectoryError as error:
            # A quota can be used up on a disk that has space.
            if "disk is full" not in str(error) or not self._give_up_ballast():
                raise
            self._database = self._open_database(path, AccessType.read_write())

    def _open_database(self, path: Path, access: AccessType) -> Rdict:
        if self._read_only and not (path / "CURRENT").exists():
            raise DataDirectoryError(f"DB_PERSIST_PATH {self.directory} holds no table yet")
        try:
            return Rdict(str(path), _options(None), access_type=access)
        except Exception as error:
            raise self._explain(error) from error

    def _give_up_ballast(self) -> bool:
        """Return whether there was a ballast file to give up."""
        if not self._ballast.exists():
            return False
        log.warning("the disk is full: the ballast file gives its space, so that the table can open and drain")
        self._ballast.unlink()
        return True

    def _explain(self, error: Exception) -> DataDirectoryError:
        text = str(error)
        if "lock hold by" in text or "Resource temporarily unavailable" in text:
            return DataDirectoryError(
                f"DB_PERSIST_PATH {self.directory} is in use by another worker; give each worker a directory of its own"
            )
        if "No space left" in text:
            return DataDirectoryError(f"DB_PERSIST_PATH {self.directory}: the disk is full; free some space")
        if "Permission denied" in text:
            return DataDirectoryError(f"DB_PERSIST_PATH {self.directory}: permission denied")
        return DataDirectoryError(
            f"DB_PERSIST_PATH {self.directory} cannot be opened: {text}. Nothing in it was changed: copy it, then "
            "start with an empty directory"
        )

    @property
    def _ballast(self) -> Path:
        assert self.directory is not None
        return self.directory / "ballast"

    @property
    def _has_ballast(self) -> bool:
        return self._ballast.exists() and self._ballast.stat().st_size >= BALLAST_BYTES

    def _make_ballast(self) -> None:
        """Reserve space, as long as it is a small part of what is free."""
        assert self.directory is not None
        if self._has_ballast or free_bytes(self.directory) < 4 * BALLAST_BYTES:
            return
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)

    def close(self) -> None:
        """Close the database; it can be opened again."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
        if self._database is not None:
            database, self._database = self._database, None
            if self.durable:  # in memory it has no log to sync, and its close says so
                database.close()

    async def on_stop(self) -> None:
        """Close with the service."""
        self.close()

    # ---- using

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
            raise StoreError(f"the table cannot be written: {error}") from error

    def sync_now(self) -> None:
        """Wait until all writes so far are on disk (blocks).

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        if self.durable and not self._read_only:
            try:
                self.database.flush_wal(True)
            except Exception as error:
                raise StoreError(f"the table cannot be synced: {error}") from error

    async def sync(self) -> None:
        """Wait until all writes so far are on disk; one at a time, as the caller sees to.

        Raises:
            StoreError: What was written since the last sync may be lost.
        """
        if self._executor is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self.sync_now)

    def entries(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values from the first key on, in order; as they are now."""
        return self.database.items(from_key=first)

    def with_prefix(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the keys that begin with a prefix, and their values."""
        for key, value in self.entries(prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    # ---- the mapping that Faust knows: undelivered messages by key

    def _encode_key(self, key: bytes) -> bytes:
        return key

    def _decode_key(self, key: bytes | None) -> bytes:
        return key or b""

    def _encode_value(self, value: Any) -> bytes | None:
        return layout.pack_entry(value)

    def _decode_value(self, value: Any) -> Any:
        return value

    def _get(self, key: bytes) -> Any:
        value = self.database.get(key) if key.startswith(layout.UNDELIVERED) else None
        return None if value is None else layout.unpack_entry(key, value)

    def _set(self, key: bytes, value: bytes | None) -> None:
        raise NotImplementedError("the keeper is the only writer")

    def _del(self, key: bytes) -> None:
        raise NotImplementedError("the keeper is the only writer")

    def _clear(self) -> None:
        raise NotImplementedError("the keeper is the only writer")

    def _iterkeys(self) -> Iterator[bytes]:
        for key, _ in self.with_prefix(layout.UNDELIVERED):
            yield key

    def _itervalues(self) -> Iterator[Any]:
        for _, message in self._iteritems():
            yield message

    def _iteritems(self) -> Iterator[Any]:
        for key, value in self.with_prefix(layout.UNDELIVERED):
            yield key, layout.unpack_entry(key, value)

    def _size(self) -> int:
        return self.table.total_messages  # type: ignore[attr-defined]  # ours, not Faust's

    def _contains(self, key: bytes) -> bool:
        return key.startswith(layout.UNDELIVERED) and key in self.database

    async def backup_partition(self, *_args: Any, **_options: Any) -> None:
        """Faust's backups are per Kafka partition; copy the directory of a stopped worker instead."""
        raise NotImplementedError("copy the directory of a stopped worker")

    def restore_backup(self, *_args: Any, **_options: Any) -> None:
        """See `backup_partition`."""
        raise NotImplementedError("copy the directory of a stopped worker")

    def reset_state(self) -> None:
        """Faust resets stores after a rebalance; there is none."""


def free_bytes(directory: Path) -> int:
    """Return the free space of a directory's file system."""
    statistics = os.statvfs(directory)
    return statistics.f_bavail * statistics.f_frsize
