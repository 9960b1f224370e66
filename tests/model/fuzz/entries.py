"""What is read from the table's database: entries, dead letters, and all that stands beside them.

An input is a byte that says what it is, and the value. An entry and a dead letter become the message that the reference
reads, or are refused with the error that names their key. Everything else is put among sound values, and the table is
opened and read: it works, or it ends with an error that an operator can act on.
"""

from __future__ import annotations

import logging

import faust

from app.errors import ConnectorError, DataDirectoryError
from app.pieces import Pieces
from tables import layout
from tables.dead_letter import DeadLetter
from tables.entry import unpack_entry
from tables.undelivered import UndeliveredTable
from tests.model.fuzz import messagepack
from tests.model.fuzz.messagepack import WrongError

LONGEST_BYTES = 1024
U_KEY = b"Utopic\0" + bytes(11) + b"\1"
D_KEY = b"D" + bytes(11) + b"\1"
SINGLE = (
    b"format", b"epoch", b"limit", b"salvaged", b"dead", b"first_write", b"filters", b"left", b"left_out",
    b"generations", b"keeps", b"granted_at", b"asked_qos",
)  # fmt: skip
LETTERS, LETTERS_OF_PIECES = b"UDAHWMQ", b"PBL"
FIRST_KIND_OF_PIECES = 240
MEBIBYTE = 2**20


def is_payload(value):
    """Tell whether it is a payload, or names the pieces of one."""
    if value is None or isinstance(value, bytes):
        return True  # none: a tombstone
    if not isinstance(value, tuple) or [type(part) for part in value] != [bytes, int, bytes]:
        return False
    name, size_bytes, beginning = value
    return len(name) == 12 and MEBIBYTE < size_bytes <= 256 * MEBIBYTE and len(beginning) <= 64


def entry_of(fields):
    """Return what an entry says, if it is one."""
    if not isinstance(fields, tuple) or len(fields) != 7:
        raise WrongError
    route, times_ms, record_key, headers, payload, reason, kept_since = fields
    numbers = times_ms if isinstance(times_ms, tuple) else (times_ms, 1)  # the second is that of a device, never 0
    wrong = (
        not isinstance(route, str)
        or not isinstance(reason, str)
        or not is_payload(payload)
        or not isinstance(record_key, bytes | None)
        or not isinstance(headers, tuple)
        or len(numbers) != 2
        or any(not isinstance(number, int) or not 0 <= number < 2**63 for number in (*numbers, kept_since))
        or not numbers[1]
    )
    if wrong:
        raise WrongError
    for header in headers:
        if not isinstance(header, tuple) or [type(part) for part in header] != [str, bytes]:
            raise WrongError
    return route, times_ms, record_key, list(headers), payload, reason, kept_since


def letter_of(fields):
    """Return a dead letter's Kafka topic and entry, if it is one."""
    if not isinstance(fields, tuple) or [type(part) for part in fields] != [str, bytes]:
        raise WrongError
    entry = entry_of(messagepack.read(fields[1]))
    own_topic = dict(entry[3]).get("dead-letter-topic", b"")
    if own_topic.decode("utf-8", "replace").encode() != own_topic:
        raise WrongError
    return fields[0], entry


def parts_of(message):
    """Return what an entry says of a message."""
    payload = None if message.is_tombstone else message.payload
    if isinstance(payload, Pieces):
        payload = (payload.name, payload.size_bytes, payload.beginning)
    device_time = message.device_time
    return (
        message.route,
        message.timestamp_ms if device_time is None else (message.timestamp_ms, device_time.time_ms),
        message.record_key, message.headers, payload,
        message.dead_reason, message.kept_since,
    )  # fmt: skip


