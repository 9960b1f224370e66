"""The properties of a PUBLISH packet: decoded, as record headers, and as headers that come back from the table.

An input is a byte of options and the properties. Some options repeat them, up to 100 kB, as a publisher may send
many that are alike, and some have them cut, as a packet may have more than is held. `property_reference` says what
they are.
"""

from __future__ import annotations

import logging
import re

from app.core.message import Message
from app.mqtt.properties import decode
from tables.entry import entry_bytes, expected_bytes, pack_entry, unpack_entry
from tests.model.fuzz.property_reference import WrongError, read

LONGEST_BYTES = 2048
MOST_BYTES = 100_000
KEY = b"Utopic\0" + bytes(12)
OUR_NAMES = {"mqtt-content-type", "mqtt-response-topic", "mqtt-correlation-data"}
STANDARD_NAMES = re.compile(r"traceparent|tracestate|content-type|ce_[a-z0-9]+")


def try_input(data):
    """Decode one input; raise if anything but the expected came of it."""
    if not data:
        return
    times = 2 << (data[0] & 15) if data[0] >= 0xF0 else 1
    properties = data[1:] * min(times, 1 + MOST_BYTES // len(data))
    is_cut = bool(data[0] & 1)
    try:
        expected = read(properties, is_cut=is_cut)
    except WrongError:
        expected = None
    try:
        found = decode(properties, is_cut=is_cut)
    except (ValueError, IndexError):
        found = None
    assert (found is None) == (expected is None), f"decoded {found}, expected {expected}"
    if found is None:
        return
    assert (list(found.headers), list(found.subscription_identifiers)) == (expected.headers, expected.identifiers)
    assert found.is_whole == expected.is_whole
    assert found.left_out == expected.left_out or (is_cut and found.left_out > 0)
    assert found.expiry_at == expected.expiry_at
    others = [name for name, _ in found.headers if not name.startswith("mqtt-user-") and name not in OUR_NAMES]
    forged = [name for name in others if not STANDARD_NAMES.fullmatch(name)]
    assert not forged, "a publisher names a header as only Connector may"
    comes_back(found.headers)


def comes_back(headers):
    """See that what is written into the table is what is read from it, and is counted with enough bytes."""
    message = Message(b"a/b", b"payload", 1, 2, 1, b"", 1_700_000_000_000, None)
    message.key, message.route, message.record_key, message.headers = KEY, "a/b:topic", b"a/b", list(headers)
    value = pack_entry(message)
    assert expected_bytes(message) >= entry_bytes(KEY, value), "the table takes more than was counted"
    found = unpack_entry(KEY, value)
    assert (found.headers, found.payload, found.record_key) == (message.headers, b"payload", b"a/b")


def prepare():
    """Return what takes an input."""
    logging.disable(logging.CRITICAL)
    return try_input
