"""Damage of every kind in every kind of file, with compactions under way: no start fails twice for the same damage.

The real table without a worker, as in test_damage, whose tests say exactly what is lost where.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ConnectorError, DataDirectoryError, StoreError
from tables import layout
from tables.engine.opening import is_damage, is_of_the_machine
from tables.repair import salvage
from tests.support.stored_messages import Maker, append, contents, copy_of_open, make_table, opened, remove
from tests.unit.test_damage import flip
from tests.unit.test_table import REPOSITORY

FILES, LOTS_IN_FILE, LOT = 3, 10, 8


def several_files(directory: Path) -> list[bytes]:
    """Leave a database as a crash does, with overlapping table files and a log; return the payloads in order."""
    work = directory.with_name("work")
    payloads = []
    with opened(work) as table:
        make = Maker(table)
        for _ in range(FILES):
            for _ in range(LOTS_IN_FILE):
                lot = [make(payload=os.urandom(200)) for _ in range(LOT)]
                append(table, lot)
                table.sync_now()
                payloads += [message.payload for message in lot]
            table.data.database.flush()
        lot = [make(payload=os.urandom(200)) for _ in range(LOT)]
        append(table, lot)
        table.sync_now()
        copy_of_open(work, directory)
    return payloads + [message.payload for message in lot]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> tuple[Path, list[bytes]]:
    """A sound database, for copies, and what is in it."""
    directory = tmp_path_factory.mktemp("sound") / "data"
    return directory, several_files(directory)


def work_once(directory: Path) -> tuple[list[bytes], int, int]:
    """Do what a worker does, a compaction included; return what it found, how much it counted and how much is lost."""
    table = make_table(directory)
    try:
        table.open_to_write()
        found, counted, lost = contents(table, "alpha"), table.total_messages, table.lost_messages
        make = Maker(table)
        for compaction in (False, True):
            if compaction:
                table.data.database.compact_range(None, None)  # its error shows in the next write
            lot = make.many(5, topic="other", route="other")
            append(table, lot)
            table.sync_now()
            remove(table, lot)
    finally:
        table.close()
    return found, counted, lost


def work_until_it_goes_well(directory: Path) -> tuple[list[str], list[bytes], int, int]:
    """Start again as a supervisor does; return how starts failed, and what the first that went well found."""
    failures: list[str] = []
    while len(failures) < 4:
        try:
            return (failures, *work_once(directory))
        except ConnectorError as error:
            failures.append(f"{type(error).__name__}: {error}")
        gc.collect()
    pytest.fail(f"it never starts: {failures}")


def tables_of(database: Path) -> list[Path]:
    return sorted(database.glob("*.sst"))


def in_the(pattern: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a function that changes the last file of a database with such a name."""
    return lambda database: change(max(database.glob(pattern)))


def flip_at(share: float) -> Callable[[Path], None]:
    return lambda path: flip(path, min(path.stat().st_size - 1, int(path.stat().st_size * share)))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(max(50, path.stat().st_size)))


