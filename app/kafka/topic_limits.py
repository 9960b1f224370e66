"""What the topics take: `max.message.bytes`, asked from Kafka, as `batch.size` must stay below it."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

log = logging.getLogger(__name__)

MAY_NOT_BE_READ = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


def ask_limits(
    producer: Any, configuration: Mapping[str, Any], asked: set[str], timeout_seconds: float
) -> tuple[int | None, set[str]]:
    """Ask for the topics' limits (blocks); see `KafkaProducer.smallest_limit_bytes`."""
    existing = asked & set(producer.list_topics(timeout=timeout_seconds).topics)
    if not existing:
        return None, asked
    admin = AdminClient({name: configuration[name] for name in configuration if _is_for_admin(name)})
    answers = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in existing], request_timeout=timeout_seconds
    )
    limits = [_limit_bytes(answer, timeout_seconds) for answer in answers.values()]
    return min((limit for limit in limits if limit is not None), default=None), asked - existing


def _is_for_admin(name: str) -> bool:
    return name.startswith(
        ("bootstrap.", "security.", "sasl.", "ssl.", "client.", "https.", "socket.", "broker.", "log")
    )


def _limit_bytes(answer: Any, timeout_seconds: float) -> int | None:
    """Return a topic's `max.message.bytes`, None if it may not be read.

    Raises:
        KafkaException: Kafka did not answer; ask again.
    """
    try:
        refusal = answer.exception(timeout_seconds + 1)
    except concurrent.futures.TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001, librdkafka's own code
    if refusal is not None:
        if refusal.args[0].code() not in MAY_NOT_BE_READ:
            # A new one: the answer holds its own, which with a traceback would hold the admin client and its threads.
            raise KafkaException(*refusal.args)
        log.debug("a topic's max.message.bytes cannot be read: %s", refusal)
        return None
    entry = answer.result().get("max.message.bytes")
    return int(entry.value) if entry is not None else None  # not every Kafka-compatible broker has it
