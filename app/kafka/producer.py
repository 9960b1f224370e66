"""The only module that calls librdkafka's producer: it is idempotent, and never gives up a record by itself.

`message.timeout.ms` is 0 (infinite): a record stays with librdkafka, in order and once, until Kafka confirms or
refuses it. Whoever finds that too long stores the message as well, and does not produce it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from app.core.null_value import NULL
from app.core.record_times import ANY_TIME, TakenTimes
from app.kafka.cluster import Cluster, Partition, comparable, partitions_of
from app.kafka.contained import guarded
from app.kafka.log_filters import NoneEndsUs, OncePerMinute, WithoutValues
from app.kafka.producer_defaults import BASE_CONFIGURATION, BATCH_SIZE_BYTES, LINGER_NAMES, whole_number
from app.kafka.replaced_files import ReplacedFiles
from app.kafka.tap import Taps
from app.kafka.topic_limits import Answer, admin_client, ask_topics, describe_topics
from app.lines import short
from app.settings import LARGEST_BATCH_BYTES
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.message import Message

log = logging.getLogger(__name__)

ANY_PARTITION = -1
CALLS_AT_MOST = 100  # of librdkafka's callbacks that fail, at a poll


class KafkaProducer:
    """A producer, its delivery reports, and whether Kafka answers.

    Attributes:
        cluster: What librdkafka tells of it.
        taps: What shows messages that pass.
        reports_sink: Where delivery reports put their messages, with their `error`, during a poll.
        is_fatal: The producer must be replaced.
        files: Certificates and keys, which somebody may replace.
        batch_size_bytes: librdkafka's `batch.size` now.
        largest_batch_bytes: As large as it may become.
        largest_record_bytes: librdkafka refuses larger records; a record is larger than the packet it is made from.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        """Take the configuration; nothing is started before `open`.

        Args:
            configuration: librdkafka properties, on top of `BASE_CONFIGURATION`.
        """
        self.cluster = Cluster()
        self.taps = Taps()
        self._configuration = {**BASE_CONFIGURATION, **configuration}
        self.largest_batch_bytes = int(configuration.get("batch.size", LARGEST_BATCH_BYTES))
        self.batch_size_bytes = min(BATCH_SIZE_BYTES, self.largest_batch_bytes)
        self._may_linger = not LINGER_NAMES & configuration.keys()
        self._configuration |= {
            "batch.size": self.batch_size_bytes,
            "error_cb": guarded(self._on_error, self._log_unreadable),
            "stats_cb": guarded(self.cluster.note_statistics, self._log_unreadable),
            "throttle_cb": guarded(self.cluster.quotas.note, self._log_unreadable),
            "logger": logging.getLogger("librdkafka"),
        }
        for log_filter in (NoneEndsUs(), OncePerMinute(), WithoutValues()):
            logging.getLogger("librdkafka").addFilter(log_filter)
        self.largest_record_bytes = whole_number(
            self._configuration["message.max.bytes"], BASE_CONFIGURATION["message.max.bytes"]
        )
        self.reports_sink: list[Message] = []
        self.is_fatal = False
        self._fatal_error: KafkaError | None = None
        self._producer: Any = None
        self.files = ReplacedFiles(self._configuration)
        self._throttle = Throttle(log)

    @property
    def connected(self) -> bool:
        """Whether Kafka accepts records, as of the last statistics, error or delivery report."""
        return self.cluster.connected

    @property
    def complaint(self) -> str:
        """What is wrong with the addresses that Kafka advertises, if that is why it is not connected; else empty."""
        return self.cluster.complaint

    def open(self) -> None:
        """Start librdkafka, which connects by itself whenever Kafka is there.

        Raises:
            KafkaException: The configuration is wrong, or everybody may write to one of its files.
        """
        self.files.note_read()
        former, self._producer = [self._producer], Producer(self._configuration)
        if former != [None]:
            # When nobody refers to it, it ends: 100 ms with thousands of topics, and seconds while a name is looked up.
            threading.Thread(target=former.clear, daemon=True).start()
        self.is_fatal = False

    def produce(
        self,
        topic: str,
        messages: Sequence[Message],
        now_ms: int,
        *,
        with_current_time: bool = False,
        times: TakenTimes = ANY_TIME,
    ) -> tuple[int, Exception | None]:
        """Hand messages over, in order; their delivery reports will put them into `reports_sink`.

        Args:
            topic: The Kafka topic.
            messages: What to produce.
            now_ms: The wall clock, milliseconds since 1970.
            with_current_time: Their records get `now_ms` as timestamp, and a header with the time of receipt.
            times: Which of their devices' times the topic takes.

        Returns:
            How many were handed over, and why the next one was not: a BufferError if librdkafka's queue is full; a
            KafkaException if it was refused at once, or the producer failed for good; None if all were.
        """
        if self.is_fatal:
            return 0, KafkaException(self._fatal_error)  # librdkafka itself would only say that there was something
        produce, count = self._producer.produce, 0
        watch = self.taps.watch() if self.taps.open else None
        try:
            for message in messages:
                payload, timestamp_ms, headers = message.payload, message.timestamp_ms, message.headers
                if with_current_time or message.device_time is not None:
                    timestamp_ms, headers = times.of_record(message, now_ms, with_current_time=with_current_time)
                produce(
                    topic,
                    None if payload is NULL else payload,
                    message.record_key,
                    ANY_PARTITION,
                    message.on_delivery if watch is None else watch(message),
                    None,  # on_delivery, which is another name of the callback before it
                    timestamp_ms,
                    headers,
                )
                count += 1
        except (BufferError, KafkaException) as refusal:
            return count, refusal
        return count, None

    def poll(self) -> list[Message]:
        """Return the messages that were reported since the last call."""
        if self._producer is not None:
            self._call_back()
        reports = self.reports_sink.copy()
        self.reports_sink.clear()  # the lanes hold this very list
        if not self.connected and any(message.error is None for message in reports):
            self.cluster.note_confirmed()
        return reports

    def mark_failed(self, error: KafkaError) -> None:
        """Mark as failed for good: Kafka accepts no record of this producer any more. The service replaces it."""
        self._fatal_error, self.is_fatal = error, True

    def give_back(self) -> bool:
        """Have a producer that failed for good report what it still holds, as not delivered; tell whether it did.

        librdkafka's threads take a moment for what is in flight, and a record that is never reported would hold up its
        lane for ever.
        """
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        return not len(self._producer)

    def replace(self) -> None:
        """Replace a producer that had a fatal error and has given everything back; or leave that to the next time.

        A certificate may be replaced before its key is, and be of no use until then.
        """
        self._throttle.error(
            "failed",
            "the Kafka producer failed for good and is replaced: what it did not confirm is sent once more: %s",
            self._fatal_error,
        )
        try:
            self.open()
        except KafkaException as error:  # of the files: all else was accepted when the worker started
            self._throttle.error("files", "librdkafka does not start with the files of KAFKA_..._FILE: %s", error)
        else:
            self._throttle.end("files", "librdkafka starts with the files of KAFKA_..._FILE now")

    def close(self) -> None:
        """End librdkafka; what it still held is reported as not delivered, at the next poll."""
        if self._producer is not None:
            self._discard()
            self._producer = None

    def would_linger(self, linger_ms: int) -> bool:
        """Tell whether `linger.ms` may be raised to that; not if the user has set it."""
        return self._may_linger and linger_ms > self._configuration["linger.ms"]

    def fit_to_kafka(self, batch_size_bytes: int, linger_ms: int) -> None:
        """Go on with a larger `batch.size`, and a longer `linger.ms` if there is need; nothing may be in flight."""
        if self.would_linger(linger_ms):
            log.info("linger.ms is now %d, a little more than Kafka takes to answer", linger_ms)
            self._configuration["linger.ms"] = linger_ms
        self._begin_anew(batch_size_bytes)

    def shrink_batches(self, size_bytes: int) -> None:
        """Go on with a smaller `batch.size`; nothing may be in flight."""
        log.info("batch.size is now %d bytes, as a topic takes no more", size_bytes)
        self._begin_anew(size_bytes)

    def _begin_anew(self, batch_size_bytes: int) -> None:
        self.batch_size_bytes = batch_size_bytes
        self._configuration["batch.size"] = batch_size_bytes
        self.start_anew()

    def start_anew(self) -> None:
        """Replace the producer; nothing may be in flight."""
        self._discard()
        try:
            self.open()
        except KafkaException as error:  # as in `replace`; the service tries again
            self.mark_failed(error.args[0])

    def ask_topics(self, topics: Iterable[str], timeout_seconds: float) -> Answer:
        """Ask Kafka what the topics take and keep (blocks: not on the event loop).

        Raises:
            KafkaException: Kafka does not even say in time which topics there are.
        """
        if self._producer is None:  # closed meanwhile: the worker stops
            raise KafkaException(KafkaError(KafkaError._DESTROY))  # noqa: SLF001, librdkafka's own codes begin with _
        return ask_topics(self._configuration, set(topics), timeout_seconds)

    def ask_partitions(self, topics: Iterable[str], timeout_seconds: float) -> dict[str, dict[int, Partition]]:
        """Ask Kafka how the partitions of topics are (blocks: not on the event loop).

        Raises:
            KafkaException: Kafka does not answer in time.
        """
        if self._producer is None:
            return {}
        found = describe_topics(admin_client(self._configuration), set(topics), timeout_seconds)
        return {topic: partitions_of(described) for topic, described in found.items() if described is not None}

    def ask_addresses(self, topic: str, timeout_seconds: float) -> set[str]:
        """Return the addresses that KAFKA_BROKER names; none if it does not answer (blocks: not on the event loop)."""
        try:
            found = admin_client(self._configuration).list_topics(topic, timeout=timeout_seconds)
        except (KafkaException, ValueError, SystemError):  # no answer, or one that cannot be read
            return set()
        return {comparable(f"{node.host}:{node.port}") for node in found.brokers.values()}

    def _discard(self) -> None:
        self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        self._call_back()

    def _call_back(self) -> None:
        """Have all callbacks called that are due; the rest the next time, if many fail."""
        for _ in range(CALLS_AT_MOST):
            if self._called_back():
                return

    def _called_back(self) -> bool:
        """Have callbacks called; False if a fatal error, or a text of Kafka's that is no UTF-8, kept some from it.

        An error in taking a delivery report is let out, and ends the worker: its message would wait for ever.
        """
        try:
            self._producer.poll(0)
        except KafkaException as failure:
            if failure.args[0].fatal():
                self.mark_failed(failure.args[0])
            else:
                self._log_unreadable(failure)
            return False
        except (ValueError, SystemError) as failure:  # as the client for Python reads what librdkafka calls it with
            self._log_unreadable(failure)
            return False
        return True

    def _log_unreadable(self, failure: Exception) -> None:
        self._throttle.warning(
            "unreadable",
            "something that the Kafka client said cannot be read and is left out: %s",
            short(repr(failure)),
        )

    def _on_error(self, error: KafkaError) -> None:
        """Note what librdkafka says of the cluster; it goes on trying by itself."""
        self.cluster.note_error(error)
        if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001, librdkafka's own codes begin with _
            self._throttle.warning("sign-in", "Kafka cannot be signed in to: %s", error.str())
        elif error.code() == KafkaError._SSL and (changed := self.files.changed()):  # noqa: SLF001
            names = " and ".join(changed)
            log.warning("%s changed since librdkafka read it, and TLS fails: it starts anew with what is there", names)
            self.mark_failed(error)
