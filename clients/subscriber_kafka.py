"""A client that reads topics from Kafka: `python -m clients.subscriber_kafka`.

It prints each record on one line, or with `--count` only what is missing, repeated or out of order.
It belongs to no consumer group and leaves no trace on the broker.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

from app.characters import visible
from clients.options import Environment, at_least_zero, seconds, topic_list
from clients.sequences import RecordCheck, SequenceCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from confluent_kafka import Message

__all__ = ["KafkaReader", "RecordCheck", "SequenceCheck", "SubscriberError", "main"]

_METADATA_LIMIT_SECONDS = 10.0
_BATCH_MESSAGES = 1_000
_STEP_SECONDS = 0.2
_SHOWN_CHARACTERS = 200


class SubscriberError(Exception):
    """The broker cannot be reached or a topic does not exist."""


@dataclass(frozen=True)
class Options:
    """What to read, from where, and when to end; 0 is without limit."""

    broker: str
    topics: Sequence[str]
    from_beginning: bool = False
    count: bool = False
    until_messages: int = 0
    idle_seconds: float = 0.0


class KafkaReader:
    """Reads every partition of some topics."""

    def __init__(self, broker: str, topics: Sequence[str], *, from_beginning: bool) -> None:
        """Connect.

        Raises:
            SubscriberError: when the broker cannot be reached or a topic does not exist.
        """
        # A consumer must name a group even when it never joins one.
        settings = {"bootstrap.servers": broker, "group.id": "connector-subscriber", "enable.auto.commit": False}
        self._consumer = Consumer({**settings, "auto.offset.reset": "error", "log_level": 0})
        offset = OFFSET_BEGINNING if from_beginning else OFFSET_END
        try:
            self._consumer.assign([part for topic in topics for part in self._partitions(topic, offset)])
        except KafkaException as error:
            raise SubscriberError(f"cannot reach Kafka at {broker}: {error.args[0].str()}") from error

    def read(self, timeout_seconds: float = _STEP_SECONDS) -> list[Message]:
        """Return the next records, perhaps none."""
        messages = self._consumer.consume(_BATCH_MESSAGES, timeout_seconds)
        # An error that a consumer reports here is one that it goes on trying to overcome.
        return [message for message in messages if message.error() is None]

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _partitions(self, topic: str, offset: int) -> list[TopicPartition]:
        found = self._consumer.list_topics(topic, timeout=_METADATA_LIMIT_SECONDS).topics[topic]
        if found.error is not None or not found.partitions:
            raise SubscriberError(f"Kafka has no topic {topic!r}")
        return [TopicPartition(topic, number, offset) for number in found.partitions]


def read_until(reader: KafkaReader, options: Options, stop: threading.Event) -> Iterator[Message]:
    """Yield records until one of the limits is reached or the event is set."""
    read_messages = 0
    last_read = time.monotonic()
    while not stop.is_set():
        messages = reader.read()
        for message in messages:
            yield message
            read_messages += 1
            if read_messages == options.until_messages or stop.is_set():
                return
        last_read = time.monotonic() if messages else last_read
        if options.idle_seconds and time.monotonic() - last_read > options.idle_seconds:
            return


def check(record_check: RecordCheck, message: Message) -> None:
    """Count one record."""
    record_check.add(message.topic(), message.value(), message.headers() or ())


def line(message: Message) -> str:
    """Return one record for people, on one line."""
    headers = " ".join(f"{_shown(name.encode())}={_shown(value)}" for name, value in message.headers() or ())
    place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
    return f"{place} key={_shown(message.key())} {{{headers}}} {_shown(message.value())}"


def _shown(value: bytes | None) -> str:
    """Return bytes as text with everything visible, and not too much of it."""
    if value is None:
        return "-"
    text = value[: 4 * _SHOWN_CHARACTERS].decode(errors="backslashreplace")
    shown = visible(text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}… ({len(value)} bytes)"


def parse_arguments(arguments: Sequence[str] | None) -> Options:
    """Return the options of the command line, else of the environment, else of `.env`."""
    known = Environment()
    parser = argparse.ArgumentParser(
        prog="python -m clients.subscriber_kafka",
        description="Read topics from Kafka.",
        epilog="Broker and topics may also stand in the environment or in .env: KAFKA_BROKER, SUBSCRIBER_TOPIC_LIST.",
    )
    add = parser.add_argument
    add("--broker", default=known.get("KAFKA_BROKER", "127.0.0.1:9092"), metavar="HOST:PORT[,HOST:PORT]")
    add("--topics", type=topic_list, default=known.get("SUBSCRIBER_TOPIC_LIST", "connector"), metavar="A,B")
    add(
        "--count",
        action="store_true",
        help="print no records, but what is missing, repeated or out of order; exit 1 if anything is",
    )
    add("--until-messages", type=at_least_zero, default=0, metavar="N", help="end after N records")
    add("--idle-seconds", type=seconds, default=0.0, metavar="N", help="end when nothing came for N seconds")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--from-beginning", action="store_true", help="read what is there already")
    where.add_argument("--latest", action="store_true", help="read what comes from now on (the default)")
    given = vars(parser.parse_args(arguments))
    del given["latest"]
    return Options(**given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read as the options say; return the exit status."""
    options = parse_arguments(arguments)
    stop = threading.Event()
    former = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        flawless = _read(options, stop)
    except SubscriberError as error:
        print(f"subscriber: {visible(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough.
        sys.stderr.close()
        return 0
    finally:
        signal.signal(signal.SIGINT, former)
    if stop.is_set():
        return 130
    return 0 if flawless else 1


def _read(options: Options, stop: threading.Event) -> bool:
    """Print the records, or count them and print the result; return whether what was counted is as it should be."""
    record_check = RecordCheck()
    reader = KafkaReader(options.broker, options.topics, from_beginning=options.from_beginning)
    try:
        for message in read_until(reader, options, stop):
            if options.count:
                check(record_check, message)
            else:
                print(line(message), flush=True)
    finally:
        reader.close()
    if options.count:
        print("\n".join(map(visible, record_check.lines())))
    return record_check.is_flawless or not options.count


if __name__ == "__main__":
    sys.exit(main())
