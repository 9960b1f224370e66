"""A network that fails on purpose: a TCP proxy that understands the frames of MQTT and Kafka.

A test places it between the bridge and one broker, and tells it at any time what shall become of which frame: `on`
makes a `Rule` for the k-th frame of a type (see `frame_faults`), `hold`, `swallow`, `slow`, `late` and `refuse` are for
everything that passes, and `pass_everything` ends all of it. What it saw is in `frames`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import Self

from tests.support.frame_faults import CutError, Rule, forward
from tests.support.proxied_protocols import TO_CLIENT, TO_SERVER, Direction, Frame, KafkaProtocol, Mqtt, Protocol
from tools.brokers import Kafka, ProxiedListener, free_port
from tools.brokers.process import HOST

LOOK_SECONDS = 0.02
RECEIVE_BYTES = 65536
BOTH = (TO_SERVER, TO_CLIENT)


@dataclass
class Link:
    """A connection through the proxy: its two sockets, which its threads close together.

    Attributes:
        client_ended_at: `time.monotonic()` when the client ended it; 0 while it did not.
        swallowed: Bytes of it are missing, so it cannot go on.
    """

    number: int
    client: socket.socket
    server: socket.socket
    protocol: Protocol
    ended: threading.Event = field(default_factory=threading.Event)
    client_ended_at: float = 0.0
    swallowed: bool = False

    def sockets(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """Return where to read, and where to write."""
        return (self.client, self.server) if direction is TO_SERVER else (self.server, self.client)

    def end(self, *, reset: bool) -> None:
        """End it; its threads wake up and close it."""
        for end in (self.client, self.server):
            if reset and not self.ended.is_set():
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ended.set()
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes who reads, and tells the other side nothing

    def send(self, sink: socket.socket, data: bytes) -> None:
        """Send all of it, unless the connection ends meanwhile."""
        rest = memoryview(data)
        while rest and not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                rest = rest[sink.send(rest) :]


class FaultProxy:
    """A proxy on a free port in front of a broker; a context manager with threads of its own.

    Attributes:
        port: Where it listens.
        frames: Everything that it saw, in order, over all connections.
        links: All connections that were made, open or not.
    """

    def __init__(self, server_port: int, protocol: type[Protocol] = Mqtt) -> None:
        """Listen; connections are accepted from the start of the context on."""
        self.port = free_port()
        self.frames: list[Frame] = []
        self.links: list[Link] = []
        self._server_port = server_port
        self._protocol = protocol
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, self.port))
        self._listener.settimeout(LOOK_SECONDS)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="fault proxy")]
        self._reset_faults()

    def _reset_faults(self) -> None:
        self._rules: list[Rule] = []
        self._held: tuple[Direction, ...] = ()
        self._swallowed: tuple[Direction, ...] = ()
        self._slice_bytes = 0
        self._delay_seconds = 0.0
        self._late_seconds: dict[Direction, float] = {}
        self._refuses = False

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    # ---- what a test does and asks

    @property
    def address(self) -> str:
        """Where a client connects to, with the port."""
        return f"{HOST}:{self.port}"

    def on(
        self,
        direction: Direction,
        kind: int,
        act: Callable[[Frame], bytes] = forward,
        *,
        first: int = 1,
        times: int | None = 1,
        then: Callable[[Frame], object] | None = None,
    ) -> Rule:
        """Have something done to frames; of several rules for a frame the oldest acts.

        Args:
            direction: Where the frames go.
            kind: Their type: an MQTT packet type or a Kafka api key.
            act: What becomes of each.
            first: The first that it is done to; 1 is the next one.
            times: To how many it is done, one after the other; none is to all that follow.
            then: Called after each was sent on, before anything else is sent in that direction.
        """
        rule = Rule(direction, kind, act, first, times, then)
        with self._lock:
            self._rules.append(rule)
        return rule

    def hold(self, *directions: Direction) -> None:
        """Let nothing pass, as when packets get lost: what is held arrives when it ends, as TCP sends it again."""
        self._held = directions or BOTH

    def let_go(self) -> None:
        """Let what is held pass; the other faults go on."""
        self._held = ()

    def swallow(self, *directions: Direction) -> None:
        """Take everything and send nothing on; connections stay open, and are cut when it ends."""
        self._swallowed = directions or BOTH

    def slow(self, slice_bytes: int = 0, delay_seconds: float = 0.0) -> None:
        """Send so many bytes at a time (0: as they come), after a delay each."""
        self._slice_bytes, self._delay_seconds = slice_bytes, delay_seconds

    def late(self, seconds: float, direction: Direction) -> None:
        """Deliver what comes so much later, in its order; 0: at once."""
        self._late_seconds = {**self._late_seconds, direction: seconds}

    def refuse(self) -> None:
        """Reset all connections, and new ones as soon as they are made."""
        self._refuses = True
        self.cut()

    def cut(self, *, reset: bool = True) -> None:
        """End all connections; new ones work."""
        for link in list(self.links):
            link.end(reset=reset)

    def pass_everything(self) -> None:
        """End all faults; a connection of which bytes were swallowed is cut, as it cannot go on."""
        with self._lock:
            self._reset_faults()
        for link in list(self.links):
            if link.swallowed:
                link.end(reset=True)

    def forget(self) -> None:
        """End all faults and connections, and forget what was seen."""
        self.pass_everything()
        self.cut()
        self.frames.clear()

    def seen(self, direction: Direction, kind: int, connection: int | None = None) -> list[Frame]:
        """Return the frames of one type, forwarded or not."""
        wanted = direction, kind
        return [
            frame
            for frame in list(self.frames)
            if (frame.direction, frame.kind) == wanted and connection in (None, frame.connection)
        ]

    # ---- the threads

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client = self._listener.accept()[0]
            except TimeoutError:
                continue
            try:
                if self._refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection((HOST, self._server_port))
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            self._serve(Link(len(self.links), client, server, self._protocol()))

    def _serve(self, link: Link) -> None:
        for end in (link.client, link.server):
            end.settimeout(LOOK_SECONDS)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.append(link)
        if self._refuses:  # from after it was accepted on: `cut` did not know it yet
            link.end(reset=True)
        threads = [threading.Thread(target=self._pump, args=(link, way), name=f"proxy, {way.value}") for way in BOTH]
        threads.append(threading.Thread(target=self._close, args=(link, *threads), name="fault proxy, closing"))
        self._threads += threads
        for thread in threads:
            thread.start()

    @staticmethod
    def _close(link: Link, *pumps: threading.Thread) -> None:
        for pump in pumps:
            pump.join()
        link.client.close()
        link.server.close()

    def _pump(self, link: Link, direction: Direction) -> None:
        """Carry one direction until the connection ends."""
        source, sink = link.sockets(direction)
        unparsed = b""
        reset = has_ended = False
        on_the_way: deque[tuple[float, bytes]] = deque()
        try:
            while not link.ended.is_set():
                data = None
                if has_ended:
                    time.sleep(LOOK_SECONDS)  # until its end is due, too
                else:
                    data = self._receive(link, direction, source)
                if data is not None:
                    has_ended = not data
                    on_the_way.append((time.monotonic() + self._late_seconds.get(direction, 0.0), data))
                while on_the_way and on_the_way[0][0] <= time.monotonic():
                    data = on_the_way.popleft()[1]
                    if not data:
                        return
                    unparsed = self._carry(link, direction, sink, unparsed + data)
        except CutError as cut:
            reset = cut.reset
        except OSError:  # one of the two sides reset it: so does the other
            reset = True
        finally:
            link.end(reset=reset)

    def _receive(self, link: Link, direction: Direction, source: socket.socket) -> bytes | None:
        """Return what came, empty at the end of the connection, none if nothing shall be done yet."""
        if direction in self._held:
            time.sleep(LOOK_SECONDS)
            return None
        try:
            data = source.recv(RECEIVE_BYTES)
        except TimeoutError:
            return None
        if not data and direction is TO_SERVER:
            link.client_ended_at = link.client_ended_at or time.monotonic()
        if not data and direction in self._swallowed and not link.ended.is_set():
            link.swallowed = True  # its end is swallowed with the rest
            time.sleep(LOOK_SECONDS)
            return None
        return data

    def _carry(self, link: Link, direction: Direction, sink: socket.socket, data: bytes) -> bytes:
        """Do to each whole frame what the rules say, and send it on; return what is not whole yet."""
        view, position = memoryview(data), 0
        waiting: list[Frame] = []
        while (length := link.protocol.length(view[position:])) is not None:
            whole = data[position : position + length]
            position += length
            kind, identifier, version = link.protocol.describe(direction, whole)
            frame = Frame(link.number, direction, kind, identifier, version, whole, time.monotonic())
            self.frames.append(frame)
            rule = self._rule_for(frame)
            if rule is None:
                waiting.append(frame)
                continue
            self._send(link, sink, waiting)
            waiting = []
            self._obey(rule, link, sink, frame)
        self._send(link, sink, waiting)
        return data[position:]

    def _rule_for(self, frame: Frame) -> Rule | None:
        with self._lock:
            acting = [rule for rule in self._rules if rule.takes(frame)]
        return acting[0] if acting else None

    def _obey(self, rule: Rule, link: Link, sink: socket.socket, frame: Frame) -> None:
        cut = None
        try:
            data = rule.act(frame)
        except CutError as raised:
            cut, data = raised, raised.data
        sent = self._send_bytes(link, sink, frame.direction, data)
        frame.forwarded = sent and data == frame.data
        if rule.then is not None:
            rule.then(frame)
        if cut is not None:
            raise cut

    def _send(self, link: Link, sink: socket.socket, frames: list[Frame]) -> None:
        """Send frames on, unchanged, in one piece."""
        if frames and self._send_bytes(link, sink, frames[0].direction, b"".join(frame.data for frame in frames)):
            for frame in frames:
                frame.forwarded = True

    def _send_bytes(self, link: Link, sink: socket.socket, direction: Direction, data: bytes) -> bool:
        """Send bytes as the network lets them through; False if it swallows them."""
        step = self._slice_bytes or max(1, len(data))
        for start in range(0, len(data), step):
            time.sleep(self._delay_seconds)
            while direction in self._held and not link.ended.is_set():
                time.sleep(LOOK_SECONDS)
            if direction in self._swallowed:
                link.swallowed = True
                if direction not in self._swallowed:  # it ended between the two: `pass_everything` did not see it
                    link.end(reset=True)
                return False
            link.send(sink, data[start : start + step])
        return not link.ended.is_set()


@contextlib.contextmanager
def kafka_behind_proxy(directory: Path) -> Iterator[tuple[Kafka, FaultProxy]]:
    """Start a Kafka with a second listener that is advertised as the proxy's address.

    Who begins at `proxy.address` stays behind the proxy; who begins at `kafka.bootstrap` never meets it.
    """
    port = free_port()
    with (
        FaultProxy(port, KafkaProtocol) as proxy,
        Kafka(directory, proxied=ProxiedListener(port, proxy.port)) as kafka,
    ):
        yield kafka, proxy
