"""The synced mark: a small file beside the database that says what was synced, for when damage took the end of it.

It is written after each sync without being synced itself; `tables.damage` says what it is good for.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from app.own_files import open_own, read_own
from app.throttle import Throttle

log = logging.getLogger(__name__)

_MARK = struct.Struct(">QQQ")


class Mark(NamedTuple):
    """What is known to be synced: all writes before one, what they wrote ever, and what the table held then."""

    synced_before: int = 0
    written_messages: int = 0
    undelivered_messages: int = 0


def read_mark(path: Path) -> Mark:
    """Return what the synced mark says; zeros if that is not known."""
    try:
        data = read_own(path, _MARK.size + 5)
    except OSError:
        return Mark()
    fields, checksum = data[: _MARK.size], data[_MARK.size :]
    if len(data) != _MARK.size + 4 or checksum != zlib.crc32(fields).to_bytes(4, "big"):
        return Mark()
    return Mark(*_MARK.unpack(fields))


class SyncedMark:
    """The file of the synced mark, see the module's header; without it the table works all the same."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where it is missing."""
        self._descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        self._throttle = Throttle(log)

    def write(self, mark: Mark) -> None:
        """Note what was synced."""
        fields = _MARK.pack(*mark)
        try:
            os.pwrite(self._descriptor, fields + zlib.crc32(fields).to_bytes(4, "big"), 0)
        except OSError as error:
            self._throttle.warning("mark", "the synced mark cannot be written: %s", error.strerror)
        else:
            if self._throttle.lasts("mark"):
                self._throttle.end("mark", "the synced mark is written again")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
