"""Making a connection: its settings, and the conversation after CONNACK (SUBSCRIBE, UNSUBSCRIBE, refusals).

All of it runs on the MQTT thread, most of it in paho's callbacks.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from app.messages import Released, Subscribed
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient
    from app.mqtt.session import Session

CONNECT_TIMEOUT_SECONDS = 5.0
CONNACK_TIMEOUT_SECONDS = 10.0
ASK_AGAIN_SECONDS = 30.0  # how often a refused filter is subscribed to again, as its right may be granted later
ASK_AGAIN_SOON_SECONDS = 1.0  # where the refusal is of the moment: the broker says that the packet identifier is in use
PACKET_IDENTIFIER_IN_USE = 0x91
UNSUPPORTED_PROTOCOL_VERSION = 0x84  # paho gives this for the CONNACK 1 of MQTT 3.1.1 too
SESSION_TAKEN_OVER = 0x8E
NO_GROUPS = "the MQTT broker has no shared subscriptions: unset MQTT_SHARED_GROUP, or use another one"
NEEDS_5 = "; MQTT_SHARED_GROUP needs MQTT 5, so 3.1.1 is not tried"


@dataclass
class ConnectionSettings:
    """How to connect to the broker; `protocol` is lowered for good when the broker does not speak MQTT 5."""

    host: str
    port: int
    client_id: str
    protocol: MQTTProtocolVersion
    keepalive_seconds: int
    session_expiry_seconds: int
    receive_maximum: int
    largest_packet_bytes: int
    user_name: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def connect(self, client: BridgeClient) -> None:
        """Open the connection and send CONNECT; blocks for at most `CONNECT_TIMEOUT_SECONDS` a step.

        Raises:
            OSError: The broker cannot be reached, ends the connection at once, or its certificate is not trusted.
        """
        if self.user_name is not None:
            client.username_pw_set(self.user_name, self.password)
        if self.tls:
            client.tls_set_context(self._tls_context())
        client.connect_timeout = CONNECT_TIMEOUT_SECONDS
        if self.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self.session_expiry_seconds
            properties.ReceiveMaximum = self.receive_maximum
            properties.MaximumPacketSize = self.largest_packet_bytes
            client.connect(self.host, self.port, self.keepalive_seconds, clean_start=False, properties=properties)
        else:
            client.connect(self.host, self.port, self.keepalive_seconds)
        connection: Any = client.socket()
        if connection is None:  # paho tells this to its callbacks only
            raise ConnectionResetError("it accepted the connection and ended it before CONNECT was sent")
        # Acknowledgements are small: held back until TCP confirms the last ones, they would come 40 ms late.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _tls_context(self) -> ssl.SSLContext:
        """Make a context that verifies the broker's name and certificate; read anew, so files may be rotated."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class Subscriber:
    """The conversation of one connection after CONNECT.

    Attributes:
        accepted: CONNACK accepted the connection.
        may_read: Messages may be received: false between the loss of a session and its being forgotten on disk, as a
            QoS 2 identifier of the old session would swallow a message of the new one.
        refused: CONNACK refused the connection; it is over, whether or not the broker closes it.
        refused_version: The reason was that the broker does not speak this version of MQTT, and another one would do.
    """

    def __init__(
        self,
        client: BridgeClient,
        session: Session,
        request: Callable[[Released | Subscribed], None],
        throttle: Throttle,
    ) -> None:
        """Register with the client, which is not connected yet.

        Args:
            client: The connection.
            session: What outlives it.
            request: Passes a request on to the keeper.
            throttle: What the service says again and again, and its logger.
        """
        self.accepted = False
        self.refused = False
        self.refused_version = False
        self._client = client
        self._session = session
        self._request = request
        self._throttle = throttle
        self._log = throttle.log
        self._asked: dict[int, str | None] = {}  # by packet identifier; None: an UNSUBSCRIBE
        self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
        self._connack_by = time.monotonic() + CONNACK_TIMEOUT_SECONDS
        self._properties_available = False
        client.on_connect = self.on_connect
        client.on_subscribe = self.on_subscribe
        client.on_unsubscribe = self.on_unsubscribe

    def give_up_on_connack(self) -> None:
        """End a connection whose CONNECT is not answered.

        Raises:
            TimeoutError: It is not; some brokers without MQTT 5 are silent instead of refusing it.
        """
        if not self.accepted and time.monotonic() > self._connack_by:
            raise TimeoutError(
                f"no CONNACK within {CONNACK_TIMEOUT_SECONDS:.0f} s; if the broker does not speak MQTT 5, set "
                "MQTT_VERSION=3.1.1"
            )

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
            self._throttle.error(str(reason), "the MQTT broker refused the connection: %s%s", reason, hint)
            return
        if self._session.is_shared and getattr(properties, "SharedSubscriptionAvailable", 1) == 0:
            self.refused = True  # to subscribe all the same would be a protocol error, without the group a doubling
            self._throttle.error("group", NO_GROUPS)
            return
        self.accepted = True
        version5 = self._client.protocol == MQTTProtocolVersion.MQTTv5
        self._properties_available = version5 and getattr(properties, "SubscriptionIdentifierAvailable", 1) == 1
        lost_before = self._session.lost
        plan = self._session.on_connected(
            session_present=flags.session_present, identifiers_available=self._properties_available
        )
        self._log.info("connected to the MQTT broker, session %s", "resumed" if flags.session_present else "new")
        if self._session.lost > lost_before:
            self._log.warning("the MQTT broker had lost our session: what it kept for us is lost with it")
        if not self._properties_available and len(self._session.filters) > 1 and not self._session.said_overlap:
            self._session.said_overlap = True
            self._log.info(
                "there are no subscription identifiers here (they come with MQTT 5): where filters overlap, a message "
                "crosses as often as the broker delivers it"
            )
        if not flags.session_present:
            client.window.forgetting = True
            self._request(Subscribed([], self._session.generations))  # asked for by now, not answered
            self._request(Released(None, client.window))
        for topic_filter in plan.subscribe:
            self._subscribe(topic_filter)
        if plan.unsubscribe:
            _, packet_identifier = client.unsubscribe(plan.unsubscribe)
            self._asked[packet_identifier] = None
        self._remember_when_answered()

    def _subscribe(self, topic_filter: str) -> None:
        """Send one SUBSCRIBE per filter, as an identifier applies to all filters of its packet."""
        if self._client.protocol == MQTTProtocolVersion.MQTTv5:
            options = SubscribeOptions(
                qos=self._session.qos,
                retainAsPublished=True,
                retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB,
            )
            properties = None
            if self._properties_available:
                properties = Properties(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = self._session.identifiers[topic_filter]
            _, packet_identifier = self._client.subscribe(topic_filter, options=options, properties=properties)
        else:
            _, packet_identifier = self._client.subscribe(topic_filter, self._session.qos)
        if packet_identifier is not None:
            self._asked[packet_identifier] = topic_filter

    def on_subscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what was granted (paho's callback)."""
        topic_filter = self._asked.get(packet_identifier)
        if topic_filter is None:
            return
        reason = reasons[0]
        self._session.on_subscribed(topic_filter, str(reason) if reason.is_failure else None)
        if reason.is_failure:
            self._throttle.error(topic_filter, "the MQTT broker refused the filter %r: %s", topic_filter, reason)
            if reason.value == PACKET_IDENTIFIER_IN_USE:
                # Some brokers have one set of identifiers for both directions; what they send again has the low ones.
                self._ask_again_at = time.monotonic() + ASK_AGAIN_SOON_SECONDS
        else:
            self._throttle.end(topic_filter, "the MQTT broker grants the filter %r now", topic_filter)
        if reason.value < self._session.qos:
            self._log.warning("the MQTT broker grants the filter %r QoS %d only", topic_filter, reason.value)
        del self._asked[packet_identifier]
        self._remember_when_answered()

    def on_unsubscribe(
        self, _client: object, _data: object, packet_identifier: int, _reasons: object, _properties: object
    ) -> None:
        """Note that the removed filters are gone (paho's callback)."""
        if self._asked.pop(packet_identifier, "") is None:
            self._remember_when_answered()

    def _remember_when_answered(self) -> None:
        """Have the subscriptions remembered, once nothing is left to be answered."""
        if not self._asked:
            for topic_filter in self._session.take_outdated():
                self._subscribe(topic_filter)
        if not self._asked:
            self._request(Subscribed(self._session.on_all_answered(), self._session.generations))

    def ask_again(self) -> None:
        """Subscribe again, from time to time, to what was refused."""
        if self._session.refused and time.monotonic() >= self._ask_again_at:
            self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
            for topic_filter in list(self._session.refused):
                self._subscribe(topic_filter)

    def on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, _properties: object) -> None:
        """Say why the connection ended (paho's callback)."""
        if flags.is_disconnect_packet_from_server and reason.value == SESSION_TAKEN_OVER:
            self._throttle.error(
                "taken over",
                "another client connected to the MQTT broker with our client id; give each its own MQTT_CLIENT_ID",
            )
        elif self.accepted and reason.is_failure:
            self._log.warning("the connection to the MQTT broker ended: %s", reason)
