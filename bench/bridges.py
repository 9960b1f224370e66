"""The programs that are compared: what they have in common, and Connector; the others are in `peers`.

Each subscribes to `bench/#` at mosquitto and writes into one Kafka topic. Each is set up as its own documents advise
for not losing anything, and as fast as that allows; in what they promise they differ (`promise`). That it has
subscribed before anything is published, is read in mosquitto's log: else what was published before would be missing.
"""

from __future__ import annotations

import http.client
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self

from tools.brokers.process import ProcessError
from tools.worker import Worker

SETTLE_SECONDS = 1.5  # for what a program does after its start: it connects, asks for metadata, and subscribes
SUBSCRIBE_SECONDS = 20.0
LOOK_SECONDS = 0.02
FILTER = "bench/#"


class Bridge(ABC):
    """A program under measurement.

    Attributes:
        title: What the report calls it.
        promise: When it acknowledges a message to MQTT.
        may_lose: Whether fewer messages may arrive than were published.
        writes_to_kafka: False for the floor, which only receives.
        largest_bytes: Of the messages that Kafka takes, if that is not its default: the program is told; a run sets it.
        subscriptions: Counts in mosquitto's log how often something has subscribed; a run sets it.
    """

    title: ClassVar[str]
    promise: ClassVar[str]
    may_lose: ClassVar[bool] = False
    writes_to_kafka: ClassVar[bool] = True
    subscriptions: Callable[[], int] | None = None
    largest_bytes: int | None = None

    def __init__(self, directory: Path, mqtt_port: int, bootstrap: str, topic: str, qos: int, messages: int) -> None:
        """Take what it needs to run; nothing is started."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.mqtt_port = mqtt_port
        self.bootstrap = bootstrap
        self.topic = topic
        self.qos = qos
        self.messages = messages

    @abstractmethod
    def start(self) -> None:
        """Start it, and let it settle."""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """Its processes."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    @abstractmethod
    def kill(self) -> None:
        """End it with SIGKILL."""

    @abstractmethod
    def start_again(self) -> None:
        """Start it after it was killed, with what it left on the disk, and do not wait for it to settle."""

    @property
    def stored(self) -> int:
        """How many messages went by way of the disk; the other programs have none."""
        return 0

    def __enter__(self) -> Self:
        before = self.subscriptions() if self.subscriptions else 0
        self.start()
        give_up_at = time.monotonic() + SUBSCRIBE_SECONDS
        while self.subscriptions and self.subscriptions() == before:
            if time.monotonic() > give_up_at:
                self.stop()
                raise ProcessError(f"{self.title} did not subscribe within {SUBSCRIBE_SECONDS:.0f} seconds")
            time.sleep(LOOK_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Connector(Bridge):
    """This project, with its default settings."""

    title = "Connector"
    promise = "after Kafka or disk"

    def __init__(self, *args: object, **settings: object) -> None:
        """Take settings beside the arguments of every bridge, in lower case."""
        super().__init__(*args)  # type: ignore[arg-type]
        environment = {
            "RUN_MODE": "PRODUCTION",
            "MQTT_BROKER_URL": "127.0.0.1",
            "MQTT_BROKER_PORT": str(self.mqtt_port),
            "MQTT_CLIENT_ID": "bench-connector",
            "MQTT_QOS": str(self.qos),
            "KAFKA_BROKER": self.bootstrap,
            "WILDCARD_TOPIC_LIST": f"{FILTER}:{self.topic}",
            "LOG_LVL": "warn",
        }
        environment |= {name.upper(): str(value) for name, value in settings.items()}
        self.worker = Worker(self.directory, environment)

    def start(self) -> None:
        """Start the worker; Kafka's limits are learned before it is measured."""
        self.worker.start()
        time.sleep(SETTLE_SECONDS)

    @property
    def pids(self) -> list[int]:
        """The worker's."""
        return [self.worker.pid]

    def stop(self) -> None:
        """Stop the worker with SIGTERM."""
        self.worker.stop()

    def kill(self) -> None:
        """Kill the worker."""
        self.worker.kill()

    def start_again(self) -> None:
        """Start the worker; it says itself when it is ready."""
        self.worker.start()

    @property
    def stored(self) -> int:
        """How many messages went by way of the table."""
        return self.counted("connector_stored_total")

    def counted(self, metric: str) -> int:
        """Return the sum of a metric over all routes."""
        connection = http.client.HTTPConnection(self.worker.host, self.worker.port, timeout=30)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return int(sum(map(float, re.findall(rf"^{metric}\{{.*\}} (\S+)$", text, re.MULTILINE))))


class ConnectorWithoutLinger(Connector):
    """The same, set up for the shortest way to Kafka."""

    title = "Connector, linger.ms 0"

    def __init__(self, *args: object) -> None:
        """See `Bridge`."""
        super().__init__(*args, kafka_producer_config='{"linger.ms": 0}')


class ConnectorWithSmallReplay(Connector):
    """The same, with the values that the program it replaces had by default."""

    title = "Connector, INVOKE_MAX_GOROUTINE 1000"

    def __init__(self, *args: object) -> None:
        """See `Bridge`."""
        super().__init__(*args, invoke_max_goroutine=1000, invoke_min_goroutine=50)
