"""Large values of a damaged database, read from their files (`*.blob`) without RocksDB.

RocksDB's own repair forgets these files, and so does whoever lost the list of files (MANIFEST); what is in them is
sound all the same. A file is a header of 30 bytes, then records one after the other: the lengths of key and value, a
time that is not used here, checksums of these three and of key and value, the key, the value. Nothing is compressed.

A record stays there when its message was removed: only the table files tell which are still wanted.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aiokafka.record.util import calc_crc32c
from rocksdict import Rdict

from tables import layout
from tables.repair.reading import Hole

log = logging.getLogger(__name__)

FILE_HEADER_BYTES = 30
_LENGTHS = struct.Struct("<QQQ")
_CHECKSUMS = struct.Struct("<II")
_MASK_DELTA = 0xA282EAD8  # RocksDB stores no checksum as it is, as files may hold checksums of checksums


class Place(NamedTuple):
    """Where a value is, and the checksum of it and its key."""

    file: Path
    position: int
    length: int
    checksum: int


class LargeValues:
    """The large values in the files of a directory."""

    def __init__(self, directory: Path) -> None:
        """Find them; the values themselves are read when they are asked for."""
        self._places: dict[bytes, Place] = {}
        for file in sorted(directory.glob("*.blob")):
            self._look_through(file)

    def _look_through(self, file: Path) -> None:
        """Note what is in a file, as far as the disk can read it."""
        try:
            self._places.update(_records(file))
        except OSError as error:
            log.warning("not all of the large values in %s can be read: %s", file.name, error.strerror)

    def within(self, hole: Hole, source: Rdict | None) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the keys and values that are in a hole.

        Args:
            hole: What RocksDB cannot read.
            source: A database that knows the keys, though it cannot read these values; None: all are taken for wanted.
        """
        for key, place in self._places.items():
            if key <= hole.after or (hole.before is not None and key >= hole.before):
                continue
            if source is None or _is_unreadable(source, key):
                value = _read(key, place)
                if value is not None:
                    yield key, value


def _is_unreadable(source: Rdict, key: bytes) -> bool:
    """Tell whether a database has a key and cannot read its value; also if it cannot tell."""
    try:
        source.get(key)
    except Exception:  # noqa: BLE001, rocksdict raises nothing more special
        return True
    return False


def _records(path: Path) -> Iterator[tuple[bytes, Place]]:
    """Iterate over the records of a file, up to one whose beginning is damaged, as it says where the next one is."""
    size_bytes = path.stat().st_size
    position = FILE_HEADER_BYTES
    with path.open("rb") as file:
        while True:
            file.seek(position)
            lengths, checksums = file.read(_LENGTHS.size), file.read(_CHECKSUMS.size)
            if len(checksums) < _CHECKSUMS.size:
                return
            of_lengths, of_contents = _CHECKSUMS.unpack(checksums)
            key_bytes, value_bytes, _ = _LENGTHS.unpack(lengths)
            position += _LENGTHS.size + _CHECKSUMS.size + key_bytes
            if of_lengths != _masked(lengths) or key_bytes > layout.LONGEST_KEY_BYTES:
                return
            if position + value_bytes > size_bytes:
                return
            yield file.read(key_bytes), Place(path, position, value_bytes, of_contents)
            position += value_bytes


def _read(key: bytes, place: Place) -> bytes | None:
    """Return a value; None if it is damaged."""
    try:
        with place.file.open("rb") as file:
            file.seek(place.position)
            value = file.read(place.length)
    except OSError:
        return None
    return value if _masked(key + value) == place.checksum else None


def _masked(data: bytes) -> int:
    checksum = calc_crc32c(data)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF
