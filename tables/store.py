"""The store driver: RocksDB as a Faust store, with group commits.

A write goes to the log of RocksDB without waiting for the disk; `sync` waits for it, outside the interpreter lock and
off the event loop, for all writes so far. Without a directory the database lives in memory.

What happens on a full disk is in `tables.ballast`, what happens to damaged files in `tables.salvage`.
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
from rocksdict import AccessType, DBRecoveryMode, Env, Options, Rdict, WriteBatch, WriteOptions

from app.errors import DamagedError, DataDirectoryError, StoreError
from app.hardening import check_directory
from tables import layout, salvage
from tables.ballast import Ballast
from tables.salvage import Salvaged

log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES = 16 * 1024 * 1024
LOG_LIMIT_BYTES = 64 * 1024 * 1024
# Files are put together seldom; even 50 times a second, about every second try is undisturbed.
READER_TRIES = 50


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
    # Damage that is no torn end is refused, and dealt with by `tables.salvage`: RocksDB would leave out what follows.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
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
        salvaged: What was found when a damaged database was set aside; None if it was sound.
        ballast: The reserve on the disk; None in memory, and before it is open.
    """

    def __init__(self, *args: Any, directory: Path | None, **kwargs: Any) -> None:
        """Make a store that is not open."""
        self.directory = directory
        self.durable = directory is not None
        self._database: Rdict | None = None
        self.salvaged: Salvaged | None = None
        self.ballast: Ballast | None = None
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
            DataDirectoryError: It is in use, its rights are wrong, or the disk is full.
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
                self._database = self._open_beside(path)
                return
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            check_directory(self.directory, path)
            self.ballast = Ballast(self.directory)
            self._open_sound(path)
            self.ballast.make()
        except OSError as error:
            raise DataDirectoryError(f"DB_PERSIST_PATH {self.directory} cannot be used: {error.strerror}") from error
        finally:
            os.umask(previous_mask)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="table-sync")

    def _open_sound(self, path: Path) -> None:
        """Open the database; one that is damaged is salvaged first."""
        salvage.finish(path)
        try:
            database = self._open_with_ballast(path)
        except DamagedError as error:
            log.error("%s", error)  # noqa: TRY400, the traceback says nothing more
        else:
            if not self._damage_mark.exists():
                self._database = database
                return
            database.close()
        try:
            self.salvaged = salvage.salvage(path, _options(None))
        except OSError:
            raise
        except Exception as error:
            raise self._explain(error) from error
        self._damage_mark.unlink(missing_ok=True)
        self._database = self._open_database(path, AccessType.read_write())

    def _open_with_ballast(self, path: Path) -> Rdict:
        assert self.ballast is not None
        if self.ballast.is_scarce:
            self.ballast.give_up()
        try:
            return self._open_database(path, AccessType.read_write())
        except DataDirectoryError as error:
            # A quota can be used up on a disk that has space.
            if "disk is full" not in str(error) or not self.ballast.give_up():
                raise
            return self._open_database(path, AccessType.read_write())

    def _open_database(self, path: Path, access: AccessType) -> Rdict:
        if self._read_only and not (path / "CURRENT").exists():
            raise DataDirectoryError(f"DB_PERSIST_PATH {self.directory} holds no table yet")
        if not (path / "CURRENT").exists() and any(path.glob("*.sst")):
            raise DamagedError(f"DB_PERSIST_PATH {self.directory} is damaged: {path / 'CURRENT'} is missing")
        try:
            return Rdict(str(path), _options(None), access_type=access)
        except Exception as error:
            raise self._explain(error) from error

    def _open_beside(self, path: Path) -> Rdict:
        """Open for reading; again if the worker put files together meanwhile, as their contents may be missing then."""
        for _ in range(READER_TRIES):
            names, found = _file_names(path), self._try_to_open(path)
            if names == _file_names(path):
                if isinstance(found, DataDirectoryError):
                    raise found
                return found
        raise DataDirectoryError(f"DB_PERSIST_PATH {self.directory} changes faster than it can be read; try again")

    def _try_to_open(self, path: Path) -> Rdict | DataDirectoryError:
        try:
            return self._open_database(path, AccessType.read_only(False))
        except DataDirectoryError as error:
            return error

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
        if _is_damage(text):
            return DamagedError(f"DB_PERSIST_PATH {self.directory} is damaged: {text}")
        return DataDirectoryError(
            f"DB_PERSIST_PATH {self.directory} cannot be opened: {text}. Nothing in it was changed: copy it, then "
            "start with an empty directory"
        )

    @property
    def _damage_mark(self) -> Path:
        """A file that asks the next start for a salvage, as damage within a table file shows only when it is read."""
        assert self.directory is not None
        return self.directory / "damage-found"

    def _error(self, what: str, error: Exception) -> StoreError:
        """Make the error that ends the worker; the next start deals with damage."""
        if self.durable and not self._read_only and _is_damage(str(error)):
            self._damage_mark.touch()
            return StoreError(f"{what}: {error}. The next start sets the damaged files aside")
        return StoreError(f"{what}: {error}")

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
        try:
            iterator.status()
        except Exception as error:
            raise self._error("the table cannot be read", error) from error

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
        value = self.value(key) if key.startswith(layout.UNDELIVERED) else None
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


def _is_damage(text: str) -> bool:
    """Tell whether RocksDB complains of what is in its files, or of one of them missing."""
    return "Corruption" in text or "No such file" in text


def _file_names(path: Path) -> set[str]:
    """Return the names of the files with entries, and of the list of them."""
    return {file.name for pattern in ("*.sst", "*.log", "MANIFEST-*") for file in path.glob(pattern)}
