"""What is in an entry of the table: how a message becomes the value of its entry, and is made of it again.

`tables.layout` says what the value is. Whatever it holds, what is made of it is bounded: of more headers than there may
be, the first ones are read. What the headers of most messages have in common is in memory once: 20,000 messages that
were read may be in flight, and copies of the names and of the headers for QoS and RETAIN would take a quarter of each.
"""

from __future__ import annotations

import contextlib
import struct
from sys import intern
from typing import TYPE_CHECKING, Any

import msgpack

from app.bounds import LEFT_OUT_HEADER, MOST_HEADERS, OWN_HEADERS
from app.core.constant_headers import CONSTANT_HEADERS
from app.core.device_time import DeviceTime
from app.core.message import Message
from app.core.null_value import NULL
from app.pieces import Pieces
from tables.layout import pack, unpack
from tables.piece_keys import ENTRY_OVERHEAD_BYTES, most_overhead_bytes, pieces_bytes
from tables.shapes import LARGEST_NUMBER, are_pieces, unreadable

if TYPE_CHECKING:
    from app.core.message import Header

LARGE_PAYLOAD_BYTES = 256 * 1024  # from 64 KiB on MessagePack writes the length of bytes in four (`_LONG_BYTES`)
_ARRAY_OF_SEVEN, _LONG_BYTES = b"\x97", struct.Struct(">BI")
FIELDS = 7
MOST_STORED_HEADERS = MOST_HEADERS + OWN_HEADERS
FIRST_HEADERS_BYTES = 1024 * 1024  # of an entry with too many headers, as many as fit are read

_FIRST, _SECOND = "connector-id", "mqtt-topic"
# What follows the first two, in messages without properties.
_USUAL = {headers: headers for headers in CONSTANT_HEADERS.values()}


def entry_bytes(key: bytes, value: bytes) -> int:
    """Return what an entry counts for in the byte limit."""
    return len(key) + len(value) + ENTRY_OVERHEAD_BYTES


def expected_bytes(message: Message) -> int:
    """Return what an entry will count for at most, before it is packed; its pieces too."""
    payload_bytes = len(message.payload)
    fixed = len(message.key) + len(message.route) + len(message.record_key or b"") + payload_bytes
    if payload_bytes > LARGE_PAYLOAD_BYTES:
        fixed += most_overhead_bytes(payload_bytes)
    return fixed + sum([len(name) + len(value) + 8 for name, value in message.headers]) + ENTRY_OVERHEAD_BYTES + 59


def pack_entry(message: Message) -> bytes:
    """Return the value of an undelivered message."""
    payload = message.payload
    if len(payload) > LARGE_PAYLOAD_BYTES:
        return _pack_large(message)
    return pack(
        (
            message.route,
            message.timestamp_ms if message.device_time is None else _two_times(message, message.device_time),
            message.record_key,
            message.headers,
            None if payload is NULL else payload,
            message.dead_reason,
            message.kept_since,
        )
    )


def _two_times(message: Message, device_time: DeviceTime) -> tuple[int, int]:
    return message.timestamp_ms, device_time.time_ms


def _pack_large(message: Message) -> bytes:
    """Return the same value, its payload copied once, or left to its pieces: MessagePack would copy it three times."""
    times = message.timestamp_ms if message.device_time is None else _two_times(message, message.device_time)
    before = (message.route, times, message.record_key, message.headers)
    if message.is_in_pieces:
        after = (message.dead_reason, message.kept_since)
        return b"".join((_ARRAY_OF_SEVEN, *map(pack, (*before, _pieces_fields(message.pieces), *after))))
    payload = message.in_memory
    return b"".join(
        (
            _ARRAY_OF_SEVEN,
            *[pack(value) for value in before],
            _LONG_BYTES.pack(0xC6, len(payload)),
            payload,
            pack(message.dead_reason),
            pack(message.kept_since),
        )
    )


def unpack_entry(key: bytes, value: bytes) -> Message:
    """Return the message of an entry; of more headers than there may be, as older versions wrote, the first ones.

    Raises:
        DataDirectoryError: The value is not of this format.
    """
    try:
        fields = _fields_of(value)
        route, timestamp_ms, record_key, headers, payload, dead_reason, kept_since = fields
        device_ms = 1
        if type(timestamp_ms) is tuple:
            timestamp_ms, device_ms = timestamp_ms
        is_right = (
            type(route) is type(dead_reason) is str
            and (type(payload) is bytes or payload is None or are_pieces(payload))
            and (record_key is None or type(record_key) is bytes)
            and type(timestamp_ms) is type(kept_since) is type(device_ms) is int
            and 0 <= timestamp_ms <= LARGEST_NUMBER >= kept_since >= 0 < device_ms <= LARGEST_NUMBER
            and (headers := _checked(headers)) is not None
        )
    except (ValueError, TypeError) as error:
        raise unreadable(key, error) from error
    if not is_right:
        raise unreadable(key, "a part of a message that is of another kind")
    size_bytes = entry_bytes(key, value)
    message = Message.restored(key, intern(route), timestamp_ms, record_key, headers, payload, dead_reason, size_bytes)
    message.kept_since = kept_since
    if type(fields[1]) is tuple:
        message.device_time = DeviceTime(b"", device_ms)
    if type(payload) is not bytes:
        _put_place(message, payload)
    return message


def _put_place(message: Message, place: tuple[bytes, int, bytes] | None) -> None:
    """Name a message's pieces in the place of its payload, and count them; none: its record has no value."""
    if place is None:
        message.become_tombstone()
        return
    pieces = Pieces(*place)
    message.payload = message.pieces = pieces
    message.stored_bytes += pieces_bytes(pieces)
    message.size_bytes += pieces_bytes(pieces)


def _pieces_fields(pieces: Pieces) -> tuple[bytes, int, bytes]:
    return pieces.name, pieces.size_bytes, pieces.beginning


def pack_pieces(pieces: Pieces) -> bytes:
    """Return the value that names the pieces of a dead letter."""
    return pack(_pieces_fields(pieces))


def unpack_pieces(key: bytes, value: bytes) -> Pieces:
    """Return the pieces of a dead letter.

    Raises:
        DataDirectoryError: The value is not of this format.
    """
    return Pieces(*unpack(key, value, are_pieces))


def _fields_of(value: bytes) -> tuple[Any, ...]:
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


# ---- headers


def _checked(value: object) -> list[Header] | None:
    """Return the headers of a record, None if they are of another kind.

    Raises:
        ValueError: One of them is no pair; or a TypeError.
    """
    if type(value) is not tuple:
        return None
    usual = _USUAL.get(value[2:])
    if usual is not None:
        (first, identifier), (second, topic) = value[:2]
        if first == _FIRST and second == _SECOND and type(identifier) is type(topic) is bytes:
            return [(_FIRST, identifier), (_SECOND, topic), *usual]
    for name, content in value:
        if type(name) is not str or type(content) is not bytes:
            return None
    return list(value)
