"""What travels between the rooms: a message, a batch of them, and the requests to the keeper.

A `Message` is made by the MQTT client (or read back from the table), gets its record (key, headers, sequence) from
the router, and then only changes its state: *queued* for the table, *stored* in it, *confirmed* by Kafka, *safe* to
acknowledge. It has slots and no checks as there is one per PUBLISH packet.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.bounds import USUAL_HEADERS, cost_of_headers
from app.characters import text_of
from app.pieces import Pieces

if TYPE_CHECKING:
    from io import BytesIO

    from app.kafka.lane import Lane
    from app.mqtt.window import Window

Header = tuple[str, bytes]

# What a record in DEAD_LETTER_TOPIC has besides its own headers.
DEAD_LETTER_REASON = "dead-letter-reason"
DEAD_LETTER_TOPIC = "dead-letter-topic"
# Slots, key, headers, and librdkafka's copy of them: measured at about 900 bytes for 100 bytes of payload.
MESSAGE_OVERHEAD_BYTES = 800
LARGE_BYTES = 256 * 1024  # a payload above it is not held any longer than it is needed
SMALL_BYTES = 2_000  # that most messages stay below
UNDECODABLE_FLAG = 0x100  # beside the flags of the fixed header: the payload is a packet that could not be decoded


class Message:
    """One MQTT message on its way to Kafka.

    Attributes:
        topic: The MQTT topic as it came, bytes (it may not be UTF-8).
        payload: The payload, untouched; or where the table has it, if it was not read yet.
        pieces: Where the table has its payload, if that is in pieces; else not set.
        qos: 0, 1 or 2, as the broker delivered it.
        flags: The fixed header's low nibble: DUP 8, QoS 6, RETAIN 1 [MQTT-3.3.1]; `UNDECODABLE_FLAG`, `CUT_FLAG`.
        packet_identifier: 0 for QoS 0.
        properties: The MQTT 5 properties as they came, undecoded, until long ones are headers; empty for MQTT 3.1.1.
        timestamp_ms: When it was received, milliseconds since 1970; the record's timestamp.
        window: The unacknowledged messages of its connection; None for QoS 0 and for what came from the table.
        size_bytes: What it is counted with wherever memory is bounded: what it came with, and the rest by guess.
        route: The mapping's text, the label of its metrics.
        lane: The Kafka topic that it goes to, with its state.
        key: The table's key, lane and sequence; orders the messages of a lane.
        record_key: The Kafka record's key.
        headers: The Kafka record's headers.
        alone: It was handed to librdkafka while nothing else of its lane was in flight, and nothing after it was.
        handed_at: `time.monotonic()` when librdkafka got it; 0 before.
        dead_letter_key: Of the dead letter that it was and that ends when it is stored; empty if it was none.
        dead_reason: Why it is a dead letter; empty if it is none.
        error: What the last delivery report said; None if it was delivered.
        queued: The keeper was asked to store it.
        kept_fingerprint: The `fingerprint` of a large payload, found as it came, or before it was let go of.
        stored: It is in the table (not necessarily synced).
        stored_bytes: What its entry takes in the table.
        kept_since: The number of the table's write that first held it, or what it was made from; 0 before.
        confirmed: Kafka has it, or it was settled otherwise; it must not be sent or stored again.
        safe: Kafka has it or it is synced: it may be acknowledged.
    """

    __slots__ = (
        "alone",
        "confirmed",
        "dead_letter_key",
        "dead_reason",
        "error",
        "flags",
        "handed_at",
        "headers",
        "kept_fingerprint",
        "kept_since",
        "key",
        "lane",
        "packet_identifier",
        "payload",
        "pieces",
        "properties",
        "qos",
        "queued",
        "record_key",
        "route",
        "safe",
        "size_bytes",
        "stored",
        "stored_bytes",
        "timestamp_ms",
        "topic",
        "window",
    )

    def __init__(  # noqa: PLR0913, PLR0917, one for each field of a packet; by name each would cost as much as two
        self,
        topic: bytes,
        payload: bytes | Pieces,
        qos: int,
        flags: int,
        packet_identifier: int,
        properties: bytes,
        timestamp_ms: int,
        window: Window | None,
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
        self.window = window
        self.size_bytes = (received_bytes or len(payload) + len(topic) + len(properties)) + MESSAGE_OVERHEAD_BYTES
        self.queued = self.stored = self.confirmed = self.safe = False
        self.handed_at = 0.0
        self.kept_since = 0
        self.dead_reason = ""
        self.dead_letter_key = b""
        self.key = b""

    route: str
    lane: Lane
    record_key: bytes | None
    headers: list[Header]
    pieces: Pieces
    error: Any
    alone: bool
    kept_fingerprint: int
    stored_bytes: int

    def on_delivery(self, error: Any, _record: object) -> None:
        """Take the delivery report; a bound method per message is the cheapest callback that knows its message."""
        self.error = error
        self.lane.reports.append(self)

    def dead_letter_headers(self) -> list[Header]:
        """Return its headers, and what the record in DEAD_LETTER_TOPIC says besides."""
        return [
            *self.headers,
            (DEAD_LETTER_REASON, self.dead_reason.encode()),
            (DEAD_LETTER_TOPIC, self.lane.topic.encode()),
        ]

    def take_back_headers(self) -> str | None:
        """Remove what `dead_letter_headers` added; return the Kafka topic that is named there, None if they are not.

        No publisher can forge these headers: what publishers name begins with `mqtt-user-`.
        """
        named = dict(self.headers).get(DEAD_LETTER_TOPIC)
        if named is None:
            return None
        self.headers = [header for header in self.headers if header[0] not in {DEAD_LETTER_REASON, DEAD_LETTER_TOPIC}]
        return named.decode()  # empty: it belonged to no mapping

    @property
    def topic_text(self) -> str:
        """The MQTT topic for people; what came from the table has it in its headers alone."""
        topic = self.topic or dict(self.headers).get("mqtt-topic", b"")
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
        """The payload, which must not be in the table alone."""
        if isinstance(self.payload, Pieces):
            raise TypeError(f"the payload of {self.key.hex()} was not read from the table")
        return self.payload

    @property
    def is_in_pieces(self) -> bool:
        """Whether the table has its payload in pieces, though perhaps not yet its entry."""
        return getattr(self, "pieces", None) is not None

    def take_payload(self, gathered: BytesIO, fingerprint: int | None = None) -> None:
        """Have a payload that came in parts: the buffer itself, no copy of it; and its `fingerprint`, where known."""
        self.payload = gathered.getvalue()
        if fingerprint is not None:
            self.kept_fingerprint = fingerprint

    def take_pieces_of(self, other: Message) -> None:
        """Have the same pieces as another message, if that has any."""
        if other.is_in_pieces:
            self.pieces = other.pieces

    def let_go_of_payload(self) -> None:
        """Hold a large payload no longer: Kafka or the table has it, and only the acknowledgement is still to come."""
        if len(self.payload) > LARGE_BYTES:
            if self.qos:
                self.kept_fingerprint = self.fingerprint
            self.payload = b""

    @classmethod
    def restored(
        cls,
        key: bytes,
        route: str,
        timestamp_ms: int,
        record_key: bytes | None,
        headers: list[Header],
        payload: bytes | Pieces,
        dead_reason: str,
        stored_bytes: int,
    ) -> Message:
        """Make a message from its entry in the table: stored and safe, its MQTT side is over."""
        message = cls(b"", payload, 0, 0, 0, b"", timestamp_ms, None, stored_bytes)
        if len(headers) > USUAL_HEADERS:
            message.size_bytes += cost_of_headers(len(headers))
        message.key = key
        message.route = route
        message.record_key = record_key
        message.headers = headers
        message.dead_reason = dead_reason
        message.stored_bytes = stored_bytes
        message.queued = message.stored = message.safe = True
        return message


def stored_by_route(messages: Sequence[Message]) -> Iterable[tuple[str, int, int]]:
    """Return route, number and bytes of stored messages, for each route that there is among them."""
    numbers = Counter([message.route for message in messages])
    if len(numbers) == 1:  # as nearly always, in a lane
        [(route, number)] = numbers.items()
        return [(route, number, sum([message.stored_bytes for message in messages]))]
    sizes = dict.fromkeys(numbers, 0)
    for message in messages:
        sizes[message.route] += message.stored_bytes
    return [(route, number, sizes[route]) for route, number in numbers.items()]


def has_large(messages: Sequence[Message], size_bytes: int) -> bool:
    """Tell whether there may be a large message among messages of so many bytes, without looking at each."""
    return size_bytes - SMALL_BYTES * len(messages) > LARGE_BYTES


@dataclass(slots=True)
class Batch:
    """What the MQTT client read at once, in the order of receipt.

    Attributes:
        too_large_bytes: Its one message is left of a PUBLISH packet of this length, which was too large; else 0.
    """

    messages: list[Message]
    window: Window
    size_bytes: int = 0
    too_large_bytes: int = 0


@dataclass(slots=True)
class Restored:
    """Entries read from the table for one lane, in order; void when the lane was rewound since.

    Attributes:
        generation: The lane's `generation` when they were read.
    """

    lane: Lane
    messages: list[Message]
    generation: int


@dataclass(slots=True)
class Undelivered:
    """Ask the keeper to store messages, in this order."""

    messages: list[Message]


@dataclass(slots=True)
class DeadLettered:
    """Ask the keeper to set messages aside that cannot go to Kafka; each has its `dead_reason`."""

    messages: list[Message]


@dataclass(slots=True)
class Subscribed:
    """Ask the keeper to remember the subscriptions that the broker's session has.

    Attributes:
        filters: The filters.
        generations: When each was subscribed to, by filter; also of removed ones.
        on_synced: Called when it is durable (event loop).
        left: The filters that a drain leaves, and that the session has as long as it is not done.
        granted_at: When each was granted first (Unix seconds).
        left_out: Filters at which the broker closes the connection.
    """

    filters: list[str]
    generations: dict[str, int]
    on_synced: Callable[[], None] | None = None
    left: list[str] = field(default_factory=list)
    granted_at: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Released:
    """Ask the keeper to forget stored packet identifiers, and then to acknowledge with PUBCOMP.

    Attributes:
        packet_identifiers: Those that PUBREL named; None for all, when the broker lost the session.
    """

    packet_identifiers: list[int] | None
    window: Window


@dataclass(slots=True)
class Remembered:
    """Ask the keeper to remember a single value of the table's metadata."""

    name: str
    value: Any


