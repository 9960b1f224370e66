"""Making a connection to an MQTT broker, where the moment matters: real sockets, no worker."""

from __future__ import annotations

import select
import socket
import struct

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from app.mqtt.acknowledgements import Window
from app.mqtt.client import BridgeClient
from app.mqtt.connection import ConnectionSettings
from app.mqtt.session import Session
from clients.brokers.process import HOST

WAIT_SECONDS = 30.0


def test_a_broker_that_ends_the_connection_before_connect_is_sent_is_a_broker_that_cannot_be_reached():
    """Invariant 7: it is tried again like any other, and told in a sentence, not with a stack trace."""
    with socket.create_server((HOST, 0)) as listener:

        def reset(_client: object, _data: object, connection: socket.socket) -> None:
            broker = listener.accept()[0]
            broker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            broker.close()
            assert select.select([connection], [], [], WAIT_SECONDS)[0], "the reset has arrived"

        settings = ConnectionSettings(
            HOST, listener.getsockname()[1], "bridge", MQTTProtocolVersion.MQTTv5,
            keepalive_seconds=30, session_expiry_seconds=60, receive_maximum=10, largest_packet_bytes=1000,
        )  # fmt: skip
        client = BridgeClient(
            settings.client_id, settings.protocol, Session([], {}), Window(lambda: None), lambda *_: None, 1000
        )
        client.on_socket_open = reset  # paho calls it between connecting and sending CONNECT
        with pytest.raises(ConnectionError, match="ended it before CONNECT was sent"):
            settings.connect(client)
