"""What the system tests share: the bridge as a process, and a publisher of numbered messages.

What came of them is read from Kafka and judged in `oracle`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import Self

from tests.support.figures import note
from tests.support.oracle import payload, publisher_names, wait_until
from tests.support.scripted_broker import publish_packet
from tools.brokers.process import ServerProcess, free_port
from tools.worker import Worker

KAFKA_AWAY = "127.0.0.1:1"  # nobody listens there
LOGS_ALL = "log_type all"  # of Mosquitto


class Bridge(Worker):
    """A worker under test, with its pages."""

    def __init__(self, directory: Path, mqtt_port: int, kafka: str, mappings: str, **settings: object) -> None:
        environment = {
            "RUN_MODE": "PRODUCTION",
            "MQTT_BROKER_URL": "127.0.0.1",
            "MQTT_BROKER_PORT": str(mqtt_port),
            "MQTT_CLIENT_ID": f"bridge-{directory.name}",
            "KAFKA_BROKER": kafka,
            "DB_PERSIST_PATH": str(directory / "data"),
            "WEB_PORT": str(free_port()),
            "LOG_LVL": "info",
            "INVOKE_LATENCY_SEC": "1",
        }
        wildcard, exact = [], []
        for mapping in filter(None, mappings.split(",")):
            (wildcard if "+" in mapping or "#" in mapping else exact).append(mapping)
        environment["TOPIC_LIST"] = ",".join(exact)
        environment["WILDCARD_TOPIC_LIST"] = ",".join(wildcard)
        environment |= {name.upper(): str(value) for name, value in settings.items()}
        super().__init__(directory, environment)

    def kill(self) -> None:
        """End it with SIGKILL. Harmless when it is not running."""
        if self.running:
            note("SIGKILL")
        super().kill()

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of a page; status 0 while nobody listens, and if the worker ends within its answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""

    def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return each metric's values by its label values, `route` first."""
        values: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                values[sample.name][tuple(value for _, value in sorted(sample.labels.items(), reverse=True))] = (
                    sample.value
                )
        return values

    def total(self, name: str) -> float:
        """Return a metric summed over its labels; not a number, which equals nothing, while nobody answers."""
        metrics = self.metrics()
        return sum(metrics[name].values()) if metrics else math.nan

    def status_page(self) -> dict[str, Any]:
        """Return `/status`."""
        return json.loads(self.get("/status")[1])

    def wait_for_progress(self, messages: int = 500) -> None:
        """Wait until Kafka has confirmed so many messages more."""
        enough = self.total("connector_delivered_total") + messages
        wait_until(lambda: self.total("connector_delivered_total") >= enough, f"{messages} more confirmations")

    def assert_balanced(self, metrics: dict[str, dict[tuple[str, ...], float]] | None = None) -> None:
        """Fail unless every message of every route is accounted for, at this scrape or at one that was made before."""
        metrics = self.metrics() if metrics is None else metrics
        assert metrics, "nobody answers"
        for (route,), received in metrics["connector_received_total"].items():

            def of(name: str, route: str = route) -> float:
                return sum(value for labels, value in metrics[name].items() if labels[0] == route)

            settled = of("connector_delivered_total") + of("connector_dead_lettered_total")
            settled += of("connector_dropped_total") + of("connector_undelivered_messages")
            settled += of("connector_in_flight_messages")
            assert received + of("connector_recovered_total") == settled, f"the route {route} does not balance"
            assert of("connector_imbalance_messages") == 0


class UnreadyBridge(Bridge):
    """A worker that counts as started when it lives: a broker may be away, or a rival have taken its connection."""

    def ready(self) -> bool:
        """Tell whether it lives."""
        return self.status("/health/live") == 200


def wait_for_total(bridge: Bridge, name: str, count: float) -> None:
    """Wait until a metric, summed over its labels, has a value."""
    wait_until(lambda: bridge.total(name) == count, f"{name} = {count}")


def wait_until_acknowledged(broker: ServerProcess, messages: int) -> None:
    """Wait until a Mosquitto that logs everything (`LOGS_ALL`) has had so many acknowledgements of QoS 1.

    Before that it sends them again after its restart, or after the worker's death, although Kafka has them.
    """
    wait_until(lambda: broker.log_path.read_text().count("Received PUBACK from") >= messages, f"{messages} PUBACK")


