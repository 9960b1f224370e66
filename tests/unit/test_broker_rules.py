"""What a broker sends besides PUBLISH: what MQTT forbids ends the connection, and nothing it sends is dear.

Tried on a client without a socket.
"""

from __future__ import annotations

import logging
import socket
import time
import tracemalloc

import pytest
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from app.core.message import Message
from app.mqtt import transfer
from app.mqtt.client import READ_BYTES, BridgeClient
from app.mqtt.connection import ConnectionSettings
from app.mqtt.control_packets import LONGEST_PROPERTIES_BYTES, MOST_UNASKED_PINGRESP, MalformedPacketError
from app.mqtt.conversation import Conversation
from app.mqtt.generations import Generations
from app.mqtt.naming import MOST_SAID
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.transfer import DRIP_BYTES, DRIP_SECONDS, MOST_UNSENT_BYTES, MOST_UNSENT_PACKETS, Transfer
from app.mqtt.window import Window
from app.throttle import Throttle
from tests.support.scripted_broker import (
    CONNACK,
    CONNECT,
    SUBACK,
    UNSUBACK,
    ScriptedBroker,
    connack_packet,
    packet_of,
    publish_packet,
    pubrel_packet,
    variable_byte_integer,
)
from tools.brokers.process import HOST

UNHEARD = logging.getLogger("unheard")
UNHEARD.setLevel(logging.CRITICAL)
ENDS_THE_CONNECTION = (MalformedPacketError, MalformedPacket)
ASKED, OTHER = b"\x10\x01", b"\x10\x02"  # packet identifiers of a SUBSCRIBE with one filter, and of what nobody asked
LEFT = b"\x10\x03"  # of an UNSUBSCRIBE with two
BEHIND = publish_packet("a", b"behind", 0)
MEBIBYTE = 1024 * 1024


def text(identifier, value):
    return bytes([identifier]) + len(value).to_bytes(2, "big") + value


def with_properties(header, before, properties, after=b""):
    return packet_of(header, before + variable_byte_integer(len(properties)) + properties + after)


def connack(properties, reason=0):
    return connack_packet(5, reason, properties=properties)


class Wire:
    """A client without a socket, and what it handed over."""

    def __init__(self, version=5, window=None):
        self.batches, self.payloads, self.released = 0, [], []
        self.window = window or Window(lambda: None)
        self.session = Session(Generations(("a/#",), {"a/#": 1}), qos=2)
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self.client = BridgeClient("c", protocol, self.session, self.window, self.hand_over, 100_000_000)
        self.conversation = Conversation(self.client, self.session, lambda _: None, Throttle(UNHEARD), Attempt(60))
        self.client.reader.control.expect(SUBACK, int.from_bytes(ASKED, "big"), 1)
        self.client.reader.control.expect(UNSUBACK, int.from_bytes(LEFT, "big"), 2)

    def hand_over(self, batch, released):
        self.batches += 1
        self.payloads += [message.payload for message in batch.messages]
        self.released += released

    def take(self, *packets):
        self.client.reader.feed(b"".join(packets))


