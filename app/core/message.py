r"""One MQTT message on its way to Kafka, and the states that it goes through.

A message is made by the MQTT client, or read from the table. The router gives it its destination, key and headers.
From then on only its state changes. A message may be on both of these ways at once:

    received --+--> with librdkafka (`handed_at`) ----------------> finished: Kafka has it, or it is a dead letter
               '--> to be stored --> stored in the table --> synced on disk

A message is *safe*, so that it may be acknowledged to MQTT, when Kafka has it, or when the sync of its entry has ended.
One that becomes a dead letter is finished at once, and safe only after the sync of the dead letter. A message is stored
only if its lane asked for that, and never sent or stored once it is finished. For messages on their way each state is
set in one place: `handed_at` and `alone` in `app.core.in_flight`, `to_be_stored` and `finished` in the lane, `stored`
in `tables.write`, `safe` in `app.mqtt.window`. A message that is made from the table begins with its states.

`Message` has slots and no checks, as there is one per PUBLISH packet.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.bounds import USUAL_HEADERS, cost_of_headers
from app.characters import text_of
from app.core.destination import Destination
from app.core.device_time import DeviceTime
from app.core.null_value import NULL, NullValue
from app.pieces import Pieces

if TYPE_CHECKING:
    from io import BytesIO

    from app.core.acknowledging import AcknowledgementWindow

Header = tuple[str, bytes]

# The headers that a record in DEAD_LETTER_TOPIC has in addition to its own.
DEAD_LETTER_REASON = "dead-letter-reason"
DEAD_LETTER_TOPIC = "dead-letter-topic"
# Slots, key, headers, and librdkafka's copy of them: measured at about 900 bytes for 100 bytes of payload.
MESSAGE_OVERHEAD_BYTES = 800
LARGE_BYTES = 256 * 1024  # a larger payload is dropped from memory as soon as it is not needed there
UNDECODABLE_FLAG = 0x100  # beside the flags of the fixed header: the payload is a packet that could not be decoded


class Message:
    """One MQTT message on its way to Kafka.

    Attributes:
        topic: The MQTT topic as it came, bytes (it may not be UTF-8).
        payload: The payload, unchanged; or its place in the table, if it was not read yet; or `NULL`, if it is empty
            and becomes a record without a value.
        pieces: The place of its payload in the table, if that is in pieces; else not set.
        qos: 0, 1 or 2, as the broker delivered it.
        flags: The fixed header's low nibble: DUP 8, QoS 6, RETAIN 1 [MQTT-3.3.1]; `UNDECODABLE_FLAG`, `CUT_FLAG`.
        packet_identifier: 0 for QoS 0.
        properties: The MQTT 5 properties as they came, not decoded; dropped when long ones have become headers.
        timestamp_ms: When it was received, milliseconds since 1970; the record's timestamp, unless the record is sent
            with the current time (`app.core.receipt_times`).
        device_time: What its device says instead (`app.core.device_time`); None: nothing, as of most messages.
        window: The unacknowledged messages of its connection; None for QoS 0 and for what came from the table.
        size_bytes: How much memory it counts for: the length of its packet, an estimate for the rest, and what its
            route has made.
        route: The route's name, the label of its metrics.
        destination: The Kafka topic that it goes to.
        key: The table's key, Kafka topic and sequence; orders the messages of a lane.
        record_key: The Kafka record's key.
        headers: The Kafka record's headers.
        alone: As long as it is in flight, nothing else of its lane is.
        handed_at: `time.monotonic()` when librdkafka got it; 0 before.
        dead_letter_key: If it was a dead letter: the key of that entry, which is removed when it is stored; else empty.
        dead_reason: Why it is a dead letter; empty if it is none.
        error: What the last delivery report said; None if it was delivered.
        kept_fingerprint: The `fingerprint` of a large payload, calculated before that is dropped from memory.
        to_be_stored: The table writer was asked to store it.
        stored: It is in the table (not necessarily synced).
        stored_bytes: The size of its entry in the table.
        kept_since: The number of the first write that stored it, as a message or as a dead letter; 0: never stored.
        finished: Kafka has it, or it is a dead letter; it must not be sent or stored again.
        safe: Kafka has it, its entry is synced, or it was dropped on purpose: it may be acknowledged.
    """

    __slots__ = (
        "alone",
        "dead_letter_key",
        "dead_reason",
        "destination",
        "device_time",
        "error",
        "finished",
        "flags",
        "handed_at",
        "headers",
        "kept_fingerprint",
        "kept_since",
        "key",
        "packet_identifier",
        "payload",
        "pieces",
        "properties",
        "qos",
        "record_key",
        "route",
        "safe",
        "size_bytes",
        "stored",
        "stored_bytes",
        "timestamp_ms",
        "to_be_stored",
        "topic",
        "window",
    )

    def __init__(  # noqa: PLR0913, PLR0917, one for each field of a packet; by name each would cost as much as two
        self,
        topic: bytes,
        payload: bytes | Pieces | NullValue,
        qos: int,
        flags: int,
        packet_identifier: int,
        properties: bytes,
        timestamp_ms: int,
        window: AcknowledgementWindow | None,
        received_bytes: int = 0,
    ) -> None:
        """Take what the packet says; `received_bytes` is its length, or 0: that of the parts."""
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.flags = flags
        self.packet_identifier = packet_identifier
        self.properties = properties
        self.timestamp_ms = timestamp_ms
        self.device_time: DeviceTime | None = None
        self.window = window
        self.size_bytes = (received_bytes or len(payload) + len(topic) + len(properties)) + MESSAGE_OVERHEAD_BYTES
        self.to_be_stored = self.stored = self.finished = self.safe = False
        self.handed_at = 0.0
        self.kept_since = 0
        self.dead_reason = ""
        self.dead_letter_key = b""
        self.key = b""

    route: str
    destination: Destination
    record_key: bytes | None
    headers: list[Header]
    pieces: Pieces
    error: Any
    alone: bool
    kept_fingerprint: int
    stored_bytes: int

    def on_delivery(self, error: Any, _record: object) -> None:
        """Note the delivery report; a bound method per message is the cheapest callback that knows its message."""
        self.error = error
        self.destination.reports.append(self)

    def name_dead(self, reason: str) -> None:
        """Note why it is a dead letter; the first reason counts."""
        self.dead_reason = self.dead_reason or reason

    def dead_letter_headers(self) -> list[Header]:
        """Return its headers, and what the record in DEAD_LETTER_TOPIC says besides."""
        return [
            *self.headers,
            (DEAD_LETTER_REASON, self.dead_reason.encode()),
            (DEAD_LETTER_TOPIC, self.destination.topic.encode()),
        ]

    def remove_dead_letter_headers(self) -> str | None:
        """Remove what `dead_letter_headers` added; return the Kafka topic that is named there, None if they are not.

        No publisher can forge these headers: `app.mqtt.property_names` has what publishers can name.
        """
        if (named := dict(self.headers).get(DEAD_LETTER_TOPIC)) is None:
            return None
        added = {DEAD_LETTER_REASON, DEAD_LETTER_TOPIC}
        self.headers[:] = [header for header in self.headers if header[0] not in added]
        return named.decode()  # empty: it belonged to no route

    @property
    def topic_text(self) -> str:
        """The MQTT topic for people; a message from the table has it in its headers, a new one has no headers yet."""
        topic = self.topic or dict(getattr(self, "headers", ())).get("mqtt-topic", b"")
        return text_of(topic)

    @property
    def fingerprint(self) -> int:
        """Tells messages of the same packet identifier apart, where a broker has used it again."""
        kept: int | None = getattr(self, "kept_fingerprint", None)
        if kept is not None:
            return kept
        return zlib.crc32(self.in_memory, self.first_fingerprint)

    @property
    def first_fingerprint(self) -> int:
        """The `fingerprint` before the payload is added, which may be done part by part."""
        return zlib.crc32(b"%d " % len(self.topic) + self.topic)

    @property
    def in_memory(self) -> bytes:
        """The payload; an error if it is in the table alone."""
        if isinstance(self.payload, Pieces):
            raise TypeError(f"the payload of {self.key.hex()} was not read from the table")
        return b"" if isinstance(self.payload, NullValue) else self.payload

    @property
    def is_in_pieces(self) -> bool:
        """Whether the table has its payload in pieces, though perhaps not yet its entry."""
        return getattr(self, "pieces", None) is not None

    def set_payload(self, gathered: BytesIO, fingerprint: int | None = None) -> None:
        """Set a payload that came in parts: the buffer itself, not a copy; and its `fingerprint`, where known."""
        self.payload = gathered.getvalue()
        if fingerprint is not None:
            self.kept_fingerprint = fingerprint

    def share_pieces_of(self, other: Message) -> None:
        """Have the same pieces as another message, if that has any."""
        if other.is_in_pieces:
            self.pieces = other.pieces

    def let_go_of_payload(self) -> None:
        """Drop a large payload from memory: Kafka or the table has it, and only the acknowledgement is still due."""
        if len(self.payload) > LARGE_BYTES:
            if self.qos:
                self.kept_fingerprint = self.fingerprint
            self.payload = b""

    @property
    def is_tombstone(self) -> bool:
        """Whether the record's value is null, which deletes its key from a compacted topic; the payload is empty."""
        return self.payload is NULL

    def become_tombstone(self) -> None:
        """Have a record whose value is null."""
        self.payload = NULL

    def lose_identifier(self) -> None:
        """Have no packet identifier any more: it is another message's by now, or its session is lost."""
        self.packet_identifier = 0

    def take_time(self, device_time: DeviceTime, properties: bytes) -> None:
        """Have a time that was taken out of the properties."""
        self.properties, self.device_time = properties, device_time

    def drop_device_time(self) -> None:
        """Have the record go with the time of receipt."""
        self.device_time = None

    def share_time_of(self, other: Message) -> None:
        """Have the record be of the same time as that of another message."""
        self.device_time = other.device_time

    def let_go_of_properties(self) -> None:
        """Drop its properties, as they are headers by now."""
        self.properties = b""

    @classmethod
    def restored(
        cls,
        key: bytes,
        route: str,
        timestamp_ms: int,
        record_key: bytes | None,
        headers: list[Header],
        payload: bytes | Pieces | NullValue,
        dead_reason: str,
        stored_bytes: int,
    ) -> Message:
        """Make a message from its entry in the table: it is stored and safe, and its part in MQTT is over."""
        message = cls(b"", payload, 0, 0, 0, b"", timestamp_ms, None, stored_bytes)
        if len(headers) > USUAL_HEADERS:
            message.size_bytes += cost_of_headers(len(headers))
        message.key = key
        message.route = route
        message.record_key = record_key
        message.headers = headers
        message.dead_reason = dead_reason
        message.stored_bytes = stored_bytes
        message.to_be_stored = message.stored = message.safe = True
        return message


def note_destination(messages: Sequence[Message], destination: Destination) -> Sequence[Message]:
    """Note the Kafka topic of messages that were made from the table; return them."""
    for message in messages:
        message.destination = destination
    return messages
