"""The fields of an entry of the table, as they are; of more headers than there may be, the first ones."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack

from app.bounds import LEFT_OUT_HEADER, MOST_HEADERS, OWN_HEADERS
from app.core.message import Header

FIELDS = 7
MOST_STORED_HEADERS = MOST_HEADERS + OWN_HEADERS
FIRST_HEADERS_BYTES = 1024 * 1024  # of an entry with too many headers, as many as fit are read


def fields_of(value: bytes) -> tuple[Any, ...]:
    """Return the fields of an entry, as they are.

    Raises:
        ValueError: The value is not of this format.
    """
    try:
        fields: tuple[Any, ...] = msgpack.unpackb(value, use_list=False, max_array_len=MOST_STORED_HEADERS)
    except ValueError:
        return _unpack_first_headers(value)
    return fields


def _unpack_first_headers(value: bytes) -> tuple[Any, ...]:
    """Return the fields of an entry with too many headers; nothing is made of those that are left out.

    Raises:
        ValueError: The value is not of this format.
    """
    fields = msgpack.Unpacker(use_list=False, max_buffer_size=0)
    fields.feed(value)
    try:
        if fields.read_array_header() != FIELDS:
            raise ValueError("an entry has another number of fields")
        before = [fields.unpack() for _ in range(3)]
        first = fields.tell()
        fields.skip()
        after = [fields.unpack() for _ in range(3)]
    except msgpack.OutOfData as error:
        raise ValueError("an entry ends before its last field") from error
    if fields.tell() != len(value):
        raise ValueError("an entry goes on behind its last field")
    return (*before, _first_headers(memoryview(value)[first : first + FIRST_HEADERS_BYTES]), *after)


def _first_headers(packed: memoryview) -> tuple[Header, ...]:
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(packed)
    number = unpacker.read_array_header()
    headers: list[Header] = []
    with contextlib.suppress(msgpack.OutOfData):
        while len(headers) < min(number, MOST_HEADERS):
            headers.append(unpacker.unpack())
    return (*headers, (LEFT_OUT_HEADER, b"%d" % (number - len(headers))))
