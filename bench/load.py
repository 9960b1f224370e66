"""Publishing faster than an MQTT broker can take it: packets are made beforehand, acknowledgements only counted."""

from __future__ import annotations

import base64
import contextlib
import itertools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CHUNK_MESSAGES = 200
# Mosquitto keeps as many unfinished QoS 2 messages of a publisher as its max_inflight_messages.
QOS_2_OUTSTANDING_MESSAGES = 500
PUBREC = 0x50
HEAD_BYTES = 32  # number and time
GOLDEN_RATIO = 0.6180339887498949  # its multiples are far from each other, without their whole parts
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True)
class Traffic:
    """What is published.

    Attributes:
        topics: MQTT topics, in turn.
        messages: How many.
        size_bytes: Of each payload; it begins with the message's number in 12 digits, then the time of sending in
            nanoseconds (`time.monotonic_ns`) in 20, where there is room.
        qos: 0, 1 or 2.
        rate: Messages a second; 0: as fast as the broker takes them.
        first: The number of the first message.
        fill: Of what each payload has a part behind that; those of messages beside each other have nothing in common.
            Empty: dots, of which compression leaves next to nothing.
    """

    topics: Sequence[str]
    messages: int
    size_bytes: int = 100
    qos: int = 1
    rate: int = 0
    first: int = 0
    fill: bytes = b""


WARM_UP_MESSAGES = 50
WARM_UP_FIRST = 900_000_000_000


def warm_up(qos: int) -> Traffic:
    """Return a little traffic ahead of the measurement: connections are made, and code is loaded."""
    return Traffic(["bench/warm-up"], WARM_UP_MESSAGES, qos=qos, rate=500, first=WARM_UP_FIRST)


def fifty_topics(messages: int, qos: int = 1, size_bytes: int = 100, rate: int = 0, first: int = 0) -> Traffic:
    """Return the traffic of most scenarios: fifty devices."""
    return Traffic([f"bench/device-{number}/state" for number in range(50)], messages, size_bytes, qos, rate, first)


def payload(number: int, size_bytes: int, fill: bytes = b"") -> bytes:
    """Return the payload of a message; see `Traffic`."""
    if size_bytes < HEAD_BYTES:
        return b"." * size_bytes
    body_bytes = size_bytes - HEAD_BYTES
    start = int(number * GOLDEN_RATIO % 1 * (len(fill) - body_bytes))
    body = fill[start : start + body_bytes] if fill else b"." * body_bytes
    return b"%012d%020d" % (number, time.monotonic_ns()) + body