def counted_bytes(key, value, payload):
    """Return what an entry must count for: each piece has a key of 17 bytes, and what RocksDB adds to it."""
    pieces_bytes = (
        0 if payload is None or isinstance(payload, bytes) else payload[1] + -(-payload[1] // MEBIBYTE) * (17 + 24)
    )
    return len(key) + len(value) + 24 + pieces_bytes


def compare(read_it, reference, key, value):
    """See that both read the same, or both refuse."""
    try:
        expected = reference(messagepack.read(value))
    except WrongError:
        expected = None
    try:
        found = read_it(key, value)
    except DataDirectoryError as error:
        assert repr(key) in str(error), "the error does not name the key"
        found = None
    assert (found is None) == (expected is None), (found, expected)
    return found, expected


def try_entry(value):
    """Read an undelivered message."""
    found, expected = compare(unpack_entry, entry_of, U_KEY, value)
    if found is not None:
        assert parts_of(found) == expected
        assert (found.key, found.stored_bytes) == (U_KEY, counted_bytes(U_KEY, value, expected[4]))


def try_dead_letter(value):
    """Read a dead letter; the headers that DEAD_LETTER_TOPIC's record had are taken back."""
    found, expected = compare(DeadLetter.unpack, letter_of, D_KEY, value)
    if found is None:
        return
    topic, entry = expected
    names = [name for name, _ in entry[3]]
    if "dead-letter-topic" not in names:
        assert (found.topic, parts_of(found.message)) == (topic, entry)
    assert parts_of(found.message)[4] == entry[4]
    assert found.entry_bytes == counted_bytes(D_KEY, value, entry[4])
    assert isinstance(found.mqtt_topic, str) and isinstance(found.beginning, str)


class Held(dict):
    """Keys and values in place of RocksDB."""

    def entries(self, first):
        """Iterate from a key on, in order."""
        return iter([(key, self[key]) for key in sorted(self) if key >= first])


class Stage:
    """The table, with what it holds replaced."""

    def __init__(self):
        app = faust.App("fuzzed-table", broker="kafka://nowhere", store="memory://", autodiscover=False)
        self.table = UndeliveredTable(app, name="undelivered", directory=None, limit_bytes=None, key_type=bytes)
        self.held = Held()
        data = self.table.data
        data.open, data.value, data.entries = lambda **_: None, self.held.get, self.held.entries
        data.items = lambda: ((key, unpack_entry(key, value)) for key, value in data.with_prefix(b"U"))

    def try_values(self, values):
        """Open a table that holds these values, and read all that a start reads."""
        sound = layout.pack(("a/b:topic", 1, b"a/b", (), b"payload", "", 1))
        self.held.clear()
        self.held.update({
            U_KEY: sound,
            D_KEY: layout.pack(("topic", sound)),
            b"Aa/b:topic": layout.pack((1, 60)),
            b"Htopic": U_KEY,
            b"W" + bytes(7) + b"\1": layout.pack((0, 1, 1)),
        })  # fmt: skip
        self.held.update(values)
        table = self.table
        try:
            table.open()
            table.metadata.value("epoch", 0)
            for topic, first in table.lanes():
                prefix = layout.undelivered_prefix(topic)
                assert all(each.key.startswith(prefix) for each in table.read(prefix, first, 10, 10_000))
            list(table.dead_letters())
            kept = table.metadata
            for read in (kept.packet_identifiers, kept.filters, kept.left_filters, kept.generations):
                read()
            for read in (kept.kept_by_topics, kept.granted_at, kept.asked_qos, kept.left_out):
                read()
        except ConnectorError as error:
            assert len(str(error)) < 1_000


def try_input(stage, data):
    """Read one input; raise if anything but the expected came of it."""
    kind, value = (data[0], data[1:]) if data else (0, b"")
    if kind < 64:
        try_entry(value)
    elif kind < 96:
        try_dead_letter(value)
    elif kind < 96 + len(SINGLE):
        stage.try_values({b"M" + SINGLE[kind - 96]: value})
    else:
        letters = LETTERS if kind < FIRST_KIND_OF_PIECES else LETTERS_OF_PIECES
        letter, key_bytes = bytes([letters[kind % len(letters)]]), value[0] & 31 if value else 0
        stage.try_values({letter + value[1 : 1 + key_bytes]: value[1 + key_bytes :]})


def prepare():
    """Return what takes an input."""
    logging.disable(logging.CRITICAL)
    stage = Stage()
    return lambda data: try_input(stage, data)
