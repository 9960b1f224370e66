"""Files of the table that are damaged, in each kind of file: the table opens, and says exactly what is lost.

The real table without a worker, as in test_table. A test knows what was written and synced, damages the files, and
compares what is left with what the table reports.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import shutil
from pathlib import Path

import pytest

from app.errors import StoreError
from tables import layout
from tables.figures import Mark
from tables.repair import damage
from tests.support.stored_messages import (
    Maker,
    add_dead_letter,
    append,
    contents,
    copy_of_open,
    database,
    make_table,
    opened,
    remove,
)

WRITES, LOT = 60, 20


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that leaves in a directory what a crash leaves after some writes; it returns the payloads.

    These are the same for each test, so they are written once, and copied.
    """

    @functools.cache
    def written_once(in_tables: bool, writes: int) -> tuple[Path, list[bytes]]:
        directory = tmp_path_factory.mktemp("written") / "data"
        return directory, write(directory, in_tables=in_tables, writes=writes)

    def leave(directory: Path, *, in_tables: bool, writes: int = WRITES) -> list[bytes]:
        source, payloads = written_once(in_tables, writes)
        copy_of_open(source, directory)
        return payloads

    return leave


def write(directory: Path, *, in_tables: bool, writes: int) -> list[bytes]:
    """Write lots, each synced, and leave the files as a crash leaves them; return the payloads in order."""
    payloads = []
    work = directory.with_name("work")
    with opened(work) as table:
        make = Maker(table)
        for number in range(writes):
            lot = [make(payload=b"%d/%d" % (number, count) + b"." * 200) for count in range(LOT)]
            append(table, lot)
            table.sync_now()
            payloads += [message.payload for message in lot]
        if in_tables:
            table.data.database.flush()
        copy_of_open(work, directory)
    return payloads


def the_file(directory: Path, pattern: str) -> Path:
    """Return the largest file of the database with such a name."""
    return max((directory / "undelivered").glob(pattern), key=lambda path: path.stat().st_size)


