"""What becomes of a record that Kafka or librdkafka refused, and the sentence for it; the codes are in `codes`.

*Never* is a closed list, as consumers do not get a dead letter until somebody acts. With every other outcome the record
is tried again; `codes.Outcome` says what is done before that. The lane waits meanwhile, and its `trouble` has the
reason and what can be done. A code that is not in the table means *again*.

Of the reasons of dead letters, those that a code gives are in `codes`, what is wrong with a topic is in `app.routes`,
`unmapped` in `app.metrics`, and the others are here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from app.kafka.codes import CODES, ILLEGAL_TOPIC, INVALID_RECORD, TOO_LARGE, UNKNOWN_ADVICE, Meaning, Outcome
from app.lines import short
from app.routes import INVALID_MQTT_TOPIC, TOO_MANY_KAFKA_TOPICS

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = [
    "ILLEGAL_TOPIC",
    "INVALID_MQTT_TOPIC",
    "INVALID_RECORD",
    "MOVED_BY_OPERATOR",
    "NO_KAFKA_TOPIC",
    "POSSIBLE_COPY",
    "TOO_LARGE",
    "TOO_MANY_KAFKA_TOPICS",
    "UNDECODABLE",
    "Outcome",
    "Refusals",
    "meaning_of",
    "sentence",
]

UNDECODABLE = "undecodable"  # the MQTT packet, by the specification; the payload is all of it
POSSIBLE_COPY = "perhaps_copy"  # the subscription identifier that would tell is behind more properties than are read
NO_KAFKA_TOPIC = "no_kafka_topic"  # a derived one, which Kafka did not have for ROUTES_MISSING_TOPIC_SEC
MOVED_BY_OPERATOR = "moved_by_operator"  # by `dead-letters move`

KEPT_CODES, OTHER_CODES = 150, "OTHER"  # Kafka may answer with any of 65,536

# What librdkafka gives back when it is ended or replaced: nobody refused that.
_GIVEN_BACK = frozenset({"_PURGE_QUEUE", "_PURGE_INFLIGHT", "_DESTROY", "_QUEUE_FULL"})


def meaning_of(error: KafkaError) -> Meaning:
    """Return what an error means; one that no table knows is tried again, and named by its number."""
    known = CODES.get(error.code())
    return known or Meaning(f"CODE_{error.code()}", Outcome.AGAIN, UNKNOWN_ADVICE)


class Refusals(Counter[str]):
    """How many records were refused with each code, by its name; what was only given back does not count."""

    def note(self, meaning: Meaning) -> None:
        """Count a record; all codes beyond the first that there were are one, as a metric has few values of a label."""
        if meaning.name not in _GIVEN_BACK:
            known = meaning.name in self or len(self) < KEPT_CODES
            self[meaning.name if known else OTHER_CODES] += 1


def sentence(error: Any, meaning: Meaning | None = None) -> str:
    """Return what was said, and what can be done about it."""
    if not hasattr(error, "code"):
        return short(error)
    return f"{short(error.str())} ({error.code()}). {(meaning or meaning_of(error)).advice}".removesuffix(".")
