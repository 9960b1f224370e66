"""The settings of the routes: what goes where, and what record it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, field_validator

from app.errors import SettingsError
from app.routes import MOST_PARTS, Route, RouteTable, Template, check_overlaps, check_room_for_group, has_wildcard
from app.settings.files import checked, list_shown
from app.settings.mappings import MAPPINGS, check_both_lists, parse_mappings
from app.settings.routes_file import RoutesFile, read_routes_file
from app.settings.section import Section
from app.settings.values import PositiveNumber, whole_number

_TEMPLATE = f"a template with {{topic}} and levels from {{1}} on, {MOST_PARTS} in all, and {{{{ and }}}} for braces"


def _record_key(value: object) -> Template:
    return value if isinstance(value, Template) else checked(Template, str(value), _TEMPLATE)


def _template(key: Template) -> str:
    return key.text


def _routes_file(value: object) -> RoutesFile | None:
    return value if value is None or isinstance(value, RoutesFile) else read_routes_file(Path(str(value)))


def _path(file: RoutesFile | None) -> str | None:
    return None if file is None else str(file.path)


def routes_of(values: Mapping[str, Any]) -> tuple[Route, ...]:
    """Return the routes of settings that are right so far, by their names: exact ones first, then by precedence."""
    file = values.get("routes_file")
    if file is not None:
        exact = [route for route in file.routes if not has_wildcard(route.mqtt_filter)]
        return (*exact, *(route for route in file.routes if has_wildcard(route.mqtt_filter)))
    lists = (("topic_list", False), ("wildcard_topic_list", True))
    return tuple(
        route for name, wildcards in lists for route in parse_mappings(values.get(name, ""), wildcards=wildcards)
    )


class RoutesSettings(Section):
    """Where messages go, and what records they become."""

    routes_file: Annotated[RoutesFile | None, PlainValidator(_routes_file), PlainSerializer(_path)] = Field(
        default=None,
        description="File in YAML with named routes, at most 4 MiB, as docs/routes.md has it. It takes the place of "
        "TOPIC_LIST and WILDCARD_TOPIC_LIST.",
        examples=["/etc/connector/routes.yaml"],
    )
    topic_list: str = Field(
        default="",
        description="Mappings mqtt-topic:kafka-topic without wildcards, separated by commas, each split at its last "
        "colon. They take precedence over WILDCARD_TOPIC_LIST. At least one mapping is required in one of "
        "the two, or ROUTES_FILE.",
        examples=["plant/line1/temperature:temperature,plant/line1/state:state"],
    )
    wildcard_topic_list: str = Field(
        default="",
        description="Mappings mqtt-filter:kafka-topic in which the filter may have the wildcards + and #, separated "
        "by commas; the first one that matches a message is used. A wildcard may have a name, {site} for + or {rest#} "
        "for # at the end, of which the Kafka topic can be made.",
        examples=["plant/+/temperature:temperature,site/{name}/#:site.{name}"],
    )
    record_key: Annotated[Template, PlainValidator(_record_key), PlainSerializer(_template)] = Field(
        default=Template("{topic}"),
        description="Template of the record's key, which decides the partition and so which records keep their order: "
        "{topic} is the MQTT topic, {1} its first level, {2} its second, each at most four times "
        f"and {MOST_PARTS} in all; {{{{ and }}}} stand for braces. Empty: no key.",
    )
    routes_max_topics: Annotated[int, whole_number(1, 10_000)] = Field(
        default=1000,
        description="How many Kafka topics whose names are made from MQTT topics may be in use, 1 to 10000: "
        "publishers choose them. Messages for further ones become dead letters (too_many_kafka_topics). Kafka topics "
        "for dead letters, and those of routes that are gone, count as long as they are in use.",
    )
    routes_missing_topic_sec: PositiveNumber = Field(
        default=3600,
        description="How long messages wait for a Kafka topic whose name is made from MQTT topics, and which Kafka "
        "does not have, in seconds, greater than 0. After that they become dead letters (no_kafka_topic) until it is "
        "created. While Kafka does not answer the time stands still. Messages for a topic that a route names wait for "
        "ever.",
    )
    routes_idle_topic_sec: PositiveNumber = Field(
        default=3600,
        description="After how many seconds without messages a Kafka topic whose name is made from MQTT topics counts "
        "as in use no more, greater than 0.",
    )

    @field_validator("record_key")
    @classmethod
    def _is_key_of_tombstones(cls, value: Template, info: ValidationInfo) -> Template:
        file = info.data.get("routes_file")
        without_key = [route for route in (file.routes if file else ()) if route.makes_tombstones and route.key is None]
        if without_key and not value.text:
            raise ValueError(
                f"must not be empty: the route {without_key[0].name} of ROUTES_FILE makes tombstones, and a tombstone "
                "deletes the record of its key; or give the route a key of its own"
            )
        return value

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, in their order of precedence."""
        return routes_of(self.__dict__)

    def route_table(self) -> RouteTable:
        """Return the table of all routes.

        Raises:
            SettingsError: Two of them cannot be told apart, which the checks of each setting should have found.
        """
        try:
            return RouteTable(self.routes)
        except ValueError as error:
            raise SettingsError([f"{'ROUTES_FILE' if self.routes_file else 'WILDCARD_TOPIC_LIST'}: {error}"]) from None

    @property
    def most_kafka_topics(self) -> int:
        """How many Kafka topics may be in use: those that routes name, and ROUTES_MAX_TOPICS if some are derived."""
        named = {topic for route in self.routes for topic in (route.kafka_topic, route.dead_letter_topic)}
        others = self.routes_max_topics if any(route.kafka_topic is None for route in self.routes) else 0
        return len(named - {None}) + others

    @field_validator("routes_file")
    @classmethod
    def _has_room_for_group(cls, value: RoutesFile | None, info: ValidationInfo) -> RoutesFile | None:
        if value is not None:
            check_room_for_group(info.data.get("mqtt_shared_group") or "", value.routes)
            check_overlaps(value.routes)
        return value

    @field_validator("topic_list")
    @classmethod
    def _are_exact_mappings(cls, value: str, info: ValidationInfo) -> str:
        def check(text: str) -> str:
            check_room_for_group(info.data.get("mqtt_shared_group") or "", parse_mappings(text, wildcards=False))
            return text

        _check_alone(value, info)
        return checked(check, value, MAPPINGS, list_shown)

    @field_validator("wildcard_topic_list")
    @classmethod
    def _are_mappings(cls, value: str, info: ValidationInfo) -> str:
        def check(text: str) -> str:
            wildcard = parse_mappings(text, wildcards=True)
            check_room_for_group(info.data.get("mqtt_shared_group") or "", wildcard)
            check_overlaps(wildcard)
            if {"topic_list", "routes_file"} <= info.data.keys() and info.data["routes_file"] is None:
                check_both_lists(parse_mappings(info.data["topic_list"], wildcards=False), wildcard)
            return text

        _check_alone(value, info)
        return checked(check, value, MAPPINGS, list_shown)


def _check_alone(value: str, info: ValidationInfo) -> None:
    """Refuse a list beside a file: which of them would go first is written nowhere."""
    if value.strip() and info.data.get("routes_file") is not None:
        raise ValueError("must not be set together with ROUTES_FILE; write its mappings into the file, as routes")