# In the order of the specification: what it is, the version of MQTT (0: both), and the packets.
HELLO = {4: connack_packet(4), 5: connack_packet(5)}
FORBIDDEN = [
    ("type 0", 0, [b"\x00\x00"]),
    ("CONNECT", 0, [packet_of(0x10, b"\0\4MQTT\5\0\0\0\0")]),
    ("CONNACK with reserved flags", 0, [b"\x21\x00"]),
    ("a second CONNACK", 4, [HELLO[4]]),
    ("a second CONNACK", 5, [HELLO[5]]),
    ("PUBACK", 0, [b"\x40\x02\0\1"]),
    ("PUBREC", 0, [b"\x50\x02\0\1"]),
    ("PUBREL with reserved flags", 0, [b"\x60\x02\0\1"]),
    ("PUBREL longer", 4, [b"\x62\x03\0\1\0"]),
    ("PUBREL without packet identifier", 0, [b"\x62\x01\0"]),
    ("PUBCOMP", 0, [b"\x70\x02\0\1"]),
    ("SUBSCRIBE", 0, [b"\x82\x02\0\1"]),
    ("SUBACK that answers nothing", 4, [packet_of(0x90, OTHER + b"\x01")]),
    ("SUBACK that answers nothing", 5, [packet_of(0x90, OTHER + b"\0\x01")]),
    ("SUBACK that answers nothing", 5, [packet_of(0x90, ASKED + b"\0\x01")] * 2),
    ("SUBACK that answers nothing", 5, [packet_of(0x90, LEFT + b"\0\x01\x01")]),
    ("SUBACK with more or fewer reason codes", 4, [packet_of(0x90, ASKED)]),
    ("SUBACK with more or fewer reason codes", 5, [packet_of(0x90, ASKED + b"\0\x01\x01")]),
    ("SUBACK with a reason code that nobody knows: 0x3", 4, [packet_of(0x90, ASKED + b"\x03")]),
    ("SUBACK with a reason code that nobody knows: 0x11", 5, [packet_of(0x90, ASKED + b"\0\x11")]),
    ("UNSUBACK with a reason code that nobody knows: 0x1", 5, [packet_of(0xB0, LEFT + b"\0\0\1")]),
    ("SUBACK with properties past its end", 5, [packet_of(0x90, ASKED + b"\x05\x01")]),
    ("SUBACK with a property past the end", 5, [packet_of(0x90, ASKED + b"\x04\x1f\0\x05a\x01")]),
    ("SUBACK with a property that it must not have", 5, [packet_of(0x90, ASKED + b"\x02\x24\x01\x01")]),
    ("SUBACK with a property that it must not have", 5, [packet_of(0x90, ASKED + b"\x02\x7f\x01\x01")]),
    ("SUBACK with a property twice", 5, [packet_of(0x90, ASKED + b"\x06\x1f\0\0\x1f\0\0\x01")]),
    ("SUBACK with reserved flags", 0, [b"\x91\x02" + ASKED]),
    ("UNSUBSCRIBE", 0, [b"\xa2\x02\0\1"]),
    ("UNSUBACK that answers nothing", 4, [packet_of(0xB0, OTHER)]),
    ("UNSUBACK that answers nothing", 4, [packet_of(0xB0, ASKED)]),
    ("UNSUBACK longer", 4, [packet_of(0xB0, LEFT + b"\0\0")]),
    ("UNSUBACK with more or fewer reason codes", 5, [packet_of(0xB0, LEFT + b"\0\0")]),
    ("PINGREQ", 0, [b"\xc0\x00"]),
    ("PINGRESP longer", 0, [b"\xd0\x01\x00"]),
    ("more than 100 PINGRESP", 0, [b"\xd0\x00" * (MOST_UNASKED_PINGRESP + 1)]),
    ("DISCONNECT, which no broker may send here", 4, [b"\xe0\x00"]),
    ("DISCONNECT with reserved flags", 5, [b"\xe1\x00"]),
    ("DISCONNECT with a property that it must not have", 5, [packet_of(0xE0, b"\x80\x03\x13\0\x01")]),
    ("AUTH", 0, [b"\xf0\x00"]),
]  # fmt: skip
FORBIDDEN_FIRST = [
    ("PUBLISH before CONNACK", 0, BEHIND),
    ("PUBREL before CONNACK", 0, pubrel_packet(1)),
    ("SUBACK before CONNACK", 0, packet_of(0x90, ASKED + b"\0\x01")),
    ("PINGRESP before CONNACK", 0, b"\xd0\x00"),
    ("PUBACK before CONNACK", 0, b"HTTP/1.1 400 Bad Request\r\n"),
    ("CONNACK with reserved flags", 0, b"\x20\x02\x02\x00"),
    ("CONNACK of fewer than two bytes", 0, b"\x20\x01\x00"),
    ("the broker does not speak MQTT 3.1.1", 4, b"\x20\x02\x00\x01"),
    ("CONNACK longer", 4, b"\x20\x03\x00\x00\x00"),
    ("CONNACK with bytes behind its properties", 5, b"\x20\x04\x00\x00\x00\x00"),
    ("CONNACK with a value that is out of range: property 0x21 is 0", 5, connack(b"\x21\0\0")),  # Receive Maximum
    ("CONNACK with a value that is out of range: property 0x24 is 2", 5, connack(b"\x24\2")),  # Maximum QoS
    ("CONNACK with a value that is out of range: property 0x25 is 2", 5, connack(b"\x25\2")),  # Retain Available
    ("CONNACK with a value that is out of range: property 0x27 is 0", 5, connack(b"\x27\0\0\0\0")),  # packet size
    ("CONNACK with a value that is out of range: property 0x28 is 7", 5, connack(b"\x28\7")),
    ("CONNACK with a value that is out of range: property 0x29 is 2", 5, connack(b"\x29\2")),
    ("CONNACK with a value that is out of range: property 0x2a is 255", 5, connack(b"\x2a\xff")),
    ("CONNACK with a property twice: 0x13", 5, connack(b"\x13\0\1\x13\0\1")),  # Server Keep Alive
    ("CONNACK with a property that it must not have: 0x15", 5, connack(text(0x15, b"SCRAM"))),
    ("CONNACK with a property that it must not have: 0x16", 5, connack(text(0x16, b"x"))),
    ("CONNACK with a property that it must not have: 0xb", 5, connack(b"\x0b\1")),
    ("CONNACK with a reason code that nobody knows: 0x7", 5, connack(b"", 7)),
    ("codec|UTF|utf", 5, connack(text(0x1F, b"\xff\xfe"))),
]  # fmt: skip


