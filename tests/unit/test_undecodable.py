"""Packets of the right length that cannot be decoded, and that a broker sends again on each connection."""

from __future__ import annotations

import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from app.core.message import UNDECODABLE_FLAG
from app.mqtt.client import BridgeClient
from app.mqtt.control_packets import MalformedPacketError
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.mqtt.undecodable import ENDED_CONNECTIONS, Undecodable
from app.mqtt.window import Window
from tests.support.scripted_broker import (
    connack_packet,
    packet_of,
    publish_packet,
)

BEHIND = publish_packet("a/b", b"behind", 1, 500)
# The packet, and what of it can be told: its topic and its packet identifier.
UNDECODABLE = {
    "properties past the end": (packet_of(0x32, b"\0\3a/b\0\x07\x7fabc"), b"a/b", 7),
    "properties past the end, QoS 2": (packet_of(0x34, b"\0\3a/b\0\x08\x7fabc"), b"a/b", 8),
    "length of the properties of five bytes": (packet_of(0x32, b"\0\3a/b\0\x09\xff\xff\xff\xff\x7fabc"), b"a/b", 9),
    "large": (packet_of(0x32, b"\0\3a/b\0\x0a\xff\xff\xff\x7fabc" + bytes(300_000)), b"a/b", 10),
    "large, with a length of five bytes": (packet_of(0x34, b"\0\1a\0\x0b" + b"\xff" * 4 + bytes(300_000)), b"a", 11),
    "large, QoS 3": (packet_of(0x36, b"\0\3a/b\0\x07\0" + bytes(300_000)), b"", 0),
    "QoS 3": (packet_of(0x36, b"\0\3a/b\0\x07\0abc"), b"", 0),
    "packet identifier 0": (packet_of(0x32, b"\0\3a/b\0\0\0abc"), b"", 0),
    "topic past the end": (packet_of(0x32, b"\0\xffa/b"), b"", 0),
    "empty": (packet_of(0x30, b""), b"", 0),
    "PUBREL without identifier": (packet_of(0x62, b"\0"), b"", 0),
}


class Broker:
    """What a broker does to us: the same packets on each connection."""

    def __init__(self):
        self.undecodable = Undecodable()
        self.session = Session(Generations(("a/#",), {"a/#": 1}), qos=2)
        self.messages = []

    def connect(self, *packets):
        """Send packets on a new connection; return its window, None if it ends for them."""
        window = Window(lambda: None)
        client = BridgeClient("c", MQTTProtocolVersion.MQTTv5, self.session, window, self.hand_over, 10**8)
        client.reader.undecodable = self.undecodable
        try:
            client.reader.feed(connack_packet(5, session_present=True))
            client.reader.feed(b"".join(packets))
        except (MalformedPacketError, MalformedPacket, ValueError, IndexError):
            return None
        return window

    def hand_over(self, batch, _released):
        self.messages += batch.messages


@pytest.mark.parametrize(("packet", "topic", "identifier"), UNDECODABLE.values(), ids=UNDECODABLE)
def test_a_few_connections_end_for_a_packet_that_comes_again_and_then_what_is_behind_it_comes(
    packet, topic, identifier
):
    broker = Broker()
    for _ in range(ENDED_CONNECTIONS):
        assert broker.connect(packet, BEHIND) is None
        assert not broker.messages
        packet = bytes([packet[0] | 8]) + packet[1:] if packet[0] & 0xF6 in {0x32, 0x34} else packet
    window = broker.connect(packet, BEHIND)
    assert window is not None
    set_aside, behind = broker.messages
    assert set_aside.flags & UNDECODABLE_FLAG
    assert set_aside.payload == packet, "all of its bytes are kept"
    assert (set_aside.topic, set_aside.packet_identifier) == (topic, identifier)
    assert behind.payload == b"behind"
    assert [message.packet_identifier for message in window.pending] == [*([identifier] if identifier else []), 500]


def test_what_cannot_be_acknowledged_becomes_one_dead_letter_however_often_it_comes():
    broker = Broker()
    packet = UNDECODABLE["QoS 3"][0]
    for _ in range(ENDED_CONNECTIONS + 4):
        broker.connect(packet)
    assert [message.payload for message in broker.messages] == [packet]


def test_a_stream_of_such_packets_ends_no_more_connections_than_one_of_them():
    broker = Broker()
    ended = 0
    for number in range(1, 50):
        ended += broker.connect(packet_of(0x32, b"\0\3a/b\0" + bytes([number]) + b"\x7fabc")) is None
    assert ended == ENDED_CONNECTIONS
    assert len(broker.messages) == 49 - ENDED_CONNECTIONS


def test_the_same_connection_ends_again_when_it_is_long_ago(monkeypatch):
    broker = Broker()
    clock = [1000.0]
    monkeypatch.setattr("app.mqtt.undecodable.time.monotonic", lambda: clock[0])
    packet = UNDECODABLE["QoS 3"][0]
    for _ in range(ENDED_CONNECTIONS):
        assert broker.connect(packet) is None
    assert broker.connect(packet)
    clock[0] += 3600
    assert broker.connect(packet) is None


def test_an_identifier_that_two_messages_use_acknowledges_one_and_loses_none():
    """[MQTT-2.2.1-3]; with DUP as well, as a broker sends them on its next connection."""
    broker = Broker()
    for dup in (False, True, True):
        first, second = (publish_packet("a/b", payload, 1, 7, dup=dup) for payload in (b"first", b"second"))
        assert broker.connect(first, second) is None
    assert broker.connect(first, second, BEHIND)
    assert [message.payload for message in broker.messages[-3:]] == [b"first", second, b"behind"]
    assert [message.packet_identifier for message in broker.messages[-3:]] == [7, 0, 500]


def test_other_packets_end_the_connection_each_time():
    """They are no messages, and a broker that sends them cannot be followed."""
    broker = Broker()
    for _ in range(2 * ENDED_CONNECTIONS):
        assert broker.connect(packet_of(0x90, b"")) is None
