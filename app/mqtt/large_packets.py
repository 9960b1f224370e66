"""A PUBLISH packet that is too large to be held: it is read past, and what is left of it is acknowledged and counted.

Under MQTT 5 the broker is told the limit in CONNECT and keeps such messages to itself. MQTT 3.1.1 has no word for it.
To close the connection would not help: the broker would send the same message again, for ever. So the payload is thrown
away as it comes, and the message takes its turn among the acknowledgements without it.
"""

from __future__ import annotations

from app.messages import Message

PUBLISH = 0x30
LONGEST_HEAD_BYTES = 2 + 65_535 + 2  # topic and packet identifier


class LargePacket:
    """What is left to be read of one.

    Attributes:
        message: The message, without payload and properties.
        packet_bytes: The length of the whole packet.
    """

    def __init__(self, data: bytes, position: int, start: int, stop: int, now_ms: int) -> None:
        """Read the head; all of `data` that belongs to the packet is thereby read.

        Args:
            data: What came, with at least the head of the packet.
            position: Where the packet begins.
            start: Where its fixed header ends.
            stop: Where it ends; behind the end of `data`, as a rule.
            now_ms: The time, in milliseconds since 1970.

        Raises:
            IndexError: The packet ends within its head.
            ValueError: It is no PUBLISH packet, or a wrong one.
        """
        header, self.packet_bytes = data[position], stop - position
        if header & 0xF0 != PUBLISH:
            raise ValueError(f"a packet of type {header >> 4} has {self.packet_bytes} bytes")
        head = data[start : min(stop, start + LONGEST_HEAD_BYTES)]
        topic_stop = 2 + (head[0] << 8 | head[1])
        qos = header >> 1 & 3
        identifier = head[topic_stop] << 8 | head[topic_stop + 1] if qos else 0
        if qos == 3 or (qos and not identifier) or topic_stop > len(head):
            raise ValueError("a PUBLISH packet with QoS 3, identifier 0 or a topic past its end")
        self.message = Message(head[2:topic_stop], b"", qos, header & 0x0F, identifier, b"", now_ms, None)
        self._rest_bytes = max(0, stop - len(data))

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is to come."""
        return not self._rest_bytes

    def skip(self, data: bytes) -> bytes:
        """Throw away what belongs to it; return what comes after it."""
        skipped = min(len(data), self._rest_bytes)
        self._rest_bytes -= skipped
        return data[skipped:]