@contextlib.contextmanager
def frozen(server: ServerProcess) -> Iterator[None]:
    """Keep a server from answering; its connections stay, as in a hanging network."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


class Publisher:
    """Publishes numbered messages and knows which the broker acknowledged."""

    def __init__(self, port: int, qos: int = 1, client_id: str = "", **options: Any) -> None:
        self.qos = qos
        self.name = next(publisher_names)
        self._port = port
        self.sent: dict[str, int] = defaultdict(int)
        self.acknowledged = 0
        self.published = 0
        self._room = threading.Semaphore(2000)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(2000)
        self._client.on_publish = self._on_publish
        if "tls" in options:
            self._client.tls_set(options["tls"])
        connected = threading.Event()
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert connected.wait(10)

    def _on_publish(self, *_: Any) -> None:
        self.acknowledged += 1
        self._room.release()

    def publish(self, topic: str, size_bytes: int = 100, **options: Any) -> None:
        """Publish the topic's next message."""
        self._room.acquire()
        number = self.sent[topic]
        self.sent[topic] += 1
        self.published += 1
        self._client.publish(topic, payload(topic, number, size_bytes, self.name), self.qos, **options)

    def publish_many(self, topics: list[str], messages: int, rate: float = 0, size_bytes: int = 100) -> None:
        """Publish so many messages over the topics in turn, at a rate (messages/s) or as fast as it goes.

        It has a connection of its own and builds its packets itself, as paho is slower than the bridge. It waits for
        what was published before on the other connection, or the broker may receive them in another order.
        """
        self.wait_for_acknowledgements()
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b"\x10\x1c\x00\x04MQTT\x04\x02\x00\x00\x00\x10" + os.urandom(8).hex().encode())
            assert connection.recv(4) == b"\x20\x02\x00\x00"
            reader = threading.Thread(target=self._count_acknowledgements, args=(connection, messages))
            reader.start()
            began = time.monotonic()
            # mosquitto takes at most 20 unfinished QoS 2 messages from a client.
            step = 50 if self.qos < 2 else 15
            self._completed = 0
            for first in range(0, messages, step):
                packets = []
                for count in range(first, min(first + step, messages)):
                    topic = topics[count % len(topics)]
                    data = payload(topic, self.sent[topic], size_bytes, self.name)
                    packets.append(publish_packet(topic, data, self.qos, count % 65000 + 1, version=4))
                    self.sent[topic] += 1
                connection.sendall(b"".join(packets))
                while self.qos == 2 and self._completed < min(first + step, messages) and reader.is_alive():
                    time.sleep(0.0005)
                if rate:
                    time.sleep(max(0.0, began + first / rate - time.monotonic()))
            reader.join(120)
            assert not reader.is_alive() and not self._missing, "the broker did not acknowledge everything"
            connection.sendall(b"\xe0\x00")

    def _count_acknowledgements(self, connection: socket.socket, messages: int) -> None:
        """Read PUBACKs, or PUBRECs (answered with PUBREL) and PUBCOMPs: four bytes each."""
        self._missing = messages if self.qos else 0
        rest = b""
        while self._missing and (data := connection.recv(65536)):
            data = rest + data
            whole = len(data) // 4 * 4
            rest = data[whole:]
            if self.qos == 1:
                self._missing -= whole // 4
                continue
            released = bytearray()
            for position in range(0, whole, 4):
                if data[position] == 0x50:
                    released += b"\x62\x02" + data[position + 2 : position + 4]
                else:
                    self._missing -= 1
                    self._completed += 1
            connection.sendall(released)

    def raw(self, topic: str, data: bytes, **options: Any) -> None:
        """Publish bytes that are not numbered."""
        self._room.acquire()
        self.published += 1
        self._client.publish(topic, data, self.qos, **options)

    def wait_for_acknowledgements(self) -> None:
        """Wait until the broker has acknowledged everything."""
        wait_until(lambda: self.acknowledged >= self.published, "the broker's acknowledgements")

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
        # In a circle with this they would wait for the collector, which complains of paho's sockets in any later test.
        self._client.on_publish = self._client.on_connect = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def publishing(publisher: Publisher, names: Any, messages: int, rate: float) -> Iterator[None]:
    """Publish to five topics at a rate (messages/s) while the body runs, and wait for the end."""
    topics = [names.mqtt(str(number)) for number in range(5)]
    sender = threading.Thread(target=publisher.publish_many, args=(topics, messages, rate))
    sender.start()
    try:
        yield
    finally:
        sender.join()


class Traffic:
    """Messages over MQTT topics, so many a second, from the start of the context to its end."""

    def __init__(self, publisher: Publisher, prefix: str, topics: int = 5, rate: int = 1_000) -> None:
        self._publisher = publisher
        self._topics = [f"{prefix}/{device}" for device in range(topics)]
        self._rate = rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def _publish(self) -> None:
        while not self._ended.is_set():
            self._publisher.publish_many(self._topics, self._rate // 4, self._rate)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
