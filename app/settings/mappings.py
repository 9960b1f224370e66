"""TOPIC_LIST and WILDCARD_TOPIC_LIST, the short form of routes: from text to routes."""

from collections.abc import Iterable

from app.routes import MOST_ROUTES, Route, has_wildcard, parse_pattern, validate_kafka_topic, validate_topic_filter
from app.settings.files import checked, filter_shown

MAPPINGS = "mappings mqtt-filter:kafka-topic, separated by commas"
_ALLOWED = f"allowed are {MAPPINGS}"


def parse_mappings(text: str, *, wildcards: bool) -> tuple[Route, ...]:
    """Read a list of mappings, split at commas and each at its last colon, blanks trimmed.

    Args:
        text: The list.
        wildcards: Filters may have wildcards, with names too, and Kafka topics may be made of these. Else a brace is a
            character as any other.

    Raises:
        ValueError: with one sentence for every mapping that is wrong.
    """
    routes: list[Route] = []
    problems: list[str] = []
    for number, entry in enumerate(text.split(",") if text.strip() else [], start=1):
        try:
            routes.append(_parse_mapping(entry, wildcards=wildcards))
        except ValueError as error:  # noqa: PERF203 - each wrong mapping is reported
            problems.append(f"mapping {number}: {error}")
    problems += _repeated(routes)
    if problems:
        raise ValueError(f"{'; '.join(problems)}; {_ALLOWED}")
    return tuple(routes)


def _parse_mapping(entry: str, *, wildcards: bool) -> Route:
    pattern, colon, kafka_topic = (part.strip() for part in entry.rpartition(":"))
    if not colon:
        raise ValueError(f"{filter_shown(entry.strip())} has no colon between MQTT filter and Kafka topic")
    checked(parse_pattern if wildcards else validate_topic_filter, pattern, "a legal MQTT filter", filter_shown)
    named = filter_shown(pattern)
    if has_wildcard(pattern) and not wildcards:
        raise ValueError(f"the MQTT filter {named} has a wildcard, which belongs in WILDCARD_TOPIC_LIST")
    try:
        if wildcards:
            return Route.with_names(pattern, kafka_topic)
        validate_kafka_topic(kafka_topic)
    except ValueError as error:
        # What is behind a colon may be a password, whatever else is there.
        reason = str(error).replace(repr(kafka_topic), f"what is mapped from the filter {named}", 1)
    else:
        return Route.of(pattern, kafka_topic)
    raise ValueError(reason)


def _repeated(routes: Iterable[Route]) -> list[str]:
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for route in routes:
        if route.mqtt_filter in seen:
            repeated[route.mqtt_filter] = None
        seen.add(route.mqtt_filter)
    return [f"the MQTT filter {filter_shown(mqtt_filter)} is mapped more than once" for mqtt_filter in repeated]


def check_both_lists(exact: tuple[Route, ...], wildcard: tuple[Route, ...]) -> None:
    """Check what concerns both lists together.

    Raises:
        ValueError: a filter is in both, or nothing is mapped at all; two that differ are written alike; there are too
            many.
    """
    if not exact and not wildcard:
        raise ValueError(f"at least one mapping is required, here, in TOPIC_LIST or in ROUTES_FILE; {_ALLOWED}")
    if len(exact) + len(wildcard) > MOST_ROUTES:
        raise ValueError(f"must be at most {MOST_ROUTES} mappings together with those of TOPIC_LIST")
    if problems := _repeated([*exact, *wildcard]):
        raise ValueError(f"{'; '.join(problems)}, here and in TOPIC_LIST; allowed is once")
    # A mapping is named as it is written, and a brace is a character in the one list, and none in the other.
    names = {route.name for route in exact}
    if alike := [route.name.rpartition(":")[0] for route in wildcard if route.name in names]:
        raise ValueError(
            f"{filter_shown(alike[0])} is mapped to the same Kafka topic in TOPIC_LIST, where its braces are "
            "characters, and both routes would have one name; have a file of routes instead (ROUTES_FILE)"
        )
