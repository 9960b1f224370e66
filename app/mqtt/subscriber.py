"""The conversation on a connection after CONNECT: CONNACK, SUBSCRIBE, UNSUBSCRIBE, and their refusals.

What is not answered in time is said, makes the worker not ready, and is asked for again on the same connection:
messages of other filters may flow there. A broker that has been heard since, and still does not answer SUBSCRIBE with
QoS 2, is asked with QoS 1 the third time. Filters at which it closes the connection are the matter of
`app.mqtt.forbidden`.

All of it runs on the MQTT thread, most of it in paho's callbacks. A drain's part of it is in `app.mqtt.leaving`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paho.mqtt.enums import MQTTProtocolVersion

from app.messages import Released, Remembered, Subscribed
from app.mqtt import granted
from app.mqtt.endings import what_the_broker_adds, why_it_ended
from app.mqtt.requests import Pauses, Requests, named, trouble_of
from app.routes import plain_filter
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient
    from app.mqtt.race import Attempt
    from app.mqtt.session import Session

ASK_AGAIN_SECONDS = 30.0  # how often a refused filter is subscribed to again, as its right may be granted later
ASK_AGAIN_SOON_SECONDS = 1.0  # where the refusal is of the moment: the broker says that the packet identifier is in use
PACKET_IDENTIFIER_IN_USE = 0x91
UNSUPPORTED_PROTOCOL_VERSION = 0x84  # paho gives this for the CONNACK 1 of MQTT 3.1.1 too
SESSION_TAKEN_OVER, KEEPALIVE_TIMEOUT = 0x8E, 0x8D
TAKEN_OVER = "another client connected to the MQTT broker with our client id; give each its own MQTT_CLIENT_ID"
SESSIONS = ("new", "resumed")
NEEDS_5 = "; MQTT_SHARED_GROUP needs MQTT 5, so 3.1.1 is not tried"


class Subscriber:
    """The conversation of one connection after CONNECT.

    Attributes:
        accepted: CONNACK accepted the connection.
        may_read: Messages may be received: false between the loss of a session and its being forgotten on disk, as a
            QoS 2 identifier of the old session would swallow a message of the new one.
        refused: CONNACK refused the connection; it is over, whether or not the broker closes it.
        refused_version: The reason was that the broker does not speak this version of MQTT, and another one would do.
        requests: What is not answered.
        end_reason: That of the broker's DISCONNECT; 0 without.
        ended_by_us: We gave the connection up, as the broker did not answer pings or did what MQTT does not allow.
    """

    _noted_generations: dict[str, int] | None = None  # that the table was told on this connection

    def __init__(
        self,
        client: BridgeClient,
        session: Session,
        request: Callable[[Released | Remembered | Subscribed], None],
        throttle: Throttle,
        attempt: Attempt,
        asked: granted.Asked | None = None,
    ) -> None:
        """Register with the client, which is not connected yet.

        Args:
            client: The connection.
            session: What outlives it.
            request: Passes a request on to the keeper.
            throttle: What the service says again and again, and its logger.
            attempt: The attempt to connect, which ends with CONNACK.
            asked: What CONNECT asks for.
        """
        self.accepted = False
        self.refused = self.refused_version = False
        self._client = client
        self._session = session
        self._request = request
        self._throttle = throttle
        self._log = throttle.log
        self.requests = Requests(client)
        self.end_reason = 0
        self.ended_by_us = False
        self._asked = asked or granted.Asked(0, client.keepalive)
        self._shortfalls: list[granted.Shortfall] = []
        self._granted_qos: dict[str, int] = {}
        self._deadlines = 0  # that passed without an answer
        self._begun_at = 0.0
        self._unwanted: list[str] = []  # what the broker's session has though it is not mapped
        self._may_unsubscribe = True
        self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
        self._soon = Pauses(ASK_AGAIN_SOON_SECONDS, ASK_AGAIN_SECONDS)
        self._attempt = attempt
        self._properties_available = False
        self._not_allowed: set[str] = set()
        session.unanswered, session.is_overdue, session.less_granted = "", False, []
        client.on_connect = self.on_connect
        client.on_subscribe = self.on_subscribe
        client.on_unsubscribe = self.on_unsubscribe

    def give_up_on_connack(self) -> None:
        """End a connection whose CONNECT is not answered.

        Raises:
            TimeoutError: It is not; some brokers without MQTT 5 are silent instead of refusing it.
        """
        if not self.accepted and time.monotonic() > self._attempt.until:
            hint = "; if the broker does not speak MQTT 5, set MQTT_VERSION=3.1.1" if self._speaks_5 else ""
            raise TimeoutError(f"it accepted the connection, and no CONNACK within {self._attempt.seconds:.0f} s{hint}")

    @property
    def _speaks_5(self) -> bool:
        return bool(self._client.protocol == MQTTProtocolVersion.MQTTv5)

    @property
    def may_read(self) -> bool:
        """Whether messages may be received."""
        return not self._client.window.forgetting

    def on_connect(self, client: Any, _data: object, flags: Any, reason: Any, properties: Any) -> None:
        """Subscribe as the session requires it (paho's callback)."""
        if reason.is_failure:
            self.refused = True
            wrong_version = reason.value == UNSUPPORTED_PROTOCOL_VERSION
            self.refused_version = wrong_version and not self._session.is_shared
            hint = NEEDS_5 if wrong_version and self._session.is_shared else ""
            hint += what_the_broker_adds(properties)
            self._throttle.error(str(reason), "the MQTT broker refused the connection: %s%s", reason, hint)
            return
        if trouble := granted.unusable(properties, is_shared=self._session.is_shared):
            self.refused = True
            self._throttle.error("unusable", trouble)
            return
        self.accepted = True
        self._properties_available = self._speaks_5 and getattr(properties, "SubscriptionIdentifierAvailable", 1) == 1
        lost_before = self._session.lost
        plan = self._session.on_connected(session_present=flags.session_present, renews=self._speaks_5)
        self._tell(logging.INFO, "connected to the MQTT broker, session %s", SESSIONS[bool(flags.session_present)])
        if self._session.lost > lost_before:
            self._tell(logging.WARNING, "the MQTT broker had lost our session: what it kept for us is lost with it")
        if not self._properties_available and len(self._session.filters) > 1 and not self._session.said_overlap:
            self._session.said_overlap = True
            self._log.info(
                "there are no subscription identifiers here (they come with MQTT 5): where filters overlap, a message "
                "becomes as many records as the broker delivers copies"
            )
        if not flags.session_present:
            client.window.forgetting = True
            self._request(Subscribed([], self._session.generations))  # asked for by now, not answered
            self._request(Released(None, client.window))
        if self._session.leaving:
            return
        self._shortfalls = granted.of_connack(self._asked, self._session.filters, properties)
        self._unwanted = plan.unsubscribe
        self._begin(self._without_what_is_not_allowed(plan.subscribe, properties))

    def _without_what_is_not_allowed(self, wanted: list[str], properties: Any) -> list[str]:
        """Leave out filters for which to ask would be a protocol error."""
        why = granted.not_allowed(wanted, self._session.identifiers if self._properties_available else {}, properties)
        for name, reason in why.items():
            self._session.on_subscribed(name, reason)
            which = trouble_of(name, why)
            self._throttle.error(which, "the MQTT broker cannot be asked for the filter %r: %s", name, reason)
        self._not_allowed = set(why)
        return [name for name in wanted if name not in self._not_allowed]

    def _begin(self, wanted: list[str]) -> None:
        """Subscribe to all but what is suspected of closing the connection, which comes later."""
        self._begun_at = time.monotonic()
        at_once = self._session.forbidden.to_ask_first(wanted)
        self._session.hold_back(name for name in wanted if name not in at_once)
        for topic_filter in at_once:
            self._subscribe(topic_filter)
        self._go_on_when_answered()

    def _subscribe(self, topic_filter: str) -> None:
        if self._session.generations is not self._noted_generations:
            self._note_generations()
        identifier = self._session.identifiers[topic_filter] if self._properties_available else 0
        self.requests.subscribe(topic_filter, self._session.asking_qos, version5=self._speaks_5, identifier=identifier)

    def _note_generations(self) -> None:
        """Have the generations remembered before all is answered, which may never be.

        The next process must know what may have been granted, and use no number of a generation for another one.
        """
        self._noted_generations = self._session.generations
        self._request(Remembered("generations", self._session.generations_without(self._unwanted)))

    def on_subscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what was granted (paho's callback)."""
        filters = self.requests.answered("SUBSCRIBE", packet_identifier)
        if not filters:
            return
        topic_filter, reason = filters[0], reasons[0]
        self._deadlines = 0
        self._session.forbidden.on_answered(topic_filter)
        self._session.on_subscribed(topic_filter, str(reason) if reason.is_failure else None)
        if reason.is_failure:
            which = trouble_of(topic_filter, self._session.refused)
            self._throttle.error(which, "the MQTT broker refused the filter %r: %s", topic_filter, reason)
            self._ask_again_soon_if_in_use(reason)
            if topic_filter in (self._session.remembered or ()):
                self._note_generations()  # it may have no subscription any more
        else:
            self._throttle.end(topic_filter, "the MQTT broker grants the filter %r now", topic_filter)
            self._granted_qos[topic_filter] = reason.value
        self._go_on_when_answered()

    def _unsubscribe(self) -> None:
        """Unsubscribe from what is not mapped; but not while what replaces it, shared or not, is refused."""
        refused = {plain_filter(name) for name in self._session.refused}
        filters = [name for name in self._unwanted if plain_filter(name) not in refused]
        self._may_unsubscribe = False
        if filters and self._session.forbidden.may_unsubscribe:
            # Should nobody hear of the answer, it is not known whether they were there all the time.
            self._request(Remembered("generations", self._session.generations_without(filters)))
            self.requests.unsubscribe(filters)

    def on_unsubscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what the broker gave up; MQTT 3.1.1 has no reasons (paho's callback)."""
        left = self.requests.answered("UNSUBSCRIBE", packet_identifier)
        if not left:
            return
        kept = {name: reason for name, reason in zip(left, reasons, strict=False) if reason.is_failure}
        for name, reason in kept.items():
            which = "kept", trouble_of(name, kept)
            self._throttle.warning(which, "the MQTT broker does not give up the filter %r: %s", name, reason)
            self._ask_again_soon_if_in_use(reason)
        self._unwanted = [name for name in self._unwanted if name in kept or name not in left]
        self._go_on_when_answered()

    def _ask_again_soon_if_in_use(self, reason: Any) -> None:
        """Ask soon again, and ever more rarely: some brokers have one set of identifiers for both directions."""
        if reason.value == PACKET_IDENTIFIER_IN_USE and (pause_seconds := self._soon.of_this_round()):
            self._ask_again_at = time.monotonic() + pause_seconds

    def _go_on_when_answered(self) -> None:
        """Once nothing is left to be answered, take the next step; the last is to have the subscriptions remembered."""
        if self._session.leaving:
            self._tell_what_is_unanswered()
            return  # `Leaving` has nothing remembered
        if not self.requests:
            for topic_filter in self._session.take_outdated() or self._session.forbidden.to_ask_next():
                self._subscribe(topic_filter)
        if not self.requests and self._may_unsubscribe:
            self._unsubscribe()
        if not self.requests:
            self._remember()
        self._tell_what_is_unanswered()

    def _remember(self) -> None:
        session = self._session
        subscribed = session.on_all_answered(self._unwanted)
        left_out = list(session.forbidden.left_out)
        # What was to go, and is there for all that is known, may have been gone for a while.
        generations = session.generations_without(self._unwanted) if self._unwanted else session.generations
        self._request(Subscribed(subscribed, generations, granted_at=dict(session.granted_at), left_out=left_out))
        found = [*self._shortfalls, *granted.of_suback(session.qos, self._granted_qos)]
        if found and found != session.less_granted:
            text = "; ".join(map(str, found))
            which = tuple(each.what for each in found)
            self._throttle.warning(which, "the MQTT broker grants less than was asked for: %s", text)
        session.less_granted = found

    def _tell_what_is_unanswered(self) -> None:
        """Say it for the pages; an UNSUBSCRIBE matters only when its deadline is over, as messages come without it."""
        session, asked = self._session, self.requests.filters("SUBSCRIBE")
        session.is_overdue = self._deadlines > 0 and bool(self.requests)
        if asked:
            session.unanswered = f"SUBSCRIBE with QoS {session.asking_qos} to {named(asked)}"
        elif session.is_overdue:
            session.unanswered = f"UNSUBSCRIBE from {named(self.requests.filters('UNSUBSCRIBE'))}"
        else:
            session.unanswered = ""

    def _tell(self, level: int, text: str, *values: object) -> None:
        """Say it; once a minute from when a connection ended for what the broker did, as the next ones may too."""
        if self._session.faults:
            self._throttle.say(level, text, text, *values)
        else:
            self._log.log(level, text, *values)

    def look_at_the_clock(self) -> None:
        """Ask again for what was not answered in time, and from time to time for what was refused."""
        if not self.accepted or self._session.leaving:
            return
        if self.requests.check_overdue(reading=self._client.reading):
            self._ask_once_more()
        elif time.monotonic() >= self._ask_again_at:
            self._ask_again()

    def _ask_once_more(self) -> None:
        """Say what is not answered, and ask for it again."""
        self._deadlines += 1
        self._tell_what_is_unanswered()
        session = self._session
        self._throttle.error(
            "unanswered", "the MQTT broker does not answer %s; it is asked again%s", session.unanswered,
            "; some brokers do not know QoS 2: try MQTT_QOS=1" if session.asking_qos == 2 else "",
        )  # fmt: skip
        if session.asking_qos == 2 and self._deadlines > 1 and self._client.heard_at > self._begun_at:
            session.asking_qos = 1
            self._log.error("from now on QoS 1 is asked for, as QoS 2 is not answered; set MQTT_QOS=1")
        for topic_filter in self.requests.filters("SUBSCRIBE"):
            self._subscribe(topic_filter)
        if left := self.requests.filters("UNSUBSCRIBE"):
            self.requests.unsubscribe(left)

    def _ask_again(self) -> None:
        self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
        self._soon.begin_round()
        forbidden = self._session.forbidden
        not_now = {*forbidden.suspects, *forbidden.left_out, *self._not_allowed}
        refused = [name for name in self._session.refused if name not in not_now]
        if refused or self._unwanted or forbidden.left_out:
            self._may_unsubscribe = True
            for topic_filter in refused:
                self._subscribe(topic_filter)
            self._go_on_when_answered()

    def on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, properties: object) -> None:
        """Say why the connection ended (paho's callback)."""
        said, wronged = flags.is_disconnect_packet_from_server, self._client.was_wronged
        self.end_reason = reason.value if said else 0
        self.ended_by_us = wronged or (reason.value == KEEPALIVE_TIMEOUT and not said)
        if said and reason.value == SESSION_TAKEN_OVER:
            self._throttle.error("taken over", TAKEN_OVER)
        elif self.accepted and reason.is_failure and not wronged:  # of which it is said already
            why = why_it_ended(reason, properties, said=said)
            self._tell(logging.WARNING, "the connection to the MQTT broker ended: %s", why)
