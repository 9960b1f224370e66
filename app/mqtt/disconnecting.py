"""The end of a connection at the stop: the last acknowledgements, DISCONNECT, and what the broker still sends.

A connection that is closed with bytes unread is reset, and with that the broker may lose what it has not read yet: the
acknowledgements, whose messages it would send again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient

LINGER_SECONDS = 0.5  # a broker closes the connection as soon as it has read DISCONNECT
READ_BYTES = 65536


def disconnect(client: BridgeClient) -> None:
    """Send the acknowledgements that are left, then DISCONNECT; the session stays with the broker."""
    connection = client.socket()
    if connection is None:
        return
    # paho closes its own once DISCONNECT is sent.
    with socket.socket(fileno=os.dup(connection.fileno())) as rest:
        client.loop_write()
        client.disconnect()
        client.loop_write()
        _read_to_the_end(rest)


def _read_to_the_end(connection: socket.socket) -> None:
    """Throw away what the broker still sends, until it closes the connection or `LINGER_SECONDS` are over."""
    until = time.monotonic() + LINGER_SECONDS
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (seconds := until - time.monotonic()) > 0:
            connection.settimeout(seconds)
            if not connection.recv(READ_BYTES):
                return