def flip(path: Path, position: int) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def files_in(directory: Path) -> dict[str, bytes]:
    """Return the content of each file, but for RocksDB's own diary (LOG and LOG.old...)."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith("LOG")}


def assert_counted(table, payloads: list[bytes], caplog) -> int:
    """Fail unless what is left is in order, and what is missing is what the table reports; return how many are."""
    found = contents(table, "alpha")
    positions = [payloads.index(payload) for payload in found]
    assert positions == sorted(positions), "in order"
    assert table.lost_messages == len(payloads) - len(found)
    assert table.total_messages == len(found) == table.figures.messages.get("a/#:alpha", 0)
    assert ("are lost by damage" in caplog.text) == (table.lost_messages > 0)
    return table.lost_messages


def test_damage_that_cost_no_message_is_not_said_to_have_lost_about_none(caplog):
    mark = Mark()
    assert damage.report_missing({}, {}, mark, is_older=False) == 0
    assert not caplog.text
    assert damage.report_missing({}, {"a/#:alpha": 1}, mark._replace(undelivered_messages=3), is_older=False) == 2
    assert "about 2 messages are lost by damage to the table's files; of which routes is not known" in caplog.text


def assert_sound_from_now_on(directory: Path, messages: int) -> None:
    """Fail unless it can be used and opened again, and the damage is not reported twice."""
    with opened(directory) as table:
        assert (table.lost_messages, table.total_messages) == (0, messages)
        later = Maker(table).many(3)
        append(table, later)
        assert contents(table, "alpha")[-3:] == [b"0", b"1", b"2"], "what is new comes last"
        remove(table, later)


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_in_the_log_loses_what_is_counted_and_nothing_else(written, seed, tmp_path, caplog):
    """P1: what can be read around the damage is kept, in order; the damaged files stay as they were."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=False)
    log = the_file(directory, "*.log")
    flip(log, random.Random(seed).randrange(10, log.stat().st_size - 10))
    damaged = files_in(directory / "undelivered")

    with opened(directory) as table:
        lost = assert_counted(table, payloads, caplog)
        assert 0 < lost < len(payloads) / 2
        (aside,) = directory.glob("damaged-*")
        left = len(payloads) - lost
    assert files_in(aside) == damaged
    assert not list(directory.glob("salvage-*"))
    assert_sound_from_now_on(directory, left)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_log_that_was_cut_short_loses_what_is_counted(written, share, tmp_path, caplog):
    """P1: what was synced and is gone is known, although nothing behind it tells."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=False)
    log = the_file(directory, "*.log")
    with log.open("r+b") as file:
        file.truncate(int(log.stat().st_size * share))
    with opened(directory) as table:
        lost = assert_counted(table, payloads, caplog)
        assert lost > 0
    assert_sound_from_now_on(directory, len(payloads) - lost)


@pytest.mark.parametrize("damage", ["cut", "zeros", "flip"])
def test_a_torn_end_that_was_never_synced_is_no_damage(damage, tmp_path, caplog):
    """P1: a power cut tears what was being written; nothing of it was acknowledged, so nothing is lost."""
    directory, work = tmp_path / "data", tmp_path / "work"
    with opened(work) as table:
        make = Maker(table)
        synced = make.many(200)
        append(table, synced)
        table.sync_now()
        size = the_file(work, "*.log").stat().st_size
        append(table, make.many(400))
        copy_of_open(work, directory)
    log = the_file(directory, "*.log")
    torn = size + 30
    if damage == "flip":
        flip(log, torn)
    else:
        data = log.read_bytes()
        log.write_bytes(data[:torn] + (bytes(len(data) - torn) if damage == "zeros" else b""))
    with caplog.at_level(logging.ERROR), opened(directory) as table:
        assert table.lost_messages == 0
        assert contents(table, "alpha") == [message.payload for message in synced]
    assert "lost" not in caplog.text
    assert_sound_from_now_on(directory, 200)


def delete_write(directory: Path, number: int, messages: list) -> None:
    """Take one write out of the database, as damage of the log does."""
    with database(directory) as files:
        del files[layout.WRITE + number.to_bytes(8, "big")]
        for message in messages:
            del files[message.key]


def test_messages_that_damage_took_are_counted_exactly_and_reported_once(tmp_path, caplog):
    """What is missing between two writes, and was synced, is counted; the counts follow what is still there."""
    with opened(tmp_path) as table:
        make = Maker(table)
        lots = [make.many(size) for size in (5, 7, 11, 13)]
        for lot in lots:
            append(table, lot)
            table.sync_now()
    for number, lot in ((3, lots[1]), (4, lots[2])):  # the first write began the epoch
        delete_write(tmp_path, number, lot)
    with caplog.at_level(logging.ERROR), opened(tmp_path) as table:
        assert table.lost_messages == 18
        assert "18 messages are lost" in caplog.text
        assert table.total_messages == len(contents(table, "alpha")) == 18, "what is lost must not be counted for ever"
        assert table.total_bytes == sum(message.stored_bytes for message in lots[0] + lots[3])
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert_sound_from_now_on(tmp_path, 18)
    assert not caplog.text, "the same damage is reported once"


def test_what_follows_a_gap_that_was_never_synced_is_dropped_as_it_would_be_sent_too_early(tmp_path, caplog):
    """P2: the disk kept a later write and not an earlier one; MQTT delivers both again, in order."""
    with opened(tmp_path) as table:
        make = Maker(table)
        lots = [make.many(5, qos=2, packet_identifier=number) for number in range(1, 5)]
        append(table, lots[0])
        table.sync_now()
        mark = (tmp_path / "synced-mark").read_bytes()
        for lot in lots[1:]:
            append(table, lot)
    (tmp_path / "synced-mark").write_bytes(mark)  # a close syncs, a power cut does not
    delete_write(tmp_path, 3, lots[1])
    with caplog.at_level(logging.WARNING), opened(tmp_path) as table:
        assert table.lost_messages == 0
        assert contents(table, "alpha") == [message.payload for message in lots[0]]
        assert list(table.metadata.packet_identifiers()) == [1], (
            "an identifier of what was dropped would swallow its redelivery"
        )
    assert "from write 3 on the table was not synced" in caplog.text
    assert_sound_from_now_on(tmp_path, 5)


def written_with_one_sync(directory: Path) -> list[list]:
    """Write four lots of five messages with one sync for all of them, and return them."""
    with opened(directory) as table:
        make = Maker(table)
        lots = [make.many(5) for _ in range(4)]
        for lot in lots:
            append(table, lot)
        table.sync_now()
    return lots


def test_what_was_synced_together_is_kept_around_a_damaged_write(tmp_path, caplog):
    """P1: one sync covers several writes; the damage of one of them is not taken for a torn end."""
    lots = written_with_one_sync(tmp_path)
    delete_write(tmp_path, 3, lots[1])
    with caplog.at_level(logging.ERROR), opened(tmp_path) as table:
        assert table.lost_messages == 5
        assert contents(table, "alpha") == [message.payload for lot in (lots[0], lots[2], lots[3]) for message in lot]
    assert_sound_from_now_on(tmp_path, 15)


def test_what_is_missing_before_the_first_write_that_is_left_is_counted(tmp_path, caplog):
    """P8: damage at the beginning of the log has no write before it."""
    lots = written_with_one_sync(tmp_path)
    for number, lot in ((1, []), (2, lots[0])):
        delete_write(tmp_path, number, lot)
    with opened(tmp_path) as table:
        assert table.lost_messages == 5
    assert_sound_from_now_on(tmp_path, 15)


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_in_a_table_file_loses_what_is_counted_and_nothing_else(written, seed, tmp_path, caplog):
    """P1 and P2: the worker that meets the damage ends; the next start goes on with all that is readable."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=True)
    file = the_file(directory, "*.sst")
    # Behind the undelivered messages come few other keys and RocksDB's index.
    flip(file, random.Random(seed).randrange(0, int(file.stat().st_size * 0.8)))
    table = make_table(directory)
    table.open()
    with pytest.raises(StoreError, match="The next start sets the damaged files aside"):
        contents(table, "alpha")
    table.close()
    with opened(directory) as table:
        lost = assert_counted(table, payloads, caplog)
        assert 0 < lost <= 2 * LOT, "one block"
        assert list(directory.glob("damaged-*"))
    assert_sound_from_now_on(directory, len(payloads) - lost)


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*"])
@pytest.mark.parametrize("damage", ["missing", "garbage", "empty"])
def test_without_rocksdbs_own_bookkeeping_everything_is_found_again(written, pattern, damage, tmp_path, caplog):
    """P1: the messages are in other files."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=True, writes=10)
    path = the_file(directory, pattern)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"garbage\n" * 20 if damage == "garbage" else b"")
    with opened(directory) as table:
        assert assert_counted(table, payloads, caplog) == 0
    assert_sound_from_now_on(directory, len(payloads))


def test_a_table_file_that_was_cut_short_loses_what_is_counted(written, tmp_path, caplog):
    """P1: RocksDB opens no such file; the others, and the log, are read."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=True)
    file = the_file(directory, "*.sst")
    with file.open("r+b") as opened_file:
        opened_file.truncate(file.stat().st_size // 2)
    with opened(directory) as table:
        lost = assert_counted(table, payloads, caplog)
        assert lost > 0
    assert_sound_from_now_on(directory, len(payloads) - lost)


def several_lanes(directory: Path) -> dict[str, list[bytes]]:
    """Write two lanes with names of very different length, dead letters and removals; return what is left of each."""
    work = directory.with_name("work")
    left: dict[str, list[bytes]] = {"a": [], "long." * 40: []}
    with opened(work) as table:
        make = Maker(table)
        for number in range(40):
            for topic, payloads in left.items():
                lot = [make(topic=topic, route=f"r:{topic}", payload=b"%d/%d" % (number, count)) for count in range(10)]
                append(table, lot)
                remove(table, lot[:3])
                payloads += [message.payload for message in lot[3:]]
            add_dead_letter(table, make(payload=b"dead"), "alpha")
            if number % 3 == 0:
                table.sync_now()  # several writes to a sync, as in life
        table.sync_now()
        table.data.database.flush()
        copy_of_open(work, directory)
    return left


def blocks(directory: Path) -> range:
    """Return a position in each block of the largest table file, roughly, and in what follows them."""
    return range(20, the_file(directory, "*.sst").stat().st_size - 20, 3_000)


def test_a_bit_flipped_in_any_block_loses_no_more_than_its_block(tmp_path):
    """P1 and P8: at the borders of lanes and of kinds of keys too, and whatever the accounts say."""
    sound = tmp_path / "data"
    left = several_lanes(sound)
    for position in blocks(sound):
        directory = tmp_path / f"at {position}"
        shutil.copytree(sound, directory)
        flip(the_file(directory, "*.sst"), position)
        table = make_table(directory)
        try:
            table.open()
            for topic in left:
                contents(table, topic)
            list(table.dead_letters())
        except StoreError:
            pass
        finally:
            with contextlib.suppress(Exception):
                table.close()
        with opened(directory) as table:
            found = {topic: contents(table, topic) for topic in left}
            missing = sum(len(payloads) - len(found[topic]) for topic, payloads in left.items())
            # The last part is RocksDB's index: without it the whole file is lost.
            assert missing <= 70 or position > blocks(sound).stop * 0.8, f"more than a block is missing at {position}"
            dead_missing = 40 - len(list(table.dead_letters()))
            if position <= blocks(sound).stop * 0.8:  # else the number of dead letters is lost as well
                missing += dead_missing
            assert table.lost_messages == missing, f"miscounted at {position}"
            assert table.total_messages == sum(map(len, found.values()))
        shutil.rmtree(directory)


@pytest.mark.parametrize("again", [1, 2])
def test_a_start_that_dies_after_the_salvage_leaves_it_to_the_next_one(written, again, tmp_path):
    """P8: what is lost is counted when it is put right, not when it is found."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=False)
    log_file = the_file(directory, "*.log")
    flip(log_file, log_file.stat().st_size // 2)
    for _ in range(again):
        table = make_table(directory)
        table.open()
        lost = table.lost_messages
        table.data.database.flush_wal(True)
        copy_of_open(directory, tmp_path / "killed")
        table.data.close()
        table.close()
        shutil.rmtree(directory)
        (tmp_path / "killed").rename(directory)
    with opened(directory) as table:
        assert table.lost_messages == lost > 0
        assert table.total_messages == len(contents(table, "alpha")) == len(payloads) - lost
    assert_sound_from_now_on(directory, len(payloads) - lost)


def test_a_salvage_that_was_interrupted_is_ended_at_the_next_start(written, tmp_path):
    """P1: between its two renames there is no database of the usual name, and nothing is lost by that."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=False, writes=3)
    (directory / "undelivered").rename(directory / "salvage-new")
    with opened(directory) as table:
        assert contents(table, "alpha") == payloads


def test_strange_files_and_a_lock_that_was_left_over_do_no_harm(written, tmp_path):
    """The lock is the process's, not the file's; what is not the database's own is left alone."""
    directory = tmp_path / "data"
    payloads = written(directory, in_tables=False, writes=3)
    for name in ("notes.txt", "999999.bak", "lost+found"):
        (directory / "undelivered" / name).write_text("strange")
    (directory / "synced-mark").write_bytes(b"garbage")
    assert (directory / "undelivered" / "LOCK").exists()
    with opened(directory) as table:
        assert contents(table, "alpha") == payloads
        assert table.lost_messages == 0
    assert (directory / "undelivered" / "notes.txt").read_text() == "strange"


def test_an_older_copy_of_the_directory_is_taken_up_as_it_is(tmp_path):
    """P1: a backup that was put back repeats what was delivered since, and loses nothing that it held."""
    directory, backup = tmp_path / "data", tmp_path / "backup"
    with opened(directory) as table:
        messages = Maker(table).many(10)
        append(table, messages)
        table.sync_now()
        copy_of_open(directory, backup)
        remove(table, messages)
    shutil.rmtree(directory)
    backup.rename(directory)
    with opened(directory) as table:
        assert contents(table, "alpha") == [message.payload for message in messages]
        assert (table.lost_messages, table.epoch) == (0, 2)
