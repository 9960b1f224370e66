"""What the nemesis sees: Kafka's records, told as they come and not kept, and the bridge's pages and process.

The verdict is the oracle's, of which this is the part that runs for hours in the same memory: per MQTT topic it keeps
the highest number and those below it that have not come yet.

The promise is the order of receipt, and mosquitto 2.0.11 has a fault here: when a session is resumed with messages
unacknowledged, it forgets how many those were, sends more than Receive Maximum, new messages before those that it has
queued, and some once more although they were acknowledged. Rarely it sends nothing more on a connection on which all is
acknowledged. What it does is seen at the proxy, and is not charged to the bridge. HiveMQ does none of it; with HiveMQ
nothing is excused, see `nemesis_accounts`.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from confluent_kafka import Consumer, KafkaError, TopicPartition
from typing_extensions import Self

from tests.support.oracle import RUN, Record, Verdict, is_whole, parse, to_record
from tests.support.proxied_protocols import TO_CLIENT, TO_SERVER, Frame
from tests.support.scripted_broker import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL
from tests.support.system import Bridge

SCRAPE_SECONDS = 1.0
PAYLOAD_START = b"%s p" % RUN.encode()


@dataclass
class Ledger:
    """What came so far, in the order of Kafka's partitions.

    Attributes:
        highest: The highest number per MQTT topic.
        missing: The numbers below that have not come.
        records: How many records were taken.
        received_late: How many of the reordered ones the bridge received in this order, by the numbers that it gave
            them in one life; what was delivered to it before is not among them.
    """

    highest: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    missing: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    records: int = 0
    duplicated: int = 0
    reordered: int = 0
    received_late: int = 0
    corrupted: int = 0
    _latest: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Take note of the next record of its partition."""
        self.records += 1
        self.corrupted += not is_whole(record)
        message = parse(record.value)
        if message is None:
            return
        topic = message[0]
        start, _, counter = record.headers.get("connector-id", b"/0").rpartition(b"/")
        late = self.number(*message)
        latest = self._latest.get(topic)
        if latest is None or latest[0] != start:
            self._latest[topic] = start, int(counter)
        elif int(counter) > latest[1]:
            self._latest[topic] = start, int(counter)
            self.received_late += late and "mqtt-dup" not in record.headers

    def number(self, topic: str, number: int) -> bool:
        """Take note of the next number of a topic; return whether it comes too late, for the first time."""
        highest, missing = self.highest[topic], self.missing[topic]
        if number > highest:
            missing.update(range(highest + 1, number))
            self.highest[topic] = number
        elif number in missing:
            missing.remove(number)
            self.reordered += 1
            return True
        else:
            self.duplicated += 1
        return False

    def lost(self, sent: dict[str, int]) -> int:
        """Return how many of the published messages have not come."""
        return sum(
            len(self.missing[topic]) + max(0, count - 1 - self.highest[topic]) for topic, count in list(sent.items())
        )

    def verdict(self, sent: dict[str, int]) -> Verdict:
        """Compare with how many messages were published, numbered from 0, to each MQTT topic."""
        spurious = sum(max(0, highest + 1 - sent.get(topic, 0)) for topic, highest in self.highest.items())
        return Verdict(self.lost(sent), self.duplicated, self.reordered, self.corrupted, spurious)


