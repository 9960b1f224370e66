"""What becomes of the messages of an MQTT topic, and why, in words: for `connector routes explain`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from app.metrics import UNMAPPED
from app.routes import Resolved, Route, RouteTable, has_wildcard, resolve

if TYPE_CHECKING:
    from app.settings import Settings

LABEL_CHARACTERS = len("empty payload")
NO_ROUTE = "no route matches it, so nobody subscribes to it, and it does not come"


class Explained(NamedTuple):
    """What becomes of the messages of one MQTT topic.

    Attributes:
        mqtt_topic: The topic.
        route: The route that takes them; None: none does.
        dead_letter: Why they would become dead letters; empty if they become records.
        record: The Kafka topic, key and headers, QoS and time of the record.
        others: The other routes that match, each with why it does not take them.
    """

    mqtt_topic: str
    route: Route | None
    dead_letter: str
    record: Mapping[str, Any]
    others: tuple[tuple[Route, str], ...]

    @property
    def becomes_record(self) -> bool:
        """Whether there is a Kafka topic for them."""
        return self.route is not None and not self.dead_letter

    def as_dictionary(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "mqtt_topic": self.mqtt_topic,
            "route": None if self.route is None else self.route.name,
            "filter": None if self.route is None else self.route.mqtt_filter,
            "dead_letter": self.dead_letter or None,
            "record": dict(self.record) or None,
            "others": [{"route": each.name, "filter": each.mqtt_filter, "why_not": why} for each, why in self.others],
        }

    def lines(self) -> list[str]:
        """Return it for people."""
        found = [self.mqtt_topic]
        rows = [("route", "none" if self.route is None else f"{self.route.name} ({self.route.mqtt_filter})")]
        if self.dead_letter:
            rows.append(("dead letter", self.dead_letter))
        rows += [(name.replace("_", " "), _shown(value)) for name, value in self.record.items()]
        rows += [("not by", f"{each.name} ({each.mqtt_filter}): {why}") for each, why in self.others]
        return found + [f"  {name:<{LABEL_CHARACTERS}}  {value}" for name, value in rows]


def explain(settings: Settings, routes: RouteTable, mqtt_topic: str, hidden: Collection[str] = ()) -> Explained:
    """Say what becomes of the messages of a topic.

    Args:
        settings: RECORD_KEY and MQTT_QOS, for routes without a key or a QoS of their own.
        routes: All routes.
        mqtt_topic: The topic.
        hidden: The names of routes that never get a message.
    """
    resolved = resolve(routes, mqtt_topic.encode("utf-8", "surrogateescape"), settings.record_key)
    if not resolved.matches:
        reason = f"{resolved.problem}: MQTT allows no such topic" if resolved.problem else ""
        return Explained(mqtt_topic, None, reason or f"{UNMAPPED}: {NO_ROUTE}", {}, ())
    route, *others = resolved.matches
    dead_letter = f"{resolved.problem}: {resolved.explanation}".strip(": ") if resolved.problem else ""
    record = {} if dead_letter else _record(settings, route, resolved)
    why_not = tuple((each, _why_not(route, each, never=each.name in hidden)) for each in others)
    return Explained(mqtt_topic, route, dead_letter, record, why_not)


def _why_not(taken: Route, other: Route, *, never: bool) -> str:
    if has_wildcard(other.mqtt_filter) and not has_wildcard(taken.mqtt_filter):
        why = f"{taken.name} has no wildcard, and such routes come first"
    else:
        why = f"{taken.name} stands before it"
    return f"{why}; it never gets a message at all" if never else why


def _record(settings: Settings, route: Route, resolved: Resolved) -> dict[str, Any]:
    key = resolved.record_key
    time = f"property {route.timestamp_property}" if route.timestamp_property else "received"
    return {
        "kafka_topic": resolved.kafka_topic,
        "key": None if key is None else key.decode("utf-8", "backslashreplace"),
        "headers": {name: value.decode("utf-8", "backslashreplace") for name, value in resolved.headers},
        **({"headers_left_out": resolved.left_out} if resolved.left_out else {}),
        "qos": route.qos_or(settings.mqtt_qos),
        "timestamp": time,
        "empty_payload": route.empty_payload,
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        added = " ".join(f"{name}={text}" for name, text in value.items())
        return f"{added}, and those of every record" if added else "those of every record"
    return "none" if value is None else str(value)
