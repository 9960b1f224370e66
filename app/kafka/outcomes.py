"""What becomes of a record that Kafka or librdkafka did not take, and the sentence for it; the codes are in `codes`.

*Never* is a closed list, as a record that is set aside is lost to its consumers until somebody acts. With every other
outcome the record is tried again, and `codes.Outcome` says what is done before that. The lane waits meanwhile, and says
why and what can be done. A code that the table does not have is *again*.

The reasons of dead letters are in two places: those that a code gives in `codes`, the others here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.kafka.codes import CODES, ILLEGAL_TOPIC, INVALID_RECORD, TOO_LARGE, UNKNOWN_ADVICE, Meaning, Outcome

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = [
    "ILLEGAL_TOPIC",
    "INVALID_MQTT_TOPIC",
    "INVALID_RECORD",
    "MOVED_BY_OPERATOR",
    "PERHAPS_COPY",
    "TOO_LARGE",
    "UNDECODABLE",
    "Outcome",
    "counts_as_refusal",
    "meaning_of",
    "sentence",
]

UNDECODABLE = "undecodable"  # the MQTT packet, by the specification; the payload is all of it
INVALID_MQTT_TOPIC = "invalid_mqtt_topic"  # not UTF-8, or with characters that MQTT forbids in a topic
PERHAPS_COPY = "perhaps_copy"  # whether it is one is behind more properties than are read
MOVED_BY_OPERATOR = "moved_by_operator"  # by `dead-letters move`

# What librdkafka gives back when it is ended or replaced: nobody refused that.
_GIVEN_BACK = frozenset({"_PURGE_QUEUE", "_PURGE_INFLIGHT", "_DESTROY", "_QUEUE_FULL"})


def meaning_of(error: KafkaError) -> Meaning:
    """Return what an error means; one that no table knows is tried again, and named by its number."""
    known = CODES.get(error.code())
    return known or Meaning(f"CODE_{error.code()}", Outcome.AGAIN, UNKNOWN_ADVICE)


def counts_as_refusal(meaning: Meaning) -> bool:
    """Tell whether somebody refused the record, rather than gave it back."""
    return meaning.name not in _GIVEN_BACK


def sentence(error: Any) -> str:
    """Return what was said, and what can be done about it."""
    if not hasattr(error, "code"):
        return str(error)
    return f"{error.str()} ({error.code()}). {meaning_of(error).advice}".removesuffix(".")
