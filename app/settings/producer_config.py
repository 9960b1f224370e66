"""KAFKA_PRODUCER_CONFIG: librdkafka's properties as JSON, of those that `producer_properties` allows.

Values count as secrets and are never shown. A property that is refused is named with the reason, where there is one
that tells more than that it is not on the list.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections import Counter
from typing import Any

from app.settings.producer_properties import ALIASES, ALLOWED
from app.strict_json import strict_json

DOCUMENT = "docs/kafka-client.md"

_NAME = re.compile(r"[a-z][a-z0-9._]{0,99}")

_ACKNOWLEDGED = "a message is safe only when all in-sync replicas have it (acks=all)"
_IDEMPOTENT = "without idempotence records could repeat or change their order"
_NOT_GIVEN_UP = "a message that is late stays with librdkafka, else it would be sent twice"
_FOLLOWS_IDEMPOTENCE = "idempotence decides it, another value could lose records or change their order"
_BROKERS = "set KAFKA_BROKER instead"
_TRANSACTIONS = "transactions belong to DELIVERY=exactly_once"
_REPORTS = "every message is acknowledged by its delivery report"
_CALLBACKS = "callbacks are the program's own"
_CODE = "it loads code into Connector, which then has its secrets and its messages"
_SHELL = "librdkafka signs in with Kerberos by way of a command in a shell; use KAFKA_SASL_MECHANISM or SASL_SSL"
_SIGN_IN = "set KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD instead"
_TOKENS = "the SASL_OAUTHBEARER_ variables say where tokens come from, and nothing else may"
_VERSIONS = "Kafka says which versions it speaks; what is older than that has no headers and no idempotence"

REFUSED = {
    "acks": _ACKNOWLEDGED,
    "request.required.acks": _ACKNOWLEDGED,
    "enable.idempotence": _IDEMPOTENT,
    "enable.gapless.guarantee": _FOLLOWS_IDEMPOTENCE,
    "message.timeout.ms": _NOT_GIVEN_UP,
    "delivery.timeout.ms": _NOT_GIVEN_UP,
    "transactional.id": _TRANSACTIONS,
    "transaction.timeout.ms": _TRANSACTIONS,
    "retries": _FOLLOWS_IDEMPOTENCE,
    "message.send.max.retries": _FOLLOWS_IDEMPOTENCE,
    "queuing.strategy": _FOLLOWS_IDEMPOTENCE,
    "bootstrap.servers": _BROKERS,
    "metadata.broker.list": _BROKERS,
    "delivery.report.only.error": _REPORTS,
    "on_delivery": _REPORTS,
    "partitioner": "set KAFKA_PARTITIONER instead",
    "plugin.library.paths": _CODE,
    "interceptors": _CODE,
    "ssl.providers": _CODE,
    "security.protocol": "KAFKA_TLS, KAFKA_SASL_MECHANISM and SASL_SSL decide it",
    "sasl.mechanism": _SIGN_IN,
    "sasl.mechanisms": _SIGN_IN,
    "sasl.username": _SIGN_IN,
    "sasl.password": _SIGN_IN,
    "enable.sasl.oauthbearer.unsecure.jwt": "a token that nobody signed proves nothing",
    "logger": _CALLBACKS,
    "opaque": _CALLBACKS,
    "topic.blacklist": "what goes to a topic on it would wait for ever",
    "broker.version.fallback": _VERSIONS,
}
REFUSED_BEGINNINGS = {
    "max.in.flight": _FOLLOWS_IDEMPOTENCE,
    "ssl.engine.": _CODE,
    "ssl_": _CODE,
    "sasl.kerberos.": _SHELL,
    "sasl.oauthbearer.": _TOKENS,
    "api.version.": _VERSIONS,
    "test.": "nothing would reach Kafka",
}


def parse_producer_config(text: str) -> dict[str, object]:
    """Read the JSON object.

    Raises:
        ValueError: with a sentence for every property that is refused.
    """
    pairs = _pairs(text)
    problems = [problem for name, value in pairs if (problem := _problem(name, value))]
    problems += _repetitions([name for name, _ in pairs])
    if problems:
        raise ValueError("; ".join(problems))
    return {ALIASES.get(name, name): ALLOWED[name].read(value) for name, value in pairs}


class _Object(list[tuple[str, Any]]):
    """The pairs of a JSON object, a name that comes twice included."""


def _pairs(text: str) -> _Object:
    pairs: object = None
    # The error's own text is left out, with it goes the document.
    with contextlib.suppress(ValueError):
        pairs = strict_json(text, _Object)
    if not isinstance(pairs, _Object):
        # `from None` would keep the document in the context of the exception.
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors
            # An example with values would be hidden where the text has the same ones.
            f'must be a JSON object, {{"PROPERTY": VALUE, ...}}, of librdkafka properties; {DOCUMENT} names those that '
            "are allowed"
        )
    return pairs


def _problem(name: str, value: object) -> str | None:
    if not _NAME.fullmatch(name):
        return f"the name of a property is not legal, allowed are those in {DOCUMENT}"
    kind = ALLOWED.get(name)
    if kind is None:
        return f"{name} is not allowed: {_reason(name)}"
    if kind.read(value) is not None:
        return None
    why = ""
    if name == "batch.size":
        why = ": a larger batch could exceed what a topic accepts, and then all its records are refused with it"
    return f"{name} must be {kind.allowed}{why}"


def _reason(name: str) -> str:
    """Return why a property is not allowed."""
    known = REFUSED.get(name) or (_CALLBACKS if name.endswith("_cb") else "")
    for beginning, reason in REFUSED_BEGINNINGS.items():
        known = known or (reason if name.startswith(beginning) else "")
    if known:
        return known
    similar = difflib.get_close_matches(name, ALLOWED, 1)
    return f"{f'{similar[0]} is, and ' if similar else ''}{DOCUMENT} has the list of those that are"


def _repetitions(names: list[str]) -> list[str]:
    """Return a sentence for each property that is set twice, by an other name perhaps: which one counts is unclear."""
    times = Counter(ALIASES.get(name, name) for name in names)
    return [f"{name} is set more than once" for name, count in times.items() if count > 1 and _NAME.fullmatch(name)]
