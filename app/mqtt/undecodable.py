"""Packets whose length is right and whose content cannot be decoded.

MQTT requires that the connection ends at such a packet [MQTT-4.13.1-1]. A broker that keeps the message in our session
sends it again on the next connection, and what is queued behind it would never come. So a few connections end, and then
the packet becomes a dead letter: its bytes are kept, it is acknowledged where its packet identifier can be read, and
the other messages flow. Only PUBLISH and PUBREL come again by themselves; for any other packet the connection ends each
time.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import deque
from collections.abc import Container

from app.core.message import UNDECODABLE_FLAG, Message
from app.mqtt.large_packets import PUBLISH, read_head
from app.throttle import Throttle

throttle = Throttle(logging.getLogger(__name__))

PUBREL = 0x60
KINDS = {PUBLISH, PUBREL}
ENDED_CONNECTIONS = 3
WITHIN_SECONDS = 600.0  # reconnecting takes at most 30 s each time, so those of one packet are well within it
KEPT_CHECKSUMS = 1_000


class Undecodable:
    """Decides whether a connection ends for a packet; outlives the connections (MQTT thread)."""

    def __init__(self) -> None:
        """Begin without an ended connection."""
        self._ended: deque[float] = deque(maxlen=ENDED_CONNECTIONS)
        self._set_aside: dict[int, None] = {}

    def set_aside(self, packet: bytes, start: int, error: Exception, taken: Container[int]) -> Message | None:
        """Make a dead letter of a packet, unless the connection ends for it.

        Args:
            packet: The whole packet.
            start: Where its fixed header ends.
            error: What is wrong with it.
            taken: The packet identifiers of unacknowledged messages.

        Returns:
            None if it is one already.

        Raises:
            Exception: `error`, as the connection is to end.
        """
        if packet[0] & 0xF0 not in KINDS or self._ends_connection():
            raise error
        throttle.error(
            "undecodable",
            "a packet of %d bytes that cannot be decoded came although %d connections ended for such ones: "
            "it becomes a dead letter, and what is behind it comes: %s",
            len(packet),
            ENDED_CONNECTIONS,
            error,
        )
        message = message_of(packet, start, taken)
        return message if message.qos or self._is_new(packet) else None

    def _ends_connection(self) -> bool:
        """Tell whether to end the connection, and note it; False: set the packet aside."""
        now = time.monotonic()
        if len(self._ended) == ENDED_CONNECTIONS and now - self._ended[0] < WITHIN_SECONDS:
            return False
        self._ended.append(now)
        return True

    def _is_new(self, packet: bytes) -> bool:
        """Tell whether a packet was not set aside before, and note it; what is not acknowledged comes on and on."""
        checksum = zlib.crc32(packet[1:], packet[0] & 0xF7)  # without DUP, which it has the second time
        if checksum in self._set_aside:
            return False
        if len(self._set_aside) >= KEPT_CHECKSUMS:
            self._set_aside.clear()
        self._set_aside[checksum] = None
        return True


def message_of(packet: bytes, start: int, taken: Container[int]) -> Message:
    """Make a message of a PUBLISH packet that cannot be decoded: all its bytes, and as much of its head as is sound.

    Args:
        packet: The whole packet.
        start: Where its fixed header ends.
        taken: Packet identifiers that are other messages', and so not this one's.
    """
    topic, qos, identifier = b"", 0, 0
    if packet[0] & 0xF0 == PUBLISH:
        try:
            head = read_head(packet[0], packet, start, len(packet))
        except ValueError:
            head = None
        if head is not None:
            topic, qos, identifier, _ = head
            if identifier in taken:
                qos = identifier = 0
    return Message(
        topic, packet, qos, packet[0] & 0x0F | UNDECODABLE_FLAG, identifier, b"", int(time.time() * 1000), None
    )
