"""The MQTT 5 properties of a PUBLISH packet that Connector passes on (MQTT 5, section 3.3.2.3).

Most messages of a topic carry the same property bytes, so what comes of them is kept with the topic (`agents.kinds`).
"""

from __future__ import annotations

from typing import NamedTuple

from app.messages import Header

CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SUBSCRIPTION_IDENTIFIER = 0x0B
USER_PROPERTY = 0x26
_FIXED_LENGTHS = {0x01: 1, 0x02: 4, 0x23: 2}  # payload format indicator, message expiry interval, topic alias
_NAMES = {
    CONTENT_TYPE: "mqtt-content-type",
    RESPONSE_TOPIC: "mqtt-response-topic",
    CORRELATION_DATA: "mqtt-correlation-data",
}


class PublishProperties(NamedTuple):
    """The decoded properties: record headers, and the identifiers of the matching subscriptions."""

    headers: tuple[Header, ...] = ()
    subscription_identifiers: tuple[int, ...] = ()


NO_PROPERTIES = PublishProperties()


def decode(data: bytes) -> PublishProperties:
    """Decode the properties of a PUBLISH packet (without their length).

    Raises:
        ValueError: An unknown property, or one that runs past the end.
    """
    headers: list[Header] = []
    identifiers: list[int] = []
    position = 0
    while position < len(data):
        kind = data[position]
        position += 1
        if kind in _FIXED_LENGTHS:
            position += _FIXED_LENGTHS[kind]
        elif kind == SUBSCRIPTION_IDENTIFIER:
            identifier, position = variable_byte_integer(data, position)
            identifiers.append(identifier)
        elif kind == USER_PROPERTY:
            name, position = _binary(data, position)
            value, position = _binary(data, position)
            # The prefix keeps a publisher from forging a header of ours.
            headers.append(("mqtt-user-" + name.decode("utf-8", "backslashreplace"), value))
        elif kind in _NAMES:
            value, position = _binary(data, position)
            headers.append((_NAMES[kind], value))
        else:
            raise ValueError(f"unknown property {kind:#04x} in a PUBLISH packet")
    if position > len(data):
        raise ValueError("a property runs past the end of its PUBLISH packet")
    return PublishProperties(tuple(headers), tuple(identifiers))


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


def _binary(data: bytes, position: int) -> tuple[bytes, int]:
    stop = position + 2 + int.from_bytes(data[position : position + 2], "big")
    if stop > len(data):
        raise ValueError("a property runs past the end of its PUBLISH packet")
    return data[position + 2 : stop], stop