def all_of(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        for each in changes:
            each(database)

    return change


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first block of a table, with the accounts": in_the("*.sst", flip_at(0)),
    "block in the middle of a table": in_the("*.sst", flip_at(0.5)),
    "blocks of all tables": lambda database: [flip_at(0.3)(path) for path in tables_of(database)],
    "last blocks of a table": in_the("*.sst", lambda path: flip(path, path.stat().st_size - 1400)),
    "properties of a table": in_the("*.sst", lambda path: flip(path, path.stat().st_size - 300)),
    "footer of a table": in_the("*.sst", lambda path: flip(path, path.stat().st_size - 5)),
    "a table cut short": in_the("*.sst", cut),
    "an empty table": in_the("*.sst", lambda path: path.write_bytes(b"")),
    "a missing table": in_the("*.sst", Path.unlink),
    "garbage for a table": in_the("*.sst", garbage),
    "no table left": lambda database: [path.unlink() for path in tables_of(database)],
    "middle of the log": in_the("*.log", flip_at(0.5)),
    "end of the log": in_the("*.log", flip_at(0.99)),
    "garbage for the log": in_the("*.log", garbage),
    "a missing log": in_the("*.log", Path.unlink),
    "the list of files": in_the("MANIFEST-*", flip_at(0.5)),
    "an empty list of files": in_the("MANIFEST-*", lambda path: path.write_bytes(b"")),
    "the name of the list of files": in_the("CURRENT", flip_at(0.5)),
    "no name of the list of files": in_the("CURRENT", Path.unlink),
    "RocksDB's options": in_the("OPTIONS-*", garbage),
    "the identity": in_the("IDENTITY", garbage),
    "rocksdict's options": in_the(
        "rocksdict-config.json", lambda path: path.write_text('{"raw_mode":false,"prefix_extractors":{}}')
    ),
    "a block and the list of files": all_of(in_the("*.sst", flip_at(0.5)), in_the("MANIFEST-*", flip_at(0.5))),
    "a block, an index and the log": all_of(
        lambda database: flip_at(0.5)(tables_of(database)[0]), in_the("*.sst", cut), in_the("*.log", flip_at(0.5))
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_start_fails_twice_for_the_same_damage(damage, sound, tmp_path):
    """P1: one worker at most ends by it; then all that is readable is there, in order; the loss is told."""
    directory, payloads = tmp_path / "data", sound[1]
    shutil.copytree(sound[0], directory)
    DAMAGES[damage](directory / "undelivered")
    failures, found, counted, lost = work_until_it_goes_well(directory)
    assert len(failures) <= 1
    positions = [payloads.index(payload) for payload in found]
    assert positions == sorted(set(positions)), "in order, nothing twice"
    assert (counted, lost) == (len(found), len(payloads) - len(found))
    assert work_once(directory) == (found, len(found), 0), "and it is told once"


@pytest.mark.parametrize("damage", ["a table cut short", "a missing table", "footer of a table"])
def test_a_file_that_cannot_be_opened_hides_nothing_of_the_others(damage, sound, tmp_path):
    """P1: the files overlap, and RocksDB reads none of them beside one that is damaged as a whole."""
    directory, payloads = tmp_path / "data", sound[1]
    shutil.copytree(sound[0], directory)
    DAMAGES[damage](directory / "undelivered")
    _, found, _, lost = work_until_it_goes_well(directory)
    assert found == payloads[: (FILES - 1) * LOTS_IN_FILE * LOT] + payloads[-LOT:]
    assert lost == LOTS_IN_FILE * LOT


def test_damage_that_shows_when_the_accounts_are_read_costs_no_start(sound, tmp_path):
    """The start that meets it goes on with what is readable."""
    directory = tmp_path / "data"
    shutil.copytree(sound[0], directory)
    DAMAGES["first block of a table, with the accounts"](directory / "undelivered")
    assert work_until_it_goes_well(directory)[0] == []


def test_damage_that_a_compaction_meets_ends_the_worker_and_the_next_start_goes_on(tmp_path):
    """RocksDB refuses every write from then on, and raises at the close too: the close is no reason to fail again."""
    table = make_table(tmp_path)
    table.open_to_write()
    make = Maker(table)
    for _ in range(2):
        append(table, make.many(500))
        table.data.database.flush()
    DAMAGES["block in the middle of a table"](tmp_path / "undelivered")
    table.data.database.compact_range(None, None)
    with pytest.raises(StoreError, match="The next start sets the damaged files aside"):
        append(table, make.many(1))
    table.close()
    assert not table.data.is_open
    failures, found, _, lost = work_until_it_goes_well(tmp_path)
    assert failures == [] and lost == 1000 - len(found) > 0


def test_what_a_salvage_writes_down_is_not_forgotten_by_the_next_one(sound, tmp_path):
    """P8: killed before the loss was put right, and damaged again, what the first one lost is still told."""
    directory, payloads = tmp_path / "data", sound[1]
    shutil.copytree(sound[0], directory)
    DAMAGES["a missing table"](directory / "undelivered")
    table = make_table(directory)
    table.open()  # and no epoch is begun: it is killed
    table.data.close()
    table.close()
    (directory / "damage-found").touch()
    with opened(directory) as table:
        assert table.lost_messages == LOTS_IN_FILE * LOT == len(payloads) - len(contents(table, "alpha"))


def test_a_salvage_leaves_a_database_alone_that_a_worker_has_open(sound, tmp_path):
    """A damage mark is no reason to move files from under a worker that still runs."""
    directory = tmp_path / "data"
    shutil.copytree(sound[0], directory)
    program = (
        "import sys, rocksdict; d = rocksdict.Rdict(sys.argv[1], rocksdict.Options(raw_mode=True)); print(flush=True);"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(directory / "undelivered")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as worker:
        assert worker.stdout is not None and worker.stdin is not None
        worker.stdout.readline()
        (directory / "damage-found").touch()
        with pytest.raises(DataDirectoryError, match="in use by another worker"):
            make_table(directory).open()
        worker.stdin.close()
    assert not list(directory.glob("damaged-*")) and not list(directory.glob("salvage-*"))


def test_a_salvage_that_is_killed_anywhere_begins_again(sound, tmp_path, monkeypatch):
    """P1: at each of its renames and between its copies; nothing is lost that was not, and nothing doubled."""
    payloads = sound[1]
    steps = ["_copy", "_rebuild", "_free_name", "_sync_directory"]
    for step in steps:
        directory = tmp_path / step
        shutil.copytree(sound[0], directory)
        DAMAGES["the list of files"](directory / "undelivered")
        with monkeypatch.context() as patched:
            patched.setattr(salvage, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            patched.setattr(salvage, "clean", lambda _: None)  # the killed clean up nothing
            with pytest.raises(KeyboardInterrupt):
                make_table(directory).open()
        failures, found, _, lost = work_until_it_goes_well(directory)
        assert (failures, found, lost) == ([], payloads, 0)
        assert not list(directory.glob("salvage-*"))


def test_a_log_of_which_the_disk_cannot_read_a_part_is_salvaged_around_it(sound, tmp_path, monkeypatch):
    """A bad sector is damage like any other: it does not end each start with an error of the disk."""
    directory, payloads = tmp_path / "data", sound[1]
    shutil.copytree(sound[0], directory)
    (directory / "damage-found").touch()

    copy, read = shutil.copyfile, os.pread

    def fail(source, target, **options):
        if Path(source).suffix == ".log":
            raise OSError(errno.EIO, "Input/output error")
        return copy(source, target, **options)

    unreadable = threading.Event()

    def read_some(descriptor: int, size: int, position: int) -> bytes:
        if position == 0 and not unreadable.is_set():
            unreadable.set()
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size, position)

    monkeypatch.setattr(salvage.shutil, "copyfile", fail)
    monkeypatch.setattr(salvage.os, "pread", read_some)
    failures, found, _, lost = work_until_it_goes_well(directory)
    assert unreadable.is_set() and failures == []
    assert found == payloads[: len(found)] and lost == len(payloads) - len(found) <= LOT


@pytest.mark.parametrize(
    ("text", "damage", "machine"),
    [
        ("Corruption: block checksum mismatch in /d/000034.sst offset 164524 size 4165", True, False),
        ("IO error: No such file or directory: While open a file for random read: /d/000009.sst", True, False),
        ("IO error: While pread offset 4096 len 100: /d/000009.sst: Input/output error", True, False),
        ("Invalid argument: rocksdict: does not match existing comparator", False, False),
        ("IO error: No space left on device: While appending to file: /d/000009.sst", False, True),
        ("IO error: While open a file for random read: /d/000009.sst: Too many open files", False, True),
        ("IO error: While fdatasync: /d/ready/000008.log: Input/output error", False, True),
        ("IO error: Read-only file system: While open a file for appending: /d/000008.log", False, True),
    ],
)
def test_damage_is_told_from_a_full_disk_and_other_troubles_of_the_machine(text, damage, machine):
    """A salvage sets files aside: it is for damage, and not for what a later start finds gone."""
    assert (is_damage(text), is_of_the_machine(text)) == (damage, machine)


def test_the_bounds_of_a_letters_keys_are_the_letters_own():
    assert layout.ACCOUNT + b"\xff" * 300 < layout.after_prefix(layout.ACCOUNT) <= layout.DEAD_LETTER