def versions(cases):
    return [
        pytest.param(fault, number, packets, id=f"{fault.partition('|')[0]}-{number}")
        for fault, version, packets in cases
        for number in ((version,) if version else (4, 5))
    ]


@pytest.mark.parametrize(("fault", "version", "packets"), versions(FORBIDDEN))
def test_what_a_broker_must_not_send_ends_the_connection_and_nothing_behind_it_is_taken(fault, version, packets):
    wire = Wire(version)
    wire.take(HELLO[version], BEHIND if version == 5 else publish_packet("a", b"behind", 0, version=4))
    with pytest.raises(ENDS_THE_CONNECTION, match=fault):
        wire.take(*packets, BEHIND)
    assert wire.payloads == [b"behind"], "what came before it"


@pytest.mark.parametrize(("fault", "version", "packet"), versions(FORBIDDEN_FIRST))
def test_a_connection_that_does_not_begin_as_it_must_ends(fault, version, packet):
    wire = Wire(version)
    with pytest.raises(ENDS_THE_CONNECTION, match=fault):
        wire.take(packet, BEHIND)
    assert not wire.payloads


def test_kinds_of_faults_are_few_whatever_a_broker_puts_into_them():
    """What is logged once a minute is told apart by kind: numbers that the broker chooses are no part of it."""
    kinds = set()
    for number in range(1, 100):
        for packet in (
            packet_of(0x90, b"\x20" + bytes([number % 256]) + b"\0\1"),
            b"\x90" + variable_byte_integer(10**6 + number),
            b"\xd0" + variable_byte_integer(number),
        ):
            wire = Wire()
            with pytest.raises(MalformedPacketError) as raised:
                wire.take(HELLO[5], packet)
            kinds.add(raised.value.kind)
    assert len(kinds) == 3


LONG_REASON = text(0x1F, b"x" * 65_535)
MANY_USER_PROPERTIES = (text(0x26, b"") + b"\0\0") * 13_000


