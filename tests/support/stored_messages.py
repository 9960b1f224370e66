"""A table and messages to put into it, for the tests that look at what is stored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import faust
from rocksdict import Options, Rdict

from app.core.message import Message
from tables import layout
from tables.undelivered import UndeliveredTable

LIMIT_BYTES = 100_000_000


def make_table(directory: Path | None, limit_bytes: int | None = LIMIT_BYTES) -> UndeliveredTable:
    app = faust.App("tables-under-test", broker="kafka://nowhere", store="memory://", autodiscover=False)
    return UndeliveredTable(app, name="undelivered", directory=directory, limit_bytes=limit_bytes, key_type=bytes)


@contextmanager
def opened(directory: Path | None, limit_bytes: int | None = LIMIT_BYTES):
    """Open the table as a start does, in a new epoch."""
    table = make_table(directory, limit_bytes)
    table.open_to_write()
    try:
        yield table
    finally:
        table.close()


@contextmanager
def database(directory: Path):
    """Open the files without the table's code."""
    files = Rdict(str(directory / "undelivered"), Options(raw_mode=True))
    try:
        yield files
    finally:
        files.close()


def files_of(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files of an open table, by name, as far as they are still there: RocksDB removes some by itself."""
    for file in directory.rglob("*"):
        with suppress(FileNotFoundError):
            if file.is_file():
                yield file.name, file.stat()


def copy_of_open(directory: Path, target: Path) -> None:
    """Copy the files of an open table as a kill would leave them; RocksDB removes what it needs no more meanwhile.

    The ballast has nothing in it: the copy gets one of the same size.
    """

    def copy(source: str, name: str) -> None:
        with suppress(FileNotFoundError):
            if Path(source).name == "ballast":
                with Path(name).open("wb") as ballast:
                    os.posix_fallocate(ballast.fileno(), 0, Path(source).stat().st_size)
                return
            shutil.copy2(source, name)

    shutil.copytree(directory, target, copy_function=copy)


class Maker:
    """Makes messages whose keys follow each other, as the router does."""

    def __init__(self, table: UndeliveredTable) -> None:
        self._table = table
        self._counter = 0

    def __call__(self, topic="alpha", route="a/#:alpha", payload=b"payload", qos=1, packet_identifier=1) -> Message:
        """Make one; a payload that is None is that of a tombstone."""
        self._counter += 1
        message = Message(
            b"a/b", payload or b"", qos, qos << 1, packet_identifier, b"", 1_700_000_000_000 + self._counter, None
        )
        message.key = layout.undelivered_prefix(topic) + layout.pack_sequence(self._table.epoch, self._counter)
        message.route = route
        if payload is None:
            message.become_tombstone()
        message.record_key = b"a/b"
        message.headers = [("connector-id", f"id/{self._counter}".encode()), ("mqtt-topic", b"a/b")]
        return message

    def many(self, count: int, **options) -> list[Message]:
        return [self(payload=f"{number}".encode(), **options) for number in range(count)]


def append(table: UndeliveredTable, messages: list[Message]) -> None:
    write = table.begin()
    write.append(messages)
    write.commit()


def remove(table: UndeliveredTable, messages: list[Message]) -> None:
    write = table.begin()
    write.remove(messages)
    write.commit()


def add_dead_letter(table: UndeliveredTable, message: Message, topic: str) -> None:
    message.dead_reason = "too_large"
    write = table.begin()
    write.add_dead_letter(message, topic)
    write.commit()


def contents(table: UndeliveredTable, topic: str) -> list[bytes]:
    """Return the payloads of a lane, from its first entry on."""
    prefix = layout.undelivered_prefix(topic)
    return [message.payload for message in table.read(prefix, prefix, 1_000_000, 1_000_000_000)]
