"""What the fault proxy knows of MQTT, Kafka and TLS: where a frame ends, what it is, and how Kafka says an error.

A *frame* is an MQTT packet, a request or response of Kafka with its length, or a record of TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tests.support.scripted_broker import PUBACK, PUBLISH, UNSUBACK, integer_at, whole_packet

# The api keys of Kafka that tests name.
PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID, DESCRIBE_CONFIGS = 0, 3, 18, 22, 32
# The record type of TLS that carries what is sent, and of TLS 1.3 the end of the handshake.
APPLICATION_DATA = 23
# The error codes of Kafka that an idempotent producer may get.
OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID = 45, 47, 59
# librdkafka asks for version 10. From 9 on lengths are varints and fields have tags; from 13 on topics have no names.
PRODUCE_VERSIONS = range(9, 13)
_BASE_OFFSET_BYTES, _TIME_BYTES, _START_OFFSET_BYTES = 8, 8, 8


class Direction(Enum):
    """Where a frame goes; the client is the bridge, the server is the broker."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


TO_SERVER, TO_CLIENT = Direction


@dataclass
class Frame:
    """A frame that the proxy saw.

    Attributes:
        connection: The number of its connection, the first is 0.
        direction: Where it goes.
        kind: The MQTT packet type, 1 to 15; the Kafka api key, of a response that of its request; or TLS's record type.
        identifier: The packet identifier, 0 for a packet that has none; or Kafka's correlation id.
        version: Of Kafka's api; 0 for MQTT.
        data: The whole frame, as it came.
        at: `time.monotonic()` when it was whole.
        forwarded: It was sent on, whole and unchanged.
    """

    connection: int
    direction: Direction
    kind: int
    identifier: int
    version: int
    data: bytes
    at: float
    forwarded: bool = False


class Mqtt:
    """One connection of MQTT."""

    def length(self, data: memoryview) -> int | None:
        """Return the length of the frame that the data begin with, none while it is not whole."""
        return whole_packet(data)

    def describe(self, _direction: Direction, data: bytes) -> tuple[int, int, int]:
        """Return kind, identifier and version of a frame."""
        kind = data[0] >> 4
        _, start = integer_at(data, 1)
        if kind == PUBLISH and data[0] & 6:
            start += 2 + int.from_bytes(data[start : start + 2], "big")
        elif not PUBACK <= kind <= UNSUBACK:
            return kind, 0, 0
        return kind, int.from_bytes(data[start : start + 2], "big"), 0


class KafkaProtocol:
    """One connection of Kafka; a response is known by the request that it answers."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[int, int]] = {}

    def length(self, data: memoryview) -> int | None:
        """Return the length of the frame that the data begin with, none while it is not whole."""
        length = 4 + int.from_bytes(data[:4], "big")
        return length if len(data) >= max(4, length) else None

    def describe(self, direction: Direction, data: bytes) -> tuple[int, int, int]:
        """Return api key, correlation id and api version of a frame."""
        if direction is TO_SERVER:
            key, version, identifier = (_integer(data, *place) for place in ((4, 2), (6, 2), (8, 4)))
            self._asked[identifier] = key, version
            return key, identifier, version
        identifier = _integer(data, 4, 4)
        key, version = self._asked.pop(identifier)
        return key, identifier, version


class TlsRecords:
    """One connection that is encrypted: a frame is a record of TLS, and its kind the record's type."""

    def length(self, data: memoryview) -> int | None:
        """Return the length of the frame that the data begin with, none while it is not whole."""
        length = 5 + int.from_bytes(data[3:5], "big")
        return length if len(data) >= max(5, length) else None

    def describe(self, _direction: Direction, data: bytes) -> tuple[int, int, int]:
        """Return the type of a frame; it has neither identifier nor version."""
        return data[0], 0, 0


Protocol = Mqtt | KafkaProtocol | TlsRecords


def produce_response_with_error(frame: Frame, code: int) -> bytes:
    """Return a Produce response that says of each of its partitions that there was this error."""
    assert (frame.kind, frame.direction) == (PRODUCE, TO_CLIENT), "only answers to Produce can be rewritten"
    assert frame.version in PRODUCE_VERSIONS, f"Produce of version {frame.version} is not known here"
    data = bytearray(frame.data)
    for position in _error_positions(frame.data):
        data[position : position + 2] = code.to_bytes(2, "big")
        data[position + 2 : position + 2 + _BASE_OFFSET_BYTES] = b"\xff" * _BASE_OFFSET_BYTES
    return bytes(data)


def produce_errors(frame: Frame) -> list[int]:
    """Return the error code of each partition of a Produce response."""
    return [_integer(frame.data, position, 2) for position in _error_positions(frame.data)]


def configs_with_error(frame: Frame, code: int) -> bytes:
    """Return a DescribeConfigs response that says of its first resource that there was this error."""
    assert (frame.kind, frame.direction) == (DESCRIBE_CONFIGS, TO_CLIENT)
    assert frame.version <= 3, "from version 4 on lengths are varints"
    return frame.data[:16] + code.to_bytes(2, "big") + frame.data[18:]


def versions_without(frame: Frame, key: int) -> bytes:
    """Return an ApiVersions response that does not offer an api."""
    assert (frame.kind, frame.direction) == (API_VERSIONS, TO_CLIENT)
    assert frame.version == 3, f"ApiVersions of version {frame.version} is not known here"
    keys, position = _compact_length(frame.data, 10)
    for _ in range(keys):
        if _integer(frame.data, position, 2) == key:
            return frame.data[:position] + (9999).to_bytes(2, "big") + frame.data[position + 2 :]
        position = _after_tags(frame.data, position + 6)
    raise AssertionError(f"the api {key} is not offered anyhow")


def _error_positions(data: bytes) -> list[int]:
    """Return where the error codes of a Produce response stand."""
    positions = []
    position = _after_tags(data, 8)
    topics, position = _compact_length(data, position)
    for _ in range(topics):
        length, position = _compact_length(data, position)
        partitions, position = _compact_length(data, position + length)
        for _ in range(partitions):
            positions.append(position + 4)
            position = _after_partition(data, position)
        position = _after_tags(data, position)
    return positions


def _after_partition(data: bytes, position: int) -> int:
    """Return where a partition's part of a Produce response ends."""
    position += 4 + 2 + _BASE_OFFSET_BYTES + _TIME_BYTES + _START_OFFSET_BYTES
    records, position = _compact_length(data, position)
    for _ in range(records):
        length, position = _compact_length(data, position + 4)
        position = _after_tags(data, position + length)
    length, position = _compact_length(data, position)
    return _after_tags(data, position + length)


def _after_tags(data: bytes, position: int) -> int:
    count, position = integer_at(data, position)
    for _ in range(count):
        _, position = integer_at(data, position)
        length, position = integer_at(data, position)
        position += length
    return position


def _compact_length(data: bytes, position: int) -> tuple[int, int]:
    """Return the length of a compact string or array, 0 if it is null, and the position after it."""
    length, position = integer_at(data, position)
    return max(0, length - 1), position


def _integer(data: bytes, position: int, length: int) -> int:
    return int.from_bytes(data[position : position + length], "big", signed=True)
