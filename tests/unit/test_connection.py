"""Making a connection to an MQTT broker, where the moment matters: real sockets, no worker."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import select
import socket
import struct
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from app.mqtt.client import BridgeClient
from app.mqtt.connection import ConnectionSettings
from app.mqtt.conversation import Conversation
from app.mqtt.disconnecting import disconnect
from app.mqtt.generations import Generations
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.window import Window
from app.throttle import Throttle
from tests.support.app_settings import app_settings
from tests.support.oracle import wait_until
from tests.support.scripted_broker import ScriptedBroker, connack_packet, publish_packet
from tests.support.system import Publisher
from tools.brokers.process import HOST

with app_settings():
    from app.mqtt.thread import MqttThread, Order

WAIT_SECONDS = 30.0
LOG = logging.getLogger(__name__)
ACKNOWLEDGEMENTS = b"\x40\x02\x00\x01" * 100
DISCONNECT_PACKET = b"\xe0\x00"


def make_settings(port, **options):
    """Return the settings of a connection to a port."""
    return ConnectionSettings(
        HOST, port, "bridge", MQTTProtocolVersion.MQTTv5,
        keepalive_seconds=30, session_expiry_seconds=60, receive_maximum=10, largest_packet_bytes=1000, **options,
    )  # fmt: skip


def connect_and_end(settings, received=b""):
    """Make a connection as the source does, and end it; return whether the client is still in memory afterwards."""
    session, window = Session(Generations(("a",), {"a": 1}), qos=2), Window(lambda: None)
    client = BridgeClient(settings.client_id, settings.protocol, session, window, lambda *_: None, 10**8)
    conversation = Conversation(client, session, lambda _: None, Throttle(LOG), Attempt(WAIT_SECONDS))
    with contextlib.suppress(OSError):
        settings.connect(client, Attempt(WAIT_SECONDS))
    client.reader.feed(received)
    window.close()
    client.close()
    found = weakref.ref(client), weakref.ref(window)
    session.qos2.awaiting_release.clear()
    del client, conversation, window, session
    return [reference() is not None for reference in found]


def test_a_broker_that_ends_the_connection_before_connect_is_sent_is_a_broker_that_cannot_be_reached():
    """P7: it is tried again like any other, and told in a sentence, not with a stack trace."""
    with socket.create_server((HOST, 0)) as listener:

        def reset(_client: object, _data: object, connection: socket.socket) -> None:
            broker = listener.accept()[0]
            broker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            broker.close()
            assert select.select([connection], [], [], WAIT_SECONDS)[0], "the reset has arrived"

        settings = make_settings(listener.getsockname()[1])
        client = BridgeClient(
            settings.client_id,
            settings.protocol,
            Session(Generations([], {})),
            Window(lambda: None),
            lambda *_: None,
            1000,
        )
        client.on_socket_open = reset  # paho calls it between connecting and sending CONNECT
        with pytest.raises(ConnectionError, match="ended it before CONNECT was sent"):
            settings.connect(client, Attempt(WAIT_SECONDS))


@pytest.mark.parametrize("largest_bytes", [268_435_460, 1_000_000_000])
def test_however_large_packets_may_be_the_broker_is_asked_for_a_connection(largest_bytes):
    """MQTT's largest packet has some bytes more than paho lets us ask for, and more memory than that is usual."""
    settings = dataclasses.replace(make_settings(1), largest_packet_bytes=largest_bytes)
    with socket.create_server((HOST, 0)) as listener:
        settings = dataclasses.replace(settings, port=listener.getsockname()[1])
        client = BridgeClient(
            settings.client_id,
            settings.protocol,
            Session(Generations([], {})),
            Window(lambda: None),
            lambda *_: None,
            largest_bytes,
        )
        settings.connect(client, Attempt(WAIT_SECONDS))
        with listener.accept()[0] as broker:
            assert b"\x27" + (268_435_455).to_bytes(4, "big") in broker.recv(1000)
        client.close()


