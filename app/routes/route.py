"""One route: which messages it is for, and what records become of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from app.bounds import HEADER_BYTES
from app.routes.filters import parse_pattern
from app.routes.kafka_topics import parse_kafka_topic
from app.routes.templates import Template

EMPTY_PAYLOADS = ("value", "tombstone")


@dataclass(frozen=True, slots=True)
class Route:
    """What matches the filter goes to the Kafka topic.

    Attributes:
        name: The label `route` of every metric.
        mqtt_filter: The filter as it is subscribed to.
        to: The Kafka topic, or the template of its name.
        key: The template of the record's key; None: that of RECORD_KEY.
        headers: Names and templates of further headers.
        qos: That of the subscription; None: MQTT_QOS.
        empty_payload: What becomes of one, of `EMPTY_PAYLOADS`.
        timestamp_property: The user property that has the record's time; empty: the time of receipt.
        dead_letter_topic: Where its dead letters go; None: to DEAD_LETTER_TOPIC.
        drop_oldest_above_bytes: How much of the table it may take before its oldest messages are dropped; None: any.
    """

    name: str
    mqtt_filter: str
    to: Template
    key: Template | None = None
    headers: tuple[tuple[str, Template], ...] = ()
    qos: int | None = None
    empty_payload: str = "value"
    timestamp_property: str = ""
    dead_letter_topic: str | None = None
    drop_oldest_above_bytes: int | None = None

    @classmethod
    def of(cls, mqtt_filter: str, kafka_topic: str) -> Route:
        """Make the route of a filter without names and a Kafka topic, as they stand in TOPIC_LIST.

        Raises:
            ValueError: with a sentence that says what is wrong with the Kafka topic.
        """
        return cls(f"{mqtt_filter}:{kafka_topic}", mqtt_filter, parse_kafka_topic(kafka_topic))

    @classmethod
    def with_names(cls, pattern: str, kafka_topic: str) -> Route:
        """Make the route of a filter whose wildcards may have names, and a Kafka topic that may be made of them.

        Raises:
            ValueError: with a sentence that says what is wrong.
        """
        mqtt_filter, captures = parse_pattern(pattern)
        return cls(f"{pattern}:{kafka_topic}", mqtt_filter, parse_kafka_topic(kafka_topic, captures))

    def qos_or(self, default: int) -> int:
        """Return the QoS of its subscription; MQTT_QOS is the default."""
        return default if self.qos is None else self.qos

    def key_or(self, default: Template) -> Template:
        """Return the template of its records' keys; RECORD_KEY is the default."""
        return default if self.key is None else self.key

    def is_alike_for_all_topics(self, default_key: Template) -> bool:
        """Tell whether its records differ in nothing that a template makes, but for a key that is the MQTT topic."""
        key = self.key_or(default_key)
        headers_are_fixed = all(template.is_fixed for _, template in self.headers)
        return self.to.is_fixed and headers_are_fixed and (key.is_fixed or key.is_whole_topic)

    def headers_bytes(self, topic_bytes: int) -> int:
        """Return how much memory its headers take at most, those of one record, with librdkafka's copy of them.

        Args:
            topic_bytes: The length of the MQTT topic.
        """
        parts = Counter(part for _, template in self.headers for part in template.parts)
        levels = [number for part, number in parts.items() if part is not None and not part.with_all_below]
        # Different levels together are no longer than the topic.
        topics = sum(parts.values()) - sum(levels) + max(levels, default=0)
        literals = sum(len(name) + len("".join(template.literals)) for name, template in self.headers)
        return HEADER_BYTES * len(self.headers) + 2 * (4 * literals + topics * topic_bytes)

    @property
    def header_names(self) -> frozenset[str]:
        """The names of the headers that it adds."""
        return frozenset([name for name, _ in self.headers])

    @property
    def time_property(self) -> bytes:
        """The user property that has the record's time, as it comes; empty: the time of receipt."""
        return self.timestamp_property.encode()

    @property
    def makes_tombstones(self) -> bool:
        """Whether an empty payload becomes a record whose value is null."""
        return self.empty_payload == "tombstone"

    @property
    def kafka_topic(self) -> str | None:
        """The Kafka topic that all its messages go to; None if it is derived from their MQTT topics."""
        return self.to.text if self.to.is_fixed else None
