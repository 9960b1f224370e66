"""The conversation on one connection after CONNECT, from CONNACK to the end.

    CONNACK refuses  -> the connection is over; with MQTT 3.1.1 the broker may accept the next one
    CONNACK accepts  -> `subscriber` subscribes and unsubscribes
                        in a drain: `unsubscribing` ends all subscriptions instead

When the broker has lost the session, nothing is received until its QoS 2 identifiers are removed from the table:
otherwise a message of the new session would be dropped, as its identifier would look like a repetition.

All of it runs on the MQTT thread, most of it in paho's callbacks.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paho.mqtt.enums import MQTTProtocolVersion

from app.core.requests import ForgetIdentifiers, Remember, RememberSubscriptions
from app.mqtt import granted
from app.mqtt.endings import End, what_the_broker_adds, why_it_ended
from app.mqtt.subscriber import Subscriber
from app.mqtt.unsubscribe_handshake import UnsubscribeHandshake

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient
    from app.mqtt.race import Attempt
    from app.mqtt.session import Session
    from app.throttle import Throttle

UNSUPPORTED_PROTOCOL_VERSION = 0x84  # paho gives this for the CONNACK 1 of MQTT 3.1.1 too
SESSION_TAKEN_OVER = 0x8E
KEEPALIVE_TIMEOUT = 0x8D
UNKNOWN_SESSION = (
    "the MQTT broker has a session of this client id, but the data directory has no record of it, as if it were new: "
    "what an earlier directory holds is not sent by this worker; check that the right volume is mounted at "
    "DB_PERSIST_PATH"
)
TAKEN_OVER = "another client connected to the MQTT broker with our client id; give each its own MQTT_CLIENT_ID"
SESSIONS = ("new", "resumed")
NEEDS_5 = "; MQTT_SHARED_GROUP needs MQTT 5, so 3.1.1 is not tried"


class Answer(enum.Enum):
    """What CONNACK said."""

    MISSING = enum.auto()
    ACCEPTED = enum.auto()
    REFUSED = enum.auto()  # or what cannot be used; the connection is over, whether or not the broker closes it
    REFUSED_VERSION = enum.auto()  # so, and another version of MQTT would do


class Conversation:
    """The conversation of one connection.

    Attributes:
        answer: What CONNACK said.
        subscriber: What is subscribed to, and what is not answered.
    """

    def __init__(
        self,
        client: BridgeClient,
        session: Session,
        request: Callable[[ForgetIdentifiers | Remember | RememberSubscriptions], None],
        throttle: Throttle,
        attempt: Attempt,
        asked: granted.Asked | None = None,
    ) -> None:
        """Register with the client, which is not connected yet.

        Args:
            client: The connection.
            session: What outlives it.
            request: Passes a request on to the table writer.
            throttle: Logs what happens again and again, once a minute.
            attempt: The attempt to connect, which ends with CONNACK.
            asked: What CONNECT asks for.
        """
        self.answer = Answer.MISSING
        self._end_reason = 0  # that of the broker's DISCONNECT; 0 without
        self._ended_by_us = False  # as the broker did not answer pings, or did what MQTT does not allow
        self._client = client
        self._session = session
        self._request = request
        self._throttle = throttle
        self._attempt = attempt
        self._asked = asked or granted.Asked(0, client.keepalive)
        self._speaks_5 = client.protocol == MQTTProtocolVersion.MQTTv5
        self.subscriber = Subscriber(client, session, request, throttle, speaks_5=self._speaks_5)
        self._handshake = UnsubscribeHandshake(
            client, session.subscriptions, session.unsubscribing, request, throttle.log
        )
        session.standing.begin_connection()
        client.call_back(
            on_connect=self.on_connect,
            on_disconnect=self.on_disconnect,
            on_subscribe=self.subscriber.on_subscribe,
            on_unsubscribe=self.on_unsubscribe,
        )

    @property
    def is_accepted(self) -> bool:
        """Whether CONNACK accepted the connection."""
        return self.answer is Answer.ACCEPTED

    @property
    def is_refused(self) -> bool:
        """Whether CONNACK refused the connection, or said what cannot be used."""
        return self.answer in {Answer.REFUSED, Answer.REFUSED_VERSION}

    @property
    def may_read(self) -> bool:
        """Whether messages may be received."""
        return not self._client.window.forgetting

    def go_on(self) -> None:
        """Take the next step, if it is time for it; called often.

        Raises:
            TimeoutError: CONNECT is not answered; some brokers without MQTT 5 are silent instead of refusing it.
        """
        if self.answer is Answer.MISSING and time.monotonic() > self._attempt.until:
            hint = "; if the broker does not speak MQTT 5, set MQTT_VERSION=3.1.1" if self._speaks_5 else ""
            raise TimeoutError(f"it accepted the connection, and no CONNACK within {self._attempt.seconds:.0f} s{hint}")
        if self.is_accepted:
            if self._session.unsubscribing.has_begun:
                self._handshake.go_on()
            else:
                self.subscriber.take_up_order()
                self.subscriber.look_at_the_clock()

    def on_connect(self, _client: object, _data: object, flags: Any, reason: Any, properties: Any) -> None:
        """Subscribe as the session requires it (paho's callback)."""
        self.answer = self._answer(reason, properties)
        if not self.is_accepted:
            return
        session, lost_before = self._session, self._session.lost
        is_unknown = flags.session_present and session.subscriptions.on_disk and session.subscriptions.is_unrecorded
        plan = session.on_connected(session_present=flags.session_present, renews=self._speaks_5)
        self._log(logging.INFO, "connected to the MQTT broker, session %s", SESSIONS[bool(flags.session_present)])
        if is_unknown and session.is_first("unknown session"):
            self._log(logging.WARNING, UNKNOWN_SESSION)
        if session.lost > lost_before:
            self._log(logging.WARNING, "the MQTT broker had lost our session: what it kept for us is lost with it")
        if not flags.session_present:
            self._client.window.wait_until_forgotten()
            # Asked for by now, not answered.
            self._request(RememberSubscriptions([], session.subscriptions.generations.by_filter))
            self._request(ForgetIdentifiers(None, self._client.window))
        if not session.unsubscribing.has_begun:
            filters = session.subscriptions.filters
            self.subscriber.begin(plan, granted.Grants(self._asked, filters, properties, speaks_5=self._speaks_5))

    def _answer(self, reason: Any, properties: Any) -> Answer:
        """Return what CONNACK says, and log a refusal."""
        is_shared = self._session.subscriptions.is_shared
        if reason.is_failure:
            wrong_version = reason.value == UNSUPPORTED_PROTOCOL_VERSION
            hint = NEEDS_5 if wrong_version and is_shared else ""
            hint += what_the_broker_adds(properties)
            self._throttle.error(str(reason), "the MQTT broker refused the connection: %s%s", reason, hint)
            return Answer.REFUSED_VERSION if wrong_version and not is_shared else Answer.REFUSED
        if trouble := granted.unusable(properties, is_shared=is_shared):
            self._throttle.error("unusable", trouble)
            return Answer.REFUSED
        return Answer.ACCEPTED

    def on_unsubscribe(
        self, client: object, data: object, packet_identifier: int, reasons: Any, properties: object
    ) -> None:
        """Pass UNSUBACK on to who asked (paho's callback)."""
        asked = self._handshake if self._handshake.has_asked(packet_identifier) else self.subscriber
        asked.on_unsubscribe(client, data, packet_identifier, reasons, properties)

    def on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, properties: object) -> None:
        """Log why the connection ended (paho's callback)."""
        by_broker, wronged = flags.is_disconnect_packet_from_server, self._client.ended_for_fault
        self._end_reason = reason.value if by_broker else 0
        self._ended_by_us = wronged or (reason.value == KEEPALIVE_TIMEOUT and not by_broker)
        if by_broker and reason.value == SESSION_TAKEN_OVER:
            self._throttle.error("taken over", TAKEN_OVER)
        elif self.is_accepted and reason.is_failure and not wronged:  # of which it is logged already
            why = why_it_ended(reason, properties, has_reason=by_broker)
            self._log(logging.WARNING, "the connection to the MQTT broker ended: %s", why)

    def end(self, lasted_seconds: float) -> End:
        """Return what is known of the end of the connection."""
        requests = self.subscriber.requests
        return End(
            self.is_accepted,
            self._ended_by_us,
            self._end_reason,
            requests.filters("SUBSCRIBE"),
            requests.filters("UNSUBSCRIBE"),
            lasted_seconds,
        )

    def _log(self, level: int, text: str, *values: object) -> None:
        """Log it; once a minute from when a connection ended for what the broker did, as the next ones may too."""
        if self._session.standing.faults:
            self._throttle.log_at(level, text, text, *values)
        else:
            self._throttle.log.log(level, text, *values)
