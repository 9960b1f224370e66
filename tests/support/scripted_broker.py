"""A scripted MQTT broker: it does what a test tells it to, right or wrong, and records what the client sends.

It speaks MQTT 3.1.1 and 5, to one client at a time, whichever version that one's CONNECT names. By itself it answers
CONNECT, SUBSCRIBE, UNSUBSCRIBE and PINGREQ; everything else (PUBLISH, PUBREL, nonsense) the test sends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from typing_extensions import Self

from tests.support.oracle import wait_until

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE = range(1, 9)
SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(9, 15)
LOOK_SECONDS = 0.02
PINGRESP_PACKET = b"\xd0\x00"


@dataclass(frozen=True)
class Packet:
    """A packet that the client sent.

    Attributes:
        connection: The number of its connection, the first is 0.
        kind: The packet type, 1 to 14.
        identifier: The packet identifier; 0 for a type that has none.
        data: The whole packet.
        body: What follows the fixed header.
        at: `time.monotonic()` when it was read.
    """

    connection: int
    kind: int
    identifier: int
    data: bytes
    body: bytes
    at: float


@dataclass(frozen=True)
class Subscription:
    """One topic filter of a SUBSCRIBE packet; `identifier` is 0 without a subscription identifier."""

    connection: int
    topic_filter: str
    options: int
    identifier: int

    @property
    def retain_handling(self) -> int:
        """0: send retained messages, 1: only for a new subscription, 2: never (MQTT 5)."""
        return self.options >> 4 & 3


@dataclass
class Script:
    """What the broker answers; a test may change it at any time.

    Attributes:
        refusals: CONNACK packets for the next connections, one each; used up before any is accepted.
        session_present: What the CONNACK of an accepted connection says.
        refused_filters: The SUBACK reason of each filter that is not granted.
        kept_filters: The UNSUBACK reason of each filter that is not let go (MQTT 5).
        closing_filters: Filters at whose SUBSCRIBE or UNSUBSCRIBE the connection is closed: after a DISCONNECT with
            this reason, without one if it is 0.
        unanswered_qos: A SUBSCRIBE that asks for it is not answered.
        connack_properties: Those of the CONNACK of an accepted connection (MQTT 5).
        answers_connect: Whether CONNECT is answered at all.
        answers_subscribe: Whether SUBSCRIBE and UNSUBSCRIBE are answered.
        answers_pings: Whether PINGREQ is answered.
    """

    refusals: deque[bytes] = field(default_factory=deque)
    session_present: bool = False
    refused_filters: dict[str, int] = field(default_factory=dict)
    kept_filters: dict[str, int] = field(default_factory=dict)
    closing_filters: dict[str, int] = field(default_factory=dict)
    unanswered_qos: int = -1
    connack_properties: bytes = b""
    answers_connect: bool = True
    answers_subscribe: bool = True
    answers_pings: bool = True


class ScriptedBroker:
    """A broker on a free port; a context manager with a thread of its own.

    Attributes:
        port: Where it listens.
        script: What it answers.
        packets: Everything that the client sent, in order, over all connections.
        subscriptions: Every filter that was subscribed to.
        unsubscriptions: Every filter that was unsubscribed from.
        connections: How many were made.
        version: The protocol level of the last CONNECT: 4 for MQTT 3.1.1, 5 for MQTT 5.
    """

    def __init__(self, **script: object) -> None:
        """Listen; connections are accepted from the start of the context on."""
        self.script = Script(**script)
        self.packets: list[Packet] = []
        self.subscriptions: list[Subscription] = []
        self.unsubscriptions: list[str] = []
        self.connections = 0
        self.version = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._unparsed = b""
        # Who has seen a packet sends after its answer, and no answer comes into the middle of what the test sends.
        self._sending = threading.RLock()
        self._floods = self._owes_pingresp = False  # PINGRESP goes between two packets of a flood
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted broker")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.close_connection()
        self._listener.close()

    # ---- what a test does and asks

    @property
    def connected(self) -> bool:
        """Whether the last connection is still open."""
        return self._connection is not None

    def send(self, *packets: bytes) -> None:
        """Send bytes to the client, in one piece, after the answer to what it sent last."""
        with self._sending:
            assert self._connection is not None, "no client is connected"
            self._connection.sendall(b"".join(packets))

    def publish(self, topic: str | bytes, payload: bytes, qos: int = 0, identifier: int = 0, **options: object) -> None:
        """Send a PUBLISH packet in the client's version of MQTT; see `publish_packet`."""
        with self._sending:
            self.send(publish_packet(topic, payload, qos, identifier, version=self.version, **options))

    def send_until_blocked(self, packet: bytes, quiet_seconds: float = 4.0) -> int:
        """Send the packet again and again until the client takes nothing for a while; return how many went whole.

        PINGREQ is not answered from then on: the last packet may be cut off, and there is no room for more.
        """
        data = packet * max(1, 200_000 // len(packet))
        sent_bytes, rest = 0, memoryview(b"")
        with self._sending:
            connection = self._connection
            assert connection is not None, "no client is connected"
            self._floods = True
            while select.select([], [connection], [], quiet_seconds)[1]:
                if not rest:
                    owed, self._owes_pingresp = self._owes_pingresp, False
                    rest = memoryview((PINGRESP_PACKET if owed else b"") + data)
                sent = connection.send(rest, socket.MSG_DONTWAIT)
                sent_bytes, rest = sent_bytes + sent, rest[sent:]
            self.script.answers_pings = self._floods = False
        return sent_bytes // len(packet)

    def close_connection(self) -> None:
        """Close the connection without DISCONNECT; harmless when there is none."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # The thread may be reading from it: shut down, it reads its end.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def received(self, kind: int, connection: int | None = None) -> list[Packet]:
        """Return the packets of one type, of one connection or of all."""
        return [packet for packet in self.packets if packet.kind == kind and connection in (None, packet.connection)]

    def identifiers(self, kind: int, connection: int | None = None) -> list[int]:
        """Return the packet identifiers of the packets of one type, in order."""
        return [packet.identifier for packet in self.received(kind, connection)]

    def wait_for(self, kind: int, count: int = 1, connection: int | None = None) -> list[Packet]:
        """Wait for so many packets of one type, and return them."""
        what = f"{count} packets of type {kind} from the client"
        wait_until(lambda: len(self.received(kind, connection)) >= count, what)
        return self.received(kind, connection)

    def wait_for_subscriptions(self, count: int, connection: int = 0) -> list[Subscription]:
        """Wait until the client has subscribed to so many filters on one connection, and return them."""

        def made() -> list[Subscription]:
            return [subscription for subscription in self.subscriptions if subscription.connection == connection]

        wait_until(lambda: len(made()) >= count, f"{count} subscriptions on connection {connection}")
        return made()

    # ---- the thread

    def _run(self) -> None:
        while not self._ended.is_set():
            connection = self._connection
            sources = [self._listener] + ([connection] if connection else [])
            try:
                ready = select.select(sources, [], [], LOOK_SECONDS)[0]
            except (OSError, ValueError):  # the test closed it meanwhile
                continue
            if connection in ready:
                self._read(connection)
            if self._listener in ready:
                self.close_connection()
                self._unparsed = b""
                self._connection = self._listener.accept()[0]
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            if self._connection is connection:
                self.close_connection()
            return
        self._unparsed += data
        while (stop := whole_packet(self._unparsed)) is not None:
            packet, self._unparsed = self._unparsed[:stop], self._unparsed[stop:]
            with contextlib.suppress(OSError):  # the client, or the test, ended the connection
                self._take(connection, packet)

    def _take(self, connection: socket.socket, data: bytes) -> None:
        kind = data[0] >> 4
        body = data[integer_at(data, 1)[1] :]
        has_identifier = PUBACK <= kind <= UNSUBACK
        identifier = int.from_bytes(body[:2], "big") if has_identifier else 0
        packet = Packet(self.connections - 1, kind, identifier, data, body, time.monotonic())
        in_flood = kind == PINGREQ and self._floods
        if in_flood or kind not in (CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ):
            self.packets.append(packet)
            self._owes_pingresp = self._owes_pingresp or in_flood
            return
        with self._sending:
            self.packets.append(packet)
            self._answer(connection, packet)

    def _answer(self, connection: socket.socket, packet: Packet) -> None:
        if packet.kind == CONNECT:
            self._connect(connection, packet.body)
        elif packet.kind == PINGREQ:
            if self.script.answers_pings:
                connection.sendall(PINGRESP_PACKET)
        else:
            self._answer_request(connection, packet)

    def _answer_request(self, connection: socket.socket, packet: Packet) -> None:
        """Answer SUBSCRIBE or UNSUBSCRIBE, or close the connection."""
        qos: set[int] = set()
        if packet.kind == SUBSCRIBE:
            first = len(self.subscriptions)
            reasons = self._subscribe(packet.body)
            filters = [each.topic_filter for each in self.subscriptions[first:]]
            qos = {each.options & 3 for each in self.subscriptions[first:]}
        else:
            first = len(self.unsubscriptions)
            reasons = self._unsubscribe(packet.body)
            filters = self.unsubscriptions[first:]
        if self._closes(connection, filters):
            return
        if self.script.answers_subscribe and self.script.unanswered_qos not in qos:
            self._acknowledge(connection, packet, reasons)

    def _connect(self, connection: socket.socket, body: bytes) -> None:
        self.version = body[6]
        if self.script.refusals:
            connection.sendall(self.script.refusals.popleft())
        elif self.script.answers_connect:
            present, properties = self.script.session_present, self.script.connack_properties
            connection.sendall(connack_packet(self.version, session_present=present, properties=properties))

    def _closes(self, connection: socket.socket, filters: list[str]) -> bool:
        """Close the connection if the script has it so for one of the filters, and tell."""
        reasons = [self.script.closing_filters[name] for name in filters if name in self.script.closing_filters]
        if not reasons:
            return False
        if reasons[0]:
            connection.sendall(packet_of(DISCONNECT << 4, bytes([reasons[0], 0])))
        self._unparsed = b""
        self.close_connection()
        return True

    def _acknowledge(self, connection: socket.socket, packet: Packet, reasons: bytes) -> None:
        """Send SUBACK or UNSUBACK; under MQTT 3.1.1 the latter has no reasons."""
        after = b"\x00" + reasons if self.version == 5 else reasons if packet.kind == SUBSCRIBE else b""
        connection.sendall(packet_of(packet.kind + 1 << 4, packet.body[:2] + after))

    def _subscribe(self, body: bytes) -> bytes:
        position, subscription_identifier, reasons = 2, 0, bytearray()
        if self.version == 5:
            length, position = integer_at(body, position)
            properties = body[position : position + length]
            position += length
            if properties:
                assert properties[0] == 0x0B, "the client sent a property that is no subscription identifier"
                subscription_identifier = integer_at(properties, 1)[0]
        while position < len(body):
            topic_filter, position = _text(body, position)
            options = body[position]
            position += 1
            reasons.append(self.script.refused_filters.get(topic_filter, options & 3))
            self.subscriptions.append(
                Subscription(self.connections - 1, topic_filter, options, subscription_identifier)
            )
        return bytes(reasons)

    def _unsubscribe(self, body: bytes) -> bytes:
        position, reasons = 2 + (1 if self.version == 5 else 0), bytearray()
        while position < len(body):
            topic_filter, position = _text(body, position)
            self.unsubscriptions.append(topic_filter)
            reasons.append(self.script.kept_filters.get(topic_filter, 0))
        return bytes(reasons)


def packet_of(header: int, body: bytes) -> bytes:
    """Return a packet with its remaining length."""
    return bytes([header]) + variable_byte_integer(len(body)) + body


def variable_byte_integer(value: int) -> bytes:
    """Return an integer as MQTT writes lengths and subscription identifiers."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (128 if value else 0))
        if not value:
            return bytes(digits)


def connack_packet(version: int, reason: int = 0, *, session_present: bool = False, properties: bytes = b"") -> bytes:
    """Return a CONNACK in the form of a version: 4 for MQTT 3.1.1, 5 for MQTT 5."""
    after = variable_byte_integer(len(properties)) + properties if version == 5 else b""
    return packet_of(0x20, bytes([session_present, reason]) + after)


def publish_packet(
    topic: str | bytes,
    payload: bytes,
    qos: int = 0,
    identifier: int = 0,
    *,
    version: int = 5,
    dup: bool = False,
    retain: bool = False,
    subscriptions: tuple[int, ...] = (),
) -> bytes:
    """Return a PUBLISH packet; `subscriptions` are the subscription identifiers of the copy (MQTT 5)."""
    name = topic if isinstance(topic, bytes) else topic.encode()
    body = len(name).to_bytes(2, "big") + name
    body += identifier.to_bytes(2, "big") if qos else b""
    if version == 5:
        properties = b"".join(b"\x0b" + variable_byte_integer(number) for number in subscriptions)
        body += variable_byte_integer(len(properties)) + properties
    return packet_of(PUBLISH << 4 | dup << 3 | qos << 1 | retain, body + payload)


def pubrel_packet(identifier: int) -> bytes:
    """Return a PUBREL packet."""
    return packet_of(PUBREL << 4 | 2, identifier.to_bytes(2, "big"))


def whole_packet(data: bytes) -> int | None:
    """Return the length of the packet that the data begin with, none while it is not whole."""
    try:
        length, start = integer_at(data, 1)
    except IndexError:
        return None
    return start + length if len(data) >= start + length else None


def integer_at(data: bytes, position: int) -> tuple[int, int]:
    """Return a variable byte integer, which Kafka calls an unsigned varint, and the position after it."""
    value = shift = 0
    while True:
        value |= (data[position] & 127) << shift
        shift += 7
        position += 1
        if not data[position - 1] & 128:
            return value, position


def _text(data: bytes, position: int) -> tuple[str, int]:
    stop = position + 2 + int.from_bytes(data[position : position + 2], "big")
    return data[position + 2 : stop].decode(), stop
