"""Finds a broker that reads nothing of what we send, or that sends one packet so slowly that it never ends.

Such a connection carries no messages, and PINGREQ does not show it. Neither costs more than a bounded memory, and in
both cases the client ends the connection.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

MOST_UNSENT_BYTES = 1_048_576  # acknowledgements for a quarter of a million messages; beyond, nothing is read
KEEPALIVES_UNREAD = 1.5  # as long as a broker waits for us
MOST_UNSENT_PACKETS = 1_000  # trains of acknowledgements, one for each read; all are looked at before the next one
DRIP_SECONDS = 60.0
DRIP_BYTES = 6_000  # in that time; the slowest modem sends ten times as much


class Transfer:
    """Watches one connection."""

    def __init__(self) -> None:
        """Begin with nothing received and nothing to send."""
        self._packet_begins_at = -1  # of the packet that was not whole the last time
        self._since = time.monotonic()
        self._bytes_before = 0  # that had come then
        self._unsent: tuple[object, int] = None, 0
        self._unsent_since = 0.0

    def count_from_now(self, received_bytes: int) -> None:
        """Note that the time until now does not count.

        Args:
            received_bytes: How much has come on the connection.
        """
        self._since, self._bytes_before = time.monotonic(), received_bytes

    def drips(self, packet_begins_at: int, received_bytes: int) -> bool:
        """Tell whether the packet that is not whole comes too slowly; to be asked often.

        Args:
            packet_begins_at: How much had come on the connection when it began.
            received_bytes: How much has come by now.
        """
        if packet_begins_at != self._packet_begins_at:  # another packet than the last time
            self._packet_begins_at = packet_begins_at
            self.count_from_now(packet_begins_at)
        if time.monotonic() - self._since < DRIP_SECONDS:
            return False
        too_slow = received_bytes - self._bytes_before < DRIP_BYTES
        self.count_from_now(received_bytes)
        return too_slow

    def is_unread(self, packets: Sequence[Any], keepalive_seconds: float) -> bool:
        """Tell whether the broker has read nothing of what is to be sent for too long.

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
