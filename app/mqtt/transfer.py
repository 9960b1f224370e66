"""Bytes to and from the socket, and whether they move as they do with a broker that means well.

A broker that reads nothing, and one that lets a packet drip for ever, keep a connection which carries no messages, and
PINGREQ does not show it. Neither costs more than a bounded memory, and both are left.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from typing import Any

READ_BYTES = 256 * 1024  # one recv takes a whole receive window of small messages
MOST_UNSENT_BYTES = 1_048_576  # acknowledgements for a quarter of a million messages; beyond, nothing is read
KEEPALIVES_UNREAD = 1.5  # as long as a broker waits for us
MOST_UNSENT_PACKETS = 1_000  # trains of acknowledgements, one for each read; all are looked at before the next one
DRIP_SECONDS = 60.0
DRIP_BYTES = 6_000  # in that time; the slowest modem sends ten times as much


def receive(connection: Any) -> bytes | None:
    """Return what the socket has, None if that is nothing yet."""
    try:
        data: bytes = connection.recv(READ_BYTES)
        while pending := getattr(connection, "pending", int)():
            data += connection.recv(pending)  # TLS keeps decrypted bytes that select() does not see
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    if not data:
        raise ConnectionResetError("the broker closed it")
    return data


class Transfer:
    """Watches one connection."""

    def __init__(self) -> None:
        """Have nothing seen yet."""
        self._packet_since = time.monotonic()
        self._packet_bytes = 0
        self._unsent: tuple[object, int] = None, 0
        self._unsent_since = 0.0

    def begin_packet(self) -> None:
        """Note that another packet comes, or that the time until now does not count."""
        self._packet_since = time.monotonic()
        self._packet_bytes = 0

    def took(self, size_bytes: int, *, begins: bool) -> None:
        """Note bytes of a packet that is perhaps not whole; `begins`: its first ones."""
        if begins:
            self.begin_packet()
        self._packet_bytes += size_bytes

    def drips(self) -> bool:
        """Tell whether the packet that is not whole comes too slowly."""
        if time.monotonic() - self._packet_since < DRIP_SECONDS:
            return False
        too_slow = self._packet_bytes < DRIP_BYTES
        self.begin_packet()
        return too_slow

    def is_unread(self, packets: Sequence[Any], keepalive_seconds: float) -> bool:
        """Tell whether the broker has taken none of what is to be sent for too long.

        Args:
            packets: What is to be sent, as paho keeps it; the first may be sent in part.
            keepalive_seconds: How long neither side may be silent.
        """
        now = time.monotonic()
        first, place = (packets[0], packets[0]["pos"]) if packets else (None, 0)
        if first is None or first is not self._unsent[0] or place != self._unsent[1]:
            self._unsent, self._unsent_since = (first, place), now
        return now - self._unsent_since >= KEEPALIVES_UNREAD * keepalive_seconds


def is_clogged(packets: Sequence[Any]) -> bool:
    """Tell whether too much waits to be sent, of what paho keeps."""
    return len(packets) > MOST_UNSENT_PACKETS or unsent_bytes(packets) > MOST_UNSENT_BYTES


def unsent_bytes(packets: Sequence[Any]) -> int:
    """Return how much is to be sent, of what paho keeps."""
    return sum(packet["to_process"] for packet in packets)
