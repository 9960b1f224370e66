"""Opening the database: its options, what a failed attempt means, and what is done about it.

A full disk gets the ballast's space (tables.engine.ballast), damaged files are salvaged (tables.repair.salvage), and
whoever reads beside a worker tries again while that one puts files together.

The format's version is in the database, and in a file beside it that is read first: RocksDB changes what it opens, and
might take the files of a newer one for damaged.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from rocksdict import AccessType, BlockBasedIndexType, BlockBasedOptions, Cache, DBRecoveryMode, Env, Options, Rdict

from app.data_directory import DATABASE, DirectoryCheck, make_own, no_table, way_in
from app.errors import DamagedError, DataDirectoryError
from app.open_files import ENOUGH_FILES, NO_FILE_LEFT, file_limit, file_limit_advice
from app.own_files import open_own, read_own
from tables import layout
from tables.engine.ballast import Ballast
from tables.repair import salvage

log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES = 8 * 1024 * 1024
WRITE_BUFFERS = 4
TABLE_FILE_BYTES = 64 * 1024 * 1024
BLOCK_CACHE_BYTES = 4 * 1024 * 1024  # 32 MiB, RocksDB's own, made reading and removing a million messages no faster
INDEX_KEYS_PER_RESTART = 16  # keys that follow each other are alike: an index has what is different of them
LARGE_VALUE_BYTES = 256 * 1024
LOG_LIMIT_BYTES = 64 * 1024 * 1024
# A file with so many removals among entries that follow each other is put together with those that they remove: a lane
# is emptied from its beginning, and RocksDB by itself would keep all of it until something is written there again.
REMOVALS, REMOVALS_AMONG = 500, 1000
FEWEST_TABLE_FILES, MOST_TABLE_FILES = 20, 5000  # RocksDB takes no less; each costs its index in memory
# Files are put together seldom; even 50 times a second, about every second try is undisturbed.
READER_TRIES = 50
FORMAT_FILE_BYTES = 64


def options(env: Env | None = None) -> Options:
    """Tune RocksDB for a queue: appended at one end of each lane, deleted at the other, read in order."""
    tuned = Options(raw_mode=True)
    tuned.create_if_missing(True)
    tuned.set_write_buffer_size(WRITE_BUFFER_BYTES)
    tuned.set_max_write_buffer_number(WRITE_BUFFERS)
    tuned.set_max_total_wal_size(LOG_LIMIT_BYTES)
    tuned.set_keep_log_file_num(2)
    tuned.set_max_log_file_size(1024 * 1024)
    tuned.set_target_file_size_base(TABLE_FILE_BYTES)
    tuned.set_max_background_jobs(2)
    tuned.add_compact_on_deletion_collector_factory(REMOVALS_AMONG, REMOVALS, REMOVALS / REMOVALS_AMONG)
    files = table_files(file_limit())
    tuned.set_max_open_files(files)
    tuned.set_table_cache_num_shard_bits(0)  # of 64 shards each keeps one file at least, whatever the bound says
    # Damage that is no torn end is refused, and dealt with by tables.repair: RocksDB would leave out what follows.
    tuned.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    # A burst is bounded by the byte limit; to slow writes down would block the event loop. But each file of the first
    # level is open while it is read or put together with others, so where few may be open there must be few.
    tuned.set_level_zero_slowdown_writes_trigger(min(64, files // 3))
    tuned.set_level_zero_stop_writes_trigger(min(256, files // 2))
    # A large value in a file of its own kind: else whoever is anywhere in a table file has one of its values in memory,
    # and to read in ten files, or to put them together, takes ten.
    tuned.set_enable_blob_files(True)
    tuned.set_min_blob_size(LARGE_VALUE_BYTES)
    tuned.set_blob_file_size(TABLE_FILE_BYTES)
    # What stays is moved out of old files of which half has gone, or one large value would keep the space of many.
    tuned.set_enable_blob_gc(True)
    tuned.set_blob_gc_age_cutoff(0.25)
    tuned.set_blob_gc_force_threshold(0.5)
    tuned.set_block_based_table_factory(_blocks())
    if env is not None:
        tuned.set_env(env)
    return tuned


def _blocks() -> BlockBasedOptions:
    """Bound what RocksDB has in memory of table files, whatever their number.

    A queue is read once, so that more blocks would be of no use. Indexes are read in parts, and are among them: whole
    ones of all files would be in memory, 1.5 MB for a million messages.
    """
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_index_block_restart_interval(INDEX_KEYS_PER_RESTART)
    blocks.set_cache_index_and_filter_blocks(True)
    return blocks


def table_files(limit: int) -> int:
    """Return how many table files RocksDB may keep open, given the limit of open files of the process.

    A salvage has three databases open; logs, what is put together, Kafka, MQTT and the pages need the rest.
    """
    return min(MOST_TABLE_FILES, max(FEWEST_TABLE_FILES, limit // 4))


class Opener:
    """Opens the database of one data directory.

    Attributes:
        ballast: The reserve on the disk.
    """

    def __init__(self, directory: Path) -> None:
        """Name the places; nothing is made."""
        self.ballast = Ballast(directory)
        self._directory = directory
        self._path = directory / DATABASE

    def open(self) -> Rdict:
        """Open for a worker; what is missing is made.

        Raises:
            DataDirectoryError: It is in use or of a newer format, its rights are wrong, or the disk is full.
        """
        self._check_format()
        previous_mask = os.umask(0o077)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            DirectoryCheck(self._directory).check(tidy=True)
            if salvage.finish(self._path):
                self._damage_mark.unlink(missing_ok=True)
            make_own(self._path)
            database = self._open_sound()
            salvage.clean(self._path)
            self.ballast.make()
            if file_limit() < ENOUGH_FILES:
                log.warning("%s", file_limit_advice())
        except OSError as error:
            advice = f". Nothing in it is lost: {file_limit_advice()}" if error.errno == errno.EMFILE else ""
            if error.errno == errno.EACCES:
                advice = f"; {way_in(self._directory)}"
            text = f"DB_PERSIST_PATH {self._directory} cannot be used: {error.strerror}{advice}"
            raise DataDirectoryError(text) from error
        finally:
            os.umask(previous_mask)
        return database

    def open_beside(self) -> Rdict:
        """Open for reading beside a worker; again if that one put files together meanwhile.

        What was written before is seen, and nothing changed. Contents may be missing while files are put together.

        Raises:
            DataDirectoryError: There is no table, or it cannot be read.
        """
        self._check_format()
        DirectoryCheck(self._directory).check(tidy=False)
        if not (self._path / "CURRENT").exists():
            raise no_table(self._directory)
        for _ in range(READER_TRIES):
            names, found = self._file_names(), self._try_to_open()
            if names == self._file_names():
                if isinstance(found, DataDirectoryError):
                    raise found
                return found
        raise DataDirectoryError(f"DB_PERSIST_PATH {self._directory} changes faster than it can be read; try again")

    def note_format(self) -> None:
        """Write the version of the format beside the database; it is in there, too, so a failure does not matter."""
        with contextlib.suppress(OSError):
            descriptor = open_own(self._format_file, os.O_WRONLY | os.O_CREAT)
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, b"%d\n" % layout.FORMAT_VERSION)
            finally:
                os.close(descriptor)

    def _check_format(self) -> None:
        text = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = read_own(self._format_file, FORMAT_FILE_BYTES).decode("ascii").strip()
        if text.isdigit():
            refuse_newer(self._directory, int(text))

    @property
    def _format_file(self) -> Path:
        return self._directory / "format"

    def note_damage(self) -> None:
        """Ask the next start for a salvage, as damage within a table file shows only when it is read."""
        os.close(open_own(self._damage_mark, os.O_WRONLY | os.O_CREAT))

    @property
    def _damage_mark(self) -> Path:
        return self._directory / "damage-found"

    def _file_names(self) -> set[str]:
        """Return the names of the files with entries, and of the list of them."""
        return {file.name for pattern in ("*.sst", "*.log", "MANIFEST-*") for file in self._path.glob(pattern)}

    def _try_to_open(self) -> Rdict | DataDirectoryError:
        try:
            return self._open_database(AccessType.read_only(False))
        except DataDirectoryError as error:
            return error

    def _open_sound(self) -> Rdict:
        """Open the database; one that is damaged, or was found to be by an earlier worker, is salvaged first."""
        if not self._damage_mark.exists():
            try:
                return self._open_with_ballast()
            except DamagedError as error:
                log.error("%s", error)  # noqa: TRY400, the traceback says nothing more
        try:
            salvage.salvage(self._path, options())
        except BlockingIOError as error:
            raise self._in_use() from error
        except Exception as error:
            if is_full(error):
                raise salvage.no_room(self._path) from error
            if isinstance(error, OSError):
                raise
            raise self._explain(error) from error
        self._damage_mark.unlink(missing_ok=True)
        return self._open_database(AccessType.read_write())

    def _open_with_ballast(self) -> Rdict:
        if self.ballast.check_scarce():
            self.ballast.give_up()
        try:
            return self._open_database(AccessType.read_write())
        except DataDirectoryError as error:
            # A quota can be used up on a disk that has space.
            if "disk is full" not in str(error) or not self.ballast.give_up():
                raise
            return self._open_database(AccessType.read_write())

    def _open_database(self, access: AccessType) -> Rdict:
        if not (self._path / "CURRENT").exists() and any(self._path.glob("*.sst")):
            raise DamagedError(f"DB_PERSIST_PATH {self._directory} is damaged: {self._path / 'CURRENT'} is missing")
        try:
            return Rdict(str(self._path), options(), access_type=access)
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> DataDirectoryError:
        where, text = f"DB_PERSIST_PATH {self._directory}", str(error)
        if "lock hold by" in text or "Resource temporarily unavailable" in text:
            return self._in_use()
        if is_full(error):
            return DataDirectoryError(f"{where}: the disk is full; free some space")
        if NO_FILE_LEFT in text:
            return DataDirectoryError(f"{where} cannot be opened: {text}. Nothing in it is lost: {file_limit_advice()}")
        for denied in ("Permission denied", "Read-only file system"):
            if denied in text:
                advice = f"; {way_in(self._directory)}" if denied == "Permission denied" else ""
                return DataDirectoryError(f"{where}: {denied.lower()}{advice}")
        if not is_of_the_machine(text):
            return DamagedError(f"{where} is damaged: {text}")
        return DataDirectoryError(
            f"{where} cannot be opened: {text}. Nothing in it was changed: copy it, then start with an empty directory"
        )

    def _in_use(self) -> DataDirectoryError:
        return DataDirectoryError(
            f"DB_PERSIST_PATH {self._directory} is in use by another worker; give each worker a directory of its own"
        )


def refuse_newer(directory: Path | None, found: int) -> None:
    """See that this version can read a format.

    Raises:
        DataDirectoryError: It is a newer one.
    """
    if found > layout.FORMAT_VERSION:
        raise DataDirectoryError(
            f"DB_PERSIST_PATH {directory} was written by a newer Connector (format {found}, this one reads up to "
            f"{layout.FORMAT_VERSION}); nothing in it was changed: start that version"
        )


def is_damage(text: str) -> bool:
    """Tell whether RocksDB complains of what is in its files, or of one of them missing."""
    is_read_error = "Input/output error" in text and ("While pread" in text or "While read" in text)
    return "Corruption" in text or "No such file" in text or is_read_error


def is_full(error: Exception) -> bool:
    """Tell whether the disk, or what this user may have of it, is used up."""
    text = str(error)
    return "No space left" in text or "quota exceeded" in text


def is_of_the_machine(text: str) -> bool:
    """Tell whether RocksDB complains of what surrounds its files: then a salvage would be in vain."""
    if is_damage(text):
        return False
    return "IO error" in text or "No space left" in text or "quota exceeded" in text
