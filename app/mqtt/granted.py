"""What the broker grants on a connection, where that is less than what was asked for, or differs from it.

With MQTT 5 it is in CONNACK; the QoS of each subscription is in SUBACK, with either version. The broker's Receive
Maximum does not matter, as it bounds what a client publishes, and Connector publishes nothing. The broker's Maximum
Packet Size bounds SUBSCRIBE and UNSUBSCRIBE [MQTT-3.2.2-15].
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from app.mqtt.naming import named
from app.mqtt.packet_sizes import largest_packet_bytes, subscribe_bytes
from app.routes import has_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NEVER_EXPIRES = 0xFFFFFFFF
ACKNOWLEDGEMENT_BYTES = 4
NO_GROUPS = "the MQTT broker has no shared subscriptions: unset MQTT_SHARED_GROUP, or use another one"


@dataclass(frozen=True)
class Asked:
    """What was asked for in CONNECT."""

    session_expiry_seconds: int
    keepalive_seconds: int


@dataclass(frozen=True)
class Shortfall:
    """One thing of which the broker grants less.

    Attributes:
        what: Which.
        asked: What was asked for.
        granted: What was granted.
        means: What follows for messages, and what to do.
    """

    what: str
    asked: str
    granted: str
    means: str

    def __str__(self) -> str:
        """Return it as part of a sentence."""
        return f"{self.what} {self.granted} instead of {self.asked} ({self.means})"

    def as_dictionary(self) -> dict[str, str]:
        """Return it for `/status`."""
        return asdict(self)


def of_connack(asked: Asked, filters: Sequence[str], properties: Any) -> list[Shortfall]:
    """Return what CONNACK grants less; nothing with MQTT 3.1.1, which has no properties."""
    return [*_of_the_session(asked, properties), *_of_subscriptions(filters, properties)]


def _of_the_session(asked: Asked, properties: Any) -> list[Shortfall]:
    found = []
    expiry = getattr(properties, "SessionExpiryInterval", asked.session_expiry_seconds)
    if expiry < asked.session_expiry_seconds:
        means = "if we are away for longer, what the broker keeps for us is lost; raise the limit of the broker"
        wanted = "never" if asked.session_expiry_seconds == NEVER_EXPIRES else f"{asked.session_expiry_seconds} s"
        found.append(Shortfall("session expiry", wanted, f"{expiry} s", means))
    keepalive = getattr(properties, "ServerKeepAlive", asked.keepalive_seconds)
    if keepalive != asked.keepalive_seconds:
        means = "a dead connection is noticed after one and a half times the shorter one"
        found.append(Shortfall("keepalive", f"{asked.keepalive_seconds} s", f"{keepalive} s", means))
    return found


def _of_subscriptions(filters: Sequence[str], properties: Any) -> list[Shortfall]:
    found = []
    if getattr(properties, "RetainAvailable", 1) == 0:
        found.append(Shortfall("retained messages", "yes", "no", "none come when we subscribe"))
    if getattr(properties, "SubscriptionIdentifierAvailable", 1) == 0 and len(filters) > 1:
        means = "where filters overlap, a message becomes as many records as the broker delivers copies"
        found.append(Shortfall("subscription identifiers", "yes", "no", means))
    if without_wildcards(properties) and any(map(has_wildcard, filters)):
        means = "filters with + or # are left out; map the topics one by one"
        found.append(Shortfall("wildcard subscriptions", "yes", "no", means))
    return found


class Grants:
    """What the broker grants on one connection.

    Attributes:
        has_identifiers: It has subscription identifiers.
    """

    def __init__(self, asked: Asked, filters: Sequence[str], properties: Any, *, speaks_5: bool) -> None:
        """Begin with what CONNACK grants.

        Args:
            asked: What CONNECT asked for.
            filters: The filters of the routes.
            properties: Those of CONNACK; None with MQTT 3.1.1.
            speaks_5: The connection speaks MQTT 5.
        """
        self.has_identifiers = speaks_5 and getattr(properties, "SubscriptionIdentifierAvailable", 1) == 1
        self._properties = properties
        self._by_connack = of_connack(asked, filters, properties)
        self._not_allowed: dict[str, str] = {}
        self._qos: dict[str, int] = {}

    def check(self, wanted: Sequence[str], identifiers: Mapping[str, int]) -> dict[str, str]:
        """Return the filters that the broker must not be asked for, with the reason."""
        self._not_allowed = not_allowed(wanted, identifiers if self.has_identifiers else {}, self._properties)
        return self._not_allowed

    def is_allowed(self, topic_filter: str) -> bool:
        """Whether a filter that was checked may be asked for."""
        return topic_filter not in self._not_allowed

    def note(self, topic_filter: str, qos: int) -> None:
        """Note the QoS that SUBACK grants."""
        self._qos[topic_filter] = qos

    def less(self, wanted_qos: Callable[[str], int]) -> list[Shortfall]:
        """Return what is less than was asked for, given the QoS that is wanted for each filter."""
        return [*self._by_connack, *of_suback(wanted_qos, self._qos)]


def of_suback(wanted_qos: Callable[[str], int], granted: Mapping[str, int]) -> list[Shortfall]:
    """Return the filters that have a lower QoS than is wanted, by what they have.

    Args:
        wanted_qos: Returns the QoS that is wanted for a filter.
        granted: The QoS of each filter.
    """
    lower: dict[tuple[int, int], list[str]] = {}
    for name, level in granted.items():
        wanted = wanted_qos(name)
        if level < wanted:
            lower.setdefault((level, wanted), []).append(name)
    return [
        Shortfall(
            f"for {named(names)} QoS", str(wanted), str(level),
            "the broker keeps nothing for us while we are away" if level == 0 else "it may repeat messages",
        )
        for (level, wanted), names in sorted(lower.items())
    ]  # fmt: skip


def unusable(properties: Any, *, is_shared: bool) -> str:
    """Return why a connection cannot be used at all for what CONNACK says; empty if it can."""
    if is_shared and getattr(properties, "SharedSubscriptionAvailable", 1) == 0:
        return NO_GROUPS  # to subscribe all the same would be a protocol error, without the group a doubling
    most_bytes = largest_packet_bytes(properties)
    if most_bytes < ACKNOWLEDGEMENT_BYTES:
        return (
            f"the MQTT broker accepts no packet of more than {most_bytes} bytes (Maximum Packet Size), and an "
            f"acknowledgement has {ACKNOWLEDGEMENT_BYTES}: raise its limit"
        )
    return ""


def not_allowed(filters: Sequence[str], identifiers: Mapping[str, int], properties: Any) -> dict[str, str]:
    """Return the filters that the broker must not be asked for, with the reason.

    Args:
        filters: What is wanted.
        identifiers: The subscription identifiers with which they would be asked for.
        properties: Those of CONNACK.
    """
    found = {}
    most_bytes = largest_packet_bytes(properties)
    for name in filters:
        if without_wildcards(properties) and has_wildcard(name):
            found[name] = "it has no wildcard subscriptions; map the topics one by one"
        elif (size_bytes := subscribe_bytes(name, identifiers.get(name, 0))) > most_bytes:
            found[name] = (
                f"it accepts no packet of more than {most_bytes} bytes (Maximum Packet Size), and SUBSCRIBE for this "
                f"has {size_bytes}; raise the limit of the broker"
            )
    return found


def without_wildcards(properties: Any) -> bool:
    """Whether CONNACK says that filters with wildcards must not be asked for."""
    return getattr(properties, "WildcardSubscriptionAvailable", 1) == 0