@pytest.mark.parametrize(
    ("version", "packets"),
    [
        (5, [with_properties(0x90, ASKED, LONG_REASON, b"\x02"), with_properties(0xB0, LEFT, LONG_REASON, b"\0\x11")]),
        (5, [with_properties(0x90, ASKED, LONG_REASON + MANY_USER_PROPERTIES[:60_000], b"\x87")]),
        (5, [packet_of(0x62, b"\x01\x01"), packet_of(0x62, b"\x01\x01\0"), packet_of(0x62, b"\x01\x01\0" + b"\0")]),
        (5, [with_properties(0x62, b"\x01\x01\x92", LONG_REASON)]),
        (4, [packet_of(0x90, ASKED + b"\x80"), packet_of(0xB0, LEFT), pubrel_packet(9), packet_of(0x6A, b"\0\x09")]),
        (4, [packet_of(0x90, ASKED + b"\x87")]),
        (4, [packet_of(0x90, ASKED + b"\xa3")]),
        (5, [packet_of(0x90, ASKED + b"\0\xa3"), packet_of(0xB0, LEFT + b"\0\xff\x8a")]),
        (5, [b"\xd0\x00" * MOST_UNASKED_PINGRESP]),
    ],
)
def test_what_mqtt_allows_and_what_real_brokers_do_is_taken(version, packets):
    """Reasons of any length, user properties, a PUBREL that nobody knows, and DUP on it, as MQTT 3.1 had it."""
    wire = Wire(version)
    wire.take(HELLO[version], *packets, publish_packet("a", b"behind", 0, version=version))
    assert wire.payloads == [b"behind"]


@pytest.mark.parametrize(
    "properties",
    [
        b"\x27\xff\xff\xff\xff",  # a Maximum Packet Size above what any packet may have is allowed
        b"\x21\xff\xff\x22\xff\xff\x24\x01\x11\xff\xff\xff\xff\x13\0\0",
        text(0x12, b"assigned") + text(0x1A, b"response information that nobody asked for"),
        LONG_REASON + text(0x1C, b"y" * 60_000),
    ],
)
def test_what_connack_may_say_is_no_fault(properties):
    wire = Wire()
    wire.take(connack(properties), BEHIND)
    assert wire.payloads == [b"behind"]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", [2, 6, 9, 11, 13, 14, 15])
def test_a_packet_that_is_too_long_is_refused_from_its_first_bytes(kind, version):
    wire = Wire(version)
    if kind != CONNACK:
        wire.take(HELLO[version])
    header = bytes([kind << 4 | (2 if kind == 6 else 0)]) + variable_byte_integer(60_000_000)
    with pytest.raises(MalformedPacketError):
        for byte in header:
            wire.take(bytes([byte]))
    assert wire.client.reader._needed_bytes <= len(header), "nothing of it was waited for"


