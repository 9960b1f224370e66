"""The acknowledgement sequencer beside a plain model of broker and keeper, through any sequence of what befalls them.

The client, its window, the session and the conversation after CONNACK are the real ones; packets are fed to the client
as bytes, without a socket, as only so every order can be had. The broker of the model keeps its rules, with one
exception that real brokers make: when a connection ends they may drop a message that they had sent, as it expired, and
use its packet identifier for another one.

Its messages have different payloads, as a broker that uses an identifier again with DUP for the very same payload
cannot be told from one that delivers again.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from paho.mqtt.enums import MQTTProtocolVersion

from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.core.requests import Batch, ForgetIdentifiers
from app.mqtt.client import BridgeClient
from app.mqtt.control_packets import MalformedPacketError
from app.mqtt.conversation import Conversation
from app.mqtt.generations import Generations
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.window import Acknowledger, Window
from app.throttle import Throttle
from tests.support.scripted_broker import connack_packet, publish_packet, pubrel_packet

IDENTIFIERS = range(1, 4)  # few, so that they are used again soon
UNHEARD = logging.getLogger("unheard")
UNHEARD.setLevel(logging.CRITICAL)
PUBACK, PUBREC, PUBCOMP = 0x40, 0x50, 0x70

sessions = st.sampled_from((True, True, True, False))  # one lost session in four, as it ends much at once
places = st.lists(st.integers(0, 10), max_size=4)


@dataclass
class Delivery:
    """A message that the broker has sent with QoS 1 or 2 and that is not acknowledged to its end."""

    number: int
    qos: int
    identifier: int
    released: bool = False


def chosen_of(items, chosen):
    """Return some of the items, each once, in the order in which they are chosen."""
    return [items[place] for place in dict.fromkeys(place % len(items) for place in chosen)] if items else []


def fingerprint_of(number):
    """Return what the table keeps of a QoS 2 message beside its packet identifier."""
    return Message(b"a", b"%d" % number, 2, 4, 1, b"", 0, None).fingerprint


class WindowMachine(RuleBasedStateMachine):
    """One bridge and its broker."""

    @initialize(version=st.sampled_from((4, 5)))
    def begin(self, version):
        self.version = version
        self.numbers = itertools.count()
        self.in_flight: dict[int, Delivery] = {}
        self.safe_numbers = set()
        self.written: dict[int, int] = {}  # what the table holds: packet identifier of QoS 2, number of its message
        self.synced: dict[int, int] = {}
        self.window = None
        self.start_process()
        self.connect(session_present=False)
        self.take()
        self.sync()

    def start_process(self):
        """Start the bridge with what its table holds."""
        self.budget = MemoryBudget()
        self.acknowledger = Acknowledger(self.budget)
        self.session = Session(Generations((), {}))
        self.session.subscriptions.recover([], {})
        self.session.qos2.recover({identifier: fingerprint_of(number) for identifier, number in self.written.items()})
        self.known_numbers = set(self.written.values())  # of QoS 2: must not be received once more
        self.for_the_loop = deque()
        self.unsafe = []
        self.unsynced = []
        self.requests = []

    # ---- the connection

    def connect(self, *, session_present):
        if self.window is not None:
            self.window.close()
            self.old_windows.append((self.window, len(self.window.outgoing)))
        else:
            self.old_windows = []
        self.window = Window(lambda: None)
        protocol = MQTTProtocolVersion.MQTTv5 if self.version == 5 else MQTTProtocolVersion.MQTTv311
        self.client = BridgeClient("model", protocol, self.session, self.window, self.hand_over, 100_000_000)
        attempt = Attempt(60)
        self.conversation = Conversation(
            self.client, self.session, self.for_the_loop.append, Throttle(UNHEARD), attempt
        )
        self.wire = deque()  # acknowledgements that the broker has not read
        self.awaited = deque()  # deliveries of this connection that are to be acknowledged, in the order of receipt
        self.client.reader.feed(connack_packet(self.version, session_present=session_present))
        if not session_present:
            self.in_flight.clear()
            self.known_numbers.clear()
        for delivery in list(self.in_flight.values()):
            if delivery.released:
                self.client.reader.feed(pubrel_packet(delivery.identifier))
            else:
                self.deliver(delivery, dup=True)

    def hand_over(self, batch, released):
        """Count and pass on, as `MqttSource` does."""
        self.budget.received_messages += len(batch.messages)
        self.budget.received_bytes += batch.size_bytes
        self.for_the_loop.append(batch)
        if released:
            self.for_the_loop.append(ForgetIdentifiers(released, batch.window))

    def deliver(self, delivery, *, dup):
        if delivery not in self.awaited:
            self.awaited.append(delivery)
        self.send(delivery.number, delivery.qos, delivery.identifier, dup=dup)

    def send(self, number, qos, identifier=0, *, dup=False):
        self.client.reader.feed(publish_packet("a", b"%d" % number, qos, identifier, version=self.version, dup=dup))

    @property
    def free(self):
        return [identifier for identifier in IDENTIFIERS if identifier not in self.in_flight]

    def new_delivery(self, qos, place, identifiers):
        identifier = identifiers[place % len(identifiers)]
        delivery = self.in_flight[identifier] = Delivery(next(self.numbers), qos, identifier)
        return delivery

    # ---- what the broker does

    @precondition(lambda self: self.conversation.may_read)
    @rule(lot=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=3), taken=st.booleans())
    def publish(self, lot, taken):
        for qos, place in lot:
            if not qos:
                self.send(next(self.numbers), 0)
            elif self.free:
                self.deliver(self.new_delivery(qos, place, self.free), dup=False)
        if taken:
            self.take()

    @precondition(lambda self: self.awaited)
    @rule(place=st.integers(0, 4))
    def send_again(self, place):
        """Send a message again that is not acknowledged yet, on its own connection."""
        self.deliver(self.awaited[place % len(self.awaited)], dup=True)

    @precondition(lambda self: self.awaited)
    @rule(place=st.integers(0, 4), qos=st.integers(1, 2))
    def use_an_identifier_for_two_messages(self, place, qos):
        with pytest.raises(MalformedPacketError, match="two messages"):
            self.send(next(self.numbers), qos, self.awaited[place % len(self.awaited)].identifier)
        self.connect(session_present=True)

    @rule(count=st.integers(1, 6))
    def read_acknowledgements(self, count):
        self.read(count)

    def read(self, count, *, released_arrives=True):
        self.put_on_wire()
        for _ in range(min(count, len(self.wire))):
            kind, identifier = self.wire.popleft()
            delivery = self.in_flight[identifier]
            assert (kind == PUBACK) == (delivery.qos == 1)
            assert (kind == PUBCOMP) == delivery.released
            if kind == PUBREC:
                delivery.released = True
                if released_arrives:
                    self.client.reader.feed(pubrel_packet(identifier))
                    self.put_on_wire()
            else:
                del self.in_flight[identifier]

    @rule(
        session_present=sessions,
        read=st.integers(0, 4),
        expired=places,
        unseen=st.lists(st.tuples(st.integers(1, 2), st.integers(0, 4)), max_size=2),
        taken=st.booleans(),
    )
    def lose_connection(self, session_present, read, expired, unseen, taken):
        """Cut the connection, with packets on their way in both directions, and connect again."""
        self.read(read, released_arrives=False)
        for delivery in chosen_of([each for each in self.in_flight.values() if not each.released], expired):
            del self.in_flight[delivery.identifier]
        for qos, place in unseen:
            if self.free:
                self.new_delivery(qos, place, self.free)
        self.connect(session_present=session_present)
        if taken:
            self.take()

    # ---- what the event loop does

    @rule()
    def take(self):
        while self.for_the_loop:
            item = self.for_the_loop.popleft()
            if isinstance(item, Batch):
                self.take_messages(item)
            elif isinstance(item, ForgetIdentifiers):
                names = item.packet_identifiers
                for identifier in list(self.written) if names is None else names:
                    self.written.pop(identifier, None)
                self.requests.append(item)

    def take_messages(self, batch):
        for message in batch.messages:
            number = int(message.payload)
            if message.qos == 2:
                assert number not in self.known_numbers, "a QoS 2 message was received twice"
                self.known_numbers.add(number)
            self.unsafe.append(message)
        if batch.came_again:
            batch.window.acknowledge_safe()

    @rule(chosen=places)
    def confirm(self, chosen):
        """Kafka has some messages, whether or not the keeper wrote them meanwhile."""
        self.settle(chosen_of(self.unsafe, chosen))

    def settle(self, messages):
        for message in messages:
            message.finished = True
            self.safe_numbers.add(int(message.payload))
        self.acknowledger.acknowledge(messages)
        self.unsafe = [message for message in self.unsafe if not message.safe]

    @rule(chosen=places, synced=st.booleans())
    def write(self, chosen, synced):
        """The keeper writes some messages, in any order, as those of a full table wait; see `TableWrite.append`."""
        for message in chosen_of([each for each in self.unsafe if not each.stored], chosen):
            message.stored = True
            if message.qos == 2 and message.packet_identifier:
                self.written[message.packet_identifier] = int(message.payload)
            self.unsynced.append(message)
        if synced:
            self.sync()

    @rule()
    def sync(self):
        messages, self.unsynced = self.unsynced, []
        requests, self.requests = self.requests, []
        self.synced = dict(self.written)
        self.settle(messages)
        for request in requests:
            if request.packet_identifiers is None:
                request.window.forgotten()
            else:
                request.window.complete(request.packet_identifiers)

    @rule(session_present=sessions, read=st.integers(0, 4), unsynced_survives=st.booleans())
    def crash(self, session_present, read, unsynced_survives):
        """Kill the bridge; a power cut also takes what was not synced."""
        self.read(read, released_arrives=False)
        if unsynced_survives:
            self.safe_numbers |= {int(message.payload) for message in self.unsynced}
        else:
            self.written = dict(self.synced)
        self.start_process()
        self.connect(session_present=session_present)

    # ---- what must be true

    @invariant()
    def acknowledgements_follow_the_order_of_receipt(self):
        self.put_on_wire()
        if not self.for_the_loop and self.awaited:
            unsafe = {int(message.payload) for message in self.unsafe if message.window is self.window}
            assert self.awaited[0].number in unsafe, "an acknowledgement is missing"

    def put_on_wire(self):
        """Send what is queued; each PUBACK and PUBREC must be the next one that is awaited, and its message safe."""
        for packets in iter(lambda: self.window.outgoing.popleft() if self.window.outgoing else b"", b""):
            for first in range(0, len(packets), 4):
                kind, identifier = packets[first], int.from_bytes(packets[first + 2 : first + 4], "big")
                if kind != PUBCOMP:
                    delivery = self.awaited.popleft()
                    assert (kind, identifier) == ({1: PUBACK, 2: PUBREC}[delivery.qos], delivery.identifier)
                    assert delivery.number in self.safe_numbers, "acknowledged before it is safe"
                self.wire.append((kind, identifier))

    @invariant()
    def nothing_is_sent_for_a_connection_that_is_over(self):
        assert all(len(window.outgoing) == length for window, length in self.old_windows)

    @invariant()
    def the_session_knows_what_the_table_holds_of_qos_2(self):
        """Else PUBREL would not remove it, and after a crash it would swallow another message."""
        if not self.for_the_loop:  # in there may be the request to forget it
            awaited = {
                identifier for identifier, message in self.session.qos2.awaiting_release.items() if message.stored
            }
            assert self.written.keys() <= awaited | self.session.qos2.maybe_stored

    @invariant()
    def memory_is_counted_right(self):
        handed = [message for item in self.for_the_loop if isinstance(item, Batch) for message in item.messages]
        held = self.unsafe + handed
        assert self.budget.held_messages == len(held)
        assert self.budget.received_bytes - self.budget.safe_bytes == sum(message.size_bytes for message in held)

    def teardown(self):
        """Let everything settle: then the broker has nothing left that is not acknowledged."""
        for _ in range(4):  # PUBACK and PUBREC, PUBREL and PUBCOMP, and what waited for the old session's end
            self.take()
            self.settle(self.unsafe)
            self.sync()
            self.acknowledgements_follow_the_order_of_receipt()
            self.read(1000)
        assert not self.in_flight
        assert not self.window.pending
        assert not self.window.identifiers


def test_acknowledgements_are_safe_in_order_and_once_per_connection_through_any_losses_and_crashes():
    """P1, P3, P8 and P9: see the machine's own; in the end everything is acknowledged."""
    # A step costs a tenth of a millisecond, and most faults need several steps in a certain order.
    many = settings(settings.default, max_examples=10 * settings.default.max_examples)
    run_state_machine_as_test(WindowMachine, settings=many)