@pytest.mark.parametrize("refuses_5", [False, True])
@pytest.mark.parametrize("is_searching", [False, True])
def test_pauses_between_connections_are_as_long_as_documents_say(refuses_5, is_searching, monkeypatch):
    """A broker that misbehaves or is away: half a second at least, two connections where it refuses MQTT 5."""
    session = SimpleNamespace(subscriptions=SimpleNamespace(forbidden=SimpleNamespace(is_searching=is_searching)))
    hand_over = SimpleNamespace(is_over=False, wake=lambda: None)
    thread = MqttThread(SimpleNamespace(host=HOST, port=1, client_id="c"), session, None, hand_over)
    pauses, connections = [], []

    def rest(seconds):
        pauses.append(seconds)
        if len(pauses) == 50:
            thread.tell(Order.QUIT)

    def serve():
        connections.append(1)
        return refuses_5 and len(connections) % 2 == 1  # then 3.1.1 at once

    monkeypatch.setattr(thread, "_rest", rest)
    monkeypatch.setattr(thread, "_connect_and_serve", serve)
    thread._run()
    longest = [2.0] * 50 if is_searching else [1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 45]
    assert all(seconds / 2 <= pause <= seconds for pause, seconds in zip(pauses, longest, strict=True))
    assert len(connections) == (2 if refuses_5 else 1) * len(pauses)


class StoppingClient:
    """A client that sends DISCONNECT, and closes the connection as paho does, with what it has not read."""

    def __init__(self, connection):
        self.connection = connection
        self.packets = [ACKNOWLEDGEMENTS, DISCONNECT_PACKET]

    def socket(self):
        return self.connection

    def disconnect(self):
        pass

    def loop_write(self):
        self.connection.sendall(self.packets.pop(0))
        if not self.packets:
            self.connection.close()


def test_a_stop_under_traffic_does_not_take_its_last_acknowledgements_back(monkeypatch):
    """A connection that is closed with bytes unread is reset, and with it goes what the broker has not read."""
    monkeypatch.setattr("app.mqtt.disconnecting.LINGER_SECONDS", 60.0)  # the broker may take its time
    with socket.create_server((HOST, 0)) as listener, ThreadPoolExecutor() as threads:
        client = socket.create_connection(listener.getsockname())
        broker, _ = listener.accept()
        with broker:
            broker.sendall(b"x" * 50_000)
            stopping = threads.submit(disconnect, StoppingClient(client))
            assert select.select([broker], [], [], WAIT_SECONDS)[0]
            broker.sendall(b"x" * 50_000)  # what it sends before it has read DISCONNECT
            assert _everything_from(broker) == ACKNOWLEDGEMENTS + DISCONNECT_PACKET
        stopping.result(60)


def _everything_from(connection) -> bytes:
    """Return what comes until the other side has closed its connection."""
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


@pytest.mark.usefixtures("without_collector")
def test_an_attempt_that_fails_leaves_nothing_in_memory():
    """P6: the broker is away for days; each attempt has a TLS context of nearly a megabyte."""
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        assert connect_and_end(make_settings(nobody.getsockname()[1], tls=True)) == [False, False]


@pytest.mark.usefixtures("without_collector")
def test_a_connection_that_ended_leaves_nothing_in_memory():
    """P6: neither its unacknowledged messages nor a large packet that came in half."""
    whole = connack_packet(5) + publish_packet("a", b"x", 1, 1) + publish_packet("a", b"x", 2, 2)
    half = publish_packet("a", b"x" * 100_000, 1, 3)[:-1]
    with socket.create_server((HOST, 0)) as listener:
        assert connect_and_end(make_settings(listener.getsockname()[1]), whole + half) == [False, False]


def test_a_publisher_of_the_tests_leaves_nothing_to_the_collector(without_collector):
    """It would complain of sockets that are open, in whatever test it comes to that."""
    with ScriptedBroker() as broker:
        publisher = Publisher(broker.port)
        client = weakref.ref(publisher._client)
        publisher.close()
        del publisher
        wait_until(lambda: client() is None, "the end of the client")
