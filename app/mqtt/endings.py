"""Why a connection ended: the broker's own reason, or a likely one where it gives none.

Likely reasons are that it is not an MQTT broker; that another client uses our client id; or that the broker closes the
connection because of one of the filters (`app.mqtt.forbidden` finds and names it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from app.lines import short
from app.mqtt.control_packets import UNSPECIFIED
from app.mqtt.forbidden import AGAIN_SECONDS
from app.mqtt.naming import named

if TYPE_CHECKING:
    from app.mqtt.connection import ConnectionSettings
    from app.mqtt.subscriptions import Subscriptions
    from app.throttle import Throttle

CLOSED = "the broker or the network closed it, without a reason"
SHORT_SECONDS = 5.0
SHORT_CONNECTIONS = 3  # in a row: so it looks when two clients with one client id end each other's connections


class End(NamedTuple):
    """The end of a connection.

    Attributes:
        was_accepted: CONNACK had accepted it.
        by_us: We gave it up, as the broker did not answer pings or did what MQTT does not allow.
        reason: That of the broker's DISCONNECT; 0 without.
        subscribing: The filters that were subscribed to, without an answer.
        unsubscribing: Those that were unsubscribed from, without an answer.
        lasted_seconds: How long it lasted.
    """

    was_accepted: bool
    by_us: bool
    reason: int
    subscribing: list[str]
    unsubscribing: list[str]
    lasted_seconds: float


class Endings:
    """Judges the ends of connections, on the MQTT thread."""

    def __init__(self, connection: ConnectionSettings, subscriptions: Subscriptions, throttle: Throttle) -> None:
        """Judge the connections to one broker.

        Args:
            connection: What names the broker.
            subscriptions: What outlives connections.
            throttle: Logs it.
        """
        self._connection = connection
        self._subscriptions = subscriptions
        self._throttle = throttle
        self._short_connections = 0

    def judge(self, end: End) -> None:
        """Note the end of a connection that neither CONNACK nor we ended, for what the broker did."""
        if not end.was_accepted:
            self._throttle.warning(
                "closed",
                "%s:%d accepted the connection and closed it without an answer; is it an MQTT broker?",
                self._connection.host,
                self._connection.port,
            )
            return
        if end.by_us:
            return
        self._look_for_a_filter(end)
        is_short = end.lasted_seconds < SHORT_SECONDS and not end.subscribing and not end.unsubscribing
        self._short_connections = self._short_connections + 1 if is_short else 0
        if self._short_connections == SHORT_CONNECTIONS:
            self._throttle.log.error(
                "the MQTT broker ended %d connections soon after they began: does another client use the client id %r?",
                SHORT_CONNECTIONS,
                self._connection.client_id,
            )

    def _look_for_a_filter(self, end: End) -> None:
        asked, unsubscribing = end.subscribing, end.unsubscribing
        forbidden = self._subscriptions.forbidden
        left_out = forbidden.on_ended(asked, unsubscribing=bool(unsubscribing), reason=end.reason)
        self._subscriptions.withhold(left_out)
        for name in left_out:
            self._throttle.error(
                ("left out", name),
                "the MQTT broker closes the connection when it is asked for the filter %r: it is left out, the others "
                "flow; give our user the right to subscribe to it. It is tried again after %.0f minutes, then more "
                "rarely, and at each start",
                name,
                AGAIN_SECONDS[0] / 60,
            )
        if asked and not left_out:
            looking = "; looking for the one that it does not permit" if forbidden.is_searching else ""
            self._throttle.warning(
                ("asked", looking), "the connection ended while %s was asked for%s", named(asked), looking
            )
        elif unsubscribing and not forbidden.may_unsubscribe:
            self._throttle.error(
                "unsubscribing",
                "the MQTT broker closes the connection when we unsubscribe from %s: that waits for %.0f minutes",
                named(unsubscribing),
                AGAIN_SECONDS[0] / 60,
            )


def why_it_ended(reason: Any, properties: object, *, has_reason: bool) -> str:
    """Return why a connection ended, with what the broker adds; `has_reason`: it sent DISCONNECT."""
    is_made_up = reason.value == UNSPECIFIED and not has_reason  # by paho
    return f"{CLOSED if is_made_up else reason}{what_the_broker_adds(properties)}"


def what_the_broker_adds(properties: object) -> str:
    """Return what a broker says beside its reason: in words, and which server to use instead (MQTT 5)."""
    words, server = (short(getattr(properties, name, "")) for name in ("ReasonString", "ServerReference"))
    return (f": {words}" if words else "") + (f"; it names another one for MQTT_BROKER_URL: {server}" if server else "")