KeeperRequest = Undelivered | DeadLettered | Subscribed | Released | Remembered


@dataclass(slots=True)
class Flow:
    """How much was received that is neither with Kafka nor on disk: what memory alone holds.

    Each side of the hand-over writes its own two counters, so no lock is needed.
    """

    limit_messages: int = 5_000  # of a larger burst the end would be late, and go by way of the table
    limit_bytes: int = 64 * 1024 * 1024
    received_messages: int = 0
    received_bytes: int = 0
    settled_messages: int = 0
    settled_bytes: int = 0
    paused: bool = False
    wake: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def messages(self) -> int:
        """Messages that memory alone holds."""
        return self.received_messages - self.settled_messages

    def check_full(self, coming_bytes: int = 0) -> bool:
        """Tell whether the socket must not be read for now, and remember it for `wake_if_paused`.

        Args:
            coming_bytes: The length of a large packet of which a part was read; the rest waits for room as well, unless
                nothing else is held.
        """
        messages, held_bytes = self.messages, self.received_bytes - self.settled_bytes
        full = messages >= self.limit_messages or held_bytes >= self.limit_bytes
        if coming_bytes and messages and held_bytes + coming_bytes > self.limit_bytes:
            full = True
        self.paused = full
        return full

    def wake_if_paused(self) -> None:
        """Let the reader look again, when it waits for room and half of the limit is free."""
        few = (
            self.messages * 2 < self.limit_messages
            and (self.received_bytes - self.settled_bytes) * 2 < self.limit_bytes
        )
        if self.paused and (few or not self.messages) and self.wake is not None:
            self.wake()
