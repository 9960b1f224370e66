"""The bridge at work between two real brokers, on this machine alone: `python -m tools.demo`.

Everything lives in a temporary directory and ends with this program.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from clients.options import seconds
from clients.publishing import Options, Publisher, PublisherError
from clients.subscriber_kafka import KafkaReader, SubscriberError
from tools.brokers import ProcessError, kafka_broker, mqtt_broker
from tools.demo_report import MAPPINGS, SCREEN, Report
from tools.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.brokers import Amqtt, Kafka, Mosquitto, Tansu

_INTERVAL_SECONDS = 0.02
_ARRIVAL_LIMIT_SECONDS = 30.0
# After the last message arrived: a second copy of it would come about now.
_REPETITION_SECONDS = 1.0
_TEMPERATURE, _PRESSURE, _ALARM = MAPPINGS
# One alarm among two dozen measurements.
_PUBLISHED_TOPICS = [*[_TEMPERATURE, _PRESSURE] * 12, _ALARM]


class Demo:
    """The brokers, the bridge, a publisher and a reader; `run` shows them at work."""

    def __init__(self, directory: Path, console: Console) -> None:
        """Choose the brokers; nothing is started."""
        self._console = console
        self._mqtt: Mosquitto | Amqtt = mqtt_broker(directory)
        self._kafka: Kafka | Tansu = kafka_broker(directory)
        self._worker = Worker(directory, self._settings())
        self._publisher = Publisher(
            Options(
                self._mqtt.host,
                self._mqtt.port,
                _PUBLISHED_TOPICS,
                interval_seconds=_INTERVAL_SECONDS,
                client_id="connector-demo-publisher",
            )
        )
        self._report = Report(self._publisher.published, self._publisher.run_name)

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start brokers and bridge; the stack stops them in the opposite order."""
        self._console.print(
            f"starting {self._mqtt.title}, {self._kafka.title} and the bridge; that takes some seconds ..."
        )
        stack.enter_context(self._mqtt)
        stack.enter_context(self._kafka)
        for topic in dict.fromkeys(MAPPINGS.values()):
            self._kafka.create_topic(topic)
        stack.enter_context(self._worker)

    def run(self, for_seconds: float | None) -> bool:
        """Publish and read until the time is over or Ctrl-C; return whether all arrived once and in order."""
        stop = threading.Event()
        # From here on no exception: it could throw away records that were just read.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        self._publisher.connect()
        reader = KafkaReader(self._kafka.bootstrap, list(MAPPINGS.values()), from_beginning=True)
        thread = threading.Thread(target=self._publish, name="demo-publisher", daemon=True)
        self._show_screen(for_seconds)
        thread.start()
        with contextlib.closing(reader):
            self._watch(reader, for_seconds, stop)
            self._publisher.stop()
            thread.join()
            self._console.print("no more messages are published; waiting for those on their way ...")
            self._await_arrival(reader)
            self._worker.stop()
        self._console.print(self._report.summary(), soft_wrap=True)
        return self._report.exact()

    def _publish(self) -> None:
        self._publisher.run()
        self._publisher.drain()
        self._publisher.close()

    def _watch(self, reader: KafkaReader, for_seconds: float | None, stop: threading.Event) -> None:
        """Read and print until the time is over or the event is set.

        Raises:
            ProcessError: when the bridge ends by itself.
        """
        started = next_line = time.monotonic()
        while not stop.is_set() and (for_seconds is None or time.monotonic() - started < for_seconds):
            self._read(reader)
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + 1.0
                self._show(self._report.line())
            if not self._worker.running:
                raise ProcessError(f"the bridge ended by itself; the end of its log:\n{self._worker.log_tail()}")

    def _await_arrival(self, reader: KafkaReader) -> None:
        """Read until all has arrived, and then long enough to see a repetition."""
        deadline = time.monotonic() + _ARRIVAL_LIMIT_SECONDS
        while not self._report.complete() and time.monotonic() < deadline:
            self._read(reader)
        deadline = time.monotonic() + _REPETITION_SECONDS
        while time.monotonic() < deadline:
            self._read(reader)

    def _read(self, reader: KafkaReader) -> None:
        for message in reader.read():
            self._report.add(message)

    def _show(self, line: str) -> None:
        """Print a line, on a terminal no more of it than fits."""
        if self._console.is_terminal:
            self._console.print(line, no_wrap=True, overflow="ellipsis", markup=False)
        else:
            print(line, flush=True)

    def _settings(self) -> dict[str, str]:
        """Return the settings of the bridge, as its users write them."""
        exact = ",".join(f"{mqtt}:{kafka}" for mqtt, kafka in MAPPINGS.items() if mqtt != _ALARM)
        return {
            "RUN_MODE": "PRODUCTION",
            "MQTT_BROKER_URL": self._mqtt.host,
            "MQTT_BROKER_PORT": str(self._mqtt.port),
            "MQTT_VERSION": self._mqtt.mqtt_version,
            "MQTT_CLIENT_ID": "connector-demo",
            "TOPIC_LIST": exact,
            "WILDCARD_TOPIC_LIST": f"plant/+/alarm:{MAPPINGS[_ALARM]}",
            "KAFKA_BROKER": self._kafka.bootstrap,
            "LOG_LVL": "warn",
        }

    def _show_screen(self, for_seconds: float | None) -> None:
        end = "Ctrl-C ends it." if for_seconds is None else f"It ends by itself after {for_seconds:g} seconds."
        text = SCREEN.format(
            mqtt_title=self._mqtt.title,
            mqtt_host=self._mqtt.host,
            mqtt_port=self._mqtt.port,
            mqtt=f"{self._mqtt.host}:{self._mqtt.port}",
            kafka_title=self._kafka.title,
            kafka=self._kafka.bootstrap,
            url=self._worker.url,
            end=end,
        )
        # Not wrapped, as a command that is broken into lines cannot be copied.
        self._console.print(text, soft_wrap=True, markup=False)


def _interrupt_once(_signal_number: int, _frame: object) -> None:
    """Break off the start; a second Ctrl-C must not break off the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the bridge at work; return 0 when every message arrived once and in order, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=seconds, default=None, metavar="N", help="end by itself after N seconds")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, _interrupt_once)
    signal.signal(signal.SIGTERM, _interrupt_once)
    try:
        return _run(given.seconds)
    except (ProcessError, PublisherError, SubscriberError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(for_seconds: float | None) -> int:
    with tempfile.TemporaryDirectory(prefix="connector-demo-") as directory, contextlib.ExitStack() as stack:
        demo = Demo(Path(directory), Console())
        demo.start(stack)
        return 0 if demo.run(for_seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
