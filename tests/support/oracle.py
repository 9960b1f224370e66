"""The oracle: what Kafka holds, compared with what was published. It runs in the tests, which no fault touches.

A payload carries the run, its publisher, its MQTT topic, its number within that topic, and a checksum over all of it;
so the oracle needs nothing but what it reads from Kafka and how many messages were published to each topic.
"""

from __future__ import annotations

import itertools
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from tests.support.figures import note_verdict

RUN = os.urandom(2).hex()
KAFKA_SECONDS = 90.0
CHECKSUM_BYTES = 8
publisher_names = (f"p{number}" for number in itertools.count(1))


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait until the condition holds, and return its value; fail with what was waited for."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s for: {what}")


def payload(topic: str, number: int, size_bytes: int = 100, publisher: str = "p0") -> bytes:
    """Return the payload of a numbered message; longer than asked for where its fields need more."""
    fields = f"{RUN} {publisher} {topic} {number} ".encode().ljust(size_bytes - CHECKSUM_BYTES, b".")
    return fields + b"%08x" % zlib.crc32(fields)


def parse(value: bytes) -> tuple[str, int] | None:
    """Return MQTT topic and number of a payload of this run, none if it is none or not whole."""
    fields = value[:-CHECKSUM_BYTES]
    if value[-CHECKSUM_BYTES:] != b"%08x" % zlib.crc32(fields):
        return None
    run, _publisher, topic, number, _padding = fields.split(b" ", 4)
    return (topic.decode(), int(number)) if run == RUN.encode() else None


def duplicates_allowed(
    *, crashes: int = 0, connections_lost: int = 0, window: int = 1000, in_flight: int = 20_000
) -> int:
    """Return how many repetitions the promises allow.

    Args:
        crashes: SIGKILLs and power cuts; each repeats at most the unacknowledged window and what was in flight.
        connections_lost: MQTT connections that ended otherwise: each repeats at most the window.
        window: MQTT_RECEIVE_MAXIMUM.
        in_flight: The most messages in flight to Kafka: the bound of a lane, or what is known to bound it better.
    """
    return crashes * (window + in_flight) + connections_lost * window


@dataclass
class Record:
    """A record read from Kafka."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]
    timestamp_ms: int


@dataclass
class Verdict:
    """How Kafka's records differ from what was published; all zero if they do not.

    Attributes:
        lost: Published messages that are not in Kafka.
        duplicated: Further records of a message.
        reordered: First appearances that come after one with a higher number of the same MQTT topic, within one Kafka
            topic: between Kafka topics no order is promised.
        corrupted: Records whose checksum, key or headers are not those of their message.
        spurious: Records of messages that nobody published.
    """

    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    spurious: int = 0


@dataclass
class Oracle:
    """What Kafka holds."""

    records: list[Record] = field(default_factory=list)

    def numbers(self) -> dict[str, list[int]]:
        """Return the numbers per MQTT topic, in Kafka's order; without what is not whole."""
        numbers: dict[str, list[int]] = defaultdict(list)
        for record in self.records:
            message = parse(record.value)
            if message is not None:
                numbers[message[0]].append(message[1])
        return numbers

    def verdict(self, sent: dict[str, int]) -> Verdict:
        """Compare with how many messages were published, numbered from 0, to each MQTT topic."""
        verdict = Verdict()
        numbers = self.numbers()
        for topic, count in sent.items():
            verdict.lost += len(set(range(count)).difference(numbers[topic]))
        for topic, found in numbers.items():
            verdict.duplicated += len(found) - len(set(found))
            verdict.spurious += sum(number >= sent.get(topic, 0) for number in set(found))
        for part in self._by_kafka_topic():
            verdict.reordered += sum(map(_inversions, part.numbers().values()))
        verdict.corrupted = sum(not is_whole(record) for record in self.records)
        return verdict

    def _by_kafka_topic(self) -> list[Oracle]:
        parts: dict[str, Oracle] = defaultdict(Oracle)
        for record in self.records:
            parts[record.topic].records.append(record)
        return list(parts.values())

    def assert_each_once_in_order(self, sent: dict[str, int]) -> None:
        """Fail unless every message is there, once, in order, with its bytes, and nothing else."""
        self.assert_nothing_lost(sent, 0)

    def assert_nothing_lost(self, sent: dict[str, int], duplicates_at_most: int) -> Verdict:
        """Fail unless every message is there, in order, with its bytes, and few twice; see `duplicates_allowed`."""
        verdict = self.verdict(sent)
        note_verdict(verdict, sum(sent.values()), duplicates_at_most)
        assert verdict == Verdict(duplicated=verdict.duplicated)
        assert verdict.duplicated <= duplicates_at_most
        return verdict

    # The parts of the verdict, where a test allows one of them.

    def lost(self, sent: dict[str, int]) -> int:
        """Return how many published messages are not in Kafka."""
        return self.verdict(sent).lost

    def duplicates(self) -> int:
        """Return how many records are further copies of a message."""
        return self.verdict({}).duplicated

    def inversions(self) -> int:
        """Return how many first appearances come after one with a higher number."""
        return self.verdict({}).reordered


def _inversions(numbers: Iterable[int]) -> int:
    count = 0
    seen: set[int] = set()
    highest = -1
    for number in numbers:
        if number not in seen and number < highest:
            count += 1
        seen.add(number)
        highest = max(highest, number)
    return count


def is_whole(record: Record) -> bool:
    """Tell whether payload, key and headers belong together, with the default RECORD_KEY."""
    message = parse(record.value)
    return message is not None and record.key == record.headers["mqtt-topic"] == message[0].encode()


class Awaited:
    """What is to be read at least: so many records, or each of the messages that were published.

    Where messages may be repeated, a number of records says nothing: the last message may be on its way yet.
    """

    def __init__(self, wanted: int | Mapping[str, int]) -> None:
        self._records = wanted if isinstance(wanted, int) else 0
        sent = {} if isinstance(wanted, int) else wanted
        self._missing = {(topic, number) for topic, count in sent.items() for number in range(count)}

    def take(self, record: Record) -> None:
        """Note a record."""
        self._records -= 1
        if self._missing:
            self._missing.discard(parse(record.value) or ("", -1))

    @property
    def has_come(self) -> bool:
        """Whether all of it is there."""
        return self._records <= 0 and not self._missing


def read(
    bootstrap: str,
    topics: Iterable[str],
    at_least: int | Mapping[str, int],
    settle_seconds: float = 0.7,
    **options: Any,
) -> Oracle:
    """Read the topics from the beginning until what is awaited came, and then nothing more for a while."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False, "log_level": 0, **options}
    )
    oracle, awaited = Oracle(), Awaited(at_least)
    try:
        partitions = []
        for topic in topics:
            found = wait_until(lambda topic=topic: _partitions(consumer, topic), f"the Kafka topic {topic}")
            partitions += [TopicPartition(topic, number, 0) for number in found]
        consumer.assign(partitions)
        give_up_at = time.monotonic() + KAFKA_SECONDS
        quiet_since = time.monotonic()
        while time.monotonic() < give_up_at:
            messages = consumer.consume(5000, 0.2)
            now = time.monotonic()
            for message in messages:
                if message.error() is None:
                    oracle.records.append(to_record(message))
                    awaited.take(oracle.records[-1])
                    quiet_since = now
            if awaited.has_come and now - quiet_since >= settle_seconds:
                break
    finally:
        consumer.close()
    return oracle


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    return list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)


def to_record(message: Any) -> Record:
    """Return what the oracle keeps of a message of librdkafka's."""
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        dict(message.headers() or []),
        message.timestamp()[1],
    )
