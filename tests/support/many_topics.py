"""What thousands of topics that Kafka does not have cost in the Kafka client: memory, and how long a call may take.

    python -m tests.support.many_topics --topics 9000 --seconds 30

It prints what librdkafka takes for a topic, and the longest time for which it held up the caller, which waits for a
lock of its threads: longer where other programs have the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import psutil
from confluent_kafka import KafkaException, Producer

from app.kafka.producer_defaults import BASE_CONFIGURATION
from tools.brokers import Kafka

STARTED_SECONDS = 5.0  # until its first question is answered


def measured(bootstrap: str, topics: int, seconds: float) -> str:
    """Return a line about so many topics, each of which gets a record again and again."""
    configuration = {**BASE_CONFIGURATION, "bootstrap.servers": bootstrap, "log_level": 0}
    producer = Producer(configuration | {"stats_cb": lambda _: None})
    before_bytes = psutil.Process().memory_info().rss
    longest_seconds, number = 0.0, 0
    began = time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        with contextlib.suppress(KafkaException, BufferError):
            producer.produce(f"missing.{number % topics}", b"payload", headers=[("name", b"value")])
        producer.poll(0)
        if now - began > STARTED_SECONDS:
            longest_seconds = max(longest_seconds, time.monotonic() - now)
        number += 1
        if number > topics:
            time.sleep(0.002)
    made = min(number, topics)
    each_bytes = (psutil.Process().memory_info().rss - before_bytes) / made
    producer.purge()
    return f"{made} topics: {each_bytes / 1000:.0f} KB each; a call took {longest_seconds:.2f} s at most"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=int, default=9_000)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Kafka(Path(directory) / "kafka") as kafka:
        print(measured(kafka.bootstrap, options.topics, options.seconds))


if __name__ == "__main__":
    main()
