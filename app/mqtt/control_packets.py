"""What a broker may send besides PUBLISH: which packets, when, how long, and with what in them.

The fixed header decides first, before the body is gathered: a packet that the broker must not send now, or that is
longer than all that it may hold, ends the connection before it costs memory. Then the body is checked, before paho
makes an object of anything in it: paho gets what Connector reads, and none of the user properties.

A violation ends the connection, as MQTT requires [MQTT-4.13.1-1]. Some that real brokers commit are tolerated, as they
neither lose nor double a message: PUBREL with DUP, as MQTT 3.1 had it; PUBREL of an identifier that nobody knows; some
PINGRESP too many; a resumed session of which we know nothing; properties of CONNACK that nobody asked for; a reason
code that nobody knows and that means failure, which counts as an unspecified one.
"""

from __future__ import annotations

from collections.abc import Container

from paho.mqtt.reasoncodes import ReasonCode

from app.bounds import USER_PROPERTY
from app.mqtt.properties import variable_byte_integer

CONNACK, PUBREL, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 6, 9, 11, 13, 14
NAMES = (
    "type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
    "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip
FLAGS = {CONNACK: {0}, PUBREL: {2, 10}, SUBACK: {0}, UNSUBACK: {0}, PINGRESP: {0}, DISCONNECT: {0}}
PUBREL_HEADER = PUBREL << 4 | 2
MAXIMUM_PACKET_SIZE = 0x27
ANY_PACKET_BYTES = 268_435_460  # no packet of MQTT is longer
_LARGEST_FOR_PAHO = 268_435_455
LONGEST_PROPERTIES_BYTES = 131_072  # two of the longest texts; no broker is known to send a tenth of it
MOST_UNASKED_PINGRESP = 100  # on one connection; a flood of two bytes each costs more than it says

_SIZES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_TEXTS = frozenset({0x12, 0x1A, 0x1C, 0x1F})
# What Connector reads: session expiry, keepalive, server reference, reason, the largest packet, and what is available.
_READ = frozenset({0x11, 0x13, 0x1C, 0x1F, 0x25, 0x27, 0x28, 0x29, 0x2A})
_ALLOWED = {
    CONNACK: frozenset(_SIZES) | _TEXTS,
    SUBACK: frozenset({0x1F}),
    UNSUBACK: frozenset({0x1F}),
    DISCONNECT: frozenset({0x11, 0x1C, 0x1F}),
}
_REASONS = {
    kind: frozenset(code for code, names in ReasonCode.names.items() if any(kind in kinds for kinds in names.values()))
    for kind in _ALLOWED
}
UNSPECIFIED = 0x80
_LEAST = {0x21: 1, 0x27: 1}  # Receive Maximum, Maximum Packet Size
_MOST = {0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1}  # Maximum QoS, and what is available or not


class MalformedPacketError(Exception):
    """The broker sent what MQTT does not allow; the connection is closed and made anew.

    Attributes:
        kind: Tells what counts as the same fault; of few values, whatever the broker sends.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        """Take the fault, and what is particular to this packet."""
        super().__init__(kind + detail)
        self.kind = kind


class OverError(Exception):
    """The broker has refused or ended the connection with a packet; what comes behind it is not read."""


class ControlPackets:
    """The rules for one connection, and what they depend on.

    Attributes:
        has_connack: CONNACK has come.
        is_over: The broker has refused or ended the connection with a packet; what comes behind it does not count.
        pings: How many PINGREQ were sent.
        largest_bytes: How long a packet to the broker may be.
    """

    def __init__(self, *, has_properties: bool) -> None:
        """Begin before CONNACK; `has_properties`: the connection speaks MQTT 5."""
        self.has_connack = False
        self.is_over = False
        self.pings = 0
        self.largest_bytes = ANY_PACKET_BYTES
        self._has_properties = has_properties
        self._pings_answered = 0
        self._asked: dict[int, tuple[int, int]] = {}  # by packet identifier: type of the answer, reason codes in it

    def on_ping(self) -> None:
        """Note that PINGREQ was sent."""
        self.pings += 1

    def expect(self, kind: int, identifier: int, filters: int) -> None:
        """Note that SUBACK or UNSUBACK may come, for so many filters; UNSUBACK of MQTT 3.1.1 has no reason codes."""
        self._asked[identifier] = kind, filters if kind == SUBACK or self._has_properties else 0

    def check_first(self, header: int) -> None:
        """Check the first packet of the connection, whatever it is.

        Raises:
            MalformedPacketError: It is no CONNACK [MQTT-3.2.0-1]: it is not known yet which session it belongs to.
        """
        if not self.has_connack and header >> 4 != CONNACK:
            raise MalformedPacketError(f"{NAMES[header >> 4]} before CONNACK")

    def check_header(self, header: int, length: int) -> None:
        """Check the fixed header of a packet that is no PUBLISH.

        Raises:
            MalformedPacketError: The broker must not send it, or not now, or it is longer than what it may hold.
        """
        if header == PUBREL_HEADER and length == 2:  # as each QoS 2 message has one
            return
        kind = header >> 4
        name = NAMES[kind]
        if kind not in FLAGS or (kind == DISCONNECT and not self._has_properties):
            raise MalformedPacketError(f"{name}, which no broker may send here")
        if header & 0x0F not in FLAGS[kind]:
            raise MalformedPacketError(f"{name} with reserved flags")
        if kind == CONNACK and self.has_connack:
            raise MalformedPacketError("a second CONNACK")
        longest = self._longest(kind)
        if length > longest:
            raise MalformedPacketError(f"{name} longer than all that it may hold", f": {length} bytes, not {longest}")

    def _longest(self, kind: int) -> int:
        """Return how long the body of a packet may be."""
        properties = 4 + LONGEST_PROPERTIES_BYTES if self._has_properties else 0
        if kind in {SUBACK, UNSUBACK}:
            asked = [reasons for answer, reasons in self._asked.values() if answer == kind]
            if not asked:
                raise MalformedPacketError(f"{NAMES[kind]} that answers nothing")
            return 2 + properties + max(asked)
        if kind == PINGRESP:
            return 0
        return (3 if kind == PUBREL and self._has_properties else 1 if kind == DISCONNECT else 2) + properties

    def checked_body(self, kind: int, body: bytes) -> bytes:
        """Check the body of a packet and note what follows from it; return what paho is to decode.

        Raises:
            MalformedPacketError: It has what MQTT does not allow.
            ValueError: So it has.
            IndexError: It is shorter than what it says.
        """
        if kind == CONNACK:
            return self._checked_connack(body)
        if kind in {SUBACK, UNSUBACK}:
            return self._checked_answer(kind, body)
        if kind == DISCONNECT:
            self.is_over = True
            return _reasons(kind, body[:1]) + (_checked(kind, body, 1)[0] if len(body) > 1 else b"")
        self._pings_answered += 1
        if self._pings_answered > self.pings + MOST_UNASKED_PINGRESP:
            raise MalformedPacketError(f"more than {MOST_UNASKED_PINGRESP} PINGRESP without PINGREQ")
        return body

    def _checked_connack(self, body: bytes) -> bytes:
        if len(body) < 2:
            raise MalformedPacketError("CONNACK of fewer than two bytes")
        if body[0] > 1:
            raise MalformedPacketError("CONNACK with reserved flags")
        if body[1] == 1 and not self._has_properties:  # paho has no words for it
            raise MalformedPacketError("CONNACK 1: the broker does not speak MQTT 3.1.1")
        self.has_connack = True
        self.is_over = body[1] != 0
        if not self._has_properties or len(body) == 2:  # a broker without MQTT 5 refuses it in the words of 3.1.1
            return body
        properties, stop = _checked(CONNACK, body, 2)
        if stop != len(body):
            raise MalformedPacketError("CONNACK with bytes behind its properties")
        self.largest_bytes = _number_in(properties, MAXIMUM_PACKET_SIZE, ANY_PACKET_BYTES)
        return body[:1] + _reasons(CONNACK, body[1:2]) + properties

    def _checked_answer(self, kind: int, body: bytes) -> bytes:
        """Check SUBACK or UNSUBACK: the answer to what was asked, a reason code for each filter of it."""
        identifier = body[0] << 8 | body[1]
        asked, expected = self._asked.pop(identifier, (0, 0))
        if asked != kind:
            raise MalformedPacketError(f"{NAMES[kind]} that answers nothing", f": packet identifier {identifier}")
        properties, stop = _checked(kind, body, 2) if self._has_properties else (b"", 2)
        if len(body) - stop != expected:
            raise MalformedPacketError(f"{NAMES[kind]} with more or fewer reason codes than filters")
        return body[:2] + properties + _reasons(kind, body[stop:])


def _reasons(kind: int, codes: bytes) -> bytes:
    """Return reason codes that paho knows: it refuses others, and what a broker adds are failures."""
    if _REASONS[kind].issuperset(codes):
        return codes
    for code in codes:
        if code < UNSPECIFIED and code not in _REASONS[kind]:
            raise MalformedPacketError(f"{NAMES[kind]} with a reason code that nobody knows", f": {code:#x}")
    return bytes(code if code in _REASONS[kind] else UNSPECIFIED for code in codes)


def _checked(kind: int, data: bytes, position: int) -> tuple[bytes, int]:
    """Check the properties of a packet; return those that are read, with their length, and where all of them end.

    Args:
        kind: The packet's type.
        data: Its body.
        position: Where the length of the properties is.

    Raises:
        MalformedPacketError: A property that the packet must not have, or twice, or with a value out of range.
        ValueError: The length of the properties is no number.
        IndexError: They end before they should.
    """
    length, place = variable_byte_integer(data, position)
    stop = place + length
    if stop > len(data):
        raise MalformedPacketError(f"{NAMES[kind]} with properties past its end")
    found: dict[int, bytes] = {}
    while place < stop:
        identifier = data[place]
        if identifier != USER_PROPERTY:
            _check_presence(kind, identifier, found)
        end = _end(data, identifier, place + 1)
        if end > stop:
            raise MalformedPacketError(f"{NAMES[kind]} with a property past the end of the properties")
        if identifier != USER_PROPERTY:
            found[identifier] = data[place:end]
            _check_range(kind, identifier, data[place + 1 : end])
        place = end
    if int.from_bytes(found.get(MAXIMUM_PACKET_SIZE, b"")[1:], "big") > _LARGEST_FOR_PAHO:
        del found[MAXIMUM_PACKET_SIZE]  # it bounds nothing that we send, and paho refuses it
    read = b"".join(value for identifier, value in found.items() if identifier in _READ)
    return _written_length(len(read)) + read, stop


def _number_in(properties: bytes, wanted: int, otherwise: int) -> int:
    """Return the value of a property among checked ones."""
    _, place = variable_byte_integer(properties, 0)
    while place < len(properties):
        end = _end(properties, properties[place], place + 1)
        if properties[place] == wanted:
            return int.from_bytes(properties[place + 1 : end], "big")
        place = end
    return otherwise


def _end(data: bytes, identifier: int, place: int) -> int:
    """Return where the value of a property ends."""
    if identifier in _SIZES:
        return place + _SIZES[identifier]
    stop = place + 2 + (data[place] << 8 | data[place + 1])
    return stop + 2 + (data[stop] << 8 | data[stop + 1]) if identifier == USER_PROPERTY else stop


def _check_presence(kind: int, identifier: int, found: Container[int]) -> None:
    if identifier not in _ALLOWED[kind]:
        raise MalformedPacketError(f"{NAMES[kind]} with a property that it must not have", f": {identifier:#x}")
    if identifier in found:
        raise MalformedPacketError(f"{NAMES[kind]} with a property twice", f": {identifier:#x}")


def _check_range(kind: int, identifier: int, value: bytes) -> None:
    if identifier in _SIZES:
        number = int.from_bytes(value, "big")
        if not _LEAST.get(identifier, 0) <= number <= _MOST.get(identifier, number):
            raise MalformedPacketError(
                f"{NAMES[kind]} with a value that is out of range", f": property {identifier:#x} is {number}"
            )


def _written_length(length: int) -> bytes:
    """Return a length as a variable byte integer; it has at most three bytes here."""
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (128 if length else 0))
        if not length:
            return bytes(digits)
