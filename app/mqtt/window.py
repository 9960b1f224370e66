"""The window of unacknowledged messages of one connection, and their acknowledgements in the order of receipt.

An acknowledgement belongs to one connection: a packet identifier means another message on the next one, and a stale
PUBACK would lose that message. So every connection has a `Window` of its own, what it queues is sent by its own
connection only, and a window that is over acknowledges nothing.

Two threads meet here. The MQTT thread adds what it receives and sends what is queued; the event loop marks messages
safe and acknowledges them. Both sides use single operations of deques and sets only, which are atomic.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Collection, Iterable

from app.core.memory_budget import MemoryBudget
from app.core.message import Message

PUBACK = 0x4002
PUBREC = 0x5002
PUBCOMP = b"\x70\x02"


class Window:
    """What one connection received with QoS 1 or 2 and did not acknowledge yet, in the order of receipt.

    Attributes:
        pending: The messages, oldest first.
        identifiers: Their packet identifiers, to know a redelivery on the same connection.
        outgoing: Acknowledgement packets that wait for the socket, whole packets per element.
        releasing: Packet identifiers of QoS 2 that the table is to forget before their PUBCOMP is sent.
        closed: The connection is over.
        forgetting: The broker's session was lost, and what the table holds of it is not durably forgotten yet.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        """Make the window of a new connection.

        Args:
            wake: Wakes the MQTT thread so that it sends what is queued; called on the event loop's thread.
        """
        self.pending: deque[Message] = deque()
        self.identifiers: set[int] = set()
        self.outgoing: deque[bytes] = deque()
        self.releasing: set[int] = set()
        self.closed = False
        self.forgetting = False
        self._wake = wake

    def add(self, message: Message) -> None:
        """Add a message that was just received (MQTT thread); `app.mqtt.reader` does it itself to be fast."""
        self.identifiers.add(message.packet_identifier)
        self.pending.append(message)

    def close(self) -> None:
        """End the window with its connection: what was not acknowledged will be delivered again by the broker."""
        self.closed = True
        # Messages know their window: in a circle they would wait for Python's collector. Not cleared, but replaced, as
        # the event loop may be going through it.
        self.pending = deque()

    def acknowledge_safe(self) -> None:
        """Queue the acknowledgements of all safe messages that no unsafe one precedes [MQTT-4.6.0-2] (event loop)."""
        pending = self.pending
        if self.closed or not pending or not pending[0].safe:
            return
        words: list[int] = []  # packets of two words each: type and length, identifier
        while pending and (message := pending[0]).safe:
            pending.popleft()
            words.append(PUBACK if message.qos == 1 else PUBREC)
            words.append(message.packet_identifier)
        self.identifiers.difference_update(words[1::2])
        self._send(struct.pack(f">{len(words)}H", *words))

    def complete(self, packet_identifiers: Collection[int]) -> None:
        """Queue the PUBCOMP of each packet identifier, known or not [MQTT-4.3.3-11]."""
        self.releasing.difference_update(packet_identifiers)
        self._send(b"".join(PUBCOMP + identifier.to_bytes(2, "big") for identifier in packet_identifiers))

    def wait_until_forgotten(self) -> None:
        """Receive nothing until the old session is durably forgotten (MQTT thread)."""
        self.forgetting = True

    def forgotten(self) -> None:
        """Let messages be received again: the old session is durably forgotten (event loop)."""
        self.forgetting = False
        self._wake()

    def _send(self, packets: bytes) -> None:
        if not self.closed and packets:
            self.outgoing.append(packets)
            self._wake()


class Acknowledger:
    """Marks messages safe, and acknowledges those that no unsafe message precedes (event loop)."""

    def __init__(self, budget: MemoryBudget) -> None:
        """Take the memory budget, for which safe messages do not count any more."""
        self._budget = budget

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Mark messages safe: Kafka has them, they are synced, or they are dropped."""
        news = []
        for message in messages:
            if not message.safe:  # one that became a dead letter may be named twice
                message.safe = True
                news.append(message)
        for window in {message.window for message in news}:
            if window is not None:
                window.acknowledge_safe()
        self._budget.count_safe(len(news), sum([message.size_bytes for message in news]))
