"""The MQTT client fed with bytes of every kind: cut anywhere, changed anywhere, and random.

The bytes go into the client without a socket, which only here would cost time; what a malformed packet does to a whole
worker is in `test_mqtt.py`. What the client may raise is what `BridgeClient.loop_read` ends the connection for.
"""

from __future__ import annotations

import itertools
import logging

from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from scripted_broker import PINGRESP_PACKET, connack_packet, packet_of, pubrel_packet
from scripted_broker import variable_byte_integer as written_length

from app.mqtt.acknowledgements import Window
from app.mqtt.client import BridgeClient, MalformedPacketError
from app.mqtt.properties import PublishProperties, decode, variable_byte_integer
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.subscriber import Subscriber
from app.throttle import Throttle

UNHEARD = logging.getLogger("unheard")
UNHEARD.setLevel(logging.CRITICAL)
LARGEST_PACKET_BYTES = 5 + 268_435_455
ENDS_THE_CONNECTION = (OSError, MalformedPacketError, MalformedPacket)

# The MQTT 5 properties of a PUBLISH as they are on the wire, and what is to become of each.
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=4)
versions = st.sampled_from((4, 5))


def length_prefixed(data):
    return len(data).to_bytes(2, "big") + data


properties = st.lists(
    st.one_of(
        st.integers(1, 268_435_455).map(lambda number: b"\x0b" + written_length(number)),
        texts.map(lambda text: b"\x03" + length_prefixed(text.encode())),
        st.binary(max_size=200).map(lambda data: b"\x09" + length_prefixed(data)),
        st.tuples(texts, texts).map(lambda pair: b"\x26" + b"".join(length_prefixed(t.encode()) for t in pair)),
        st.sampled_from((b"\x01\x01", b"\x02\0\0\0\x05", b"\x23\0\x01")),
    ),
    max_size=3,
).map(b"".join)


class Receiver:
    """A client with its session, and what it handed over."""

    def __init__(self, version):
        self.messages = []
        self.released = []
        self.window = Window(lambda: None)
        self.session = Session(("a/#",), {"a/#": 1}, qos=2)
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self.client = BridgeClient("fuzzed", protocol, self.session, self.window, self.hand_over, 100_000_000)
        Subscriber(self.client, self.session, lambda _: None, Throttle(UNHEARD), Attempt(60))
        self.client._take(connack_packet(version))

    def hand_over(self, batch, released):
        self.messages += [
            (each.topic, each.payload, each.qos, each.flags, each.packet_identifier, each.properties)
            for each in batch.messages
        ]
        self.released += released

    def take(self, pieces):
        """Feed the pieces; whatever happens, no more is held than the packet needs that is not whole."""
        for piece in pieces:
            self.client._take(piece)
            assert self.client._unparsed_bytes < self.client._needed_bytes <= LARGEST_PACKET_BYTES
        assert self.client._unparsed_bytes == sum(map(len, self.client._unparsed))

    def take_anything(self, pieces):
        """Feed the pieces until the connection would end; return whether it would."""
        try:
            self.take(pieces)
        except ENDS_THE_CONNECTION:
            return True
        return False


@st.composite
def publish(draw, version, identifier):
    """Draw a PUBLISH packet; return it and what is to be handed over of it."""
    topic = draw(texts.map(str.encode) | st.binary(max_size=5))
    payload = draw(st.binary(max_size=20) | st.sampled_from((bytes(130), b"\xff" * 17_000)))
    qos = draw(st.integers(0, 2))
    flags = qos << 1 | draw(st.booleans())
    data = draw(properties) if version == 5 else b""
    body = length_prefixed(topic) + (identifier.to_bytes(2, "big") if qos else b"")
    body += written_length(len(data)) + data if version == 5 else b""
    return packet_of(0x30 | flags, body + payload), (topic, payload, qos, flags, identifier if qos else 0, data)


@st.composite
def trains(draw, version, max_packets=8):
    """Draw packets that a broker may send, and what is to be handed over of each: a message or nothing."""
    other = [
        PINGRESP_PACKET,
        pubrel_packet(60_000),
        packet_of(0x90, b"\xff\xff\0\x01" if version == 5 else b"\xff\xff\x01"),
        packet_of(0xB0, b"\xff\xff\0\x11" if version == 5 else b"\xff\xff"),
    ]
    count = draw(st.integers(1, max_packets))
    return [
        draw(publish(version, identifier) | st.sampled_from([(packet, None) for packet in other]))
        for identifier in range(1, count + 1)
    ]


