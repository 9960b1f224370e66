"""What every scenario needs: a mosquitto that is new each time, one Kafka, and a topic of its own for each run."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.arrivals import Arrivals
from bench.bridges import Bridge
from bench.load import Publisher, warm_up
from tools.brokers import Kafka, Mosquitto

PARTITIONS = 4
WARM_UP_SECONDS = 1.0
# The tests' Kafka starts fast; this one runs for an hour.
KAFKA_JAVA_OPTIONS = ("-Xmx1g", "-XX:+UseSerialGC")
Kind = TypeVar("Kind", bound=Bridge)
# What mosquitto logs by default, and who subscribes.
LOGGED = "\n".join(f"log_type {name}" for name in ("error", "warning", "notice", "information", "subscribe"))
SUBSCRIBED = re.compile(r"^\d+: \S+ [012] (\$share/\w+/)?bench/", re.MULTILINE)


@dataclass
class Run:
    """One run of one bridge: its brokers, its Kafka topic and a directory.

    Attributes:
        directory: Of this run alone, removed after it.
        topic: A new Kafka topic.
        arrivals: What comes into it.
        largest_bytes: Of the messages that it takes; None: as Kafka has it by default.
    """

    directory: Path
    mosquitto: Mosquitto
    kafka: Kafka
    topic: str
    arrivals: Arrivals
    largest_bytes: int | None = None

    def bridge(
        self, kind: Callable[..., Kind], qos: int, messages: int, name: str = "bridge", **settings: object
    ) -> Kind:
        """Return a program between the brokers of this run, to be started; with settings, if it is Connector."""
        brokers = self.mosquitto.port, self.kafka.bootstrap, self.topic
        bridge = kind(self.directory / name, *brokers, qos, messages, **settings)
        bridge.subscriptions = self.subscriptions
        bridge.largest_bytes = self.largest_bytes
        return bridge

    def subscriptions(self) -> int:
        """Return how often something has subscribed, as mosquitto's log says."""
        return len(SUBSCRIBED.findall(self.mosquitto.log_path.read_text(errors="replace")))

    def connections(self) -> int:
        """Return how often a client has connected, as mosquitto's log says."""
        return self.mosquitto.log_path.read_text(errors="replace").count(": New client connected ")

    def warm_up(self, qos: int, expected: int) -> None:
        """Publish a few messages, and wait until so many of them have arrived."""
        publisher = Publisher(self.mosquitto.port, warm_up(qos))
        publisher.start()
        publisher.wait()
        self.arrivals.wait_for(expected)
        time.sleep(WARM_UP_SECONDS)


class Stage:
    """Starts the brokers of runs."""

    def __init__(self, kafka: Kafka, directory: Path) -> None:
        """Use a Kafka that runs."""
        self.kafka = kafka
        self._directory = directory
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def run(self, partitions: int = PARTITIONS, largest_bytes: int | None = None, **mosquitto: Any) -> Iterator[Run]:
        """Start a mosquitto, and make a topic; end with what they left.

        Args:
            partitions: Of the topic.
            largest_bytes: Of the messages that the topic takes, if that is not Kafka's default.
            **mosquitto: Options of `Mosquitto`.
        """
        number = next(self._numbers)
        directory = self._directory / str(number)
        topic = f"bench-{number}"
        options = {
            "persistence": False, "max_inflight_messages": 1000, "extra_configuration": LOGGED, **mosquitto
        }  # fmt: skip
        with Mosquitto(directory / "mosquitto", **options) as broker:
            self.kafka.create_topic(
                topic, partitions, **({"max_message_bytes": largest_bytes} if largest_bytes else {})
            )
            arrivals = Arrivals(self.kafka.bootstrap, topic, partitions)
            try:
                yield Run(directory, broker, self.kafka, topic, arrivals, largest_bytes)
            finally:
                arrivals.close()
                self._delete(topic)
        shutil.rmtree(directory)

    def _delete(self, topic: str) -> None:
        with contextlib.suppress(Exception):  # a Kafka that is down keeps it a little longer
            self.kafka.admin().delete_topics([topic])[topic].result(10)


@contextlib.contextmanager
def open_stage(settle_seconds: float = 2.0) -> Iterator[Stage]:
    """Start Kafka; everything is removed in the end.

    Args:
        settle_seconds: How long it is left alone: what it does after its start is not the first program's fault.
    """
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name:
        directory = Path(name)
        with Kafka(directory / "kafka", java_options=KAFKA_JAVA_OPTIONS) as kafka:
            time.sleep(settle_seconds)
            yield Stage(kafka, directory)
