"""One mapping of a filter to a Kafka topic, and what is legal in it."""

import re
from dataclasses import dataclass

MAX_FILTER_BYTES = 65535

# What brokers have before a filter: its messages come under topics without it. EMQX, NanoMQ, BifroMQ, VerneMQ.
SHARING = ("$share/", "$oshare/", "$queue/")
PREFIXES = (*SHARING, "$exclusive/", "$delayed/")

_KAFKA_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Mapping:
    """One route: what matches the filter goes to the Kafka topic."""

    mqtt_filter: str
    kafka_topic: str

    @property
    def text(self) -> str:
        """The mapping as it is written in the settings; the label `route` of every metric."""
        return f"{self.mqtt_filter}:{self.kafka_topic}"


def has_wildcard(mqtt_filter: str) -> bool:
    """Whether the filter can match more than one topic."""
    return "+" in mqtt_filter or "#" in mqtt_filter


def validate_topic_filter(text: str) -> None:
    """Check a topic filter by the rules of MQTT.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if not text:
        raise ValueError("the MQTT filter is empty, it must have at least one character")
    if "\0" in text:
        raise ValueError("the MQTT filter contains the character NUL, which MQTT does not allow")
    _validate_filter_encoding(text)
    _validate_prefix(text)
    _validate_wildcards(text)


def _validate_prefix(text: str) -> None:
    # The messages arrive under their plain topics: no route would match them.
    prefix = next((prefix for prefix in PREFIXES if text.startswith(prefix)), "")
    if prefix in SHARING:
        raise ValueError(
            f"the MQTT filter {text!r} is a shared subscription, which cannot be written as a filter: write the plain "
            "one, and set MQTT_SHARED_GROUP"
        )
    if prefix:
        raise ValueError(
            f"the MQTT filter {text!r} begins with {prefix}, with which some brokers mark a special kind of "
            "subscription, not a topic: write the plain filter"
        )


def _validate_filter_encoding(text: str) -> None:
    try:
        size_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"the MQTT filter {text!r} is not valid UTF-8 text") from None
    if size_bytes > MAX_FILTER_BYTES:
        raise ValueError(f"the MQTT filter is {size_bytes} bytes long in UTF-8, at most {MAX_FILTER_BYTES} are allowed")


def _validate_wildcards(text: str) -> None:
    levels = text.split("/")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(
            f"the MQTT filter {text!r} mixes '+' with other characters, it must be a whole level as in a/+/b"
        )
    if any("#" in level and level != "#" for level in levels):
        raise ValueError(
            f"the MQTT filter {text!r} mixes '#' with other characters, it must be a whole level as in a/#"
        )
    if "#" in levels[:-1]:
        raise ValueError(f"the MQTT filter {text!r} has a '#' before its end, it must be the last level as in a/#")


def validate_kafka_topic(text: str) -> None:
    """Check the name of a Kafka topic by Kafka's own rules.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if text in {".", ".."} or not _KAFKA_TOPIC.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a legal Kafka topic: allowed are 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', "
            "but not '.' or '..'"
        )
