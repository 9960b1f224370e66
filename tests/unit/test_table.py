"""The table of undelivered messages on its own: what is in it after a reopening, a crash, damage and a full disk.

No brokers and no worker: the real table, with an app that does nothing.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import traceback
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Rdict

from app.core.message import Message
from app.errors import DataDirectoryError, StoreError
from app.pages.dead_letters import DeadLetterPages
from app.pages.reuse import Share
from tables import layout
from tables.engine import ballast, store
from tables.entry import entry_bytes, expected_bytes, pack_entry
from tables.undelivered import UndeliveredTable
from tests.support.stored_messages import (
    Maker,
    add_dead_letter,
    append,
    contents,
    database,
    make_table,
    opened,
    remove,
)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("durable", [True, False])
def test_a_lane_is_read_in_order_from_a_cursor_and_what_is_removed_is_gone(durable, tmp_path):
    """P2: entries come per lane in the order of receipt, whatever the order and the write they came in."""
    with opened(tmp_path if durable else None) as table:
        make = Maker(table)
        alpha, alphabet = make.many(20), make.many(5, topic="alphabet", route="b/#:alphabet")
        append(table, alpha[10:] + alphabet)
        append(table, alpha[:10])

        assert contents(table, "alpha") == [f"{number}".encode() for number in range(20)]
        assert contents(table, "alphabet") == [f"{number}".encode() for number in range(5)], "no lane is in another"
        prefix = layout.undelivered_prefix("alpha")
        assert [entry.payload for entry in table.read(prefix, alpha[7].key, 3, 1_000_000)] == [b"7", b"8", b"9"]
        assert len(table.read(prefix, prefix, 100, 1)) == 1, "one entry at least, however small the byte limit"

        remove(table, alpha[:3] + alpha[5:6])
        assert contents(table, "alpha") == [b"3", b"4"] + [f"{number}".encode() for number in range(6, 20)]
        assert (table.total_messages, table.figures.messages) == (21, {"a/#:alpha": 16, "b/#:alphabet": 5})


def test_an_entry_comes_back_with_everything_its_record_needs(tmp_path):
    """P3: key, headers with the connector-id, timestamp and bytes are the message's, if empty then empty."""
    with opened(tmp_path) as table:
        make = Maker(table)
        full, bare = make(payload=bytes(range(256))), make(payload=b"")
        bare.record_key = None
        bare.headers = [("mqtt-topic", b"\xff\xfe")]
        append(table, [full, bare])
    with opened(tmp_path) as table:
        found_full, found_bare = table.read(layout.undelivered_prefix("alpha"), b"U", 10, 1_000_000)
        for found, message in ((found_full, full), (found_bare, bare)):
            assert (found.key, found.route, found.timestamp_ms) == (message.key, message.route, message.timestamp_ms)
            assert (found.record_key, found.headers) == (message.record_key, message.headers)
            assert (found.payload, found.stored_bytes) == (message.payload, message.stored_bytes)
            assert found.stored and found.safe


def test_lanes_heads_and_counts_are_there_after_reopening(tmp_path):
    """P8: recovered is what the table holds, per route and in bytes; a lane begins at its first entry."""
    with opened(tmp_path) as table:
        make = Maker(table)
        alpha, other, beta = make.many(10), make.many(4, route="a/x:alpha"), make.many(6, topic="beta", route="b:beta")
        append(table, alpha + other + beta)
        write = table.begin()
        write.remove(alpha[:4] + beta)
        write.move_head("alpha", alpha[4].key)
        write.commit()
        messages, sizes = dict(table.figures.messages), dict(table.figures.bytes)
    with opened(tmp_path) as table:
        assert dict(table.lanes()) == {"alpha": alpha[4].key}
        assert table.figures.messages == messages == {"a/#:alpha": 6, "a/x:alpha": 4, "b:beta": 0}
        assert table.figures.bytes == sizes
        assert (table.total_messages, table.total_bytes) == (10, sum(sizes.values()))
        assert contents(table, "alpha") == [b"4", b"5", b"6", b"7", b"8", b"9", b"0", b"1", b"2", b"3"]


