"""What may stand in the file that ROUTES_FILE names: the fields of a route, checked one by one.

The descriptions are those that editors show: `routes_schema` is the file's JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from app.routes import (
    MOST_PARTS,
    MOST_ROUTES,
    Level,
    Route,
    Template,
    parse_kafka_topic,
    parse_pattern,
    validate_kafka_topic,
)
from app.settings.files import checked, filter_shown, value_shown
from app.settings.values import MEBIBYTE, byte_size
from app.settings.yaml_text import Unquoted

LONGEST_NAME = 100  # characters: it is a label of metrics
MOST_HEADERS = 16
RESERVED_HEADERS = ("mqtt-", "connector-", "dead-letter-")  # what Connector writes itself
RESERVED_NAMES = ("unmapped",)  # a route of the metrics that there is always
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_A_TEMPLATE = f"a template that names at most {MOST_PARTS} parts of the topic"
_TIMESTAMP = re.compile(r"received|property \S.{0,199}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    read_as = ""
    if isinstance(value, Unquoted):
        read_as = f", and YAML reads {value_shown(value.text)} as {value.read_as}: quote it"
    raise ValueError(f"must be text{read_as}")


Text = Annotated[str, BeforeValidator(_text)]


def _name(value: str) -> str:
    is_usual = value.isprintable() and value == value.strip() and value not in RESERVED_NAMES
    if not is_usual or not 1 <= len(value) <= LONGEST_NAME:
        raise ValueError(
            f"must be 1 to {LONGEST_NAME} printable characters, without blanks around it, and not "
            f"{' or '.join(RESERVED_NAMES)}; it is {value_shown(value)}"
        )
    return value


def _filter(value: str) -> str:
    checked(parse_pattern, value, "a legal MQTT filter", filter_shown)
    return value


def _captures(info: ValidationInfo) -> Mapping[str, Level] | None:
    """Return the names in the route's filter; None if that is wrong itself."""
    pattern = info.data.get("from_")
    return None if pattern is None else parse_pattern(pattern).captures


def _kafka_topic(value: str, info: ValidationInfo) -> str:
    captures = _captures(info)
    if captures is not None:
        checked(lambda text: parse_kafka_topic(text, captures), value, "a Kafka topic or a template for its name")
    return value


def _template(value: str, info: ValidationInfo) -> str:
    captures = _captures(info)
    if captures is not None:
        checked(lambda text: Template(text, captures), value, _A_TEMPLATE)
    return value


def _header(name: str) -> str:
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"the name of a header must be 1 to {LONGEST_NAME} printable characters")
    if name.lower().startswith(RESERVED_HEADERS):
        raise ValueError(
            f"Connector writes headers that begin with {', '.join(RESERVED_HEADERS)} itself: give this one another name"
        )
    return name


def _qos(value: object) -> int:
    text = value.text if isinstance(value, Unquoted) else value
    if text not in {"0", "1", "2"}:
        raise ValueError(f"must be 0, 1 or 2, not {value_shown(text)}")
    return int(str(text))


def _empty_payload(value: str) -> str:
    if value not in {"value", "tombstone"}:
        raise ValueError(f"must be value or tombstone, not {value_shown(value)}")
    return value


def _has_key(value: str, info: ValidationInfo) -> str:
    if value == "tombstone" and info.data.get("key") == "":
        raise ValueError('a tombstone deletes the record of its key, and the route has none (key: ""): give it a key')
    return value


def _timestamp(value: str) -> str:
    if not _TIMESTAMP.fullmatch(value):
        raise ValueError(f"must be received, or property and the name of a user property, not {value_shown(value)}")
    return value


def _own_topic(value: str) -> str:
    checked(validate_kafka_topic, value, "a Kafka topic")
    return value


def _bytes(value: object) -> object:
    return value.text if isinstance(value, Unquoted) else value


