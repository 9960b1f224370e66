"""An empty payload that becomes a null value: a tombstone in the table, as a dead letter, and when it is retried."""

from __future__ import annotations

import msgpack
import pytest

from app.core.message import Message
from app.kafka.producer import KafkaProducer
from app.routes import Route, RouteTable, Template
from app.routing.completing import complete
from app.routing.known_routes import CachedRoute
from tables import layout
from tables.dead_letter import DeadLetter, with_topic
from tables.entry import FIELDS, pack_entry
from tables.shapes import are_pieces
from tests.support.dispatched import Dispatched
from tests.support.stored_messages import Maker, add_dead_letter, append, opened

KEY = layout.undelivered_prefix("alpha") + layout.pack_sequence(1, 1)


def routed(payload: bytes, *, makes_tombstones: bool) -> Message:
    message = Message(b"a/b", payload, 1, 2, 1, b"", 1_700_000_000_000, None)
    found = CachedRoute(2, b"", None, "a", True, None, (), False, "", makes_tombstones=makes_tombstones)
    assert found.needs_more == makes_tombstones, "routes without the option cost nothing"
    if found.needs_more:
        complete(message, found)
    return message


@pytest.mark.parametrize(
    ("payload", "makes_tombstones", "is_tombstone"), [(b"", True, True), (b"", False, False), (b"\0", True, False)]
)
def test_only_an_empty_payload_of_a_route_that_wants_it_is_a_tombstone(payload, makes_tombstones, is_tombstone):
    assert routed(payload, makes_tombstones=makes_tombstones).is_tombstone is is_tombstone


def test_the_record_of_a_tombstone_has_a_null_value_and_an_empty_payload_else_stays_empty(monkeypatch):
    produced = []
    producer = KafkaProducer({})
    monkeypatch.setattr(producer, "_producer", type("P", (), {"produce": lambda _, *record: produced.append(record)})())
    dispatcher = Dispatched()
    tombstone, empty = (dispatcher.message("alpha", number) for number in (1, 2))
    for message in (tombstone, empty):
        message.payload = b""
    tombstone.become_tombstone()
    tombstone.headers = [("mqtt-topic", b"a/b")]
    producer.produce("alpha", [tombstone, empty], 1)
    assert [(record[1], record[7]) for record in produced] == [(None, [("mqtt-topic", b"a/b")]), (b"", [])]


def test_a_tombstone_in_the_table_is_one_after_a_restart_and_what_an_earlier_build_stored_stays_empty(tmp_path):
    with opened(tmp_path) as table:
        make = Maker(table)
        append(table, [make(payload=None), make(payload=b"")])
    with opened(tmp_path) as table:
        prefix = layout.undelivered_prefix("alpha")
        found = table.read(prefix, prefix, 10, 1_000_000)
        assert [(message.is_tombstone, len(message.payload)) for message in found] == [(True, 0), (False, 0)]


def test_a_build_that_knows_no_tombstones_refuses_them_and_does_not_take_them_for_empty_values():
    """The payload's place has no bytes: such a build says that the table is of another version, and changes nothing."""
    message = routed(b"", makes_tombstones=True)
    message.route, message.record_key, message.headers = "a", b"k", []
    fields = msgpack.unpackb(pack_entry(message))
    assert len(fields) == FIELDS
    assert type(fields[4]) is not bytes and not are_pieces(fields[4]), "it takes nothing else"


def test_a_dead_letter_that_is_retried_is_a_tombstone_still(tmp_path):
    with opened(tmp_path) as table:
        add_dead_letter(table, Maker(table)(payload=None), "alpha")
        (letter,) = table.dead_letters()
        assert letter.message.is_tombstone and letter.beginning == "null"
        assert letter.revived(KEY).is_tombstone


@pytest.mark.parametrize("empty_payload", ["value", "tombstone"])
def test_a_dead_letter_of_no_route_becomes_what_the_route_that_matches_it_now_makes_of_it(empty_payload):
    message = Message(b"", b"", 0, 0, 0, b"", 1, None)
    message.headers, message.record_key = [("mqtt-topic", b"a/b")], b"a/b"
    routes = RouteTable([Route("r", "a/#", Template("k"), empty_payload=empty_payload)])
    letter = with_topic(DeadLetter(b"D", 1, "", message), routes)
    assert letter is not None
    assert letter.message.is_tombstone is (empty_payload == "tombstone")