def test_the_counts_are_read_and_nothing_is_scanned_at_the_start(tmp_path):
    """Design: 10 million entries or none, a start takes the same; so an account alone decides what is counted."""
    with opened(tmp_path) as table:
        append(table, Maker(table).many(3))
    with database(tmp_path) as files:
        files[layout.ACCOUNT + b"a/#:alpha"] = layout.pack((1_000_000, 99_000_000))
    with opened(tmp_path) as table:
        assert (table.total_messages, table.total_bytes) == (1_000_000, 99_000_000)


def test_the_epoch_grows_with_every_start_and_no_key_is_used_twice(tmp_path):
    """P3: what is received after a start comes behind all that was received before, under keys of its own."""
    keys, epochs = [], []
    for _ in range(4):
        with opened(tmp_path) as table:
            messages = Maker(table).many(5)
            append(table, messages)
            epochs.append(table.epoch)
            keys += [message.key for message in messages]
    assert epochs == [1, 2, 3, 4]
    assert len(set(keys)) == 20
    assert keys == sorted(keys)


def test_the_epoch_is_on_disk_before_it_is_used(tmp_path, monkeypatch):
    """A start that dies at once uses up its epoch all the same; after a power cut too, as it is synced."""
    synced = []
    with monkeypatch.context() as patch:
        sync_now = store.Store.sync_now
        patch.setattr(store.Store, "sync_now", lambda self: (synced.append(self.table.epoch), sync_now(self)))
        with opened(tmp_path / "synced"):
            assert synced == [1]
    code = "table.open(); table.begin_epoch(); print(table.epoch, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    epochs = []
    for _ in range(2):
        with child(tmp_path, code) as process:
            epochs.append(int(process.stdout.read()))
    assert epochs == [1, 2]


def test_the_table_is_a_mapping_for_commands_and_tests(tmp_path):
    """Design: undelivered[key], iteration, len and `in` show undelivered messages and nothing else."""
    with opened(tmp_path) as table:
        messages = Maker(table).many(3)
        append(table, messages)
        add_dead_letter(table, Maker(table)(), "alpha")

        assert len(table) == 3
        assert list(table) == list(table.keys()) == [message.key for message in messages]
        assert [message.payload for message in table.values()] == [b"0", b"1", b"2"]
        assert {key: message.payload for key, message in table.items()}[messages[1].key] == b"1"
        assert messages[0].key in table
        assert table[messages[0].key].headers == messages[0].headers
        for missing in (b"U no such key", layout.META + b"epoch", b""):
            assert missing not in table
            with pytest.raises(KeyError):
                table[missing]


def test_nobody_but_the_keeper_writes_through_the_mapping(tmp_path):
    """An assignment would be missing in the counts, so it is refused."""
    with opened(tmp_path) as table:
        message = Maker(table)()
        append(table, [message])
        with pytest.raises(NotImplementedError):
            table[message.key] = message
        with pytest.raises(NotImplementedError):
            del table[message.key]
        assert len(table) == 1


def test_a_table_without_damage_reports_none(tmp_path, caplog):
    """Writes of every kind, over several starts, leave no gap between their numbers."""
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            with opened(tmp_path) as table:
                messages = Maker(table).many(10)
                append(table, messages)
                remove(table, messages[:5])
                add_dead_letter(table, messages[5], "alpha")
                assert table.lost_messages == 0
    assert not caplog.text


def test_a_newer_format_is_refused_with_a_sentence_and_nothing_is_changed(tmp_path):
    """A downgrade must not read, nor write, what it does not understand."""
    with opened(tmp_path) as table:
        append(table, Maker(table).many(3))
    with database(tmp_path) as files:
        files[layout.META + b"format"] = layout.pack(layout.FORMAT_VERSION + 1)
        before = dict(files.items())
    table = make_table(tmp_path)
    with pytest.raises(DataDirectoryError, match="newer Connector"):
        table.open()
    with database(tmp_path) as files:
        assert dict(files.items()) == before


def test_a_data_directory_that_is_gone_while_the_worker_runs_is_named_with_what_to_do(tmp_path):
    directory = tmp_path / "data"
    with opened(directory) as table:
        directory.rename(tmp_path / "elsewhere")
        table.data._opener.ballast._look_at = 0.0
        with pytest.raises(StoreError, match=f"the data directory {directory} is gone.*Bring it back before"):
            table.check_disk_full()
        (tmp_path / "elsewhere").rename(directory)