def test_the_dearest_control_packets_take_little_memory_and_time():
    """As many user properties as the longest packet holds; paho would make objects of them, copying all each time."""
    properties = (text(0x26, b"") + b"\0\0") * (LONGEST_PROPERTIES_BYTES // 5)
    packets = [
        connack(properties),
        with_properties(0x90, ASKED, properties, b"\1"),
        with_properties(0xE0, b"\0", properties),
    ]
    wire = Wire()
    tracemalloc.start()
    began = time.process_time()
    for packet in packets:
        wire.take(packet)
    seconds = time.process_time() - began
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * MEBIBYTE
    assert seconds < 2, "some 20 ms each, with the tracing of memory more"


def test_what_comes_behind_disconnect_belongs_to_no_connection():
    """It is sent again on the next one: taken here, it would be a message twice."""
    wire = Wire()
    wire.take(HELLO[5], packet_of(0xE0, b"\x8b\0"), BEHIND, b"\x00\x00")
    assert not wire.payloads


@pytest.mark.parametrize(
    ("version", "refusal"),
    [
        (5, connack(b"", 0x87)),
        (5, connack(b"", 0xFE)),
        (5, b"\x20\x02\0\1"),
        (4, b"\x20\x02\0\5"),
        (4, b"\x20\x02\0\xff"),
    ],
)
def test_a_refusal_is_no_fault_of_the_brokers(version, refusal):
    """And what comes behind it belongs to no connection."""
    wire = Wire(version)
    wire.take(refusal, BEHIND, b"\x00\x00")
    assert wire.conversation.is_refused
    assert not wire.payloads


@pytest.mark.parametrize(("asked", "granted", "expected"), [(30, 0, 30), (30, 65_535, 30), (30, 5, 5), (30, None, 30)])
def test_no_broker_makes_us_blind_by_its_keepalive(asked, granted, expected):
    """It may shorten ours. Longer, or none, a dead connection would be noticed after hours, or never."""
    wire = Wire()
    wire.client.keepalive = asked
    wire.take(connack(b"" if granted is None else b"\x13" + granted.to_bytes(2, "big")))
    assert wire.client.keepalive == expected


# ---- sessions


def test_a_session_counts_as_lost_only_if_it_had_something_of_ours():
    """A broker that ends each connection before it grants anything has nothing to lose."""
    session = Session(Generations(("a/#",), {"a/#": 1}))
    for _ in range(1_000):
        session.on_connected(session_present=False, renews=True)
    assert session.lost == 0
    session.subscriptions.on_subscribed("a/#", None)
    session.on_connected(session_present=False, renews=True)
    assert session.lost == 1
    session.on_connected(session_present=True, renews=True)
    session.on_connected(session_present=False, renews=True)
    assert session.lost == 2


def test_a_broker_that_refuses_hundreds_of_filters_costs_a_bounded_number_of_lines(caplog):
    """Each of the first is named; all of them are on the page and in `/health/ready`."""
    wire = Wire()
    heard = logging.getLogger("heard")
    wire.conversation = Conversation(wire.client, wire.session, lambda _: None, Throttle(heard), Attempt(60))
    wire.take(HELLO[5])
    for _ in range(3):
        for number in range(1, 500):
            wire.conversation.subscriber.requests._note("SUBSCRIBE", number, [f"a/{number}"])
            wire.take(packet_of(0x90, number.to_bytes(2, "big") + b"\0\x87"))
    told = [
        record.getMessage() for record in caplog.records if record.name == "heard" and record.levelno > logging.INFO
    ]
    assert len(told) == MOST_SAID + 1
    assert told[0] == "the MQTT broker refused the filter 'a/1': Not authorized"
    assert len(wire.session.subscriptions.refused) == 499


@pytest.mark.parametrize("filters", [1, 3])
def test_a_broker_that_says_for_ever_that_an_identifier_is_in_use_is_asked_ever_more_rarely(filters, monkeypatch):
    """Each round of answers counts once, however many filters were asked for."""
    wire = Wire()
    wire.take(HELLO[5])
    subscriber, pauses = wire.conversation.subscriber, []
    monkeypatch.setattr(subscriber, "_go_on_when_answered", lambda: None)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)  # else seconds may pass between asking and looking
    for _ in range(7):
        for number in range(1, filters + 1):
            subscriber.requests._note("SUBSCRIBE", number, [f"a/{number}"])
            wire.take(packet_of(0x90, number.to_bytes(2, "big") + b"\0\x91"))
        pauses.append(subscriber._ask_again_at - 1000.0)
        subscriber._soon.begin_round()  # as when it asks again
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


# ---- floods


def stored_message(identifier):
    message = Message(b"a", b"payload", 2, 4, identifier, b"", 0, None)
    message.stored = message.safe = message.finished = True
    return message


def test_however_often_pubrel_comes_the_keeper_is_asked_once_and_the_answers_go_in_one_piece():
    wire = Wire()
    wire.take(HELLO[5])
    wire.session.qos2.awaiting_release[7] = stored_message(7)
    for _ in range(20):
        wire.take(pubrel_packet(7) * 1_000, pubrel_packet(8) * 1_000)
    assert wire.released == [7]
    assert len(wire.window.outgoing) == 20, "one piece for what was read at once"
    wire.window.complete([7])  # the table writer has forgotten it
    wire.take(pubrel_packet(7))
    assert wire.released == [7, 7], "and a PUBREL after that is answered too"


def test_however_often_a_qos_2_message_comes_again_the_event_loop_is_woken_once_for_what_was_read():
    wire = Wire()
    wire.take(HELLO[5])
    for identifier in range(1, 1_000):
        wire.session.qos2.awaiting_release[identifier] = stored_message(identifier)
        wire.session.qos2.stored_fingerprints[identifier] = stored_message(identifier).fingerprint
    before = wire.batches
    wire.take(*(publish_packet("a", b"payload", 2, identifier, dup=True) for identifier in range(1, 1_000)))
    assert (wire.batches - before, wire.payloads) == (1, [])
    assert len(wire.window.pending) == 999