class Wire:
    """What passes between the broker and the bridge; it takes the place of the proxy's list, which would hold it all.

    Attributes:
        ledger: The order in which the broker sent the messages.
        repeated: How many messages it sent again although their acknowledgement had reached it.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ledger = Ledger()
        self.repeated = 0
        self._again: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()
        self._messages: dict[int, dict[int, tuple[str, int] | None]] = defaultdict(dict)
        self._answers: dict[int, dict[int, Frame | None]] = defaultdict(dict)
        self._releases: dict[int, set[int]] = defaultdict(set)  # PUBREL without PUBCOMP
        self._underway: deque[tuple[Frame, tuple[str, int]]] = deque()
        # Acknowledgements are in the order of receipt, so the highest number says enough.
        self._acknowledged: dict[str, int] = defaultdict(lambda: -1)

    def append(self, frame: Frame) -> None:
        """Take note of a packet (threads of the proxy)."""
        with self._lock:
            if frame.identifier and frame.direction is TO_CLIENT and frame.kind == PUBLISH:
                self._take_message(frame)
            elif frame.kind == PUBREL and frame.direction is TO_CLIENT:
                self._releases[frame.connection].add(frame.identifier)
            elif frame.kind == PUBCOMP and frame.direction is TO_SERVER:
                self._releases[frame.connection].discard(frame.identifier)
            elif frame.direction is TO_SERVER and frame.kind in (PUBACK, PUBREC):
                self._answers[frame.connection][frame.identifier] = frame
                message = self._messages[frame.connection].get(frame.identifier)
                if message is not None:
                    self._underway.append((frame, message))

    def _take_message(self, frame: Frame) -> None:
        message = parse(frame.data[max(0, frame.data.find(PAYLOAD_START)) :])
        self._answers[frame.connection][frame.identifier] = None
        self._messages[frame.connection][frame.identifier] = message
        if message is None:
            return
        self._look_what_arrived(frame.at)
        before = self.ledger.duplicated
        self.ledger.number(*message)
        if self.ledger.duplicated > before:
            self._again[message] += 1
            self.repeated += message[1] <= self._acknowledged[message[0]]

    def _look_what_arrived(self, now: float) -> None:
        """Take note of acknowledgements that were sent on; those that were not within a second are left out."""
        underway = self._underway
        while underway and (underway[0][0].forwarded or underway[0][0].at < now - 1):
            frame, (topic, number) = underway.popleft()
            if frame.forwarded:
                self._acknowledged[topic] = max(self._acknowledged[topic], number)

    @property
    def delivered(self) -> int:
        """How many messages the broker has sent at least once."""
        return sum(highest + 1 for highest in self.highest().values())

    def highest(self) -> dict[str, int]:
        """Return the highest number that the broker has sent, by MQTT topic."""
        with self._lock:
            return dict(self.ledger.highest)

    def sent(self, message: tuple[str, int]) -> int:
        """Return how often the broker sent a message (of one that is in Kafka)."""
        with self._lock:
            return 1 + self._again[message]

    def unacknowledged(self, connection: int) -> int:
        """Return how many messages of a connection the broker has no acknowledgement of."""
        with self._lock:
            answers = list(self._answers[connection].values())
        return sum(answer is None or not answer.forwarded for answer in answers)

    def unfinished(self, connection: int) -> int:
        """Return how many PUBREL of a connection have no PUBCOMP."""
        with self._lock:
            return len(self._releases[connection])

    def close(self, connection: int) -> int:
        """Forget a connection that is over; return how many messages the broker has no acknowledgement of."""
        count = self.unacknowledged(connection)
        with self._lock:
            self._answers.pop(connection, None)
            self._releases.pop(connection, None)
            self._messages.pop(connection, None)
        return count


class Reader:
    """Reads topics of Kafka into a ledger, on a thread of its own, through all restarts; a context manager.

    Attributes:
        skipped: Offsets that were passed over. A producer without transactions leaves no holes, so there must be none.
    """

    def __init__(self, bootstrap: str, partitions: dict[str, int], ledger: Ledger) -> None:
        """Read from the beginning; `partitions` says how many each topic has."""
        self.skipped = 0
        self._ledger = ledger
        self._next = {(topic, number): 0 for topic, count in partitions.items() for number in range(count)}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "nemesis",
                "enable.auto.commit": False,
                # Not to a place that librdkafka chooses: a Kafka that was killed may know less for a moment.
                "auto.offset.reset": "error",
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader")

    def __enter__(self) -> Self:
        self._consumer.assign([TopicPartition(*place, 0) for place in self._next])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            for message in self._consumer.consume(2000, 0.2):
                place = message.topic(), message.partition()
                if message.error() is None:
                    self._take(place, message)
                elif message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                    with contextlib.suppress(Exception):  # it comes again
                        self._consumer.seek(TopicPartition(*place, self._next[place]))

    def _take(self, place: tuple[str, int], message: object) -> None:
        record = to_record(message)
        if record.offset < self._next[place]:
            return
        self.skipped += record.offset - self._next[place]
        self._next[place] = record.offset + 1
        self._ledger.take(record)


@dataclass(frozen=True)
class Limits:
    """What the bridge's process may take; its own bounds are on bytes in flight and in RocksDB, so these are coarse."""

    memory_bytes: int = 500_000_000
    open_files: int = 400
    threads: int = 80


class Watcher:
    """Looks at the bridge's accounts and process once a second, where it answers; a context manager with a thread.

    Attributes:
        scrapes: How many were answered.
        peaks: The most memory, open files and threads that were seen.
        undelivered: What the table held at the last answer.
    """

    def __init__(self, bridge: Bridge, limits: Limits, fail: Callable[[str], None]) -> None:
        """Watch a bridge; `fail` is told what is wrong."""
        self.scrapes = 0
        self.peaks = {"memory_bytes": 0, "open_files": 0, "threads": 0}
        self.undelivered = 0.0
        self._bridge, self._limits, self._fail = bridge, limits, fail
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SCRAPE_SECONDS):
            self.look()

    def look(self) -> bool:
        """Look once; return whether it answered."""
        with contextlib.suppress(Exception):  # it may be dead, or die just now
            self._look_at_process()
        try:
            metrics = self._bridge.metrics()
        except (OSError, ValueError, http.client.HTTPException):
            return False  # it died in the middle of an answer
        if not metrics:
            return False
        self.scrapes += 1
        self.undelivered = sum(metrics["connector_undelivered_messages"].values())
        try:
            self._bridge.assert_balanced(metrics)
        except AssertionError as error:
            self._fail(f"the accounts: {str(error).splitlines()[0]}")
        lost = sum(metrics["connector_lost_messages"].values())
        if lost:
            self._fail(f"connector_lost_messages is {lost:.0f}")
        return True

    def _look_at_process(self) -> None:
        process = psutil.Process(self._bridge.pid)
        now = {
            "memory_bytes": process.memory_info().rss,
            "open_files": process.num_fds(),
            "threads": process.num_threads(),
        }
        for name, value in now.items():
            if value > self.peaks[name]:
                self.peaks[name] = value
                limit = getattr(self._limits, name)
                if value > limit:
                    self._fail(f"the bridge has {value} {name}, more than {limit}")
