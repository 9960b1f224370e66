"""What the settings alone tell: mappings, what weakens TLS, what is misspelled."""

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
    topics = len({route.to for route in settings.routes})
    text = f"the settings are right: {len(settings.routes)} mappings to {topics} Kafka topics"
    yield REPORT.good("settings", "", text)
    for name in settings.unknown_names:
        yield REPORT.doubtful(
            "unknown", name, f"{name} is no setting of Connector", "Is it misspelled? Else remove it."
        )
    for weakness in weaknesses(settings):
        yield REPORT.doubtful(weakness.way, "", f"TLS is weakened: {weakness.text}", f"{weakness.advice}.")
    yield from never_first(settings.routes)
    yield from _of_the_session(settings)


def never_first(routes: Sequence[Route]) -> Iterator[Finding]:
    """Yield the mappings that no message takes, as one before them matches everything that they match.

    Args:
        routes: In their order of precedence.
    """
    for route, winner in shadowed(routes):
        yield REPORT.doubtful(
            "mapping",
            route.name,
            f"no message takes the mapping {route.name!r}, as {winner.name!r} comes before it and matches all that it "
            "matches",
            "Write the special mapping before the general one, or remove it.",
        )


def _of_the_session(settings: Settings) -> Iterator[Finding]:
    if settings.mqtt_qos == 0:
        text = "MQTT_QOS=0: what is sent while Connector is away, or lost on the network, is lost"
        yield REPORT.doubtful("qos", "", text, "Set MQTT_QOS=1 or 2 if no message may be lost.")
    elif settings.mqtt_version == "5" and settings.mqtt_session_expiry_sec == 0:
        text = "MQTT_SESSION_EXPIRY_SEC=0: the MQTT broker keeps nothing while Connector is away"
        yield REPORT.doubtful("session", "", text, "Set it to more than the longest time that Connector may be down.")
