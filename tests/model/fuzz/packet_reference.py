"""What a train of packets from a broker has to become, worked out apart from the client: slowly, from the standard.

Of the control packets that a broker may send this says which ones there are, with which flags and how long; nothing was
asked, so nothing may be answered. What is in them is the matter of `unit/test_broker_rules.py`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import NamedTuple

PUBLISH, PUBREL, PINGRESP, DISCONNECT = 3, 6, 13, 14
UNDECODABLE = 0x100
FLAGS = {PUBREL: {2, 10}, PINGRESP: {0}, DISCONNECT: {0}}
LONGEST_PROPERTIES_BYTES = 4 + 131_072
MOST_UNASKED_PINGRESP = 100


class Limits(NamedTuple):
    """From which length on a packet is gathered, and above which it is read past."""

    gathered_above_bytes: int
    largest_bytes: int


class WrongError(Exception):
    """The packet is not what MQTT allows."""


@dataclass
class Expectation:
    """What must come of the bytes.

    Attributes:
        messages: What is handed over: topic, payload, QoS, flags, packet identifier, properties.
        acknowledgements: The packets that are sent in the end.
        must_end: The connection ends.
        may_end_after: It may end when so many messages were handed over.
    """

    messages: list = field(default_factory=list)
    acknowledgements: list = field(default_factory=list)
    must_end: bool = False
    may_end_after: set = field(default_factory=set)

    def allows(self, found, *, ended):
        """Tell whether what was found may be."""
        count = len(found)
        if found != self.messages[:count]:
            return False
        may_end_here = ended and count in self.may_end_after
        return may_end_here or (count == len(self.messages) and ended == self.must_end)


class Head(NamedTuple):
    """Topic, QoS and packet identifier, and what follows."""

    topic: bytes
    qos: int
    identifier: int
    rest: bytes


def head_of(header, body):
    """Read the head of a PUBLISH packet."""
    qos = header >> 1 & 3
    length = int.from_bytes(body[:2], "big")
    topic, rest = body[2 : 2 + length], body[2 + length :]
    if qos == 3 or len(body) < 2 or len(topic) < length:
        raise WrongError
    if not qos:
        return Head(topic, 0, 0, rest)
    identifier = int.from_bytes(rest[:2], "big")
    if len(rest) < 2 or not identifier:
        raise WrongError
    return Head(topic, qos, identifier, rest[2:])


def without_properties(rest, version):
    """Split what follows a head into properties and payload."""
    if version != 5:
        return b"", rest
    length = read_length(rest)
    if length is None:
        raise WrongError
    value, size = length
    if len(rest) < size + value:
        raise WrongError
    return rest[size : size + value], rest[size + value :]


def read_length(data):
    """Return a variable byte integer and its size; None if its end is missing."""
    for size in range(1, 5):
        if size > len(data):
            return None
        if not data[size - 1] & 0x80:
            return sum((data[place] & 0x7F) << 7 * place for place in range(size)), size
    raise WrongError


class Reader:
    """Reads one train."""

    def __init__(self, version, limits, *, has_no_patience):
        self.expected = Expectation()
        self._version = version
        self._limits = limits
        self._has_no_patience = has_no_patience
        self._unacknowledged = {}  # packet identifier: topic and payload of the first message
        self._unreleased = {}
        self._completed = []
        self._received = []
        self._set_aside = set()
        self._pingresp = 0
        self._is_over = False

    def read(self, stream):
        """Read it all."""
        try:
            while len(stream) >= 2 and not self._is_over:
                length = read_length(stream[1:5])
                if length is None:
                    break
                stop = 1 + length[1] + length[0]
                if stream[0] >> 4 != PUBLISH:
                    self._look_at_header(stream[0], length[0])
                elif len(stream) < stop:
                    self._look_at_part(stop)
                if len(stream) < stop:
                    break
                self._take(stream[:stop], 1 + length[1])
                stream = stream[stop:]
        except WrongError:
            self.expected.must_end = True
        self.expected.acknowledgements = self._completed + self._received
        return self.expected

    def _look_at_header(self, header, length):
        """What no broker may send, or is longer than it may be, is seen from its first bytes."""
        kind, is_version_5 = header >> 4, self._version == 5
        properties = LONGEST_PROPERTIES_BYTES if is_version_5 else 0
        longest = {PUBREL: 2 + is_version_5 + properties, PINGRESP: 0, DISCONNECT: 1 + properties}
        if kind not in FLAGS or header & 15 not in FLAGS[kind] or length > longest[kind]:
            raise WrongError
        if kind == DISCONNECT and not is_version_5:
            raise WrongError

    def _look_at_part(self, packet_bytes):
        """The head of a packet that is too long is looked at before its end has come, and may be wrong."""
        if packet_bytes > self._limits.largest_bytes:
            self.expected.may_end_after.add(len(self.expected.messages))

    def _take(self, packet, start):
        """Take a whole packet."""
        header, body = packet[0], packet[start:]
        kind = header >> 4
        is_too_large = kind == PUBLISH and len(packet) > self._limits.largest_bytes
        if kind in {PUBLISH, PUBREL}:
            try:
                self._take_flow(kind, header, body, len(packet))
            except WrongError:
                # A duplicate that is large, or a head of what is too large, is found before the packet is whole.
                if not self._has_no_patience or is_too_large or self._is_gathered(packet, start):
                    raise
                self._add_undecodable(packet, header, body)
        elif kind == PINGRESP:
            self._pingresp += 1
            if self._pingresp > MOST_UNASKED_PINGRESP:
                raise WrongError
        else:
            self.expected.may_end_after.add(len(self.expected.messages))  # what DISCONNECT says may be wrong
            self._is_over = True  # and what comes behind it belongs to no connection

    def _is_gathered(self, packet, start):
        if packet[0] >> 4 != PUBLISH or len(packet) <= self._limits.gathered_above_bytes:
            return False
        try:
            without_properties(head_of(packet[0], packet[start:]).rest, self._version)
        except WrongError:
            return False
        return True

    def _take_flow(self, kind, header, body, packet_bytes):
        if kind == PUBLISH:
            head = head_of(header, body)
            if packet_bytes > self._limits.largest_bytes:
                properties, payload = b"", b""
            else:
                properties, payload = without_properties(head.rest, self._version)
            self._receive(head, header & 15, payload, properties)
            return
        if len(body) < 2:
            raise WrongError
        self._unreleased.pop(int.from_bytes(body[:2], "big"), None)
        self._completed.append(b"\x70\x02" + body[:2])

    def _receive(self, head, flags, payload, properties):
        """Take a message unless it is one that is here already."""
        content, identifier = (head.topic, payload), head.identifier
        if head.qos and identifier in self._unacknowledged:
            is_again = flags & 8 and (
                (head.qos == 2 and self._unreleased.get(identifier) == content)
                or not self._unacknowledged[identifier][0]
                or self._unacknowledged[identifier] == content
            )
            if not is_again:
                raise WrongError
            return
        if head.qos == 2:
            self._unreleased[identifier] = content
        if head.qos:
            self._unacknowledged[identifier] = content
            word = b"\x40\x02" if head.qos == 1 else b"\x50\x02"
            self._received.append(word + identifier.to_bytes(2, "big"))
        self.expected.messages.append((head.topic, payload, head.qos, flags, identifier, properties))

    def _add_undecodable(self, packet, header, body):
        """Take all bytes of a packet that cannot be decoded, with what is sound of its head."""
        head = Head(b"", 0, 0, b"")
        if header >> 4 == PUBLISH:
            with contextlib.suppress(WrongError):
                head = head_of(header, body)
        if head.qos and head.identifier in self._unacknowledged:
            head = head._replace(qos=0, identifier=0)
        if not head.qos:
            known = (header & 0xF7, packet[1:])
            if known in self._set_aside:
                return
            self._set_aside.add(known)
        self._receive(head, header & 15 | UNDECODABLE, packet, b"")


def read(stream, version, limits, *, has_no_patience):
    """Return what must come of the bytes that a broker sends."""
    return Reader(version, limits, has_no_patience=has_no_patience).read(stream)