def random_letters(size_bytes: int) -> bytes:
    """Return letters and digits that lz4 leaves as they are; no line ends there, as kcat reads lines."""
    return base64.b64encode(os.urandom(size_bytes * 3 // 4))


def publish_packet(topic: str, data: bytes, qos: int, identifier: int) -> bytes:
    """Return a PUBLISH packet of MQTT 3.1.1."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (identifier.to_bytes(2, "big") if qos else b"") + data
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([0x30 | qos << 1]) + bytes(encoded) + body


class Publisher:
    """Publishes one traffic over one connection, from a process of its own."""

    def __init__(self, port: int, traffic: Traffic) -> None:
        """Make the packets; they are sent by `start`."""
        self._ready = multiprocessing.Event()
        self._go = multiprocessing.Event()
        self._stop = multiprocessing.Event()
        self._published = multiprocessing.Value("q", 0)
        arguments = (port, traffic, self._ready, self._go, self._stop, self._published)
        self._process = multiprocessing.Process(target=_publish, args=arguments, daemon=True)
        self._process.start()
        self._ready.wait()

    def start(self) -> None:
        """Begin to publish."""
        self._go.set()

    def stop(self) -> int:
        """End a traffic with a rate before its time; return how many messages the broker has acknowledged."""
        self._stop.set()
        self.wait()
        return self._published.value

    def wait(self) -> None:
        """Wait until the broker has acknowledged everything.

        Raises:
            RuntimeError: It did not.
        """
        self._process.join(GIVE_UP_SECONDS)
        if self._process.exitcode != 0:
            self._process.kill()
            raise RuntimeError("the broker did not take everything that was published")


def _publish(port: int, traffic: Traffic, ready: Any, go: Any, stop: Any, published: Any) -> None:
    with _connect(port) as connection:
        chunks = [] if traffic.rate else list(_chunks(traffic, range(traffic.messages)))
        ready.set()
        go.wait()
        reader = _AcknowledgementReader(connection, two_steps=traffic.qos == 2)
        if traffic.rate:
            published.value = _send_at_rate(connection, traffic, stop)
        else:
            _send(connection, chunks, reader if traffic.qos == 2 else None)
            published.value = traffic.messages
        if traffic.qos:
            reader.wait_for(published.value)
        connection.sendall(b"\xe0\x00")


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"\x10\x1c\x00\x04MQTT\x04\x02\x00\x00\x00\x10" + os.urandom(8).hex().encode())
    if connection.recv(4) != b"\x20\x02\x00\x00":
        raise ConnectionError("the broker did not accept the publisher")
    return connection


def _chunks(traffic: Traffic, numbers: Iterable[int]) -> Iterator[bytes]:
    """Yield packets, many at once."""
    topics, remaining = traffic.topics, iter(numbers)
    while chunk := list(itertools.islice(remaining, CHUNK_MESSAGES)):
        yield b"".join(
            publish_packet(
                topics[n % len(topics)],
                payload(traffic.first + n, traffic.size_bytes, traffic.fill),
                traffic.qos,
                n % 65000 + 1,
            )
            for n in chunk
        )


def _send(connection: socket.socket, chunks: Sequence[bytes], reader: _AcknowledgementReader | None) -> None:
    for sent, chunk in enumerate(chunks, 1):
        connection.sendall(chunk)
        while (
            reader is not None
            and sent * CHUNK_MESSAGES - reader.completed > QOS_2_OUTSTANDING_MESSAGES - CHUNK_MESSAGES
        ):
            if not reader.is_alive():
                return
            time.sleep(0.0002)


def _send_at_rate(connection: socket.socket, traffic: Traffic, stop: Any) -> int:
    """Send each message when it is due; those that are due at once go together. Return how many were sent."""
    began, sent = time.monotonic(), 0
    while sent < traffic.messages and not stop.is_set():
        due = min(traffic.messages, int((time.monotonic() - began) * traffic.rate) + 1)
        if due > sent:
            connection.sendall(b"".join(_chunks(traffic, range(sent, due))))
            sent = due
        time.sleep(max(0.0, began + sent / traffic.rate - time.monotonic()))
    return sent


class _AcknowledgementReader(threading.Thread):
    """Counts PUBACKs; or answers PUBRECs with PUBREL and counts PUBCOMPs. Each has four bytes."""

    def __init__(self, connection: socket.socket, *, two_steps: bool) -> None:
        super().__init__(daemon=True)
        self.completed = 0
        self._connection = connection
        self._two_steps = two_steps
        self.start()

    def wait_for(self, messages: int) -> None:
        """Wait for so many; how many that are is known only after the last was sent."""
        while self.completed < messages:
            if not self.is_alive():
                raise ConnectionError("the broker closed the connection of the publisher")
            time.sleep(0.005)

    def run(self) -> None:
        with contextlib.suppress(OSError):  # in the end the connection is closed, here or by the broker
            self._count()

    def _count(self) -> None:
        rest = b""
        while data := self._connection.recv(65536):
            data = rest + data
            whole = len(data) // 4 * 4
            rest = data[whole:]
            if self._two_steps:
                self._on_two_steps(data[:whole])
            else:
                self.completed += whole // 4

    def _on_two_steps(self, data: bytes) -> None:
        released = bytearray()
        for position in range(0, len(data), 4):
            if data[position] == PUBREC:
                released += b"\x62\x02" + data[position + 2 : position + 4]
            else:
                self.completed += 1
        self._connection.sendall(released)
