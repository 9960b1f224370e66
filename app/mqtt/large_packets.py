"""A large PUBLISH packet: its payload is gathered as it comes, in one piece; or it is read past, if it is too large.

Gathered, the payload exists once until librdkafka copies it. Cut out of what was received it would exist three times
for a moment, which for 100 MB is more than many a worker may have.

Too large is what the worker's memory cannot carry or Kafka could never accept. With MQTT 5 the broker is told the limit
in CONNECT and does not send such messages. MQTT 3.1.1 has no such limit. To close the connection would not help: the
broker would send the same message again, for ever. So the payload is thrown away as it comes, and the message is
acknowledged in its turn without it.

Properties beyond what `app.bounds` allows are read past as they come, too; the payload behind them is kept.
"""

from __future__ import annotations

import io
import zlib
from typing import NamedTuple

from app.bounds import CUT_FLAG, MOST_PROPERTY_BYTES, cost_of_properties, cost_of_topic
from app.core.message import Message
from app.mqtt.properties import variable_byte_integer

PUBLISH = 0x30
GATHER_ABOVE_BYTES = 256 * 1024  # a smaller one is cut out of what was received, which is faster for small ones
LONGEST_HEAD_BYTES = 2 + 65_535 + 2  # topic and packet identifier


class Head(NamedTuple):
    """What a PUBLISH packet says before its properties.

    Attributes:
        topic: The topic as it came.
        qos: 0, 1 or 2.
        identifier: The packet identifier; 0 for QoS 0.
        stop: Where it ends.
    """

    topic: bytes
    qos: int
    identifier: int
    stop: int


def read_head(header: int, data: bytes, start: int, stop: int) -> Head | None:
    """Read topic and packet identifier.

    Args:
        header: The packet's first byte.
        data: What came.
        start: Where its fixed header ends.
        stop: Where the packet ends; behind the end of `data`, as a rule.

    Returns:
        None if not all of it has come.

    Raises:
        ValueError: It is no PUBLISH packet, or a wrong one.
    """
    if header & 0xF0 != PUBLISH:
        raise ValueError(f"a packet of type {header >> 4} has {stop - start} bytes")
    qos = header >> 1 & 3
    if len(data) < start + 2:
        return None
    topic_stop = start + 2 + (data[start] << 8 | data[start + 1])
    head_stop = topic_stop + (2 if qos else 0)
    if qos == 3 or head_stop > stop:
        raise ValueError("a PUBLISH packet with QoS 3 or a topic past its end")
    if len(data) < head_stop:
        return None
    identifier = data[topic_stop] << 8 | data[topic_stop + 1] if qos else 0
    if qos and not identifier:
        raise ValueError("a PUBLISH packet with the packet identifier 0")
    return Head(data[start + 2 : topic_stop], qos, identifier, head_stop)


def properties_place(data: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """Return where the properties of a packet begin and end; None if their length has not come yet.

    Raises:
        ValueError: They end behind the packet, or their length is missing in it.
    """
    try:
        length, first = variable_byte_integer(data, start)
    except IndexError:
        if len(data) >= stop:
            raise ValueError("a PUBLISH packet without the length of its properties") from None
        return None
    if first + length > stop:
        raise ValueError("a PUBLISH packet with properties past its end")
    return first, first + length


class LargePacket:
    """One whose head has come, and what is left to be read of it.

    Attributes:
        message: The message, without its payload until all of it has come.
        packet_bytes: The length of the whole packet.
        is_too_large: Its payload is thrown away.
    """

    def __init__(
        self, message: Message, packet_bytes: int, rest_bytes: int, skipped_bytes: int = 0, *, is_too_large: bool
    ) -> None:
        """Take the message without its payload, what is to come of the packet, and how much of that to skip first."""
        self.message = message
        self.packet_bytes = packet_bytes
        self.is_too_large = is_too_large
        self._rest_bytes = rest_bytes
        self._to_skip_bytes = skipped_bytes
        self._payload = io.BytesIO()
        self._fingerprint = message.first_fingerprint

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is to come."""
        return not self._rest_bytes

    def append(self, data: bytes) -> bytes:
        """Keep what belongs to it; return what comes after it."""
        taken = min(len(data), self._rest_bytes)
        self._rest_bytes -= taken
        skipped = min(taken, self._to_skip_bytes)
        self._to_skip_bytes -= skipped
        if not self.is_too_large:
            part = memoryview(data)[skipped:taken]
            self._payload.write(part)
            self._fingerprint = zlib.crc32(part, self._fingerprint)
        return data[taken:]

    def end(self) -> Message:
        """Return the message, with its payload unless it is too large."""
        if not self.is_too_large:
            self.message.set_payload(self._payload, self._fingerprint)
            self._payload.close()
        return self.message


def begin_large(
    data: bytes, position: int, start: int, stop: int, now_ms: int, largest_packet_bytes: int, *, has_properties: bool
) -> LargePacket | int:
    """Begin to gather a large packet, or to read past one that is too large.

    Args:
        data: What came.
        position: Where the packet begins.
        start: Where its fixed header ends.
        stop: Where it ends; behind the end of `data`, as a rule.
        now_ms: The time, in milliseconds since 1970.
        largest_packet_bytes: What is above it is too large.
        has_properties: The connection speaks MQTT 5.

    Returns:
        The packet, all of `data` that belongs to it taken; or how many bytes of it must have come first.

    Raises:
        ValueError: It is no PUBLISH packet, or a wrong one.
    """
    head = read_head(data[position], data, start, stop)
    if head is None:
        return min(stop, start + LONGEST_HEAD_BYTES) - position
    packet_bytes = stop - position
    if packet_bytes > largest_packet_bytes:  # all of the rest is read past
        message = Message(head.topic, b"", head.qos, data[position] & 0x0F, head.identifier, b"", now_ms, None)
        large = LargePacket(message, packet_bytes, stop - head.stop, is_too_large=True)
        large.append(data[head.stop : stop])
        return large
    place = properties_place(data, head.stop, stop) if has_properties else (head.stop, head.stop)
    if place is None:
        return min(stop, head.stop + 4) - position
    first, payload_start = place
    held_stop = min(payload_start, first + MOST_PROPERTY_BYTES)
    if held_stop > len(data):
        return held_stop - position
    skipped_bytes = payload_start - held_stop
    flags, properties = data[position] & 0x0F | (CUT_FLAG if skipped_bytes else 0), data[first:held_stop]
    size_bytes = stop - start - skipped_bytes + cost_of_properties(properties) + cost_of_topic(len(head.topic))
    message = Message(head.topic, b"", head.qos, flags, head.identifier, properties, now_ms, None, size_bytes)
    large = LargePacket(message, packet_bytes, stop - held_stop, skipped_bytes, is_too_large=False)
    large.append(data[held_stop:stop])
    return large