def test_messages_that_kafka_has_are_not_held_until_a_pubrel_that_never_comes():
    """MQTT lets a broker take its time for PUBREL; one that heeds no Receive Maximum has 65,535 messages open."""
    wire = Wire()
    wire.take(HELLO[5])
    kept = []
    wire.client.reader._pass_batch = lambda batch, _released: kept.extend(batch.messages)
    tracemalloc.start()
    for identifier in range(1, 2_001):
        wire.take(publish_packet("a", identifier.to_bytes(2, "big") * 5_000, 2, identifier))
        for message in kept:
            message.safe = message.finished = True  # as Kafka's report and the acknowledgement do
        wire.window.acknowledge_safe()
        kept.clear()
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held_bytes < 4 * MEBIBYTE, "of the 20 MB that came"
    wire.client.reader._pass_batch = wire.hand_over
    wire.window.outgoing.clear()
    wire.take(publish_packet("a", b"\0\x07" * 5_000, 2, 7, dup=True))
    assert not wire.payloads, "it is known all the same"
    wire.window.acknowledge_safe()
    wire.take(pubrel_packet(7))
    assert list(wire.window.outgoing) == [b"\x50\x02\0\x07", b"\x70\x02\0\x07"], "and nothing asks the table"


def test_a_broker_that_reads_nothing_is_read_no_more_and_then_left(monkeypatch):
    """What it sends has to be answered: without a bound, the answers would fill the memory."""
    with ScriptedBroker(answers_connect=False) as broker:
        wire = Wire()
        client = wire.client
        settings = ConnectionSettings(HOST, broker.port, "c", MQTTProtocolVersion.MQTTv5, 30, 60, 10, 10**8)
        settings.connect(client, Attempt(60))
        client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        client.loop_write()
        broker.wait_for(CONNECT)
        broker._ended.set()  # its thread reads no more
        broker._thread.join()
        wire.take(HELLO[5])
        flood = pubrel_packet(9) * (READ_BYTES // 4)
        longest = 0
        for _ in range(40):
            if not client.is_clogged:
                wire.take(flood)
            client.loop_write()
            assert client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS
            longest = max(longest, transfer.unsent_bytes(client._out_packet))
        assert client.is_clogged
        assert longest <= MOST_UNSENT_BYTES + READ_BYTES
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 1.5 * 30)
        client.loop_misc()
        assert client.socket() is None
        assert wire.session.standing.last_fault.startswith("the MQTT broker reads nothing of what we send")
        client.close()


def test_answers_that_a_broker_does_not_read_are_few_packets_however_few_bytes_each_has():
    """All of them are looked at before each read: a broker that asks for one at a time would make that slow."""
    wire = Wire()
    answer = {"to_process": 4, "pos": 0}
    wire.client._out_packet.extend([answer] * MOST_UNSENT_PACKETS)
    assert not wire.client.is_clogged
    wire.client._out_packet.append(answer)
    assert wire.client.is_clogged


def drips(wire):
    reader = wire.client.reader
    return wire.client._transfer.drips(reader.packet_begins_at, reader.received_bytes)


def test_a_packet_whose_first_part_comes_after_a_long_silence_does_not_drip(monkeypatch):
    wire = Wire()
    wire.take(HELLO[5], BEHIND)
    now = time.monotonic() + 10 * DRIP_SECONDS
    monkeypatch.setattr("app.mqtt.transfer.time.monotonic", lambda: now)
    wire.take(BEHIND[:5])
    assert not drips(wire)
    wire.take(BEHIND[5:], BEHIND[:5])
    assert not drips(wire)
    now += DRIP_SECONDS
    assert drips(wire)


def test_a_packet_that_drips_is_given_up_and_a_slow_one_is_not(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("app.mqtt.transfer.time.monotonic", lambda: now[0])

    def drips(bytes_each_second, seconds):
        watch = Transfer()
        for second in range(seconds + 1):
            if watch.drips(0, second * bytes_each_second):
                return True
            now[0] += 1
        return False

    assert drips(1, int(DRIP_SECONDS))
    assert not drips(int(DRIP_BYTES / DRIP_SECONDS), 3_600)
