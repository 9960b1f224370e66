"""Fills a table of many files, reads it and salvages it, with few files that may be open; for test_open_files.

    python -m tests.support.open_files DIRECTORY LIMIT MESSAGES

Prints how many files the table has, how many were open at most, and how many messages are left after the salvage.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from app.errors import ConnectorError
from tables.engine import opening
from tests.support.stored_messages import Maker, append, contents, make_table

LOT, PAYLOAD_BYTES = 20, 2_000


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208, it is called often


def fill(directory: Path, messages: int) -> int:
    """Write messages, a file for every 32 of them; return how many files were open at most."""
    table = make_table(directory)
    table.open_to_write()
    make, most = Maker(table), 0
    for number in range(messages // LOT):
        append(table, [make(payload=os.urandom(PAYLOAD_BYTES)) for _ in range(LOT)])
        most = max(most, open_files())
        if number % 10 == 0:
            table.sync_now()
    most = max(most, open_files())
    assert len(contents(table, "alpha")) == messages
    table.close()
    return max(most, open_files())


def main(directory: Path, limit: int, messages: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    opening.WRITE_BUFFER_BYTES = opening.TABLE_FILE_BYTES = 64 * 1024  # many files of a small table
    try:
        most = fill(directory, messages)
        files = len(list((directory / "undelivered").glob("*.sst")))
        (directory / "damage-found").touch()
        table = make_table(directory)
        table.open_to_write()
        print(files, most, len(contents(table, "alpha")))
        table.close()
    except ConnectorError as error:
        print(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
