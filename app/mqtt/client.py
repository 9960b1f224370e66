"""The MQTT client: paho, except for the path of a message, where paho would be too slow or not safe.

paho connects, subscribes, pings and speaks TLS. This subclass overrides its public `loop_read`, `loop_write`,
`loop_misc` and `want_write`: to read many packets with one system call, to own PUBLISH and PUBREL (stock paho sends
PUBREC before the application has the message, and loses it in a crash), and to send acknowledgements that belong to
this connection only. The members of paho that are not public and used here are named in a contract test.

The bytes become packets and messages in `app.mqtt.reader`; what is sent for them comes from `app.mqtt.window`. A client
lives for one connection, on the MQTT thread. Its owner gives it a `Session` (what outlives the connection).
"""

from __future__ import annotations

import logging
import ssl
import time
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from app.mqtt.admission import Admission
from app.mqtt.control_packets import CONNACK, PINGRESP, MalformedPacketError
from app.mqtt.reader import PacketReader
from app.mqtt.transfer import Transfer, is_clogged
from app.mqtt.undecodable import Undecodable
from app.throttle import Throttle

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

    from app.mqtt.reader import PassBatch
    from app.mqtt.session import Session
    from app.mqtt.window import Window

throttle = Throttle(logging.getLogger(__name__))

NOT_ALLOWED = "the MQTT broker sent what MQTT does not allow, so the connection ends"
READ_BYTES = 256 * 1024  # one recv returns a whole receive window of small messages


