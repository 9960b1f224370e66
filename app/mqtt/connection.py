"""Making a connection, on the MQTT thread, up to CONNECT.

`app.mqtt.opening` opens the socket, `app.mqtt.conversation` has what follows CONNECT.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from app.mqtt.granted import Asked
from app.mqtt.opening import Opening
from app.mqtt.race import Attempt
from app.settings.tls_context import tls_context

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient

# From the lookup to CONNACK: the first attempt, and the longest; each that was too short is followed by a longer one.
ATTEMPT_SECONDS = (10.0, 30.0)
LARGEST_ASKED_BYTES = 268_435_455  # that paho lets us ask for; MQTT's largest packet has five bytes more


@dataclass
class ConnectionSettings:
    """How to connect to the broker; `protocol` is lowered while a broker accepts MQTT 3.1.1, and refuses 5.

    Attributes:
        opening: What opens the socket.
    """

    host: str
    port: int
    client_id: str
    protocol: MQTTProtocolVersion
    keepalive_seconds: int
    session_expiry_seconds: int
    receive_maximum: int
    largest_packet_bytes: int
    user_name: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    opening: Opening = field(init=False, repr=False)
    _wanted: MQTTProtocolVersion = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare; nothing is opened."""
        self.opening = Opening(self.host, self.port)
        self._wanted = self.protocol

    @property
    def asked(self) -> Asked:
        """What CONNECT asks for, and CONNACK may grant less of."""
        if self.protocol != MQTTProtocolVersion.MQTTv5:
            return Asked(0, self.keepalive_seconds)
        return Asked(self.session_expiry_seconds, self.keepalive_seconds)

    def lower(self) -> None:
        """Use MQTT 3.1.1, as the broker refused 5."""
        self.protocol = MQTTProtocolVersion.MQTTv311

    def raise_again(self) -> None:
        """Use the version of the settings again, as no connection was made: the next broker may accept it."""
        self.protocol = self._wanted

    def note_end(self, *, accepted: bool) -> None:
        """Note the end of a connection, which the broker had accepted or not."""
        if accepted:
            self.opening.was_accepted()
        else:
            self.raise_again()

    def connect(self, client: BridgeClient, attempt: Attempt) -> None:
        """Open the connection and send CONNECT, within the attempt's deadline.

        Raises:
            OSError: The broker cannot be reached, ends the connection at once, or its certificate is not trusted.
        """
        if self.user_name is not None:
            client.username_pw_set(self.user_name, self.password)
        files = (self.ca_file, self.certificate_file, self.key_file)
        # Read anew each time, so files may be replaced.
        opened = self.opening.open(attempt, tls_context(*files) if self.tls else None)
        options: dict[str, Any] = {}
        if self.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self.session_expiry_seconds
            properties.ReceiveMaximum = self.receive_maximum
            properties.MaximumPacketSize = min(self.largest_packet_bytes, LARGEST_ASKED_BYTES)
            options = {"clean_start": False, "properties": properties}
        client.connect_over(opened, self.host, self.port, self.keepalive_seconds, **options)
        connection: Any = client.socket()
        if connection is None:  # paho tells this to its callbacks only
            raise ConnectionResetError("it accepted the connection and ended it before CONNECT was sent")
        # Acknowledgements are small: held back until TCP confirms the last ones, they would come 40 ms late.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
