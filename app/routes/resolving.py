"""What becomes of the messages of one MQTT topic, as a pure function: Kafka topic, record key and headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.bounds import MOST_ADDED_BYTES
from app.routes.kafka_topics import ILLEGAL_KAFKA_TOPIC, derived_kafka_topic
from app.routes.route import Route
from app.routes.table import RouteTable
from app.routes.templates import Template

INVALID_MQTT_TOPIC = "invalid_mqtt_topic"  # not UTF-8, or with characters that MQTT forbids in a topic


class Resolved(NamedTuple):
    """What becomes of the messages of one MQTT topic.

    Attributes:
        matches: The routes that match it, the one that is used first; none: its messages belong to no route.
        kafka_topic: Where they go; empty if nowhere.
        captured: What of the MQTT topic the name of a derived Kafka topic is made of.
        record_key: The record's key.
        headers: The headers that the route adds.
        left_out: How many it does not add, as they would be too long together.
        problem: Why its messages become dead letters; empty if they do not.
        explanation: The same, as a sentence; empty where there is no more to say than the problem's name.
    """

    matches: tuple[Route, ...]
    kafka_topic: str
    captured: tuple[str, ...]
    record_key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    left_out: int
    problem: str
    explanation: str


def resolve(routes: RouteTable, topic: bytes, default_key: Template) -> Resolved:
    """Say what becomes of the messages of an MQTT topic.

    Args:
        routes: All routes.
        topic: The MQTT topic, as it came.
        default_key: RECORD_KEY, for routes without a key of their own.
    """
    return resolve_by(routes.matches(topic_text(topic)), topic, default_key)


def resolve_by(matches: Sequence[Route], topic: bytes, default_key: Template) -> Resolved:
    """Say the same where it is known to which routes the messages belong, the first of them first."""
    text = topic_text(topic)
    if not matches:
        return Resolved((), "", (), default_key.render(text), (), 0, "", "")
    route = matches[0]
    key = route.key_or(default_key).render(text)
    headers = _headers(route, text)
    problem, explanation = topic_problem(topic), ""
    kafka_topic = route.kafka_topic
    captured: tuple[str, ...] = ()
    if kafka_topic is None:
        kafka_topic, captured = "", route.to.values(text)
        try:
            kafka_topic = derived_kafka_topic(route.to, text) if not problem else ""
        except ValueError as error:
            problem, explanation = ILLEGAL_KAFKA_TOPIC, str(error)
    left_out = len(route.headers) - len(headers)
    return Resolved(tuple(matches), kafka_topic, captured, key, headers, left_out, problem, explanation)


def _headers(route: Route, text: str) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that a route adds, in its order, without those that do not fit beside the ones before."""
    headers, room_bytes = [], MOST_ADDED_BYTES
    for name, template in route.headers:
        value = template.render(text) or b""
        if len(name) + len(value) <= room_bytes:
            headers.append((name, value))
            room_bytes -= len(name) + len(value)
    return tuple(headers)


def filters_of(matches: Sequence[Route]) -> tuple[str, ...]:
    """Return the filters of routes, in their order."""
    return tuple([route.mqtt_filter for route in matches])


def topic_text(topic: bytes) -> str:
    """Return an MQTT topic as text; bytes that are no UTF-8 become lone surrogates."""
    return topic.decode("utf-8", "surrogateescape")


def topic_problem(topic: bytes) -> str:
    """Return why a topic is none by MQTT's rules (4.7.3, 3.3.2.1), empty if it is one."""
    try:
        text = topic.decode("utf-8")
    except UnicodeDecodeError:
        return INVALID_MQTT_TOPIC
    return INVALID_MQTT_TOPIC if not text or "\0" in text or "+" in text or "#" in text else ""
