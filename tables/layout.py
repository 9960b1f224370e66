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
from typing import Any

import msgpack

from tables.shapes import SINGLE_VALUES, unreadable

# Raised by whatever an older version would misread; docs/releases.md says what else goes with that.
FORMAT_VERSION = 2
UNDELIVERED, DEAD_LETTER, PACKET_IDENTIFIER, ACCOUNT, HEAD, WRITE, META = (b"U", b"D", b"Q", b"A", b"H", b"W", b"M")
BEGUN, LETTER_PIECES = (b"B", b"L")
SALVAGED = META + b"salvaged"  # what was damaged, by the next two; there until the table was counted anew
IN_TABLES, IN_ACCOUNTS = 1, 2  # table files (0: the log alone); and the accounts are perhaps older than the rest
LONGEST_KEY_BYTES = 1 + 249 + 1 + 12  # an entry of the longest Kafka topic; routes are longer, and far behind in A

_SEQUENCE = struct.Struct(">IQ")
pack_sequence = _SEQUENCE.pack
SEQUENCE_BYTES = _SEQUENCE.size
pack: Callable[[Any], bytes] = msgpack.packb  # what is stored of any value; entries (U) are made in `tables.entry`
JUST_BEHIND = b"\0"  # a key with this at its end is the smallest one that is larger


def undelivered_prefix(topic: str) -> bytes:
    """Return what the keys of a lane begin with; no legal topic has a 00 byte, so no lane is a prefix of another."""
    return UNDELIVERED + topic.encode() + b"\0"


def after_prefix(letter: bytes) -> bytes:
    """Return the smallest key that is larger than all that begin with a letter."""
    return bytes([letter[0] + 1])


def begun_name(key: bytes) -> bytes:
    """Return the name of pieces that were begun.

    Raises:
        DataDirectoryError: It is none.
    """
    if len(key) != len(BEGUN) + SEQUENCE_BYTES:
        raise unreadable(key, "a name of another length")
    return key[len(BEGUN) :]


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
