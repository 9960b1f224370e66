"""TOPIC_LIST and WILDCARD_TOPIC_LIST: from text to mappings."""

from collections.abc import Iterable

from app.routes import Mapping, has_wildcard, validate_kafka_topic, validate_topic_filter
from app.settings.files import checked, filter_shown

MAPPINGS = "mappings mqtt-filter:kafka-topic, separated by commas"
_ALLOWED = f"allowed are {MAPPINGS}"


def parse_mappings(text: str, *, wildcards: bool) -> tuple[Mapping, ...]:
    """Read a list of mappings, split at commas and each at its last colon, blanks trimmed.

    Raises:
        ValueError: with one sentence for every mapping that is wrong.
    """
    mappings: list[Mapping] = []
    problems: list[str] = []
    for number, entry in enumerate(text.split(",") if text.strip() else [], start=1):
        try:
            mappings.append(_parse_mapping(entry, wildcards=wildcards))
        except ValueError as error:  # noqa: PERF203 - each wrong mapping is reported
            problems.append(f"mapping {number}: {error}")
    problems += _repeated(mappings)
    if problems:
        raise ValueError(f"{'; '.join(problems)}; {_ALLOWED}")
    return tuple(mappings)


def _parse_mapping(entry: str, *, wildcards: bool) -> Mapping:
    mqtt_filter, colon, kafka_topic = (part.strip() for part in entry.rpartition(":"))
    if not colon:
        raise ValueError(f"{filter_shown(entry.strip())} has no colon between MQTT filter and Kafka topic")
    checked(validate_topic_filter, mqtt_filter, "a legal MQTT filter", filter_shown)
    named = filter_shown(mqtt_filter)
    if has_wildcard(mqtt_filter) and not wildcards:
        raise ValueError(f"the MQTT filter {named} has a wildcard, which belongs in WILDCARD_TOPIC_LIST")
    try:
        validate_kafka_topic(kafka_topic)
    except ValueError as error:
        # What is behind a colon may be a password, whatever else is there.
        reason = str(error).replace(repr(kafka_topic), f"what is mapped from the filter {named}", 1)
    else:
        return Mapping(mqtt_filter, kafka_topic)
    raise ValueError(reason)


def _repeated(mappings: Iterable[Mapping]) -> list[str]:
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for mapping in mappings:
        if mapping.mqtt_filter in seen:
            repeated[mapping.mqtt_filter] = None
        seen.add(mapping.mqtt_filter)
    return [f"the MQTT filter {filter_shown(mqtt_filter)} is mapped more than once" for mqtt_filter in repeated]


def check_both_lists(exact: tuple[Mapping, ...], wildcard: tuple[Mapping, ...]) -> None:
    """Check what concerns both lists together.

    Raises:
        ValueError: a filter is in both, or nothing is mapped at all.
    """
    if not exact and not wildcard:
        raise ValueError(f"at least one mapping is required, here or in TOPIC_LIST; {_ALLOWED}")
    if problems := _repeated([*exact, *wildcard]):
        raise ValueError(f"{'; '.join(problems)}, here and in TOPIC_LIST; allowed is once")
