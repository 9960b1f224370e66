"""The MQTT client: paho, except for what a message costs.

paho connects, subscribes, pings and speaks TLS. This subclass overrides its public `loop_read`, `loop_write`,
`loop_misc` and `want_write` to read many packets with one system call, to own PUBLISH and PUBREL (stock paho sends
PUBREC before the application has the message, and loses it in a crash), and to send acknowledgements that belong to
this connection only. The members of paho that are not public and used here are named in a contract test.

Large packets are `app.mqtt.large_packets`' matter, those that cannot be decoded `app.mqtt.undecodable`'s. Of all that
is no PUBLISH, `app.mqtt.control_packets` says first whether it may come, and what of it paho is to see. A client lives
for one connection, on one thread. Its owner gives it a `Session` (what outlives the connection).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from app.bounds import LONG_TOPIC_BYTES, cost_of_properties, cost_of_topic
from app.messages import Batch, Message
from app.mqtt.acknowledgements import Window
from app.mqtt.admission import Admission
from app.mqtt.control_packets import CONNACK, PINGRESP, PUBREL, ControlPackets, MalformedPacketError
from app.mqtt.large_packets import GATHER_ABOVE_BYTES, PUBLISH, LargePacket, begin_large
from app.mqtt.properties import variable_byte_integer
from app.mqtt.transfer import Transfer, is_clogged, receive
from app.mqtt.undecodable import Undecodable
from app.throttle import Throttle

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

    from app.mqtt.session import Session

throttle = Throttle(logging.getLogger(__name__))

NOT_ALLOWED = "the MQTT broker sent what MQTT does not allow, so the connection ends"
SHORT_PROPERTIES_BYTES = 16  # subscription identifiers and the like; longer ones count as the headers that they become


class OverError(Exception):
    """The broker has ended the connection in words; what comes behind them is not read."""


class BridgeClient(paho.Client):
    """One connection to the broker.

    Attributes:
        window: The unacknowledged messages of this connection.
        undecodable: What is done about packets that cannot be decoded; its owner gives it one that outlives it.
        reading: Whether the socket is read; while it is not, PINGREQ goes on and a missing PINGRESP does not count.
        opened: The socket to connect with.
        control: What the broker may send besides PUBLISH.
        was_wronged: The connection ended as the broker did what MQTT does not allow, or nothing moved any more.
    """

    def __init__(
        self,
        client_id: str,
        protocol: MQTTProtocolVersion,
        session: Session,
        window: Window,
        hand_over: Callable[[Batch, list[int]], None],
        largest_packet_bytes: int,
    ) -> None:
        """Make a client that is not connected yet.

        Args:
            client_id: The client identifier that the broker keeps the session under.
            protocol: `MQTTv5` or `MQTTv311`.
            session: What outlives the connection.
            window: A new window.
            hand_over: Takes a batch, and the packet identifiers of stored QoS 2 messages that PUBREL released.
            largest_packet_bytes: A PUBLISH packet above it is not held, see `large_packets`.
        """
        clean_session = None if protocol == MQTTProtocolVersion.MQTTv5 else False
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        self.session = session
        self.window = window
        self.reading = True
        self.undecodable = Undecodable()
        self._hand_over = hand_over
        self._has_properties = protocol == MQTTProtocolVersion.MQTTv5
        self._largest_packet_bytes = largest_packet_bytes
        self._gather_above_bytes = min(largest_packet_bytes, GATHER_ABOVE_BYTES)
        self._large: LargePacket | None = None
        self._unparsed: list[bytes] = []
        self._unparsed_bytes = 0
        self._needed_bytes = 2
        self.opened: SocketLike | None = None
        self.control = ControlPackets(has_properties=self._has_properties)
        self.was_wronged = False
        self._transfer = Transfer()
        self._admission = Admission(session, window)

    def _create_socket(self) -> SocketLike:
        """Give paho the socket that was opened for it (`app.mqtt.opening`); its own way blocks the thread."""
        assert self.opened is not None
        return self.opened

    @property
    def heard_at(self) -> float:
        """When the broker was heard last, by `time.monotonic()`."""
        return float(self._last_bytes_received)

    # ---- reading

    @property
    def coming_bytes(self) -> int:
        """The length of a large packet that is being gathered, 0 if none is."""
        large = self._large
        return large.packet_bytes if large is not None and not large.is_too_large else 0

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002, paho's signature
        """Read what the socket has, handle every whole packet in it, and hand the messages over as one batch."""
        connection = self.socket()
        if connection is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            data = receive(connection)
            if data is None:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            self._last_bytes_received = time.monotonic()
            self._take(data)
        except OSError:  # paho itself would say no more than that the connection ended
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        except (MalformedPacketError, MalformedPacket) as error:
            return self._leave(getattr(error, "kind", "malformed packet"), f"{NOT_ALLOWED}: {error}")
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _leave(self, kind: str, fault: str) -> MQTTErrorCode:
        """End the connection for what the broker did; say so, each kind once a minute."""
        self.was_wronged = True
        self.session.note_fault(fault)
        hint = "" if self.control.has_connack else "; is it an MQTT broker?"
        throttle.warning(("fault", kind), "%s%s", fault, hint)
        return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)

    def _take(self, data: bytes) -> None:
        """Parse when at least the packet that was cut off is whole; a large one is not copied again and again."""
        if self.control.is_over:
            return
        self._transfer.took(len(data), begins=not self._unparsed and self._large is None)
        if self._large is not None:
            data = self._large.take(data)
            self._end_large()
            if not data:
                return
        self._unparsed.append(data)
        self._unparsed_bytes += len(data)
        if self._unparsed_bytes < self._needed_bytes:
            return
        data = b"".join(self._unparsed) if len(self._unparsed) > 1 else data
        rest = self._parse_and_hand_over(data)
        while self._end_large():
            rest = self._parse_and_hand_over(rest)
        if len(rest) < len(data):
            self._transfer.begin_packet()
        self._unparsed = [rest] if rest else []
        self._unparsed_bytes = len(rest)

    def _parse_and_hand_over(self, data: bytes) -> bytes:
        """Handle what is whole, up to the first large packet that is not; return what comes after that."""
        batch = Batch([], self.window)
        try:
            if data and not self.control.has_connack:
                self.control.check_first(data[0])
            consumed = self._parse(data, batch)
        except OverError:
            consumed = len(data)
        except (IndexError, ValueError) as error:
            raise MalformedPacketError("malformed packet", f": {error}") from error
        finally:
            self._hand_over_all(batch)
        return data[consumed:]

    def _hand_over_all(self, batch: Batch) -> None:
        """Hand over what was read at once, if there is anything for the event loop to do."""
        came_again = self._admission.came_again
        released = self._admission.answer()
        if batch.messages or released or came_again:
            batch.size_bytes = sum([message.size_bytes for message in batch.messages])
            self._hand_over(batch, released)

    def _parse(self, data: bytes, batch: Batch) -> int:
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
                    self._on_publish_packet(header, data, start, stop, now_ms, batch)
                else:
                    self._on_other_packet(header, data[start:stop])
            except (IndexError, ValueError, MalformedPacketError) as error:
                message = self.undecodable.set_aside(
                    data[position:stop], start - position, error, self.window.identifiers
                )
                if message is not None and (not message.qos or self._admission.admit(message)):
                    batch.messages.append(message)
            position = stop
        return position

    def _begin_large(self, data: bytes, position: int, start: int, stop: int, now_ms: int) -> int | None:
        """Begin to gather a large packet, if enough of it has come; return where what is dealt with ends.

        Returns:
            None: it cannot be decoded; it is taken like a small one, which is whole when that is found.
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
        """Hand over a large packet when it was read to its end; return whether there was one."""
        large = self._large
        if large is None or not large.is_whole:
            return False
        self._large = None
        message = large.end()
        if not message.qos or self._admission.admit(message):
            batch = Batch([message], self.window, message.size_bytes, large.packet_bytes if large.is_too_large else 0)
            self._hand_over(batch, [])
        else:
            self._hand_over_all(Batch([], self.window))
        return True

    def _on_publish_packet(self, header: int, data: bytes, start: int, stop: int, now_ms: int, batch: Batch) -> None:
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
            if data[cursor] == 0:
                cursor += 1
            else:
                length, first = variable_byte_integer(data, cursor)
                cursor = first + length
                properties = data[first:cursor]
                if length > SHORT_PROPERTIES_BYTES:
                    size_bytes += cost_of_properties(properties)
        if cursor > stop or qos == 3 or (qos and not identifier):
            raise MalformedPacketError("a PUBLISH packet with QoS 3, identifier 0 or fields past its end")
        window = self.window
        message = Message(
            topic, data[cursor:stop], qos, header & 0x0F, identifier, properties, now_ms, None, size_bytes
        )
        # As nearly all are: what `Admission.admit` and `Window.add` do for these, without the calls.
        if qos == 1 and identifier not in window.identifiers:
            message.window = window
            window.identifiers.add(identifier)
            window.pending.append(message)
        elif qos and not self._admission.admit(message):
            return
        batch.messages.append(message)

    def _on_other_packet(self, header: int, body: bytes) -> None:
        """Handle PUBREL and PINGRESP, and let paho handle what of CONNACK, SUBACK, UNSUBACK and DISCONNECT is read."""
        if header >> 4 == PUBREL:
            self._admission.end_release(body)
            return
        body = self.control.take(header >> 4, body)
        if header >> 4 == PINGRESP:
            self._ping_t = 0.0
            return
        keepalive_seconds = self.keepalive
        self._in_packet = {
            "command": header,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(body),
            "packet": bytearray(body),
            "to_process": 0,
            "pos": 0,
        }
        result = self._packet_handle()
        if self.control.is_over:  # paho takes a refusal in the words of MQTT 5 for an error
            raise OverError
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise MalformedPacketError(f"packet type {header >> 4}: {paho.error_string(result)}")
        if header >> 4 == CONNACK:
            # The broker's keepalive bounds how rarely we ping. Longer than ours, or none, it shall not blind us.
            self._keepalive = min(keepalive_seconds, self.keepalive or keepalive_seconds)

    def close(self) -> None:
        """Close the socket if it is still open, and let go of whoever holds this client."""
        self._sock_close()
        # In a circle with them it would wait for Python's collector, with its TLS context and what it had read.
        self.on_connect = self.on_subscribe = self.on_unsubscribe = self.on_disconnect = None

    # ---- writing

    @property
    def is_clogged(self) -> bool:
        """Whether so much waits to be sent that nothing more is to be read, as what is read has to be answered."""
        return is_clogged(self._out_packet)

    def want_write(self) -> bool:
        """Tell whether there is something to send, acknowledgements included."""
        return bool(self.window.outgoing) or super().want_write()

    def loop_write(self) -> MQTTErrorCode:
        """Send what waits, acknowledgements included."""
        return self.send_acknowledgements() if self.window.outgoing else super().loop_write()

    def send_acknowledgements(self) -> MQTTErrorCode:
        """Send what waits; this connection's acknowledgements in one packet train."""
        outgoing = self.window.outgoing
        packets = b"".join([outgoing.popleft() for _ in range(len(outgoing))])
        self._out_packet.append(
            {
                "command": paho.PUBACK,
                "mid": 0,
                "qos": 1,
                "pos": 0,
                "to_process": len(packets),
                "packet": packets,
                "info": None,
            }
        )
        return super().loop_write()

    def loop_misc(self) -> MQTTErrorCode:
        """Keep the connection alive; while the socket is not read, no PINGRESP can be missed."""
        now = time.monotonic()
        if self._transfer.is_unread(self._out_packet, self.keepalive):
            return self._leave("unread", "the MQTT broker takes nothing of what we send, so the connection ends")
        if not self.reading:
            self._last_bytes_received = now
            self._ping_t = 0.0
            self._transfer.begin_packet()  # time counts only while the socket is read
        elif (self._unparsed or self._large is not None) and self._transfer.drips():
            return self._leave(
                "drips", "the MQTT broker sends a packet so slowly that it never ends, so the connection ends"
            )
        # A dead connection is noticed after 1.5 keepalive intervals, as on the broker's side; paho waits for 2.
        elif self._ping_t and now - max(self._ping_t, self._last_bytes_received) >= self.keepalive / 2:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_KEEPALIVE)
        pinged = self._ping_t
        result = super().loop_misc()
        self.control.pings += self._ping_t not in {0.0, pinged}
        return result