def cut(data, places):
    """Cut data at these places, as far as it reaches."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[first:last] for first, last in itertools.pairwise(edges) if first < last]


cuts = st.lists(st.integers(0, 40) | st.integers(0, 2**20), max_size=10)


@given(versions, st.data(), cuts)
def test_a_packet_train_gives_the_same_messages_wherever_it_is_cut(version, data, places):
    """Invariant 1: what the network does to the packets loses, doubles and changes nothing."""
    packets = data.draw(trains(version))
    expected = [message for _, message in packets if message]
    whole = b"".join(packet for packet, _ in packets)
    receiver = Receiver(version)
    receiver.take(cut(whole, places))
    assert receiver.messages == expected
    assert receiver.client._unparsed_bytes == 0
    assert [message.packet_identifier for message in receiver.window.pending] == [
        each[4] for each in expected if each[2]
    ]


@given(versions, st.data())
def test_a_packet_train_that_comes_byte_by_byte_gives_its_messages(version, data):
    """Invariant 1: the slowest network there is."""
    packets = data.draw(trains(version, 3))
    receiver = Receiver(version)
    receiver.take(cut(b"".join(packet for packet, _ in packets), range(40_000)))
    assert receiver.messages == [message for _, message in packets if message]


MALFORMED = (
    packet_of(0x36, b"\0\x01a\0\x01\0"),  # QoS 3
    packet_of(0x32, b"\0\x01a\0\0\0"),  # packet identifier 0
    packet_of(0x30, b"\0\x09a"),  # a topic past the end
    packet_of(0x30, b""),
    packet_of(0x62, b"\0"),  # PUBREL without identifier
    packet_of(0x90, b""),  # SUBACK without identifier
    packet_of(0xB0, b"\0"),
    packet_of(0x20, b""),
    b"\0\0",
    b"\xf0\0",
    b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
)


@given(versions, st.data(), st.sampled_from(MALFORMED), cuts)
def test_what_came_before_a_malformed_packet_is_handed_over_and_nothing_after_it(version, data, malformed, places):
    """Invariant 1: the broker's fault costs the connection, and no message that was received whole."""
    before, after = data.draw(trains(version)), data.draw(trains(version))
    whole = b"".join((*(packet for packet, _ in before), malformed, *(packet for packet, _ in after)))
    receiver = Receiver(version)
    assert receiver.take_anything(cut(whole, places)), "the connection ends"
    assert receiver.messages == [message for _, message in before if message]


changes_anywhere = st.lists(
    st.tuples(st.integers(0, 2**20), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3
)


@given(versions, st.data(), changes_anywhere, cuts)
def test_changed_packets_end_the_connection_at_worst(version, data, changes, places):
    """Invariant 1: bytes that are changed, added or left out raise nothing unforeseen; what was whole stays."""
    packets = data.draw(trains(version))
    whole = b"".join(packet for packet, _ in packets)
    first = len(whole)
    for anywhere, inserted, left_out in changes:
        place = anywhere % (len(whole) + 1)
        first = min(first, place)
        whole = whole[:place] + inserted + whole[place + left_out :]
    receiver = Receiver(version)
    receiver.take_anything(cut(whole, places))
    untouched, end = [], 0
    for packet, message in packets:
        end += len(packet)
        if end <= first and message:
            untouched.append(message)
    assert receiver.messages[: len(untouched)] == untouched


@given(versions, st.lists(st.binary(max_size=60), max_size=6))
@example(5, [b"\x30\xff\xff\xff\x7f" + bytes(1000)])
def test_random_bytes_end_the_connection_at_worst(version, pieces):
    """Invariant 6: and no more of them is kept than a packet may be long."""
    Receiver(version).take_anything(pieces)


other_packets = st.builds(packet_of, st.integers(0, 255), st.binary(max_size=12) | properties)


@given(versions, st.lists(other_packets, max_size=6))
def test_packets_with_random_contents_end_the_connection_at_worst(version, packets):
    """Invariant 1: also those that are left to paho, with any reason, properties and length."""
    Receiver(version).take_anything(packets)


# --- properties


@given(st.binary(max_size=40) | st.lists(properties | st.binary(max_size=3), max_size=3).map(b"".join))
def test_random_properties_are_decoded_or_refused(data):
    """Invariant 5: the router leaves refused ones out; anything else that is raised would stop every route."""
    try:
        found = decode(data)
    except (ValueError, IndexError):
        return
    assert isinstance(found, PublishProperties)
    assert sum(len(name) + len(value) for name, value in found.headers) <= 30 * len(data)


subscriptions = st.lists(st.integers(1, 268_435_455), max_size=3)


@given(subscriptions, st.lists(st.tuples(texts, texts), max_size=3), st.binary(max_size=9))
def test_what_another_implementation_encodes_is_decoded_to_the_same(identifiers, pairs, correlation_data):
    """Invariant 4: a subscription identifier that is read wrongly would drop the copy to keep."""
    encoded = Properties(PacketTypes.PUBLISH)
    for identifier in identifiers:
        encoded.SubscriptionIdentifier = identifier
    for pair in pairs:
        encoded.UserProperty = pair
    encoded.CorrelationData = correlation_data
    packed = encoded.pack()
    found = decode(packed[variable_byte_integer(packed, 0)[1] :])
    assert list(found.subscription_identifiers) == identifiers
    headers = [(f"mqtt-user-{name}", value.encode()) for name, value in pairs]
    assert sorted(found.headers) == sorted([*headers, ("mqtt-correlation-data", correlation_data)])
