"""The MQTT client's reader, for MQTT 3.1.1 and 5, with the bytes cut anywhere.

An input is two bytes of options and what a broker sends after CONNACK. `packet_reference` says which messages it has,
and where it must or may end the connection. Then all messages become safe, and the acknowledgements are compared: one
for each, in order.
"""

from __future__ import annotations

import itertools
import logging
import random
import time

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from app.core.memory_budget import MemoryBudget
from app.mqtt.client import BridgeClient
from app.mqtt.control_packets import MalformedPacketError
from app.mqtt.conversation import Conversation
from app.mqtt.generations import Generations
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.undecodable import ENDED_CONNECTIONS
from app.mqtt.window import Acknowledger, Window
from app.throttle import Throttle
from tests.model.fuzz.packet_reference import Expectation, Limits, read
from tests.model.fuzz.packet_shapes import changed
from tests.support.scripted_broker import connack_packet

LONGEST_BYTES = 4096

UNHEARD = logging.getLogger("unheard")
ENDS_THE_CONNECTION = (OSError, MalformedPacketError, MalformedPacket)
LARGEST_BYTES = 5 + 268_435_455
# Small ones, so that inputs reach what large packets do: these are gathered above 32 bytes, and read past above 128.
SMALL = Limits(gathered_above_bytes=32, largest_bytes=128)
USUAL = Limits(gathered_above_bytes=256 * 1024, largest_bytes=100_000_000)


class Receiver:
    """A client with its session, and what it handed over."""

    def __init__(self, version, limits, *, has_no_patience):
        self.messages = []
        self.handed = []
        self.window = Window(lambda: None)
        self.session = Session(Generations(("a/#",), {"a/#": 1}), qos=2)
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self.client = BridgeClient("f", protocol, self.session, self.window, self.hand_over, limits.largest_bytes)
        self.client.reader._gather_above_bytes = limits.gathered_above_bytes
        if has_no_patience:
            self.client.reader.undecodable._ended.extend([time.monotonic()] * ENDED_CONNECTIONS)
        Conversation(self.client, self.session, lambda _: None, Throttle(UNHEARD), Attempt(60))
        self.client.reader.feed(connack_packet(version))

    def hand_over(self, batch, released):
        """Take a batch as the event loop would."""
        assert not released, "nothing is in the table, so nothing waits for it"
        self.handed += batch.messages
        self.messages += [
            (each.topic, each.payload, each.qos, each.flags, each.packet_identifier, each.properties)
            for each in batch.messages
        ]

    def take(self, pieces):
        """Feed the pieces until the connection ends; return whether it did."""
        client = self.client
        for piece in pieces:
            try:
                client.reader.feed(piece)
            except ENDS_THE_CONNECTION:
                return True
            assert client.reader._unparsed_bytes < client.reader._needed_bytes <= LARGEST_BYTES, (
                "more is held than is needed"
            )
        assert client.reader._unparsed_bytes == sum(map(len, client.reader._unparsed))
        return False

    def acknowledgements(self, seed):
        """Have all messages become safe, in any order; return the packets that are sent for it."""
        shuffled = list(self.handed)
        random.Random(seed).shuffle(shuffled)
        acknowledger = Acknowledger(MemoryBudget())
        for message in shuffled:
            acknowledger.acknowledge([message])
        acknowledger.acknowledge(shuffled)  # once more: it changes nothing
        sent = b"".join(self.window.outgoing)
        return [sent[place : place + 4] for place in range(0, len(sent), 4)]


def pieces_of(data, way, seed):
    """Cut the data: not at all, between all bytes, or anywhere."""
    if way == 0 or not data:
        return [data] if data else []
    if way == 1:
        return [data[place : place + 1] for place in range(len(data))]
    choose = random.Random(seed)
    places = sorted({choose.randrange(len(data)) for _ in range(1 + seed % 7)} | {0, len(data)})
    return [data[first:last] for first, last in itertools.pairwise(places)]


def try_input(data):
    """Feed one input; raise if anything but the expected came of it."""
    if len(data) < 2:
        return
    options, seed, stream = data[0], data[1], bytes(data[2:])
    version = 5 if options & 1 else 4
    has_no_patience, limits = bool(options & 2), SMALL if options & 4 else USUAL
    expected: Expectation = read(stream, version, limits, has_no_patience=has_no_patience)
    receiver = Receiver(version, limits, has_no_patience=has_no_patience)
    ended = receiver.take(pieces_of(stream, options >> 3 & 3, seed))
    found = receiver.messages
    assert expected.allows(found, ended=ended), (
        f"handed over {found}, ended {ended}; expected {expected.messages}, to end {expected.must_end}, "
        f"or perhaps after {sorted(expected.may_end_after)} messages"
    )
    wanted, sent = expected.acknowledgements, receiver.acknowledgements(seed)
    may_be_part = ended and len(found) in expected.may_end_after  # at which of several packets is not told here
    assert sent == wanted or (may_be_part and is_part(sent, wanted)), f"acknowledged {sent}, expected {wanted}"


def is_part(part, whole):
    """Tell whether a list is another one of which some elements are left out."""
    rest = iter(whole)
    return all(element in rest for element in part)


def prepare():
    """Return what takes an input."""
    logging.disable(logging.CRITICAL)
    return try_input


__all__ = ["LONGEST_BYTES", "changed", "prepare"]