def test_the_free_space_of_the_disk_is_what_was_looked_up_last_and_a_scrape_does_not_wait_for_the_disk(
    tmp_path, monkeypatch
):
    """Somebody else may fill it, long before it is full; and a disk that hangs must not hold up the pages."""
    with opened(tmp_path) as table:
        table.data._opener.ballast._look_at = 0.0
        assert not table.check_disk_full()
        free = os.statvfs(tmp_path)
        found = table.data.disk_free_bytes
        assert found == pytest.approx(free.f_bavail * free.f_frsize, rel=0.1)
        monkeypatch.setattr(ballast.os, "statvfs", lambda _: pytest.fail("the disk is asked"))
        assert table.data.disk_free_bytes == found
    with opened(None) as in_memory:
        assert math.isnan(in_memory.data.disk_free_bytes)


def test_a_directory_in_use_is_refused(tmp_path):
    """P10: two workers on one directory would acknowledge for each other; the first one goes on."""
    with opened(tmp_path) as table:
        with pytest.raises(DataDirectoryError, match="in use by another worker"):
            make_table(tmp_path).open()
        append(table, Maker(table).many(2))
        assert len(table) == 2


def test_the_directory_is_made_for_its_owner_alone(tmp_path):
    """Messages may be private: nobody else reads the directory, nor a file in it."""
    directory = tmp_path / "new" / "data"
    with opened(directory) as table:
        append(table, Maker(table).many(2))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@contextmanager
def small_disk(directory: Path, size: str):
    """Mount a file system of so many bytes, or skip the test where that is not permitted."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path, leave_bytes: int = 0) -> Path:
    """Fill the file system with a file, and return its path."""
    path = directory / "filler"
    free = os.statvfs(directory)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave_bytes)
    return path


@pytest.mark.parametrize("leave_bytes", [0, 65_536])
def test_a_start_on_a_full_disk_works_through_the_ballast(leave_bytes, tmp_path, caplog):
    """P1: a disk that others filled must not keep what is on it from being delivered."""
    disk = tmp_path / "disk"
    data = disk / "data"
    with small_disk(disk, "400m"):
        with opened(data) as table:
            make = Maker(table)
            messages = make.many(1000)
            append(table, messages)
            assert (data / "ballast").stat().st_size == ballast.BALLAST_BYTES
            assert (data / "ballast").stat().st_blocks * 512 >= ballast.BALLAST_BYTES, "the space is really taken"
        filler = fill(disk, leave_bytes)
        with opened(data) as table:
            assert "the disk is full" in caplog.text
            assert not (data / "ballast").exists()
            assert contents(table, "alpha") == [f"{number}".encode() for number in range(1000)]
            remove(table, messages)
            append(table, Maker(table).many(100, topic="beta"))
            table.data.sync_now()
        filler.unlink()
        with opened(data) as table:
            assert (data / "ballast").stat().st_size == ballast.BALLAST_BYTES, "it is made again when there is room"
            assert table.total_messages == 100


def test_a_full_disk_without_ballast_is_said_in_a_sentence(tmp_path):
    """Exit code 3 with what to do, not a traceback."""
    disk = tmp_path / "disk"
    with small_disk(disk, "40m"):
        with opened(disk / "data"):
            assert not (disk / "data" / "ballast").exists(), "too small a disk for a ballast"
        fill(disk)
        with pytest.raises(DataDirectoryError, match="the disk is full"), opened(disk / "data"):
            pass


def test_the_limit_follows_the_free_space_at_the_first_start_and_stays(tmp_path):
    """UNDELIVERED_MAX_BYTES unset: 30% of what was free then, however full the disk is later."""
    disk = tmp_path / "disk"
    with small_disk(disk, "200m"):
        with opened(disk / "data", None) as table:
            limit_bytes = table.limit_bytes
            assert 0.25 * 200 * 2**20 < limit_bytes <= 0.3 * 200 * 2**20
        fill(disk, 50 * 2**20)
        with opened(disk / "data", None) as table:
            assert table.limit_bytes == limit_bytes
        with opened(disk / "data", 5_000_000) as table:
            assert table.limit_bytes == 5_000_000


def test_the_table_in_memory_needs_no_directory_but_the_temporary_one(tmp_path, monkeypatch):
    """A user who is not root may write nowhere else; rocksdict writes a file of its own even then."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened_at = []
    monkeypatch.setattr(store, "Rdict", lambda path, *options: opened_at.append(path) or Rdict(path, *options))
    with opened(None, None) as table:
        append(table, Maker(table).many(3))
        assert [Path(path).parent for path in opened_at] == [tmp_path]
    assert not list(tmp_path.iterdir())


