"""What was removed from the table is given back to the disk; the real table, without a worker."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tables.undelivered import UndeliveredTable
from tests.support.oracle import wait_until
from tests.support.stored_messages import LIMIT_BYTES, Maker, append, contents, files_of, opened, remove

MEGABYTE = 1_000_000
NOISE = os.urandom(MEGABYTE)


def taken(directory: Path) -> int:
    """Return what the files of the database take, as du counts."""
    return sum(status.st_blocks * 512 for _, status in files_of(directory / "undelivered"))


def fill(table: UndeliveredTable, make: Maker, messages: int = 20_000) -> list:
    """Store lots for three lanes in turn, in files that overlap; return the messages."""
    lots = []
    for number in range(0, messages, 100):
        payload = NOISE[number * 40 :][:2000]
        lot = [make(topic=f"lane{number // 100 % 3}", payload=b"%d" % count + payload) for count in range(100)]
        append(table, lot)
        lots += lot
    table.sync_now()
    return lots


@pytest.mark.parametrize("restart", [False, True])
def test_an_empty_table_gives_its_space_back(restart, tmp_path):
    """After a drain, and at a start after one that was killed before it could."""
    with opened(tmp_path) as table:
        messages = fill(table, Maker(table))
        full_bytes = taken(tmp_path)
        remove(table, messages)
        if not restart:
            asyncio.run(table.upkeep.give_back())
            wait_until(lambda: taken(tmp_path) < MEGABYTE, f"space again, of {full_bytes} bytes")
    if restart:
        with opened(tmp_path) as table:
            asyncio.run(table.upkeep.give_back())
            wait_until(lambda: taken(tmp_path) < MEGABYTE, "space again")


def test_a_table_that_drains_slowly_while_messages_come_gives_back_what_it_does_not_need(tmp_path):
    """Nothing is given back of what is still there, and it stays in order."""
    with opened(tmp_path, LIMIT_BYTES) as table:
        make = Maker(table)
        messages = fill(table, make)
        for first in range(0, 18_000, 300):
            remove(table, messages[first : first + 300])
            append(table, [make(topic="new", payload=NOISE[:500])])
        asyncio.run(table.upkeep.give_back())
        wait_until(lambda: taken(tmp_path) < 3 * table.total_bytes + 16 * MEGABYTE, "space again")
        assert sum(len(contents(table, topic)) for topic in ("lane0", "lane1", "lane2")) == 2_000
        assert len(contents(table, "new")) == 60
        written = table.figures.write_number
        asyncio.run(table.upkeep.give_back())
        assert table.figures.write_number == written


def test_a_large_message_that_stays_does_not_keep_the_space_of_those_that_went(tmp_path):
    """A lane that waits, while others come and go: each of its messages is in a file of large values with theirs."""
    with opened(tmp_path) as table:
        make = Maker(table)
        for _ in range(14):
            append(table, [make(topic="waits", payload=NOISE[:300_000])])
            others = [make(topic="flows", payload=NOISE[:600_000]) for _ in range(16)]
            for message in others:
                append(table, [message])
            remove(table, others)
            asyncio.run(table.upkeep.give_back())
        wait_until(lambda: taken(tmp_path) < 60 * MEGABYTE, "space again, of 140 MB for 4 MB")
        assert len(contents(table, "waits")) == 14


def test_a_table_that_is_in_use_is_left_alone(tmp_path):
    """No file is written for a table of which nothing was removed, however often it is looked at."""
    with opened(tmp_path) as table:
        fill(table, Maker(table), 6_000)
        files = {file.name for file in (tmp_path / "undelivered").glob("*.sst")}
        asyncio.run(table.upkeep.give_back())
        assert {file.name for file in (tmp_path / "undelivered").glob("*.sst")} == files
