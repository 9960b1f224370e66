"""What outlives a connection: the state of the MQTT session on our side.

- `subscriptions`: which the broker has, and what to ask for on a connection.
- `generations`: how old each is, and which identifier it has.
- `copies`: which copy of a message to keep, and which route it belongs to; for the router, on the event loop.
- `qos2`: the QoS 2 messages that are not ended by PUBREL.
- `unsubscribing`: how far a drain is.
- `standing`: what the pages show of it.
- `wanted_qos`: with which QoS to subscribe.

`app.mqtt.shared` has what differs in the session of a worker with shared subscriptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.mqtt.copies import Copies
from app.mqtt.qos2 import Qos2Flows
from app.mqtt.shared import SharedCopies, SharedGenerations
from app.mqtt.standing import Standing
from app.mqtt.subscriptions import SubscriptionPlan, Subscriptions
from app.mqtt.unsubscribing import Unsubscribing
from app.mqtt.wanted_qos import WantedQos
from app.routes import RouteTable

if TYPE_CHECKING:
    from app.mqtt.generations import Generations

NO_ROUTES = RouteTable(())


class Session:
    """The parts of the session; the MQTT thread's, except where said otherwise.

    Attributes:
        qos: The QoS to subscribe with.
    """

    def __init__(self, generations: Generations, qos: int = 1, routes: RouteTable = NO_ROUTES) -> None:
        """Make a session of which nothing is known.

        Args:
            generations: The filters of the routes, and their identifiers; `SharedGenerations` in a group.
            qos: MQTT_QOS.
            routes: All routes, of which some have a QoS of their own.
        """
        self.generations = generations
        self.qos = WantedQos(qos, routes)
        self.subscriptions = Subscriptions(generations, self.qos)
        self.copies = (
            SharedCopies(self.subscriptions, generations)
            if isinstance(generations, SharedGenerations)
            else Copies(self.subscriptions)
        )
        self.qos2 = Qos2Flows()
        self.unsubscribing = Unsubscribing()
        self.standing = Standing()
        self._logged: set[str] = set()

    @property
    def lost(self) -> int:
        """How often the broker had lost a session that we had."""
        return self.subscriptions.lost

    def on_connected(self, *, session_present: bool, renews: bool) -> SubscriptionPlan:
        """Decide what to subscribe to on a new connection.

        Args:
            session_present: What CONNACK said; without a session, the QoS 2 flows are forgotten with it.
            renews: Subscribing again is harmless, see `Subscriptions`.
        """
        if not session_present:
            self.qos2.forget_all()
        return self.subscriptions.on_connected(session_present=session_present, renews=renews)

    def is_first(self, what: str) -> bool:
        """Tell whether something is to be logged that is logged once for all connections, and note it."""
        is_first = what not in self._logged
        self._logged.add(what)
        return is_first
