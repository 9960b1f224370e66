"""How long a packet to the broker may be (Maximum Packet Size of CONNACK); how long SUBSCRIBE and UNSUBSCRIBE are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.mqtt.control_packets import ANY_PACKET_BYTES


def largest_packet_bytes(properties: Any) -> int:
    """Return how long a packet to the broker may be."""
    return int(getattr(properties, "MaximumPacketSize", ANY_PACKET_BYTES))


def subscribe_bytes(topic_filter: str, identifier: int) -> int:
    """Return how long SUBSCRIBE for one filter is with MQTT 5."""
    property_bytes = 1 + _number_bytes(identifier) if identifier else 0
    return _packet_bytes(2 + 1 + property_bytes + 2 + len(topic_filter.encode()) + 1)


def parts_of_unsubscribe(filters: Sequence[str], most_bytes: int) -> Iterator[list[str]]:
    """Yield the filters in as many UNSUBSCRIBE as must be, in their order; each has one filter at least."""
    part: list[str] = []
    body_bytes = 0
    for name in filters:
        name_bytes = 2 + len(name.encode())
        if part and _packet_bytes(body_bytes + name_bytes) > most_bytes:
            yield part
            part = []
        body_bytes = body_bytes + name_bytes if part else 2 + 1 + name_bytes
        part.append(name)
    if part:
        yield part


def _packet_bytes(body_bytes: int) -> int:
    return 1 + _number_bytes(body_bytes) + body_bytes


def _number_bytes(number: int) -> int:
    """Return how many bytes a variable byte integer has."""
    return max(1, -(-number.bit_length() // 7))
