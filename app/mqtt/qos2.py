"""The QoS 2 messages of the session that were received and not ended by PUBREL yet. They outlive a connection.

What is known of a packet identifier:

    nothing --PUBLISH--> awaits PUBREL: the message itself
                           |  the table has it, or Kafka has it and it is large: its fingerprint replaces it (`_let_go`)
                           v
                         awaits PUBREL: the fingerprint, by which a redelivery is known
    awaits PUBREL --PUBREL--> nothing; or, if the table holds it, "maybe stored" until the table has forgotten it

A start begins with the identifiers that are in the table. When the broker has lost the session, all are forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from app.core.message import Message

HELD_BYTES = 2_048  # up to this size a message stays in memory until PUBREL: there are 65,535 at most


class Qos2Flows:
    """The QoS 2 flows that are not at their end (MQTT thread).

    Attributes:
        awaiting_release: The messages by packet identifier, from PUBLISH to PUBREL.
        maybe_stored: Identifiers that the table may hold of ended flows: their PUBREL goes by way of the table writer.
        stored_fingerprints: By packet identifier, of the messages in `awaiting_release` that are not held in memory.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.awaiting_release: dict[int, Message] = {}
        self.maybe_stored: set[int] = set()
        self.stored_fingerprints: dict[int, int] = {}
        self._held: deque[Message] = deque()

    def recover(self, packet_identifiers: Mapping[int, int]) -> None:
        """Begin with the identifiers that were stored with their messages (event loop, before the thread).

        Args:
            packet_identifiers: The identifiers, with the fingerprints of their messages.
        """
        for identifier, fingerprint in packet_identifiers.items():
            self._remember(identifier, fingerprint)

    def begin(self, message: Message) -> None:
        """Note that a message was received that PUBREL will end."""
        identifier = message.packet_identifier
        self.stored_fingerprints.pop(identifier, None)
        old = self.awaiting_release.get(identifier)
        if old is None:
            self.maybe_stored.discard(identifier)  # PUBCOMP was sent since, so it was durably forgotten
        else:  # the broker is done with the old message, the table is not
            old.lose_identifier()  # where it is still to be stored: not under what is another message's now
            if old.stored:
                self.maybe_stored.add(identifier)
        self.awaiting_release[identifier] = message
        self._held.append(message)
        self._let_go()

    def end(self, identifier: int) -> bool:
        """Note a PUBREL; return whether the table may hold the identifier, which must go before PUBCOMP is sent."""
        self.stored_fingerprints.pop(identifier, None)
        message = self.awaiting_release.pop(identifier, None)
        if message is not None and message.stored:
            self.maybe_stored.add(identifier)
        return identifier in self.maybe_stored

    def forget_all(self) -> None:
        """Forget all flows, as their session is lost; what is stored from now on stores no identifier of it."""
        for message in self.awaiting_release.values():
            message.lose_identifier()
        self.awaiting_release.clear()
        self._held.clear()
        self.stored_fingerprints.clear()
        self.maybe_stored.clear()

    def redelivered(self, message: Message) -> Message | None:
        """Return the message that a PUBLISH repeats; None if it is a new one.

        Without DUP it is new: the broker is done with the old one [MQTT-3.3.1-1]. So is another message under the same
        identifier: the broker lost the session that the identifier is remembered from.
        """
        known = self.awaiting_release.get(message.packet_identifier)
        if known is None or not message.flags & 8:
            return None
        fingerprint = self.stored_fingerprints.get(message.packet_identifier)
        expected = known.fingerprint if fingerprint is None else fingerprint
        return known if message.fingerprint == expected else None

    def _remember(self, identifier: int, fingerprint: int, *, stored: bool = True) -> None:
        """Have a message stand for one of which only the packet identifier is still of interest."""
        message = Message(b"", b"", 2, 4, identifier, b"", 0, None)
        message.stored, message.safe, message.finished = stored, True, True
        self.awaiting_release[identifier] = message
        self.stored_fingerprints[identifier] = fingerprint

    def _let_go(self) -> None:
        """Do not hold messages until PUBREL that the table or Kafka has; a broker may take its time for it."""
        held = self._held
        while held and held[0].safe:
            message = held.popleft()
            identifier = message.packet_identifier
            if self.awaiting_release.get(identifier) is not message:
                continue
            if message.stored:
                self._remember(identifier, message.fingerprint)
            elif message.finished and message.size_bytes > HELD_BYTES:
                self._remember(identifier, message.fingerprint, stored=False)
