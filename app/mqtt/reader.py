"""From bytes to messages: the packets of one connection, without its socket.

    feed(bytes) -> PUBLISH: a `Message`, if `admission` says that it is new -> `pass_batch`
                -> PUBREL: `admission` ends a QoS 2 flow
                -> other packets: `control_packets` checks them, paho handles those that Connector needs

What was received with one call becomes one batch. A packet of which a part came waits for its rest. `large_packets`
collects a large packet or skips it; `undecodable` deals with one that cannot be decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.bounds import LONG_TOPIC_BYTES, cost_of_properties, cost_of_topic
from app.core.message import Message
from app.core.requests import Batch
from app.mqtt.admission import Admission
from app.mqtt.control_packets import PUBREL, ControlPackets, MalformedPacketError, OverError
from app.mqtt.large_packets import GATHER_ABOVE_BYTES, PUBLISH, LargePacket, begin_large
from app.mqtt.properties import variable_byte_integer
from app.mqtt.undecodable import Undecodable
from app.mqtt.window import Window

SHORT_PROPERTIES_BYTES = 16  # subscription identifiers and the like; longer ones count as the headers that they become

PassBatch = Callable[[Batch, list[int]], None]


def _nobody(_header: int, _body: bytes) -> None:
    """Ignore a packet, as the connection is over."""


class PacketReader:
    """Reads the packets of one connection (MQTT thread).

    Attributes:
        control: What the broker may send besides PUBLISH.
        admission: Which messages are new.
        undecodable: What is done about packets that cannot be decoded.
        received_bytes: How many bytes came.
        packet_begins_at: How many bytes had come before the packet of which only a part is there.
    """

    def __init__(
        self,
        window: Window,
        admission: Admission,
        undecodable: Undecodable,
        pass_batch: PassBatch,
        on_control_packet: Callable[[int, bytes], None],
        largest_packet_bytes: int,
        *,
        has_properties: bool,
    ) -> None:
        """Begin a connection, of which nothing has come yet.

        Args:
            window: The window of the connection.
            admission: Which messages are new.
            undecodable: What is done about packets that cannot be decoded; it outlives the connection.
            pass_batch: Gets a batch, and the packet identifiers of stored QoS 2 messages that PUBREL named.
            on_control_packet: Gets the header and the checked body of a packet that is no PUBLISH and no PUBREL.
            largest_packet_bytes: A PUBLISH packet above it is not held, see `large_packets`.
            has_properties: The connection speaks MQTT 5.
        """
        self.control = ControlPackets(has_properties=has_properties)
        self.admission = admission
        self.undecodable = undecodable
        self.received_bytes = 0
        self.packet_begins_at = 0
        self._window = window
        self._pass_batch = pass_batch
        self._on_control_packet = on_control_packet
        self._has_properties = has_properties
        self._largest_packet_bytes = largest_packet_bytes
        self._gather_above_bytes = min(largest_packet_bytes, GATHER_ABOVE_BYTES)
        self._large: LargePacket | None = None
        self._unparsed: list[bytes] = []
        self._unparsed_bytes = 0
        self._needed_bytes = 2

    @property
    def is_within_packet(self) -> bool:
        """Whether a packet has begun to come and is not whole."""
        return bool(self._unparsed) or self._large is not None

    @property
    def coming_bytes(self) -> int:
        """The length of a large packet that is being gathered, 0 if none is."""
        large = self._large
        return large.packet_bytes if large is not None and not large.is_too_large else 0

    def close(self) -> None:
        """Let go of the client, which holds this: in a circle both would wait for Python's collector."""
        self._on_control_packet = _nobody

    def feed(self, data: bytes) -> None:
        """Parse what was received. A packet that is not complete waits; its parts are joined once, when all have come.

        Raises:
            MalformedPacketError: The broker sent what MQTT does not allow; the connection is to end.
        """
        if self.control.is_over:
            return
        self.received_bytes += len(data)
        if self._large is not None:
            data = self._large.append(data)
            self._end_large()
            if not data:
                return
        self._unparsed.append(data)
        self._unparsed_bytes += len(data)
        if self._unparsed_bytes < self._needed_bytes:
            return
        data = b"".join(self._unparsed) if len(self._unparsed) > 1 else data
        rest = self._parse_and_pass(data)
        while self._large is not None and self._end_large():
            rest = self._parse_and_pass(rest)
        if len(rest) < len(data):
            self.packet_begins_at = self.received_bytes - len(rest)
        self._unparsed = [rest] if rest else []
        self._unparsed_bytes = len(rest)

    def _parse_and_pass(self, data: bytes) -> bytes:
        """Handle what is whole, up to the first large packet that is not; return what comes after that."""
        messages: list[Message] = []
        try:
            if data and not self.control.has_connack:
                self.control.check_first(data[0])
            consumed = self._parse(data, messages)
        except OverError:
            consumed = len(data)
        except (IndexError, ValueError) as error:
            raise MalformedPacketError("malformed packet", f": {error}") from error
        finally:
            self._pass_all(messages)
        return data[consumed:]

    def _pass_all(self, messages: list[Message]) -> None:
        """Pass on what was read at once, if there is anything for the event loop to do."""
        admission = self.admission
        came_again = admission.came_again
        released = admission.answer() if admission.owes_answer else []
        if messages or released or came_again:
            size_bytes = sum([message.size_bytes for message in messages])
            self._pass_batch(Batch(messages, self._window, size_bytes, came_again=came_again), released)

    def _parse(self, data: bytes, messages: list[Message]) -> int:
        """Handle every whole packet in `data`; return how many bytes that was."""
        position, end = 0, len(data)
        now_ms = int(time.time() * 1000)
        self._needed_bytes = 2
        while end - position >= 2:
            length, start = data[position + 1], position + 2
            if length & 0x80:
                if end - position < 5 and min(data[position + 1 : end]) & 0x80:
                    self._needed_bytes = end - position + 1
                    break
                length, start = variable_byte_integer(data, position + 1)
            stop = start + length
            header = data[position]
            if header & 0xF0 != PUBLISH:
                self.control.check_header(header, length)
            elif (
                stop - position > self._gather_above_bytes
                and (dealt_with := self._begin_large(data, position, start, stop, now_ms)) is not None
            ):
                return dealt_with
            if stop > end:
                self._needed_bytes = stop - position
                break
            try:
                if header & 0xF0 == PUBLISH:
                    self._on_publish_packet(header, data, start, stop, now_ms, messages)
                else:
                    self._on_other_packet(header, data[start:stop])
            except (IndexError, ValueError, MalformedPacketError) as error:
                message = self.undecodable.set_aside(
                    data[position:stop], start - position, error, self._window.identifiers
                )
                if message is not None and (not message.qos or self.admission.admit(message)):
                    messages.append(message)
            position = stop
        return position

    def _on_publish_packet(
        self, header: int, data: bytes, start: int, stop: int, now_ms: int, messages: list[Message]
    ) -> None:
        """Make a message of a PUBLISH packet (MQTT 5, section 3.3), unless it is a redelivery of one that we have."""
        cursor = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : cursor]
        qos = header >> 1 & 3
        identifier, size_bytes = 0, stop - start
        if len(topic) > LONG_TOPIC_BYTES:
            size_bytes += cost_of_topic(len(topic))
        if qos:
            identifier = data[cursor] << 8 | data[cursor + 1]
            cursor += 2
        properties = b""
        if self._has_properties:
            length, first = data[cursor], cursor + 1
            if length & 0x80:
                length, first = variable_byte_integer(data, cursor)
            cursor = first + length
            if length:
                properties = data[first:cursor]
                if length > SHORT_PROPERTIES_BYTES:
                    size_bytes += cost_of_properties(properties)
        if cursor > stop or qos == 3 or (qos and not identifier):
            raise MalformedPacketError("a PUBLISH packet with QoS 3, identifier 0 or fields past its end")
        window = self._window
        message = Message(
            topic, data[cursor:stop], qos, header & 0x0F, identifier, properties, now_ms, None, size_bytes
        )
        # As nearly all are: what `Admission.admit` and `Window.add` do for these, without the calls.
        if qos == 1 and identifier not in window.identifiers:
            message.window = window
            window.identifiers.add(identifier)
            window.pending.append(message)
        elif qos and not self.admission.admit(message):
            return
        messages.append(message)

    def _on_other_packet(self, header: int, body: bytes) -> None:
        """Handle PUBREL, and pass on what of the others is read."""
        if header >> 4 == PUBREL:
            self.admission.on_pubrel(body)
            return
        self._on_control_packet(header, self.control.checked_body(header >> 4, body))
        if self.control.is_over:
            raise OverError

    def _begin_large(self, data: bytes, position: int, start: int, stop: int, now_ms: int) -> int | None:
        """Begin to gather a large packet, if enough of it has come; return where what is dealt with ends.

        Returns:
            None: it cannot be decoded; it is treated like a small one, which is whole when that is found.
        """
        limit_bytes, has_properties = self._largest_packet_bytes, self._has_properties
        try:
            begun = begin_large(data, position, start, stop, now_ms, limit_bytes, has_properties=has_properties)
        except ValueError:
            if stop - position > limit_bytes:
                raise
            return None
        if isinstance(begun, int):
            self._needed_bytes = begun
            return position
        self._large = begun
        return min(stop, len(data))

    def _end_large(self) -> bool:
        """Pass on a large packet when it was read to its end; return whether there was one."""
        large = self._large
        if large is None or not large.is_whole:
            return False
        self._large = None
        self.packet_begins_at = self.received_bytes
        message = large.end()
        if not message.qos or self.admission.admit(message):
            batch = Batch([message], self._window, message.size_bytes, large.packet_bytes if large.is_too_large else 0)
            self._pass_batch(batch, [])
        else:
            self._pass_all([])
        return True
