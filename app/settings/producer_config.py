"""KAFKA_PRODUCER_CONFIG: librdkafka's properties as JSON, without those that would break a promise.

Values count as secrets and are never shown. Names are only checked for their form: librdkafka knows which exist.
"""

import json
import re

# Larger batches could exceed the limit of a topic, and one refused record must not fail the others of its batch.
BATCH_SIZE_BYTES = 65536

_NAME = re.compile(r"[a-z][a-z0-9._]{0,99}")

_ACKNOWLEDGED = "a message is safe only when all in-sync replicas have it (acks=all)"
_IDEMPOTENT = "without idempotence records could repeat or change their order"
_NOT_GIVEN_UP = "a message that is late stays with librdkafka, else it would be sent twice"
_FOLLOWS_IDEMPOTENCE = "idempotence decides it, another value could lose records or change their order"
_BROKERS = "set KAFKA_BROKER instead"
_TRANSACTIONS = "transactions belong to DELIVERY=exactly_once"
_REPORTS = "every message is acknowledged by its delivery report"

_REFUSED = {
    "acks": _ACKNOWLEDGED,
    "request.required.acks": _ACKNOWLEDGED,
    "enable.idempotence": _IDEMPOTENT,
    "enable.gapless.guarantee": _FOLLOWS_IDEMPOTENCE,
    "message.timeout.ms": _NOT_GIVEN_UP,
    "delivery.timeout.ms": _NOT_GIVEN_UP,
    "transactional.id": _TRANSACTIONS,
    "retries": _FOLLOWS_IDEMPOTENCE,
    "message.send.max.retries": _FOLLOWS_IDEMPOTENCE,
    "queuing.strategy": _FOLLOWS_IDEMPOTENCE,
    "bootstrap.servers": _BROKERS,
    "metadata.broker.list": _BROKERS,
    "delivery.report.only.error": _REPORTS,
    "on_delivery": _REPORTS,
}


def parse_producer_config(text: str) -> dict[str, object]:
    """Read the JSON object.

    Raises:
        ValueError: with a sentence for every property that is refused.
    """
    try:
        properties = json.loads(text)
    except (ValueError, RecursionError):
        # The error's own text is left out, with it goes the document.
        properties = None
    if not isinstance(properties, dict):
        # `from None` would keep the document in the context of the exception.
        raise ValueError('must be a JSON object of librdkafka properties, such as {"linger.ms": 20}')  # noqa: TRY004 - pydantic collects ValueErrors
    problems = [problem for name, value in properties.items() if (problem := _problem(name, value))]
    if problems:
        raise ValueError("; ".join(problems))
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in properties.items()}


def _problem(name: str, value: object) -> str | None:
    if not _NAME.fullmatch(name):
        return "the name of a property is not legal, allowed are a-z, 0-9, '.' and '_'"
    if name.startswith("max.in.flight"):
        return f"{name} is not allowed: {_FOLLOWS_IDEMPOTENCE}"
    if name.endswith("_cb"):
        return f"{name} is not allowed: callbacks are the program's own"
    if name in _REFUSED:
        return f"{name} is not allowed: {_REFUSED[name]}"
    if not isinstance(value, str | int | float):
        return f"{name} must be a text, a number, true or false"
    return _batch_size_problem(value) if name == "batch.size" else None


def _batch_size_problem(value: str | float) -> str | None:
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,10}", text) and 1 <= int(text) <= BATCH_SIZE_BYTES:
        return None
    return (
        f"batch.size must be a whole number from 1 to {BATCH_SIZE_BYTES} (bytes): a larger batch could exceed what a "
        "topic accepts, and then all its records are refused with it"
    )
