"""Derived Kafka topics that Kafka does not have: after a time their messages become dead letters instead of waiting.

A topic that a route names is created sooner or later, so its lane waits. The name of a derived one may be a publisher's
mistake, which nobody will create; its messages would stay in the table for ever.

Counted is the time in which Kafka says again and again that there is no such topic. In an outage it says nothing, and
the time stands still. Once it is over, nothing more of the lane is handed to librdkafka, which would take seconds for
each record; until Kafka shows the topic, as it is asked again and again (`app.kafka.learning`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from confluent_kafka import KafkaError

NO_SUCH_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001, librdkafka's own
# Between two refusals of a lane beside its interval: what librdkafka waits for a topic, and some more.
REFUSED_WITHIN_SECONDS = 15.0


@dataclass(slots=True)
class _Missing:
    """How long Kafka has said that there is no such topic.

    Attributes:
        seconds: The sum, without the times in which it said nothing.
        refused_at: When it said so last (monotonic clock).
    """

    seconds: float
    refused_at: float

    def add(self, now: float, most_seconds: float) -> None:
        """Count the time since it was said last."""
        self.seconds += min(now - self.refused_at, most_seconds)
        self.refused_at = now


class MissingTopics:
    """What is known of them; on the event loop.

    Attributes:
        given_up: Those whose messages become dead letters.
    """

    def __init__(
        self, patience_seconds: float, longest_retry_seconds: float, is_derived: Callable[[str], bool]
    ) -> None:
        """Take ROUTES_MISSING_TOPIC_SEC, the longest interval between two tries, and which topics are derived ones."""
        self.given_up: set[str] = set()
        self._patience_seconds = patience_seconds
        self._most_seconds = longest_retry_seconds + REFUSED_WITHIN_SECONDS
        self._is_derived = is_derived
        self._missing: dict[str, _Missing] = {}

    def note_refused(self, topic: str, code: int, now: float) -> bool:
        """Note why Kafka refused a record of a topic; return whether its messages are to become dead letters."""
        if code not in NO_SUCH_TOPIC or not (topic in self._missing or self._is_derived(topic)):
            return False  # thousands of records may be refused at once, and there may be thousands of templates
        missing = self._missing.setdefault(topic, _Missing(0.0, now))
        missing.add(now, self._most_seconds)
        if missing.seconds >= self._patience_seconds:
            self.given_up.add(topic)
        return topic in self.given_up

    def forget(self, topics: Iterable[str]) -> None:
        """Forget topics, as Kafka has them, or as they have no lane any more."""
        for topic in topics:
            self._missing.pop(topic, None)
            self.given_up.discard(topic)

    def sentence(self, topic: str) -> str:
        """Return why the messages of a topic become dead letters."""
        seconds = self._missing[topic].seconds
        return (
            f"Kafka has said for {seconds:.0f} s that there is no such topic, whose name was made from an MQTT topic: "
            "its messages become dead letters until it is created (ROUTES_MISSING_TOPIC_SEC)"
        )