class BridgeClient(paho.Client):
    """One connection to the broker.

    Attributes:
        window: The unacknowledged messages of this connection.
        reader: What makes packets and messages of the bytes.
        reading: Whether the socket is read; while it is not, PINGREQ goes on and a missing PINGRESP does not count.
        ended_for_fault: Connector ended the connection: the broker violated MQTT, or no bytes moved any more.
    """

    def __init__(
        self,
        client_id: str,
        protocol: MQTTProtocolVersion,
        session: Session,
        window: Window,
        pass_batch: PassBatch,
        largest_packet_bytes: int,
        undecodable: Undecodable | None = None,
    ) -> None:
        """Make a client that is not connected yet.

        Args:
            client_id: The client identifier that the broker keeps the session under.
            protocol: `MQTTv5` or `MQTTv311`.
            session: What outlives the connection.
            window: A new window.
            pass_batch: Gets the batches, see `PacketReader`.
            largest_packet_bytes: A PUBLISH packet above it is not held, see `large_packets`.
            undecodable: What is done about packets that cannot be decoded; its owner gives one that outlives this.
        """
        clean_session = None if protocol == MQTTProtocolVersion.MQTTv5 else False
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        self.window = window
        self.reader = PacketReader(
            window,
            Admission(session.qos2, window),
            undecodable or Undecodable(),
            pass_batch,
            self._on_control_packet,
            largest_packet_bytes,
            has_properties=protocol == MQTTProtocolVersion.MQTTv5,
        )
        self.reading = True
        self.ended_for_fault = False
        self._standing = session.standing
        self._opened: SocketLike | None = None
        self._transfer = Transfer()

    def connect_over(self, opened: SocketLike, host: str, port: int, keepalive_seconds: int, **options: Any) -> None:
        """Connect over a socket that is open (`app.mqtt.opening`), as paho's own way to open one blocks the thread.

        Args:
            opened: The socket.
            host: The broker's name, for paho.
            port: Its port, for paho.
            keepalive_seconds: What to ask for.
            **options: What else paho's `connect` has.
        """
        self._opened = opened
        self.connect(host, port, keepalive_seconds, **options)

    def _create_socket(self) -> SocketLike:
        """Give paho the socket that was opened for it."""
        assert self._opened is not None
        return self._opened

    def call_back(self, *, on_connect: Any, on_subscribe: Any, on_unsubscribe: Any, on_disconnect: Any) -> None:
        """Have paho call these; they get its callbacks' arguments."""
        self.on_connect, self.on_disconnect = on_connect, on_disconnect
        self.on_subscribe, self.on_unsubscribe = on_subscribe, on_unsubscribe

    def expect_answer(self, kind: int, packet_identifier: int, filters: int) -> None:
        """Note that a SUBACK or UNSUBACK may come, for so many filters."""
        self.reader.control.expect(kind, packet_identifier, filters)

    @property
    def largest_bytes(self) -> int:
        """How long a packet to the broker may be."""
        return self.reader.control.largest_bytes

    @property
    def heard_at(self) -> float:
        """When the broker was heard last, by `time.monotonic()`."""
        return float(self._last_bytes_received)

    def turn(self, *, reading: bool, readable: bool, writable: bool) -> None:
        """Do what the socket is ready for, send what waits, and keep the connection alive.

        Args:
            reading: Whether the socket is read at present.
            readable: It has something to read.
            writable: It has room for something to send.
        """
        self.reading = reading
        connection = self.socket()
        if readable:
            self.loop_read()
        if writable and self.socket() is connection:
            self.loop_write()
        if self.socket() is connection:
            if self.want_write():
                self.loop_write()
            self.loop_misc()

    # ---- reading

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002, paho's signature
        """Read what the socket has, and handle every whole packet in it."""
        connection = self.socket()
        if connection is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            data: bytes = connection.recv(READ_BYTES)
            while pending := getattr(connection, "pending", int)():
                data += connection.recv(pending)  # TLS keeps decrypted bytes that select() does not see
            if not data:  # the broker closed it; paho itself would say no more than that the connection ended
                return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            self._last_bytes_received = time.monotonic()
            self.reader.feed(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return MQTTErrorCode.MQTT_ERR_SUCCESS  # nothing yet
        except OSError:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        except (MalformedPacketError, MalformedPacket) as error:
            return self._end_for(getattr(error, "kind", "malformed packet"), f"{NOT_ALLOWED}: {error}")
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _end_for(self, kind: str, fault: str) -> MQTTErrorCode:
        """End the connection for what the broker did, and log it, each kind once a minute."""
        self.ended_for_fault = True
        self._standing.note_fault(fault)
        hint = "" if self.reader.control.has_connack else "; is it an MQTT broker?"
        throttle.warning(("fault", kind), "%s%s", fault, hint)
        return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)

    def _on_control_packet(self, header: int, body: bytes) -> None:
        """Have paho handle what is read of CONNACK, SUBACK, UNSUBACK and DISCONNECT; PINGRESP needs nobody."""
        kind = header >> 4
        if kind == PINGRESP:
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
        # paho calls a refusal in the packet of MQTT 5 an error.
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS and not self.reader.control.is_over:
            raise MalformedPacketError(f"packet type {kind}: {paho.error_string(result)}")
        if kind == CONNACK:
            # Server Keep Alive may only shorten our interval: a longer one, or 0, would show a dead connection late.
            self._keepalive = min(keepalive_seconds, self.keepalive or keepalive_seconds)

    def close(self) -> None:
        """Close the socket if it is still open, and let go of whoever holds this client."""
        self._sock_close()
        # In a circle with them it would wait for Python's collector, with its TLS context and what it had read.
        self.call_back(on_connect=None, on_subscribe=None, on_unsubscribe=None, on_disconnect=None)
        self.reader.close()

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
        now, reader = time.monotonic(), self.reader
        if self._transfer.is_unread(self._out_packet, self.keepalive):
            return self._end_for("unread", "the MQTT broker reads nothing of what we send, so the connection ends")
        if not self.reading:
            self._last_bytes_received = now
            self._ping_t = 0.0
            self._transfer.count_from_now(reader.received_bytes)  # time counts only while the socket is read
        elif reader.is_within_packet and self._transfer.drips(reader.packet_begins_at, reader.received_bytes):
            return self._end_for(
                "drips", "the MQTT broker sends a packet so slowly that it never ends, so the connection ends"
            )
        # A dead connection is noticed after 1.5 keepalive intervals, as on the broker's side; paho waits for 2.
        elif self._ping_t and now - max(self._ping_t, self._last_bytes_received) >= self.keepalive / 2:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_KEEPALIVE)
        pinged = self._ping_t
        result = super().loop_misc()
        if self._ping_t not in {0.0, pinged}:
            reader.control.on_ping()
        return result
