"""The MQTT 5 properties of a PUBLISH packet that Connector passes on (MQTT 5, section 3.3.2.3).

Most messages of a topic carry the same property bytes, so what comes of them is kept with the topic (the route cache).
No more of them become headers than `app.bounds` allows. Brokers may put subscription identifiers behind everything
else, so what is left out is skipped, not ended at: a length is read for each, and nothing is made of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from app.bounds import MOST_HEADERS, MOST_IDENTIFIERS, USER_PROPERTY
from app.core.message import Header, Message
from app.mqtt import property_names
from app.mqtt.property_names import named_as_event, user_header

CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SUBSCRIPTION_IDENTIFIER = 0x0B
MESSAGE_EXPIRY = 0x02
EXPIRY_BYTES = 4
_FIXED_LENGTHS = {0x01: 1, MESSAGE_EXPIRY: EXPIRY_BYTES, 0x23: 2}  # the others: payload format indicator, topic alias
_NAMES = {
    CONTENT_TYPE: property_names.CONTENT_TYPE,
    RESPONSE_TOPIC: "mqtt-response-topic",
    CORRELATION_DATA: "mqtt-correlation-data",
}


class PublishProperties(NamedTuple):
    """The decoded properties.

    Attributes:
        headers: Record headers.
        subscription_identifiers: Those of the matching subscriptions.
        left_out: How many properties became no header as there are too many, at least.
        is_whole: Whether all subscription identifiers are there.
        expiry_at: Where the message expiry interval is among the properties; 0: there is none.
    """

    headers: tuple[Header, ...] = ()
    subscription_identifiers: tuple[int, ...] = ()
    left_out: int = 0
    is_whole: bool = True
    expiry_at: int = 0


NO_PROPERTIES = PublishProperties()


def decode(data: bytes, *, is_cut: bool = False) -> PublishProperties:
    """Decode the properties of a PUBLISH packet (without their length), as far as the bounds reach.

    Args:
        data: The properties as they came.
        is_cut: More of them came, and were not held; the last one here may have lost its end.

    Raises:
        ValueError: An unknown property, or one that runs past the end.
        IndexError: One that runs past the end.
    """
    found, position = _Found([], [], len(data)), 0
    try:
        while position < len(data) and not found.is_full:
            position = found.read(data, position)
    except IndexError:
        if not is_cut:
            raise
    if position > len(data) and not is_cut:
        raise ValueError("a property runs past the end of its PUBLISH packet")
    is_whole = not (is_cut or found.is_full)
    left_out = max(found.others - len(found.headers), int(not is_whole))
    headers = tuple(named_as_event(found.headers))
    return PublishProperties(headers, tuple(found.identifiers), left_out, is_whole, found.expiry_at)


def expiry_header(message: Message, expiry_at: int) -> Header:
    """Return when a message expires, in milliseconds since 1970.

    On its way the interval is what is left of it (MQTT 5, 3.3.2.3.3), so it differs from message to message.
    """
    seconds = int.from_bytes(message.properties[expiry_at : expiry_at + EXPIRY_BYTES], "big")
    return property_names.MESSAGE_EXPIRY, b"%d" % (message.timestamp_ms + 1000 * seconds)


@dataclass(slots=True)
class _Found:
    """What was found so far, of properties that have so many bytes."""

    headers: list[Header]
    identifiers: list[int]
    end: int
    others: int = 0
    fixed: int = 0
    expiry_at: int = 0

    @property
    def is_full(self) -> bool:
        """Whether there are more subscription identifiers than can be."""
        return len(self.identifiers) > MOST_IDENTIFIERS

    def read(self, data: bytes, position: int) -> int:
        """Read the property at `position`; return where it ends."""
        kind, first = data[position], position + 1
        if self.others >= MOST_HEADERS and (kind == USER_PROPERTY or kind in _NAMES):
            return self.skip(data, position)
        if kind == USER_PROPERTY:
            middle = first + 2 + (data[first] << 8 | data[first + 1])
            stop = middle + 2 + (data[middle] << 8 | data[middle + 1])
            self.others += 1
            if stop <= self.end:
                self.headers.append((user_header(data[first + 2 : middle]), data[middle + 2 : stop]))
            return stop
        if kind in _NAMES:
            stop = first + 2 + (data[first] << 8 | data[first + 1])
            self.others += 1
            if stop <= self.end:
                self.headers.append((_NAMES[kind], data[first + 2 : stop]))
            return stop
        if kind == SUBSCRIPTION_IDENTIFIER:
            identifier, stop = variable_byte_integer(data, first)
            self.identifiers.append(identifier)
            return stop
        if kind not in _FIXED_LENGTHS:
            raise ValueError(f"unknown property {kind:#04x} in a PUBLISH packet")
        self.fixed += 1
        if self.fixed > len(_FIXED_LENGTHS):
            raise ValueError("properties that may be there once are repeated in a PUBLISH packet")
        stop = first + _FIXED_LENGTHS[kind]
        if kind == MESSAGE_EXPIRY and stop <= self.end:
            self.expiry_at = first
        return stop

    def skip(self, data: bytes, position: int) -> int:
        """Count what would be headers from `position` on; return where something else begins, or all ends.

        In a loop of its own, as there may be tens of thousands, and nothing else happens meanwhile.
        """
        end, others = self.end, self.others
        try:
            while position < end:
                kind = data[position]
                if kind == USER_PROPERTY:
                    middle = position + 3 + (data[position + 1] << 8 | data[position + 2])
                    position = middle + 2 + (data[middle] << 8 | data[middle + 1])
                elif kind in _NAMES:
                    position += 3 + (data[position + 1] << 8 | data[position + 2])
                else:
                    break
                others += 1
        finally:  # the last one may have lost its end
            self.others = others
        return position


def user_properties(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Iterate over the user properties, as far as the bounds reach and nothing is broken.

    Yields:
        Where the name begins, where it ends, and where the value ends, which has two bytes of length before it.
    """
    position = 0
    with contextlib.suppress(IndexError, ValueError):
        for _ in range(MOST_HEADERS + MOST_IDENTIFIERS):
            kind, first = data[position], position + 1
            if kind in _FIXED_LENGTHS:
                position = first + _FIXED_LENGTHS[kind]
            elif kind == SUBSCRIPTION_IDENTIFIER:
                position = variable_byte_integer(data, first)[1]
            else:
                position = first + 2 + (data[first] << 8 | data[first + 1])
            if kind == USER_PROPERTY:
                middle, position = position, position + 2 + (data[position] << 8 | data[position + 1])
                if position > len(data):
                    return
                yield first + 2, middle, position


def variable_byte_integer(data: bytes, position: int) -> tuple[int, int]:
    """Return the variable byte integer at `position` and the position after it (MQTT 5, section 1.5.5).

    Raises:
        ValueError: It has more than four bytes.
        IndexError: The data end within it.
    """
    value = data[position] & 0x7F
    shift = 7
    while data[position] & 0x80:
        position += 1
        if shift > 21:
            raise ValueError("a variable byte integer has more than four bytes")
        value |= (data[position] & 0x7F) << shift
        shift += 7
    return value, position + 1
