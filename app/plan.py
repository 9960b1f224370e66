"""How much an outage takes: of the disk, of time afterwards, and of the queue of the MQTT broker. Calculation only.

What an entry takes of UNDELIVERED_MAX_BYTES is not guessed: a message is made and packed as the table does it. What
the disk needs for that is in `tables.sizes`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from app.core.message import Message
from app.errors import ConnectorError
from tables import layout
from tables.entry import entry_bytes, pack_entry
from tables.sizes import disk_bytes, repair_seconds, volume_bytes

ACKNOWLEDGED_AFTER_SECONDS = 0.15  # while Kafka is away: STORE_AFTER_MS as it is by default, and a sync
RECEIVE_MAXIMUM_LIMIT = 65_535
SMALLEST_RECEIVE_MAXIMUM = 100
SHORTEST_EXPIRY_SECONDS = 3600
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Stream:
    """What comes, and what is to be survived.

    Attributes:
        rate: Messages a second.
        message_bytes: The payload of one.
        outage_seconds: How long Kafka, or Connector, is away.
        drain_rate: Messages a second that Kafka takes from the worker afterwards, new ones included.
        round_trip_seconds: From the MQTT broker to Connector and back.
        topic_bytes: The length of an MQTT topic.
    """

    rate: float
    message_bytes: int
    outage_seconds: float
    drain_rate: float
    round_trip_seconds: float = 0.01
    topic_bytes: int = 40

    @property
    def messages(self) -> int:
        """Messages that come in the outage."""
        return math.ceil(self.rate * self.outage_seconds)

    @property
    def entry_bytes(self) -> int:
        """What a message takes of the byte limit, with the names of topics and of the client as long as is usual."""
        topic = "t" * self.topic_bytes
        message = Message(b"", bytes(self.message_bytes), 1, 2, 1, b"", 1_800_000_000_000, None)
        message.route = f"{topic}:{topic}"
        message.record_key = topic.encode()
        message.headers = [
            ("connector-id", b"c" * 24 + b"/0123456789abcdef/1000000000000"),
            ("mqtt-topic", topic.encode()),
            ("mqtt-qos", b"1"),
            ("mqtt-retain", b"0"),
        ]
        message.kept_since = 2**32
        key = layout.undelivered_prefix(topic) + layout.pack_sequence(1, 1)
        return entry_bytes(key, pack_entry(message))

    @property
    def limit_bytes(self) -> int:
        """UNDELIVERED_MAX_BYTES for an outage of Kafka."""
        return _with_margin(self.messages * self.entry_bytes)

    @property
    def disk_bytes(self) -> int:
        """What the table may take of the disk while all is well."""
        return disk_bytes(self.limit_bytes)

    @property
    def volume_bytes(self) -> int:
        """What the disk of DB_PERSIST_PATH should have."""
        return volume_bytes(self.limit_bytes)

    @property
    def repair_seconds(self) -> int:
        """How long a start may take that repairs the table."""
        return repair_seconds(self.limit_bytes)

    @property
    def drain_seconds(self) -> float:
        """How long the table takes to drain, with new messages going on; infinite if they are more than Kafka takes."""
        return self.messages / (self.drain_rate - self.rate) if self.drain_rate > self.rate else math.inf

    @property
    def receive_maximum(self) -> int:
        """MQTT_RECEIVE_MAXIMUM: unacknowledged messages, while Kafka is away and each waits for the disk.

        More than `RECEIVE_MAXIMUM_LIMIT` are more than one worker can have.
        """
        wanted = self.rate * (self.round_trip_seconds + ACKNOWLEDGED_AFTER_SECONDS)
        return max(SMALLEST_RECEIVE_MAXIMUM, math.ceil(wanted))

    @property
    def queued_messages(self) -> int:
        """What the MQTT broker should queue for an outage of Connector."""
        return _with_margin(self.messages)

    @property
    def queued_bytes(self) -> int:
        """The payloads of those."""
        return self.queued_messages * self.message_bytes

    @property
    def expiry_seconds(self) -> int:
        """MQTT_SESSION_EXPIRY_SEC: twice the outage, as a session that expires takes its queue with it."""
        return max(SHORTEST_EXPIRY_SECONDS, math.ceil(2 * self.outage_seconds))


def _with_margin(amount: int) -> int:
    """Return a tenth more: at a limit itself the worker stops accepting, and a broker drops."""
    return -(-amount * 11 // 10)


def duration_seconds(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `30m`, `8h` or `2d`.

    Raises:
        ConnectorError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise ConnectorError(f"{text!r} is no duration: write it as 90s, 30m, 8h or 2d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def duration_text(seconds: float) -> str:
    """Return a duration for people, in its two largest units."""
    if math.isinf(seconds):
        return "never"
    parts: list[str] = []
    rest = math.ceil(seconds)
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def bytes_text(size_bytes: float) -> str:
    """Return a size that can also be written into a setting, rounded up: `13.2GB` would be wrong, `13200MB` is not."""
    megabytes = math.ceil(size_bytes / 1_000_000)
    return f"{megabytes}MB" if megabytes < 10_000 else f"{math.ceil(megabytes / 1000)}GB"