class RouteEntry(BaseModel):
    """One route as it stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, title="Route")

    name: Annotated[Text, AfterValidator(_name)] = Field(
        description="The route's name, which the label `route` of the metrics has; each must be another one.",
        examples=["lines"],
    )
    from_: Annotated[Text, AfterValidator(_filter)] = Field(
        alias="from",
        description="MQTT filter. A wildcard may have a name: {site} is a +, and {rest#} at the end a #. "
        "{{ and }} stand for braces.",
        examples=["plant/{site}/{line}/#"],
    )
    to: Annotated[Text, AfterValidator(_kafka_topic)] = Field(
        description="Kafka topic; or a template for its name, which begins with text of its own, and has names of the "
        "filter in braces, levels of the MQTT topic ({1}, {2}, ...) or {topic}. What Kafka does not allow becomes _.",
        examples=["plant.{site}"],
    )
    key: Annotated[Text, AfterValidator(_template)] | None = Field(
        default=None,
        description=f"Template of the record's key, with the same parts, at most {MOST_PARTS} of them. "
        "Unset: RECORD_KEY. Empty: no key.",
        examples=["{site}/{line}"],
    )
    headers: dict[Annotated[Text, AfterValidator(_header)], Annotated[Text, AfterValidator(_template)]] = Field(
        default_factory=dict,
        max_length=MOST_HEADERS,
        description=f"Further headers of the record, at most {MOST_HEADERS}: their names, and templates of their "
        "values. No name may begin with mqtt-, connector- or dead-letter-.",
        examples=[{"site": "{site}"}],
    )
    qos: Annotated[Literal[0, 1, 2], BeforeValidator(_qos)] | None = Field(
        default=None, description="QoS of the subscription. Unset: MQTT_QOS."
    )
    empty_payload: Annotated[
        Literal["value", "tombstone"],
        BeforeValidator(_empty_payload),
        BeforeValidator(_text),
        AfterValidator(_has_key),
    ] = Field(
        default="value",
        description="What an empty payload becomes: an empty value, or a tombstone (null), which deletes the key "
        "from a compacted topic.",
    )
    timestamp: Annotated[Text, AfterValidator(_timestamp)] = Field(
        default="received",
        description="The record's time: received, or `property NAME` for the user property that has it.",
        examples=["property time"],
    )
    dead_letter_topic: Annotated[Text, AfterValidator(_own_topic)] | None = Field(
        default=None, description="Kafka topic for the route's dead letters. Unset: DEAD_LETTER_TOPIC."
    )
    drop_oldest_above: Annotated[int | str, byte_size(MEBIBYTE, called=" (1 MiB)"), BeforeValidator(_bytes)] | None = (
        Field(
            default=None,
            description="Bytes of the table that the route's messages may take, at least 1 MiB, also as 500MB or 2GiB; "
            "beyond, the oldest of them are dropped. No other route may have its Kafka topics. "
            "Unset: as many as there are.",
            examples=["1GB"],
        )
    )

    def route(self) -> Route:
        """Return the route that it describes."""
        mqtt_filter, captures = parse_pattern(self.from_)
        return Route(
            self.name,
            mqtt_filter,
            parse_kafka_topic(self.to, captures),
            key=None if self.key is None else Template(self.key, captures),
            headers=tuple((name, Template(text, captures)) for name, text in self.headers.items()),
            qos=self.qos,
            empty_payload=self.empty_payload,
            timestamp_property=self.timestamp.removeprefix("property ") if self.timestamp != "received" else "",
            dead_letter_topic=self.dead_letter_topic,
            drop_oldest_above_bytes=None if self.drop_oldest_above is None else int(self.drop_oldest_above),
        )


class RoutesEntries(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, title="Routes of Connector")

    routes: list[RouteEntry] = Field(
        min_length=1,
        max_length=MOST_ROUTES,
        description="The routes. The first one that matches a message is used; those without wildcards come before all "
        "others.",
    )


def routes_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, as editors read it."""
    schema = {"$schema": _DRAFT, **RoutesEntries.model_json_schema(by_alias=True)}
    fields = schema["$defs"][RouteEntry.__name__]["properties"]
    fields.update({name: _without_null(field) for name, field in fields.items()})
    return schema


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field without the null that stands for one that is left out: in the file there is none."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in field.items() if name != "anyOf" and (name, value) != ("default", None)}
    return {**rest, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})}
