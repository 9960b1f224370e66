"""What the settings alone tell: routes, what weakens TLS, what is misspelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.check.findings import Finding, Report
from app.routes import Route, shadowed
from app.settings import weaknesses

if TYPE_CHECKING:
    from app.settings import Settings

REPORT = Report("settings")


def offline(settings: Settings) -> Iterator[Finding]:
    """Yield what is found without any connection; the settings are right, or there would be none."""
    yield REPORT.good("settings", "", f"the settings are right: {counted(settings.routes)}")
    for name in settings.unknown_names:
        yield REPORT.doubtful(
            "unknown", name, f"{name} is no setting of Connector", "Is it misspelled? Else remove it."
        )
    for weakness in weaknesses(settings):
        yield REPORT.doubtful(weakness.way, "", f"TLS is weakened: {weakness.text}", f"{weakness.advice}.")
    yield from never_first(settings.routes)
    yield from _of_the_session(settings)


def counted(routes: Sequence[Route]) -> str:
    """Return how many routes there are, and where they go, as in `3 routes, to 1 Kafka topic and by 2 templates`."""
    fixed = {route.kafka_topic for route in routes if route.kafka_topic is not None}
    templates = {route.to.text for route in routes if route.kafka_topic is None}
    goals = [f"to {_number(len(fixed), 'Kafka topic')}"] if fixed else []
    goals += [f"by {_number(len(templates), 'template')} of Kafka topics"] if templates else []
    return f"{_number(len(routes), 'route')}, {' and '.join(goals)}"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def never_first(routes: Sequence[Route]) -> Iterator[Finding]:
    """Yield the routes that never get a message, as one before them matches everything that they match.

    Args:
        routes: In their order of precedence.
    """
    for each in shadowed(routes):
        yield REPORT.doubtful("route", each.route.name, each.why, each.advice)


def _of_the_session(settings: Settings) -> Iterator[Finding]:
    if settings.mqtt_qos == 0:
        text = "MQTT_QOS=0: what is sent while Connector is away, or lost on the network, is lost"
        yield REPORT.doubtful("qos", "", text, "Set MQTT_QOS=1 or 2 if no message may be lost.")
    elif settings.mqtt_version == "5" and settings.mqtt_session_expiry_sec == 0:
        text = "MQTT_SESSION_EXPIRY_SEC=0: the MQTT broker keeps nothing while Connector is away"
        yield REPORT.doubtful("session", "", text, "Set it to more than the longest time that Connector may be down.")
