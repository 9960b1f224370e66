"""What arrived in Kafka: how much of it, each message once or not, and how long it took."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bench.load import WARM_UP_FIRST

LOOK_SECONDS = 0.02
QUIET_SECONDS = 2.0
READ_SECONDS = 120.0
# What a Kafka says that has just started.
NOT_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


@dataclass
class Content:
    """What a topic holds.

    Attributes:
        records: All of them.
        different: Different numbers among them.
        out_of_order: Records whose number is smaller than that of an earlier record of their key.
    """

    records: int = 0
    different: int = 0
    out_of_order: int = 0

    @property
    def twice(self) -> int:
        """Records too many."""
        return self.records - self.different


class Arrivals:
    """One topic of Kafka, looked at from outside."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        """Connect; the topic exists."""
        self._partitions = [TopicPartition(topic, number, 0) for number in range(partitions)]
        self._configuration = {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 50,
            "log_level": 0,  # Kafka goes away on purpose
        }
        self._watcher = Consumer(self._configuration)

    @property
    def count(self) -> int:
        """How many records there are."""
        return sum(self._watcher.get_watermark_offsets(partition, timeout=30)[1] for partition in self._partitions)

    def wait_for(self, messages: int, limit_seconds: float = 300.0, *, may_lose: bool = False) -> float:
        """Wait until so many records are there; return when that was (`time.monotonic()`).

        Args:
            messages: How many are wanted.
            limit_seconds: How long to wait.
            may_lose: Whether to put up with fewer, once nothing more comes for a while.

        Raises:
            RuntimeError: They did not come.
        """
        count, changed_at = -1, time.monotonic()
        give_up_at = changed_at + limit_seconds
        while count < messages:
            time.sleep(LOOK_SECONDS)
            previous, count = count, self._count_or(count)
            if count != previous:
                changed_at = time.monotonic()
            elif may_lose and count > messages // 2 and time.monotonic() > changed_at + QUIET_SECONDS:
                break
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"only {count} of {messages} messages arrived within {limit_seconds:.0f} s")
        return changed_at

    def wait_until_quiet(self, quiet_seconds: float, enough: float = math.inf, limit_seconds: float = 300.0) -> float:
        """Wait until nothing has come for a while; return when the last came (`time.monotonic()`).

        Args:
            quiet_seconds: For how long nothing has come.
            enough: So many records are not waited beyond.
            limit_seconds: How long to wait.

        Raises:
            RuntimeError: Something came all the time.
        """
        count, began = -1, time.monotonic()
        changed_at = began
        while count < enough and time.monotonic() < changed_at + quiet_seconds:
            time.sleep(LOOK_SECONDS)
            previous, count = count, self._count_or(count)
            if count != previous:
                changed_at = time.monotonic()
            if changed_at > began + limit_seconds:
                raise RuntimeError(f"messages still arrived after {limit_seconds:.0f} s")
        return changed_at

    def _count_or(self, previous: int) -> int:
        """Return how many records there are, or what that was while nobody leads a partition."""
        try:
            return self.count
        except KafkaException as error:
            if error.args[0].code() not in NOT_YET:
                raise
            return previous

    def content(self) -> Content:
        """Read everything, and return what it was."""
        found, numbers = Content(), set()
        last: dict[bytes | None, int] = defaultdict(int)
        for record in self._read(self.count, at_once=10_000):
            key, number = record.key(), int(record.value()[:12])
            if number >= WARM_UP_FIRST:
                continue
            found.records += 1
            numbers.add(number)
            found.out_of_order += number < last[key]
            last[key] = number
        found.different = len(numbers)
        return found

    def latencies(self, messages: int) -> list[float]:
        """Consume while messages arrive; return how long each took from sending, in seconds."""
        return [(time.monotonic_ns() - int(record.value()[12:32])) / 1e9 for record in self._read(messages, at_once=1)]

    def _read(self, messages: int, at_once: int) -> Iterator[Message]:
        """Yield so many records, from the first on; one at a time each is there as soon as it came."""
        consumer = Consumer(self._configuration)
        consumer.assign(self._partitions)
        count, give_up_at = 0, time.monotonic() + READ_SECONDS
        while count < messages and time.monotonic() < give_up_at:
            for record in consumer.consume(at_once, 0.1):
                yield record
                count += 1
        consumer.close()

    def close(self) -> None:
        """Disconnect."""
        self._watcher.close()