def test_the_table_in_memory_forgets_everything_and_leaves_no_file(tmp_path, monkeypatch):
    """DB_PERSIST_PATH unset: the same table without a disk, and not the contents of an earlier one."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with opened(None, None) as table:
            assert not table.is_durable
            assert table.limit_bytes == 256_000_000
            assert (table.total_messages, list(table)) == (0, [])
            messages = Maker(table).many(10)
            append(table, messages)
            table.data.sync_now()
            assert contents(table, "alpha") == [f"{number}".encode() for number in range(10)]
            remove(table, messages[:9])
            assert len(table) == 1
    assert list(tmp_path.iterdir()) == []


def test_packet_identifiers_and_filters_survive(tmp_path):
    """P9, QoS 2: what awaits PUBREL is known after a crash; the filters too, and that none were stored."""
    with opened(tmp_path) as table:
        assert table.metadata.filters() is None
        make = Maker(table)
        append(
            table, [make(qos=qos, packet_identifier=number) for qos, number in ((2, 7), (1, 8), (2, 65_535), (2, 9))]
        )
        write = table.begin()
        write.set_meta("filters", ["a/#", "b/+"])
        write.commit()
    with opened(tmp_path) as table:
        assert list(table.metadata.packet_identifiers()) == [7, 9, 65_535]
        assert table.metadata.filters() == ["a/#", "b/+"]
        write = table.begin()
        write.forget_packet_identifiers([7, 65_535])
        write.commit()
    with opened(tmp_path) as table:
        assert list(table.metadata.packet_identifiers()) == [9]
        assert table.total_messages == 4, "PUBREL does not deliver a message to Kafka"


def test_dead_letters_are_kept_apart_with_their_reason(tmp_path):
    """P6 and P8: a dead letter is not undelivered; its count and bytes are true after reopening."""
    with opened(tmp_path) as table:
        make = Maker(table)
        stored, direct, waiting = make(payload=b"stored"), make(payload=b"direct"), make(payload=b"waiting")
        append(table, [stored, waiting])
        add_dead_letter(table, stored, "alpha")
        add_dead_letter(table, direct, "beta")
    with opened(tmp_path) as table:
        found = list(table.dead_letters())
        assert [(letter.message.dead_reason, letter.topic, letter.message.payload) for letter in found] == [
            ("too_large", "alpha", b"stored"),
            ("too_large", "beta", b"direct"),
        ]
        assert found[0].message.headers == stored.headers
        assert (table.total_messages, table.dead_messages) == (1, 2)
        for letter in found:
            write = table.begin()
            write.remove_dead_letter(letter.key, letter.value_bytes)
            write.commit()
        assert (table.dead_messages, table.dead_bytes) == (0, 0)


def test_a_reader_beside_the_writer_sees_what_was_written(tmp_path):
    """`dead-letters list` reads while a worker runs, without disturbing it."""
    with opened(tmp_path) as table:
        make = Maker(table)
        append(table, make.many(5))
        add_dead_letter(table, make(payload=b"dead"), "alpha")
        reader = make_table(tmp_path)
        reader.open(read_only=True)
        try:
            assert contents(reader, "alpha") == [b"0", b"1", b"2", b"3", b"4"]
            assert [letter.message.payload for letter in reader.dead_letters()] == [b"dead"]
            assert (reader.total_messages, reader.dead_messages) == (5, 1)
        finally:
            reader.close()
        append(table, make.many(5))
        assert table.total_messages == 10


def test_a_reader_does_not_mind_that_the_worker_puts_files_together(tmp_path):
    """`dead-letters list` must not call a sound table damaged because a file went while it was opened."""
    with opened(tmp_path) as table:
        make, ended = Maker(table), threading.Event()
        add_dead_letter(table, make(payload=b"dead"), "alpha")

        def put_together():
            while not ended.wait(0.1):  # far more often than once per 16 MiB, and a slow reader finds a moment
                append(table, make.many(3))
                table.data.database.flush()
                table.data.database.compact_range(None, None)

        thread = threading.Thread(target=put_together)
        thread.start()
        try:
            for _ in range(200):
                reader = make_table(tmp_path)
                reader.open(read_only=True)
                assert [letter.message.payload for letter in reader.dead_letters()] == [b"dead"]
                reader.close()
        finally:
            ended.set()
            thread.join()


def test_a_reader_of_a_directory_without_a_table_says_so_and_makes_nothing(tmp_path):
    """`dead-letters list` before the first start is told, and leaves no directory behind."""
    with pytest.raises(DataDirectoryError, match="holds no table yet, as it does not exist"):
        make_table(tmp_path / "data").open(read_only=True)
    assert not (tmp_path / "data").exists()


CHILD = """
import os, signal, sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from tests.support.stored_messages import Maker, add_dead_letter, append, make_table, remove
table = make_table(Path({directory!r}))
{code}
"""


@contextmanager
def child(directory: Path, code: str):
    """Run code on the table in a process of its own, which is killed in the end."""
    program = CHILD.format(repository=str(REPOSITORY), directory=str(directory), code=code)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_was_synced_is_there_after_sigkill(tmp_path):
    """P1: killed while it writes, the table has all that was called synced, in order, counts true."""
    code = """
