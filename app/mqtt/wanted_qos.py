"""The QoS to subscribe with: that of the filter's route, or MQTT_QOS; 1 at most where the broker is silent about 2."""

from __future__ import annotations

from collections.abc import Iterable

from app.routes import RouteTable, plain_filter

HIGHEST = 2


class WantedQos:
    """Which QoS is wanted for each filter, and which is asked for (MQTT thread).

    Attributes:
        default: MQTT_QOS.
    """

    def __init__(self, default: int, routes: RouteTable) -> None:
        """Take MQTT_QOS, and the routes, of which some have a QoS of their own."""
        self.default = default
        self._routes = routes
        self._most = HIGHEST

    def of(self, topic_filter: str) -> int:
        """Return the QoS that the settings want for a filter, which may have the prefix of a shared group."""
        route = self._routes.by_filter.get(plain_filter(topic_filter))
        return self.default if route is None else route.qos_or(self.default)

    def to_ask(self, topic_filter: str) -> int:
        """Return the QoS to ask for."""
        return min(self.of(topic_filter), self._most)

    def named(self, filters: Iterable[str]) -> str:
        """Return which are asked for, for a sentence."""
        return " and ".join(map(str, sorted({self.to_ask(name) for name in filters})))

    def is_asked_for_2(self, filters: Iterable[str]) -> bool:
        """Tell whether QoS 2 is asked for with any of some filters."""
        return any(self.to_ask(name) == HIGHEST for name in filters)

    def ask_for_1_at_most(self) -> None:
        """Ask for QoS 1 from now on where 2 is wanted, as the broker does not answer to that."""
        self._most = 1
