"""How much of what a publisher sends beside the payload is decoded or repeated, and what it counts for in memory.

A user property of five bytes becomes a header of almost three hundred: a packet of 12 MB would take hundreds of MB.
So the first properties of a message become headers, up to these bounds, and what is beyond them is skipped before
anything is made of it. The message is delivered, with a header that says so, as consumers need its payload: a
dead letter does not reach them, and in a flood the oldest dead letters are dropped. What an older version
wrote to the table is read with the same bounds.

A topic of 65 kB is repeated in what a route makes of it: headers, and the record's key. Headers that do not fit any
more are left out in the same way. The key is always whole, as Kafka chooses the partition by it; it names no part of
the topic more often than `app.routes.templates` allows.

The costs were measured: the memory of a process whose records wait in librdkafka (`tests/unit/test_bounds.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

KIBIBYTE = 1024
MOST_HEADERS = 1_000  # of one message that its publisher chose; ours come on top
MOST_PROPERTY_BYTES = 256 * KIBIBYTE  # room for three properties of the greatest length, and a thousand of 60 bytes
MOST_IDENTIFIERS = 1_000  # subscription identifiers of one message
MOST_ADDED_BYTES = 256 * KIBIBYTE  # of the headers that a route adds to one message, their names included
OWN_HEADERS = 32  # more than there are of ours, and those that a route adds

# What a message carries that says so, and how many properties at least; no publisher can make a header of this name.
LEFT_OUT_HEADER = "connector-left-out"

CUT_FLAG = 0x200  # beside the flags of a message's fixed header: more properties came than are held

HEADER_BYTES = 280  # a header: 190 as Python's tuple, text and bytes, 90 in librdkafka
# A byte of a property: as it came, in the header, and in librdkafka; in a name it may be escaped, and the text be wide.
PROPERTY_BYTE_COST = 8
LONG_TOPIC_BYTES = 256  # what is shorter is among the fixed cost of a message
TOPIC_BYTE_COST = 4  # the record's key, its copy in librdkafka, that of the header, and the text while it is routed
USUAL_HEADERS = 8  # are among the fixed cost of a message
# What a route adds, headers and key, is short as a rule, and memory is divided by what that takes (`app.memory`). More
# than this counts for each message: as it was made, and its copy in librdkafka.
USUAL_ADDED_BYTES = 1 * KIBIBYTE
ADDED_BYTE_COST = 2
USER_PROPERTY = 0x26  # what its encoding begins with


def cost_of_properties(properties: bytes) -> int:
    """Return what properties take at most, as they came and as headers, without decoding them."""
    headers = properties.count(USER_PROPERTY)
    headers = headers if headers < MOST_HEADERS else MOST_HEADERS  # noqa: FURB136, twice as fast, for each message
    return PROPERTY_BYTE_COST * len(properties) + HEADER_BYTES * headers


def cost_of_topic(size_bytes: int) -> int:
    """Return what a topic of so many bytes takes beyond its own length."""
    return TOPIC_BYTE_COST * size_bytes if size_bytes > LONG_TOPIC_BYTES else 0


def cost_of_added(record_key: bytes | None, headers: Iterable[tuple[str, bytes]]) -> int:
    """Return what a record key and headers that a route has made take, unless it is as little as usual."""
    added_bytes = len(record_key or b"") + sum([len(name) + len(value) for name, value in headers])
    return ADDED_BYTE_COST * added_bytes if added_bytes > USUAL_ADDED_BYTES else 0


def cost_of_headers(headers: int) -> int:
    """Return what so many headers take beyond the bytes that are in them."""
    return HEADER_BYTES * max(0, headers - USUAL_HEADERS)