table.open()
table.begin_epoch()
make = Maker(table)
number = 0
while True:
    lot = [make(payload=str(count).encode()) for count in range(number, number + 50)]
    append(table, lot)
    table.data.sync_now()
    number += 50
    print(number, flush=True)
    remove(table, lot[:10])
"""
    with child(tmp_path, code) as process:
        for _ in range(100):
            line = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        line = ([line, *process.stdout.read().splitlines()])[-1]
        synced = int(line)
    assert synced >= 5000
    with opened(tmp_path) as table:
        found = [int(data) for data in contents(table, "alpha")]
        assert found == sorted(found)
        assert set(found) >= {number for number in range(synced) if number % 50 >= 10}
        assert table.total_messages == len(found)
        assert table.lost_messages == 0


class Model:
    """A table in memory beside plain dictionaries that say what must be in it."""

    STEPS = ("append", "append", "append", "remove", "set_aside", "set_unstored_aside", "forget")

    def __init__(self, table: UndeliveredTable, chance: random.Random) -> None:
        self.table = table
        self.chance = chance
        self.lanes: dict[str, dict[bytes, Message]] = defaultdict(dict)
        self.dead: list[bytes] = []
        self.make = Maker(table)

    def step(self) -> None:
        """Do something at random to one lane."""
        self.topic = self.chance.choice(["a", "a.b", "ab"])
        self.lane = self.lanes[self.topic]
        getattr(self, self.chance.choice(self.STEPS))()

    def append(self) -> None:
        route = self.chance.choice(["r1", "r2/#:x", "ü/+:y"])
        lot = [
            self.make(
                self.topic, route, self.chance.randbytes(self.chance.choice([0, 10, 3000])), self.chance.choice([1, 2])
            )
            for _ in range(self.chance.randint(1, 30))
        ]
        append(self.table, lot)
        self.lane.update({message.key: message for message in lot})

    def remove(self) -> None:
        gone = list(self.lane.values())[: self.chance.randint(0, len(self.lane))]
        if self.chance.random() < 0.3:
            gone = self.chance.sample(list(self.lane.values()), len(gone))
        remove(self.table, gone)
        for message in gone:
            del self.lane[message.key]

    def set_aside(self) -> None:
        if self.lane:
            message = self.lane.pop(self.chance.choice(list(self.lane)))
            add_dead_letter(self.table, message, self.topic)
            self.dead.append(message.payload)

    def set_unstored_aside(self) -> None:
        message = self.make(self.topic)
        add_dead_letter(self.table, message, self.topic)
        self.dead.append(message.payload)

    def forget(self) -> None:
        write = self.table.begin()
        for key, _, _, message in itertools.islice(self.table.dead_letters(), 2):
            write.remove_dead_letter(key, len(self.table.data.database[key]))
            self.dead.remove(message.payload)
        write.commit()

    def compare(self) -> None:
        """Fail unless the table holds what the dictionaries do, and counts it right."""
        table = self.table
        messages: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for message in itertools.chain.from_iterable(lane.values() for lane in self.lanes.values()):
            messages[message.route] += 1
            sizes[message.route] += message.stored_bytes
        assert {route: count for route, count in table.figures.messages.items() if count} == messages
        assert {route: size for route, size in table.figures.bytes.items() if size} == sizes
        assert (table.total_messages, table.total_bytes) == (messages.total(), sizes.total())
        assert (len(table), table.dead_messages) == (messages.total(), len(self.dead))
        assert dict(table.lanes()).keys() == {topic for topic, lane in self.lanes.items() if lane}
        for topic, lane in self.lanes.items():
            assert contents(table, topic) == [message.payload for _, message in sorted(lane.items())]
        assert sorted(letter.message.payload for letter in table.dead_letters()) == sorted(self.dead)


def test_a_table_in_memory_agrees_with_a_plain_model_after_every_step():
    """P2 and P8: appends, removals and dead letters at random; `tests/model/test_table.py` has those on disk."""
    with opened(None) as table:
        model = Model(table, random.Random(1))
        for _ in range(300):
            model.step()
            model.compare()


def test_an_entry_takes_no_more_than_was_expected_before_it_was_packed(tmp_path):
    """P6: the byte limit holds, as room is looked for before entries are packed."""
    with opened(tmp_path) as table:
        make = Maker(table)
        for size in (0, 1, 200, 70_000):
            message = make(payload=b"x" * size)
            assert entry_bytes(message.key, pack_entry(message)) <= expected_bytes(message)


# ---- values that no Connector wrote, whose checksums are right


NOT_OURS = {
    "an entry that is a number": (b"Ualpha\0" + bytes(11) + b"\1", layout.pack(7)),
    "an entry with other fields": (b"Ualpha\0" + bytes(11) + b"\1", layout.pack(["a", 1, b"", {}, b"", "", 0])),
    "an entry that is no MessagePack": (b"Ualpha\0" + bytes(11) + b"\1", b"\xc1"),
    "an account that is a text": (b"Aa/#:alpha", layout.pack("12")),
    "a write that is a list of two": (b"W" + bytes(7) + b"\1", layout.pack([1, 2])),
    "a format that is a text": (b"Mformat", layout.pack("1")),
    "an epoch that is missing": (b"Mepoch", b""),
    "a head whose topic is not UTF-8": (b"H\xff", b"U"),
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_a_value_that_no_connector_wrote_is_refused_with_its_key_and_becomes_no_other_message(case, tmp_path):
    """P1: another program's writing ends the worker in a sentence, at the start or when it comes to it."""
    key, value = NOT_OURS[case]
    with opened(tmp_path) as table:
        append(table, Maker(table).many(1))
    with database(tmp_path) as files:
        files[key] = value
    with pytest.raises(DataDirectoryError) as raised, opened(tmp_path) as table:
        [contents(table, topic) for topic, _ in table.lanes()]
    assert repr(key) in str(raised.value) and "keep a copy of DB_PERSIST_PATH" in str(raised.value)
    traceback.clear_frames(raised.tb)  # an iterator in one of them would hold the database open
    with database(tmp_path) as files:
        assert files[key] == value
        del files[key]
    with opened(tmp_path) as table:
        assert len(contents(table, "alpha")) == 1


def listed(table):
    """Return what the page answers when it is asked for the dead letters."""
    status, text = DeadLetterPages(table, None, None, Share()).listing(None)
    return status, json.loads(text)


def test_a_dead_letter_that_cannot_be_read_ends_nothing_and_can_be_deleted(tmp_path):
    """P5: the page and the command say which it is."""
    key = b"D" + bytes(11) + b"\1"
    with opened(tmp_path) as table:
        add_dead_letter(table, Maker(table)(), "alpha")
        table.data.database[key] = layout.pack(["alpha", b"no entry"])
        status, said = listed(table)
        assert (status, f"the dead letter {key[1:].hex()}, which can be deleted" in said["error"]) == (409, True)
        assert table.letters.delete([key[1:].hex()]) == 1
        status, said = listed(table)
        assert (status, len(said["dead_letters"])) == (200, 1)
