"""What the properties of a PUBLISH packet are, read apart from the bridge (MQTT 5, section 3.3.2.3).

Of many the first thousand become headers. What MQTT forbids and does no harm is taken, as the bridge takes it: texts
twice, an identifier 0, wrong UTF-8.
"""

from __future__ import annotations

import io
import string
from dataclasses import dataclass, field

MOST_HEADERS, MOST_IDENTIFIERS, MOST_FIXED = 1_000, 1_000, 3
SKIPPED_BYTES = {0x01: 1, 0x02: 4, 0x23: 2}
NAMES = {0x03: "mqtt-content-type", 0x08: "mqtt-response-topic", 0x09: "mqtt-correlation-data"}


class WrongError(Exception):
    """Unknown, past the end, or there more often than it may be."""


class PastTheEndError(WrongError):
    """The data end within it."""


@dataclass
class Found:
    """Headers and subscription identifiers; how many headers are too many; whether all was looked at."""

    headers: list = field(default_factory=list)
    identifiers: list = field(default_factory=list)
    left_out: int = 0
    is_whole: bool = True
    expiry_at: int = 0


def read(data, *, is_cut):
    """Return what there is; `is_cut`: more came than the data."""
    stream, found, fixed = io.BytesIO(data), Found(is_whole=not is_cut), 0
    try:
        while kind := stream.read(1):
            fixed += kind[0] in SKIPPED_BYTES
            if fixed > MOST_FIXED:
                raise WrongError
            read_property(stream, kind[0], found)
            if len(found.identifiers) > MOST_IDENTIFIERS:
                found.is_whole = False
                break
    except PastTheEndError:
        if not is_cut:
            raise
    if any(name == "mqtt-user-specversion" for name, _ in found.headers):
        content_types = [value for name, value in found.headers if name == NAMES[0x03]]
        found.headers = [(of_event(name), value) for name, value in found.headers]
        found.headers += [("content-type", value) for value in content_types[:1]]
    if not found.is_whole:
        found.left_out = max(found.left_out, 1)
    return found


def read_property(stream, number, found):
    """Read what follows the number of a property."""
    if number in SKIPPED_BYTES:
        position = stream.tell()
        exactly(stream, SKIPPED_BYTES[number])
        found.expiry_at = position if number == 0x02 else found.expiry_at
    elif number == 0x0B:
        found.identifiers.append(integer(stream))
    elif number in NAMES or number == 0x26:
        name = NAMES.get(number) or user_name(text(prefixed(stream)))
        header = name, prefixed(stream)
        if len(found.headers) < MOST_HEADERS:
            found.headers.append(header)
        else:
            found.left_out += 1
    else:
        raise WrongError


def user_name(name):
    """Return the header of a user property."""
    return name if name in {"traceparent", "tracestate"} else f"mqtt-user-{name}"


def of_event(name):
    """Return the name of a header of an event of CloudEvents."""
    attribute = name.removeprefix("mqtt-user-")
    is_attribute = attribute not in {name, ""} and set(attribute) <= set(string.ascii_lowercase + string.digits)
    if is_attribute and attribute not in {"data", "datacontenttype"}:
        return f"ce_{attribute}"
    return name


def text(data):
    """Return a name: as it is, or all of it escaped if it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte).encode("unicode_escape").decode() for byte in data)


def exactly(stream, size):
    """Read so many bytes."""
    data = stream.read(size)
    if len(data) < size:
        raise PastTheEndError
    return data


def prefixed(stream):
    """Read what has its length before it."""
    return exactly(stream, int.from_bytes(exactly(stream, 2), "big"))


def integer(stream):
    """Read a variable byte integer."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = exactly(stream, 1)[0]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value
    raise WrongError
