"""A visit at the MQTT broker, beside the worker: sign in and subscribe as it does, and leave nothing behind.

For `app.check`. The visitor has a client id of its own, a clean start and no will, so that the worker's session and its
connection are not touched. It subscribes to plain filters alone: as a member of a shared group it would take away what
the group is to get. What comes to it is acknowledged and discarded, and large messages do not come at all (Maximum
Packet Size). It runs where it is called, and waits a moment at a time, so that Ctrl-C ends it.

The client is paho's own, but for the socket: it is opened as that of the worker, and given to paho in the same way.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from app.lines import short
from app.mqtt.race import BEAT_SECONDS, Attempt

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

LARGEST_PACKET_BYTES = 70_000  # to be let come: as many as MQTT_MAXIMUM_PACKET_BYTES may be at least
LONGEST_CLIENT_ID_BYTES = 65_535
FIRST_FAILURE = 0x80  # among the codes of MQTT 5, and the one of MQTT 3.1.1
ENDED = "the broker closed the connection, without a reason"


class Answered(NamedTuple):
    """What the broker answered.

    Attributes:
        code: The reason code; with MQTT 3.1.1 the one of MQTT 5 that means the same, as paho has it.
        name: Its name, and the broker's own reason if there is one.
        properties: Those of MQTT 5.
    """

    code: int
    name: str
    properties: Any = None

    @property
    def is_refusal(self) -> bool:
        """Whether it says no."""
        return self.code >= FIRST_FAILURE


class Visiting(NamedTuple):
    """How to sign in: what the settings say, but for the client id; `is_5` is whether with MQTT 5, or 3.1.1."""

    host: str
    port: int
    client_id: str
    is_5: bool
    keepalive_seconds: int
    receive_maximum: int
    user_name: str | None = None
    password: str | None = None


class _Client(paho.Client):
    """Paho's client, with a socket that is open already."""

    def __init__(self, opened: SocketLike, client_id: str, *, is_5: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if is_5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self._opened = opened

    def call_back(self, on_connect: Any, on_subscribe: Any, on_disconnect: Any) -> None:
        """Have paho call these; they get its callbacks' arguments."""
        self.on_connect, self.on_subscribe, self.on_disconnect = on_connect, on_subscribe, on_disconnect

    def _create_socket(self) -> SocketLike:
        return self._opened


class Visit:
    """One connection of a visitor."""

    def __init__(self, visiting: Visiting, opened: SocketLike) -> None:
        """Take how to sign in, and the open connection."""
        self._visiting = visiting
        self._client = _Client(opened, visiting.client_id, is_5=visiting.is_5)
        self._answers: dict[int, Answered] = {}  # by packet identifier; 0: CONNACK
        self._ending = ""
        self._client.call_back(
            lambda _client, _data, _flags, code, properties: self._note(0, code, properties),
            lambda _client, _data, number, codes, properties: self._note(number, codes[0], properties),
            self._on_disconnect,
        )
        if visiting.user_name is not None or visiting.password is not None:
            self._client.username_pw_set(visiting.user_name, visiting.password)

    def sign_in(self, seconds: float, *, session_expiry_seconds: int) -> Answered:
        """Send CONNECT, and return what CONNACK answers.

        Raises:
            OSError: The broker does not answer in time, or closes the connection.
        """
        visiting = self._visiting
        options: dict[str, Any] = {}
        if visiting.is_5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = session_expiry_seconds
            properties.ReceiveMaximum = visiting.receive_maximum
            properties.MaximumPacketSize = LARGEST_PACKET_BYTES
            options = {"clean_start": True, "properties": properties}
        self._client.connect(visiting.host, visiting.port, visiting.keepalive_seconds, **options)
        return self._wait(0, seconds, "no answer to CONNECT")

    def subscribe(self, topic_filter: str, qos: int, seconds: float) -> Answered:
        """Subscribe to a plain filter, unsubscribe at once, and return what SUBACK answers.

        Raises:
            OSError: The broker does not answer in time, or closes the connection.
        """
        if self._visiting.is_5:
            handling = SubscribeOptions.RETAIN_DO_NOT_SEND
            options = SubscribeOptions(qos=qos, retainAsPublished=True, retainHandling=handling)
            _, number = self._client.subscribe(topic_filter, options=options)
        else:
            _, number = self._client.subscribe(topic_filter, qos)
        if number is None:
            raise ConnectionResetError(self._ending or ENDED)
        self._client.unsubscribe(topic_filter)
        return self._wait(number, seconds, "no answer to SUBSCRIBE")

    def leave(self) -> None:
        """Send DISCONNECT, with which the session ends too, and close the connection."""
        properties = _with_the_end_of_the_session() if self._visiting.is_5 else None
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect(properties=properties)
            for _ in range(3):  # what is still to be sent
                if self._client.loop(BEAT_SECONDS / 10) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
        self.close()

    def close(self) -> None:
        """Close the connection, whatever state it is in, and have nobody called back any more."""
        self._client.call_back(None, None, None)  # a circle else
        if (connection := self._client.socket()) is not None:
            connection.close()

    def _note(self, number: int, code: Any, properties: Any) -> None:
        own = getattr(properties, "ReasonString", "")
        self._answers[number] = Answered(code.value, f"{code}{f' ({short(own)})' if own else ''}", properties)

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, code: Any, properties: Any) -> None:
        own = getattr(properties, "ReasonString", "")
        if flags.is_disconnect_packet_from_server:
            self._ending = f"the broker closed the connection: {code}{f' ({short(own)})' if own else ''}"

    def _wait(self, number: int, seconds: float, missing: str) -> Answered:
        """Return the answer to a packet."""
        attempt = Attempt(seconds)
        while number not in self._answers:
            wait_seconds = attempt.wait_seconds(missing)
            if self._client.loop(wait_seconds) != MQTTErrorCode.MQTT_ERR_SUCCESS and number not in self._answers:
                raise ConnectionResetError(self._ending or ENDED)
        return self._answers[number]


def _with_the_end_of_the_session() -> Properties:
    """Return what has DISCONNECT end the session too."""
    properties = Properties(PacketTypes.DISCONNECT)
    properties.SessionExpiryInterval = 0
    return properties


def visitor_id(client_id: str, choose: Callable[[int], str] = secrets.token_hex) -> str:
    """Return a client id beside another one; it begins with it, as rights may go by prefixes."""
    suffix = f"-check-{choose(4)}"
    beginning = client_id.encode()[: LONGEST_CLIENT_ID_BYTES - len(suffix)]
    return beginning.decode(errors="ignore") + suffix
