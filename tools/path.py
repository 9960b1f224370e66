"""Follows one message through the code of the bridge, at run time: `make path`.

Starts real brokers and the real worker, traced by the interpreter (`tools.tracer`), publishes messages with QoS 1, and
prints the functions of `app/`, `agents/` and `tables/` in the order in which they are called for one of them:

- *direct*: Kafka answers. From the socket to the PUBACK, by way of Kafka.
- *outage*: Kafka does not answer for a while. The message is stored and acknowledged, then sent from the table,
  confirmed, and removed.

Which calls belong to the message, and which happen anyway, is decided by the rule in the header of `tools.calls`.

The message is a usual one. It is not the first of its MQTT topic, so its route is known. Its lane may have many
messages in flight, as a record was confirmed after the topic's limits were learned. In the outage it is not the first
of its lane either. Two others come before it: one is with librdkafka, which gets no more than one record of a topic of
which Kafka has confirmed none yet, and one waits in the table. So the message goes to the table only.

Kafka is not ended but stopped (SIGSTOP), as it is back in no time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from clients.subscriber_kafka import KafkaReader
from tools.brokers import ProcessError, kafka_broker, mqtt_broker
from tools.calls import FOLLOWED, OTHER, Call, Span, Way, way
from tools.worker import Worker

if TYPE_CHECKING:
    from tools.brokers import Amqtt, KafkaProtocolServer, Mosquitto

LEARNED_SECONDS = 1.0  # until what the worker does once after its start is done
IDLE_SECONDS = 1.2  # what runs by itself runs once a second or more often, or not at all in this time
ACKNOWLEDGED_SECONDS = 0.5
# Kafka is away for the sum of these and the idle time: less than 3 s, after which the tests' Kafka is no longer its own
# controller, and everything is asked for anew.
STORED_SECONDS = 0.6  # a sync takes milliseconds
QUEUED_MESSAGES = 2  # that librdkafka takes: what comes then, while Kafka does not answer, goes to the table first
REMOVED_SECONDS = 1.5  # removals are synced once a second
_ARRIVAL_LIMIT_SECONDS = 30.0
_HEADINGS = {
    "direct": "direct, Kafka answers",
    "outage": "through an outage: stored, acknowledged; then sent from the table, confirmed, removed",
}


class TracedWorker(Worker):
    """A worker whose calls are written down; they can be read when it has ended."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        """Choose the port; nothing is started."""
        super().__init__(directory, settings)
        self._calls_path = directory / "calls.json"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "tools.tracer", str(self._calls_path)]

    def calls(self) -> list[Call]:
        """Return the calls, in order."""
        if not self._calls_path.exists():
            raise ProcessError(f"the traced worker wrote no calls; the end of its log:\n{self.log_tail()}")
        return [Call(*fields) for fields in json.loads(self._calls_path.read_text(encoding="utf-8"))]


class Follower:
    """A worker between two brokers that are running, and the two messages that are followed through it."""

    def __init__(self, directory: Path, mqtt: Mosquitto | Amqtt, kafka: KafkaProtocolServer, name: str) -> None:
        """Choose the topics; nothing is started.

        Args:
            directory: Where the worker has its table and its log.
            mqtt: The MQTT broker.
            kafka: The Kafka broker; it is stopped for some seconds.
            name: The beginning of the topics' names, that nobody else uses.
        """
        self._mqtt, self._kafka = mqtt, kafka
        self._topics = {what: f"{name}-{what}" for what in _HEADINGS}
        self._worker = TracedWorker(directory, self._settings(name))

    def _settings(self, name: str) -> dict[str, str]:
        return {
            "RUN_MODE": "PRODUCTION",
            "MQTT_BROKER_URL": self._mqtt.host,
            "MQTT_BROKER_PORT": str(self._mqtt.port),
            "MQTT_VERSION": self._mqtt.mqtt_version,
            "MQTT_CLIENT_ID": name,
            "TOPIC_LIST": ",".join(f"{topic}:{topic}" for topic in self._topics.values()),
            "KAFKA_BROKER": self._kafka.bootstrap,
            # The statistics come often enough to be seen while the worker is idle; the replay timer never acts.
            "KAFKA_PRODUCER_CONFIG": json.dumps(
                {"statistics.interval.ms": 500, "queue.buffering.max.messages": QUEUED_MESSAGES}
            ),
            "INVOKE_LATENCY_SEC": "3600",
            # However slow this machine is, nothing is stored while Kafka answers.
            "STORE_AFTER_MS": "60000",
        }

    def follow(self) -> dict[str, Way]:
        """Return the ways of the two messages, by "direct" and "outage"."""
        for topic in self._topics.values():
            self._kafka.create_topic(topic)
        with self._worker:
            self._publish("direct", OTHER)
            self._await("direct", OTHER)
            time.sleep(LEARNED_SECONDS)
            self._publish("direct", OTHER)  # a record that is confirmed after the limits were learned
            time.sleep(ACKNOWLEDGED_SECONDS)
            quiet = _sleep(IDLE_SECONDS)
            direct = self._follow_direct()
            waiting, outage = self._follow_through_outage()
        calls, idle = self._worker.calls(), [waiting, quiet]
        return {"direct": way(calls, direct, idle), "outage": way(calls, outage, idle)}

    def _follow_direct(self) -> Span:
        begin = time.monotonic()
        self._publish("direct", FOLLOWED)
        self._await("direct", FOLLOWED)
        return Span(begin, _sleep(ACKNOWLEDGED_SECONDS).end)

    def _follow_through_outage(self) -> tuple[Span, Span]:
        """Return an idle time, in which other messages wait for Kafka, and the time of the message."""
        with self._stopped_kafka():
            for _ in range(QUEUED_MESSAGES + 1):
                self._publish("outage", OTHER)
            time.sleep(STORED_SECONDS)
            waiting = _sleep(IDLE_SECONDS)
            begin = time.monotonic()
            self._publish("outage", FOLLOWED)
            time.sleep(STORED_SECONDS)
        self._await("outage", FOLLOWED)
        return waiting, Span(begin, _sleep(REMOVED_SECONDS).end)

    @contextlib.contextmanager
    def _stopped_kafka(self) -> Iterator[None]:
        os.kill(self._kafka.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._kafka.pid, signal.SIGCONT)

    def _publish(self, what: str, payload: bytes) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect(self._mqtt.host, self._mqtt.port)
        client.loop_start()
        client.publish(self._topics[what], payload, qos=1).wait_for_publish(_ARRIVAL_LIMIT_SECONDS)
        client.disconnect()
        client.loop_stop()

    def _await(self, what: str, payload: bytes) -> None:
        """Wait until Kafka has the record.

        Raises:
            ProcessError: It does not come.
        """
        give_up_at = time.monotonic() + _ARRIVAL_LIMIT_SECONDS
        reader = KafkaReader(self._kafka.bootstrap, [self._topics[what]], from_beginning=True)
        with contextlib.closing(reader):
            while not any(record.value() == payload for record in reader.read()):
                if time.monotonic() > give_up_at or not self._worker.running:
                    raise ProcessError(f"the message did not cross; the end of the log:\n{self._worker.log_tail()}")


def _sleep(seconds: float) -> Span:
    """Sleep, and return the time that it took."""
    begin = time.monotonic()
    time.sleep(seconds)
    return Span(begin, time.monotonic())


def report(ways: dict[str, Way]) -> str:
    """Return what `make path` prints."""
    lines = []
    for what, followed in ways.items():
        counted = f"{len(followed.files)} files, {followed.changes} changes of file, {followed.functions} functions"
        lines.append(f"{_HEADINGS[what]}: {counted}")
        last = ""
        for file, function in followed.steps:
            lines.append(f"  {file if file != last else '':32} {function}")
            last = file
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Follow the messages between brokers of their own, and print their ways."""
    parser = argparse.ArgumentParser(prog="python -m tools.path", description=__doc__.partition("\n")[0])
    parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="connector-path-") as name, contextlib.ExitStack() as stack:
            directory = Path(name)
            mqtt, kafka = mqtt_broker(directory / "mqtt"), kafka_broker(directory / "kafka")
            stack.enter_context(mqtt)
            stack.enter_context(kafka)
            print(report(Follower(directory / "worker", mqtt, kafka, "path").follow()))
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
