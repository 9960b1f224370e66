"""One broker for trying things out, until Ctrl-C: `python -m tools.broker kafka --port 9092`.

It takes Mosquitto and Apache Kafka where they are installed, and otherwise the small ones that come as Python packages.
Those keep everything in memory; what the others keep is in the directory, for the next start.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from clients.options import topic_list
from tools.brokers import KafkaProtocolServer, ProcessError, kafka_broker, mqtt_broker

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_SECONDS = 0.5
_PORTS = {"mqtt": 1883, "kafka": 9092}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.broker", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=_PORTS)
    parser.add_argument("--port", type=int, help="on 127.0.0.1; 1883 for MQTT and 9092 for Kafka where none is given")
    parser.add_argument("--directory", type=Path, default=None, help="where it keeps its files; broker-KIND if none")
    parser.add_argument("--topics", type=topic_list, default=[], metavar="A,B", help="Kafka topics to create")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker until a signal comes; return the exit status."""
    given = parse_arguments(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    directory = (given.directory or Path(f"broker-{given.kind}")).absolute()
    broker = mqtt_broker(directory) if given.kind == "mqtt" else kafka_broker(directory)
    broker.port = given.port or _PORTS[given.kind]
    print(f"starting {broker.title} ...", flush=True)
    try:
        with broker:
            if isinstance(broker, KafkaProtocolServer):
                there = broker.admin().list_topics(timeout=10).topics
                for topic in given.topics:
                    if topic not in there:
                        broker.create_topic(topic)
            print(f"{broker.title} listens on {broker.host}:{broker.port}; Ctrl-C ends it", flush=True)
            while broker.running and not ended.wait(_LOOK_SECONDS):
                pass
            print(f"stopping {broker.title} ...", flush=True)
    except ProcessError as error:
        print(f"broker: {error}", file=sys.stderr)
        return 1
    return 0 if ended.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
