"""What is in the database: the keys and values, and the version of this format.

The first letter of a key is its kind.

    U <Kafka topic> 00 <epoch, 4 bytes> <counter, 8 bytes>   an undelivered message; in order within its lane
    D <epoch, 4 bytes> <counter, 8 bytes>                    a dead letter, kept here as there is no topic for it
    P <name, 12 bytes> <number, 4 bytes>                     a piece of a large payload, see app.pieces
    B <name, 12 bytes>                                       pieces were begun under this name, and no entry has them
                                                             yet; after a crash the next start removes them
    L <epoch, 4 bytes> <counter, 8 bytes>                    the pieces of the dead letter with this sequence
    Q <packet identifier, 2 bytes>                           the fingerprint of a stored QoS 2 message that awaits
                                                             PUBREL
    A <route>                                                messages and bytes of the route that are in the table
    H <Kafka topic>                                          the lane's head: no entry of it has a smaller key
    W <write number, 8 bytes>                                three numbers: messages ever written before this write;
                                                             messages in it; the first write that was not synced then
    M <name>                                                 single values: format, epoch, limit, filters, keeps, ...;
                                                             first_write: the first W there must be, and the messages
                                                             written before it; salvaged: see tables.repair.salvage

Values are MessagePack, except pieces. An entry whose payload is in pieces has their name, the length and the first
bytes in the payload's place. Its key and that name may differ, as a message that gets another key keeps its pieces. The
payload's place is empty (nil) for a tombstone, a record whose value is null. In the place of the time of receipt are
two times if the record has the one that its device says. Versions that know neither refuse such an entry.

A write puts all its changes, its W included, into one batch, so the counts always agree with the entries. An entry (U
and D) and a packet identifier (Q) have the number of the write that first stored them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from sys import intern
from typing import Any

import msgpack

from app.core.device_time import DeviceTime
from app.core.message import Message
from app.core.null_value import NULL
from app.pieces import Pieces
from tables.entry_fields import fields_of
from tables.piece_keys import ENTRY_OVERHEAD_BYTES, most_overhead_bytes, pieces_bytes
from tables.shapes import LARGEST_NUMBER, SINGLE_VALUES, are_pieces, unreadable
from tables.shared_headers import checked

# Raised by whatever an older version would misread; docs/releases.md says what else goes with that.
FORMAT_VERSION = 2
UNDELIVERED, DEAD_LETTER, PACKET_IDENTIFIER, ACCOUNT, HEAD, WRITE, META = (b"U", b"D", b"Q", b"A", b"H", b"W", b"M")
BEGUN, LETTER_PIECES = (b"B", b"L")
SALVAGED = META + b"salvaged"  # what was damaged, see below; there until the table was counted anew
IN_TABLES, IN_ACCOUNTS = 1, 2  # table files (0: the log alone); and the accounts are perhaps older than the rest
LONGEST_KEY_BYTES = 1 + 249 + 1 + 12  # an entry of the longest Kafka topic; routes are longer, and far behind in A

LARGE_PAYLOAD_BYTES = 256 * 1024  # from 64 KiB on MessagePack writes lengths of bytes as four bytes
_ARRAY_OF_SEVEN, _LONG_BYTES = b"\x97", struct.Struct(">BI")
_SEQUENCE = struct.Struct(">IQ")
pack_sequence = _SEQUENCE.pack
SEQUENCE_BYTES = _SEQUENCE.size


def undelivered_prefix(topic: str) -> bytes:
    """Return what the keys of a lane begin with; no legal topic has a 00 byte, so no lane is a prefix of another."""
    return UNDELIVERED + topic.encode() + b"\0"


def after(key: bytes) -> bytes:
    """Return the smallest key that is larger."""
    return key + b"\0"


def after_prefix(letter: bytes) -> bytes:
    """Return the smallest key that is larger than all that begin with a letter."""
    return bytes([letter[0] + 1])


def pack_entry(message: Message) -> bytes:
    """Return the value of an undelivered message."""
    payload = message.payload
    if len(payload) > LARGE_PAYLOAD_BYTES:
        return _pack_large(message)
    packed: bytes = msgpack.packb(
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
    return packed


def _two_times(message: Message, device_time: DeviceTime) -> tuple[int, int]:
    return message.timestamp_ms, device_time.time_ms


def _pack_large(message: Message) -> bytes:
    """Return the same value, its payload copied once, or left to its pieces: MessagePack would copy it three times."""
    times = message.timestamp_ms if message.device_time is None else _two_times(message, message.device_time)
    before = (message.route, times, message.record_key, message.headers)
    pack = msgpack.packb
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
        fields = fields_of(value)
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
            and (headers := checked(headers)) is not None
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


def begun_name(key: bytes) -> bytes:
    """Return the name of pieces that were begun.

    Raises:
        DataDirectoryError: It is none.
    """
    if len(key) != len(BEGUN) + SEQUENCE_BYTES:
        raise unreadable(key, "a name of another length")
    return key[len(BEGUN) :]


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


def sequence(key: bytes) -> tuple[int, int]:
    """Return epoch and counter of an entry's key.

    Raises:
        DataDirectoryError: It is too short for one.
    """
    try:
        epoch, counter = _SEQUENCE.unpack(key[-SEQUENCE_BYTES:])
    except struct.error as error:
        raise unreadable(key, error) from error
    return epoch, counter


def pack(value: Any) -> bytes:
    """Return any other value as it is stored."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(key: bytes, value: bytes, is_right: Callable[[object], bool]) -> Any:
    """Return a value that `pack` packed; lists come back as lists.

    Args:
        key: What it is under.
        value: The value.
        is_right: Whether a value may be there.

    Raises:
        DataDirectoryError: It may not.
    """
    try:
        found = msgpack.unpackb(value)
    except ValueError as error:
        raise unreadable(key, error) from error
    if not is_right(found):
        raise unreadable(key, f"a value of another kind, a {type(found).__name__}")
    return found


def unpack_single(key: bytes, value: bytes) -> Any:
    """Return a single value (M), as `unpack` does."""
    return unpack(key, value, SINGLE_VALUES[key[1:].decode()])


def name_in(key: bytes) -> str:
    """Return the name that a key has behind its letter.

    Raises:
        DataDirectoryError: It is no text.
    """
    try:
        return key[1:].decode()
    except UnicodeDecodeError as error:
        raise unreadable(key, error) from error
