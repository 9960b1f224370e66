"""A Kafka that answers as a test says: with numbers, names and texts that no real one would be made to say.

It speaks old versions of the protocol, whose fields have fixed places. One node, whose answers are built by `Script`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from typing_extensions import Self

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID, DESCRIBE_CONFIGS = 0, 3, 18, 22, 32
# Key: lowest and highest version.
VERSIONS = {PRODUCE: (3, 3), METADATA: (2, 4), API_VERSIONS: (0, 0), INIT_PRODUCER_ID: (0, 0), DESCRIBE_CONFIGS: (1, 1)}
NO_ERROR = 0


def text(value: bytes | str | None) -> bytes:
    """Return a text as the protocol has it."""
    if value is None:
        return struct.pack(">h", -1)
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">h", len(data)) + data


def array(items: Iterable[bytes]) -> bytes:
    """Return an array as the protocol has it."""
    items = list(items)
    return struct.pack(">i", len(items)) + b"".join(items)


@dataclass
class Script:
    """What it answers.

    Attributes:
        configuration: Of every topic, by name of the entry.
        host: What it advertises for itself; empty: where it is.
        port: Which port it advertises for itself; 0: the one where it is.
        more_nodes: Number, host and port of other nodes that it tells of.
        cluster_id: What it calls its cluster.
        leader: Who leads each partition.
        partitions: How many each topic has.
        replicas: The nodes that have each partition.
        throttle_ms: How long the client is asked to wait, in each answer.
        produce_error: What each record is refused with, given the topic; 0: it is taken.
        describe_error: Code and text with which the question for configurations is refused.
        more_topics: Names of topics that nobody asked for.
    """

    configuration: Mapping[bytes | str, bytes | str | None] = field(default_factory=dict)
    host: bytes = b""
    port: int = 0
    more_nodes: list[tuple[int, bytes, int]] = field(default_factory=list)
    cluster_id: bytes = b"scripted"
    leader: int = 1
    partitions: int = 1
    replicas: tuple[int, ...] = (1,)
    throttle_ms: int = 0
    produce_error: Callable[[str], int] = lambda _topic: NO_ERROR
    describe_error: tuple[int, bytes | None] = (NO_ERROR, None)
    more_topics: list[bytes] = field(default_factory=list)


class ScriptedKafka:
    """Serves as long as it is entered.

    Attributes:
        script: What it answers; may be changed at any time.
        requests: How many requests of each kind came.
        records: How many batches of each topic were taken.
    """

    def __init__(self, topics: Iterable[str], script: Script | None = None) -> None:
        self.script = script or Script()
        self.requests: Counter[int] = Counter()
        self.taken: Counter[str] = Counter()
        self._topics = list(topics)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def bootstrap(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()

    def _start(self, act: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=act, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._sockets.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                request = stream.read(struct.unpack(">i", head)[0])
                key, version, number = struct.unpack_from(">hhi", request)
                (length,) = struct.unpack_from(">h", request, 8)
                self.requests[key] += 1
                answer = self._answer(key, version, request[10 + max(0, length) :])
                connection.sendall(struct.pack(">ii", len(answer) + 4, number) + answer)

    def _answer(self, key: int, version: int, body: bytes) -> bytes:
        throttle = struct.pack(">i", self.script.throttle_ms)
        if key == API_VERSIONS:
            unsupported = 35 if version else NO_ERROR
            keys = (struct.pack(">hhh", name, *versions) for name, versions in VERSIONS.items())
            return struct.pack(">h", unsupported) + array(keys)
        if key == METADATA:
            return (throttle if version >= 3 else b"") + self._metadata(_named_topics(body))
        if key == INIT_PRODUCER_ID:
            return throttle + struct.pack(">hqh", NO_ERROR, 1, 0)
        if key == DESCRIBE_CONFIGS:
            return throttle + self._configurations(body)
        return self._produced(body) + throttle

    def _metadata(self, asked: list[bytes] | None) -> bytes:
        script = self.script
        nodes = [(1, script.host or b"127.0.0.1", script.port or self.port), *script.more_nodes]
        brokers = array(
            struct.pack(">i", node) + text(host) + struct.pack(">i", port) + text(None) for node, host, port in nodes
        )
        replicas = array(struct.pack(">i", node) for node in script.replicas)
        partitions = array(
            struct.pack(">hii", NO_ERROR, number, script.leader) + replicas + replicas
            for number in range(script.partitions)
        )
        shown = [name.encode() for name in self._topics]
        named = [*(name for name in shown if asked is None or name in asked), *script.more_topics]
        topics = array(struct.pack(">h", NO_ERROR) + text(name) + b"\0" + partitions for name in named)
        return brokers + text(script.cluster_id) + struct.pack(">i", 1) + topics

    def _configurations(self, body: bytes) -> bytes:
        code, reason = self.script.describe_error
        # Per entry: read-only, source, sensitive, no synonyms.
        entries = array(
            text(name) + text(value) + b"\0\1\0" + array([]) for name, value in self.script.configuration.items()
        )
        asked = _asked_topics(body)
        return array(struct.pack(">h", code) + text(reason) + b"\2" + text(name) + entries for name in asked)

    def _produced(self, body: bytes) -> bytes:
        # transactional id, acks, timeout; then topics, of which librdkafka names one.
        position = 2 + 2 + 4 + 4
        (length,) = struct.unpack_from(">h", body, position)
        topic = body[position + 2 : position + 2 + length].decode()
        (partition,) = struct.unpack_from(">i", body, position + 2 + length + 4)
        code = self.script.produce_error(topic)
        self.taken[topic] += code == NO_ERROR
        answer = struct.pack(">ihqq", partition, code, 0, -1)
        return array([text(topic) + array([answer])])


def _named_topics(body: bytes) -> list[bytes] | None:
    """Return the topics that a question for metadata names, None if it is for all."""
    (count,) = struct.unpack_from(">i", body)
    position, topics = 4, []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", body, position)
        topics.append(body[position + 2 : position + 2 + length])
        position += 2 + length
    return topics if count >= 0 else None


def _asked_topics(body: bytes) -> list[bytes]:
    """Return the topics whose configuration is asked for, all entries of each."""
    (count,) = struct.unpack_from(">i", body)
    position, topics = 4, []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", body, position + 1)
        topics.append(body[position + 3 : position + 3 + length])
        (names,) = struct.unpack_from(">i", body, position + 3 + length)
        assert names == -1, "all entries are asked for"
        position += 3 + length + 4
    return topics
