"""A visit at Kafka, beside the worker: sign in as its producer does, and ask about topics; nothing is written.

For `app.check`. The visitor is a producer with the worker's own configuration, as other clients may be let in where it
is not: an idempotent producer asks for a number before its first record, for which it needs a right. librdkafka asks
for it by itself, and its statistics tell that it came.

What is asked about topics goes through an administrative client, with the bounds of `app.kafka.topic_limits`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, ConfigResource, ResourceType

from app.errors import ConnectorError
from app.kafka.cluster import Partition, partitions_of
from app.kafka.heard import LARGEST_INT32, whole
from app.kafka.producer_defaults import BASE_CONFIGURATION
from app.kafka.replaced_files import check_files
from app.kafka.topic_limits import NO_ANSWER, admin_client, refusal_of
from app.lines import short

POLL_SECONDS = 0.1
STATISTICS_MS = 250
GRACE_SECONDS = 3.0  # for another node, after one has refused: what KAFKA_BROKER names may be of several kinds
MOST_NODES = 200
MOST_REASONS = 3
TLS, SIGN_IN, RIGHT, SILENT = "tls", "sign-in", "right", "silent"
_DEFINITE = {KafkaError._AUTHENTICATION: SIGN_IN, KafkaError._SSL: TLS}  # noqa: SLF001, librdkafka's own codes begin with _
_ALL_AWAY = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
_TIMES = re.compile(r" \(after \d+ms in state \w+\)")


class Refusal(NamedTuple):
    """Why the producer is not let in.

    Attributes:
        kind: `TLS`, `SIGN_IN`, `RIGHT` (to write without gaps and repetitions) or `SILENT`.
        text: What Kafka or librdkafka said.
    """

    kind: str
    text: str


class Node(NamedTuple):
    """A node, as Kafka advertises it."""

    number: int
    host: str
    port: int


@dataclass(frozen=True)
class Topic:
    """What Kafka said of one topic.

    Attributes:
        refusal: Why it says nothing; empty if it does.
        is_silent: There was no answer at all.
        is_missing: It does not exist, or our user may not see it.
        partitions: By number.
        rights: Names of what our user may do with it; None: Kafka does not say.
        values: Its configuration; None: Kafka does not say.
        no_values: Why not.
    """

    refusal: str = ""
    is_silent: bool = False
    is_missing: bool = False
    partitions: dict[int, Partition] = field(default_factory=dict)
    rights: frozenset[str] | None = None
    values: dict[str, str | None] | None = None
    no_values: str = ""


class KafkaVisit:
    """One visit."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        """Start the clients.

        Args:
            configuration: librdkafka's properties, as the settings have them.

        Raises:
            ConnectorError: The configuration is wrong, or everybody may write to one of its files.
        """
        own = {name: value for name, value in configuration.items() if name != "debug"}
        whole_of_it = {**BASE_CONFIGURATION, **own, "logger": _silent()}
        self._errors: list[KafkaError] = []
        self._has_number = False
        self._nodes: dict[int, Node] = {}
        told: dict[str, Any] = {"statistics.interval.ms": STATISTICS_MS}
        told |= {"stats_cb": self._note_statistics, "error_cb": self._errors.append}
        try:
            check_files(whole_of_it)
            self._producer: Any = Producer({**whole_of_it, **told})
            self._admin: Any = admin_client(whole_of_it)
        except KafkaException as failure:
            raise ConnectorError(short(failure.args[0].str())) from None

    def sign_in(self, seconds: float) -> Refusal | None:
        """Wait until Kafka has let the producer in; return why it does not."""
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            self._poll()
            if self._has_number:
                return None
            if fatal := next((error for error in self._errors if error.fatal()), None):
                return Refusal(RIGHT, short(fatal.str()))
            if any(error.code() in {*_DEFINITE, _ALL_AWAY} for error in self._errors):
                give_up_at = min(give_up_at, time.monotonic() + GRACE_SECONDS)
        for code, kind in _DEFINITE.items():
            if definite := [error for error in self._errors if error.code() == code]:
                return Refusal(kind, _reasons(definite))
        return Refusal(SILENT, _reasons(self._errors))

    def _poll(self) -> None:
        """Have librdkafka call back; a fatal error comes as an exception instead."""
        try:
            self._producer.poll(POLL_SECONDS)
        except KafkaException as failure:
            self._errors.append(failure.args[0])
        except (ValueError, SystemError):  # what Kafka said cannot be read
            return

    @property
    def nodes(self) -> list[Node]:
        """Where the nodes are, as Kafka advertises them; the producer has learned it while it signed in."""
        return sorted(self._nodes.values())[:MOST_NODES]

    def topics(self, names: Iterable[str], seconds: float) -> Iterator[tuple[str, Topic]]:
        """Yield what Kafka says of topics, one by one.

        Each is asked for by itself: see `app.kafka.topic_limits.describe_topics`.
        """
        for name in names:
            topic = self._described(name, seconds)
            if not topic.is_missing and not topic.refusal:
                topic = self._with_configuration(name, topic, seconds)
            yield name, topic

    def _described(self, name: str, seconds: float) -> Topic:
        asked = TopicCollection([name])
        try:
            futures = self._admin.describe_topics(asked, include_authorized_operations=True, request_timeout=seconds)
        except KafkaException as failure:
            return Topic(refusal=short(failure.args[0].str()))
        future = futures[name]
        refusal = refusal_of(future, time.monotonic() + seconds + 1)
        if refusal is not None:
            is_missing = refusal.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            is_silent = refusal.code() in NO_ANSWER
            return Topic(refusal=short(refusal.str()), is_silent=is_silent, is_missing=is_missing)
        found = future.result()
        rights = found.authorized_operations
        return Topic(
            partitions=partitions_of(found),
            rights=None if rights is None else frozenset(AclOperation(each).name for each in rights),
        )

    def _with_configuration(self, name: str, topic: Topic, seconds: float) -> Topic:
        resource = ConfigResource(ResourceType.TOPIC, name)
        try:
            future = self._admin.describe_configs([resource], request_timeout=seconds)[resource]
        except KafkaException as failure:
            return replace(topic, no_values=short(failure.args[0].str()))
        refusal = refusal_of(future, time.monotonic() + seconds + 1)
        if refusal is not None:
            return replace(topic, no_values=short(refusal.str()))
        return replace(topic, values={str(entry): value.value for entry, value in future.result().items()})

    def close(self) -> None:
        """End the clients: librdkafka's are gone when nobody refers to them."""
        self._producer = self._admin = None

    def _note_statistics(self, text: str) -> None:
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            told = json.loads(text)
            self._has_number |= told.get("eos", {}).get("idemp_state") == "Assigned"
            self._nodes |= {node.number: node for node in _nodes_in(told)}  # one may be left out while it is away


def _nodes_in(told: Mapping[str, Any]) -> Iterator[Node]:
    """Yield the nodes of which librdkafka's statistics have number and address."""
    for node in told.get("brokers", {}).values():
        number = whole(node.get("nodeid"), -1, LARGEST_INT32, -1)
        host, _, port = str(node.get("nodename", "")).rpartition(":")
        if number >= 0 and host:
            yield Node(number, host.strip("[]"), whole(port, 0, 65_535, 0))


def _silent() -> logging.Logger:
    """Return where librdkafka may say what it likes: what counts it tells its callbacks too."""
    logger = logging.getLogger("librdkafka.visit")
    logger.addFilter(_nothing)
    return logger


def _nothing(_record: logging.LogRecord) -> bool:
    return False


def _reasons(errors: list[KafkaError]) -> str:
    """Return what was said, each once; that all nodes are away says less than why."""
    texts = [_TIMES.sub("", short(error.str())) for error in errors if error.code() != _ALL_AWAY]
    return "; ".join(list(dict.fromkeys(texts))[-MOST_REASONS:]) or "no answer"
