"""Which messages of a connection are new, and the end of each QoS 2 flow by PUBREL.

A message that is delivered again is recognised by its packet identifier: on the same connection by the window, after a
reconnect by the session. However often a broker repeats PUBREL or a message, the work for it is bounded: one answer for
everything that was read at once, and one request to the table writer at a time for each packet identifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.mqtt.control_packets import MalformedPacketError

if TYPE_CHECKING:
    from app.core.message import Message
    from app.mqtt.qos2 import Qos2Flows
    from app.mqtt.window import Window


class Admission:
    """Decides for one connection.

    Attributes:
        owes_answer: Something came that `answer` is to answer, or that the event loop is to acknowledge.
        came_again: A message came that an earlier connection had; the event loop acknowledges it if it is safe already.
    """

    def __init__(self, qos2: Qos2Flows, window: Window) -> None:
        """Begin a connection with its window; the QoS 2 flows outlive it."""
        self.owes_answer = False
        self.came_again = False
        self._qos2 = qos2
        self._window = window
        self._completed: list[int] = []
        self._released: list[int] = []  # stored packet identifiers that PUBREL named

    def admit(self, message: Message) -> bool:
        """Put a QoS 1 or 2 message into the window; False if it is a redelivery of a message that is there already.

        Raises:
            MalformedPacketError: Its packet identifier is another message's.
        """
        window, identifier = self._window, message.packet_identifier
        known = self._qos2.redelivered(message) if message.qos == 2 else None
        if known is not None:
            if identifier not in window.identifiers:
                known.window = window
                window.add(known)
                self.came_again = self.owes_answer = True
            return False
        if identifier in window.identifiers:
            if message.flags & 8 and self._is_known(message):
                return False  # sent again on the same connection, before we acknowledged it
            raise MalformedPacketError("a packet identifier is used for two messages [MQTT-2.2.1-3]", f": {identifier}")
        message.window = window
        window.add(message)
        if message.qos == 2:
            self._qos2.begin(message)
        return True

    def _is_known(self, message: Message) -> bool:
        """Tell whether the unacknowledged message of the same identifier has the same topic and payload."""
        identifier = message.packet_identifier
        pending = [known for known in list(self._window.pending) if known.packet_identifier == identifier]
        # None: it was acknowledged this moment. Without a topic it is known from the table alone.
        return not pending or not pending[0].topic or pending[0].fingerprint == message.fingerprint

    def on_pubrel(self, body: bytes) -> None:
        """Handle a PUBREL: its flow ends at once if nothing of it is stored, else when the table has forgotten it."""
        if len(body) < 2:
            raise MalformedPacketError("PUBREL without packet identifier")
        self.owes_answer = True
        identifier = body[0] << 8 | body[1]
        if not self._qos2.end(identifier):
            self._completed.append(identifier)
        elif identifier not in self._window.releasing:
            self._window.releasing.add(identifier)
            self._released.append(identifier)

    def answer(self) -> list[int]:
        """Send the PUBCOMP of what was read; return what the table is to forget first, and begin anew."""
        if self._completed:
            self._window.complete(self._completed)
            self._completed = []
        released, self._released = self._released, []
        self.owes_answer = self.came_again = False
        return released
