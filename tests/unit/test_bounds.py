"""What one message may cost that its publisher made costly: properties, names, topics, levels; no brokers are needed.

Times are those of the thread's own processor time, so that a busy machine does not change them.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import msgpack
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from app.bounds import (
    CUT_FLAG,
    HEADER_BYTES,
    LEFT_OUT_HEADER,
    MOST_HEADERS,
    MOST_IDENTIFIERS,
    MOST_PROPERTY_BYTES,
)
from app.characters import text_of
from app.core.message import Message
from app.core.requests import Batch
from app.errors import DataDirectoryError
from app.metrics import accounts
from app.mqtt.client import BridgeClient
from app.mqtt.generations import Generations
from app.mqtt.properties import decode
from app.mqtt.session import Session
from app.mqtt.window import Window
from app.routes import Route, RouteTable, Template
from app.routing import known_routes, left_out
from app.throttle import Throttle
from tables import layout
from tables.dead_letter import DeadLetter
from tables.entry import unpack_entry
from tables.undelivered import UndeliveredTable
from tests.support.app_settings import app_settings
from tests.support.scripted_broker import connack_packet, packet_of, publish_packet, variable_byte_integer
from tests.unit.test_kinds import cache_of, router_of, where

with app_settings():
    from agents.router import LOT_BYTES, Router

PACKET_BYTES = 12_000_000
LONGEST_BYTES = 65_535
MOST_SECONDS = 0.05  # that one message may hold up all others
PIECE_BYTES = 256 * 1024


def text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def user_property(name: bytes = b"", value: bytes = b"") -> bytes:
    return b"\x26" + text(name) + text(value)


ATTACKS = {
    "empty": user_property(),
    "one name": user_property(b"name", b"value"),
    "long names": user_property(b"n" * LONGEST_BYTES),
    "names of no text": user_property(b"\xff" * LONGEST_BYTES),
    "short names of no text": user_property(b"\xff" * 200),
    "wide names": user_property("😀".encode() + b"n" * (LONGEST_BYTES - 4)),
    "long values": user_property(b"", b"v" * LONGEST_BYTES),
    "correlation data": b"\x09" + text(b"c" * LONGEST_BYTES),
    "content types": b"\x03" + text(b""),
    "identifiers": b"\x0b\x01",
    "payload formats": b"\x01\x01",
}


@contextmanager
def measured():
    """Measure what the body takes of this thread's time, and of Python's memory at most."""
    found = SimpleNamespace()
    tracemalloc.start()
    try:
        yield found
        found.held_bytes, found.peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def seconds(work) -> float:
    """Return how much of this thread's time a call takes, the best of five: others share the machine's caches."""
    times = []
    for _ in range(5):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return min(times)


def received(packet: bytes, version: int = 5) -> list[Message]:
    """Return the messages that a client makes of what comes in pieces."""
    messages: list[Message] = []
    protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
    session = Session(Generations(("a/#",), {"a/#": 1}))
    client = BridgeClient(
        "c", protocol, session, Window(lambda: None), lambda batch, _: messages.extend(batch.messages), 10**8
    )
    client.reader.feed(connack_packet(version))
    for start in range(0, len(packet), PIECE_BYTES):
        client.reader.feed(packet[start : start + PIECE_BYTES])
    return messages


def test_properties_that_look_like_many_headers_count_for_no_more_than_become_some():
    """A text of ampersands, which is what a user property begins with; small packets and large ones count alike."""
    looks_like_many = user_property(b"n", b"&" * LONGEST_BYTES)
    (small,) = received(with_properties(looks_like_many))
    (large,) = received(with_properties(looks_like_many, payload=bytes(300_000)))
    assert small.size_bytes - len(small.payload) == large.size_bytes - len(large.payload)
    assert small.size_bytes < 10 * LONGEST_BYTES + HEADER_BYTES * MOST_HEADERS


def with_properties(properties: bytes, topic: bytes = b"a/b", payload: bytes = b"payload") -> bytes:
    body = text(topic) + b"\0\x09" + variable_byte_integer(len(properties)) + properties + payload
    return packet_of(0x32, body)


def like(message: Message) -> Message:
    """Return another message with the same properties."""
    return Message(message.topic, b"", 1, message.flags, 1, message.properties, 0, None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_twelve_megabytes_of_properties_cost_a_bounded_time_and_memory_and_the_message_is_delivered(attack):
    """P5 and P6: no more headers are made than the bounds allow, and the record says that some are missing."""
    packet = with_properties(ATTACKS[attack] * (PACKET_BYTES // len(ATTACKS[attack])))
    train = packet + publish_packet("a/b", b"after", 1, 10)
    with measured() as reading:
        first, after = received(train)
    assert reading.peak_bytes < 8 * MOST_PROPERTY_BYTES
    assert [first.payload, after.payload] == [b"payload", b"after"]
    cache, _ = cache_of("a/#")
    before = accounts["a/#:k0"].properties_left_out
    with measured() as decoding:
        found = cache.find(first)
    assert decoding.peak_bytes < first.size_bytes
    assert where(found) == "k0"
    assert int(dict(found.headers)[LEFT_OUT_HEADER]) >= 1
    assert len(found.headers) <= MOST_HEADERS + 4
    assert accounts["a/#:k0"].properties_left_out == before + 1
    assert not first.properties, "what became headers is not held twice"
    (again,) = received(packet)
    assert seconds(lambda: cache.find(like(again))) < MOST_SECONDS


@pytest.mark.parametrize("count", [MOST_HEADERS, MOST_HEADERS + 1])
def test_a_thousand_properties_are_headers_and_the_next_one_is_left_out_and_said(count, caplog, monkeypatch):
    monkeypatch.setattr(left_out, "throttle", Throttle(left_out.throttle.log))
    cache, _ = cache_of("a/#")
    (message,) = received(with_properties(b"".join(user_property(b"%d" % number) for number in range(count))))
    headers = cache.find(message).headers
    assert [name for name, _ in headers if name.startswith("mqtt-user-")] == [
        f"mqtt-user-{number}" for number in range(MOST_HEADERS)
    ]
    more = count - MOST_HEADERS
    assert dict(headers).get(LEFT_OUT_HEADER) == (b"%d" % more if more else None)
    assert ("repair its publisher (its MQTT topic: 'a/b')" in caplog.text) is bool(more)


def test_a_subscription_identifier_behind_thousands_of_properties_tells_a_copy_all_the_same():
    """P4: brokers may write it last; without it the copy would be a second record."""
    cache, session = cache_of("a/+", "a/#")
    many = user_property(b"n", b"v") * 20_000
    kept, other = (b"\x0b" + variable_byte_integer(session.generations.identifiers[name]) for name in ("a/+", "a/#"))
    for packet, expected in ((many + kept, "k0"), (many + other, "copy")):
        (message,) = received(with_properties(packet))
        assert where(cache.find(message)) == expected


def test_what_may_be_a_copy_and_has_too_many_properties_to_tell_is_a_dead_letter_with_its_payload():
    """P3 and P4: to forward it might double it, to drop it might lose it. One mapping leaves no doubt."""
    cache, session = cache_of("a/+", "a/#", "b/#")
    many = user_property() * (MOST_PROPERTY_BYTES // 5 + 1)
    kept = b"\x0b" + variable_byte_integer(session.generations.identifiers["a/+"])
    cases = ((b"a/b", many + kept, "perhaps_copy"), (b"a/b", kept + many, "k0"), (b"b/c", many, "k2"))
    for topic, properties, expected in cases:
        (message,) = received(with_properties(properties, topic))
        assert where(cache.find(message)) == expected
        assert message.payload == b"payload"
    identifiers = b"\x0b\x01" * (MOST_IDENTIFIERS + 1)
    (message,) = received(with_properties(identifiers))
    assert where(cache.find(message)) == "perhaps_copy"


def test_properties_that_are_cut_anywhere_are_decoded_up_to_there():
    whole = user_property(b"name", b"value") + b"\x0b\x80\x01" + b"\x09" + text(b"data") + b"\x02\0\0\0\1"
    for stop in range(len(whole)):
        found = decode(whole[:stop], is_cut=True)
        assert not found.is_whole
        assert found.left_out >= 1
        assert found.headers == decode(whole).headers[: len(found.headers)]


@pytest.mark.parametrize("properties", [user_property() * 50, user_property(b"n" * 20) * 10, b""])
@pytest.mark.parametrize("topic_bytes", [20, 20_000])
def test_messages_count_for_what_they_and_their_headers_take(properties, topic_bytes):
    """P6: of many, each with a topic of its own, so that nothing is shared."""
    packets = [
        with_properties(properties, b"a/%d/".ljust(topic_bytes, b"x") % number, b"").replace(
            b"\0\x09", number.to_bytes(2, "big"), 1
        )
        for number in range(0x4000, 0x4000 + 300)
    ]
    train = b"".join(packets)
    cache, _ = cache_of("a/#")
    with measured() as taken:
        messages = received(train)
        router_of(cache)._address(messages)
    assert len(messages) == len(packets)
    kept_bytes = (known_routes.TOPIC_BYTES + known_routes.ROUTE_BYTES) * len(messages)
    assert taken.held_bytes < sum(message.size_bytes for message in messages) + kept_bytes


@pytest.mark.parametrize(
    ("properties", "topic_bytes"), [(user_property() * 50, 20), (b"", 20_000), (user_property(b"n" * 100), 300)]
)
def test_kinds_are_kept_up_to_a_bound_of_bytes_whatever_is_in_them(properties, topic_bytes, monkeypatch):
    """P6: memory does not grow with what publishers think of."""
    monkeypatch.setattr(known_routes, "KEPT_BYTES", 500_000)
    cache, _ = cache_of("a/#")
    with measured() as taken:
        for number in range(800):
            topic = b"a/%d/" % number
            cache.find(Message(topic.ljust(topic_bytes, b"x"), b"", 1, 2, 1, bytes(bytearray(properties)), 0, None))
    assert cache.known.by_topic
    assert taken.peak_bytes < 750_000


def old_entry(headers: int) -> bytes:
    """Return an entry as an older version wrote it, with so many headers."""
    head = msgpack.packb("a/#:k0") + msgpack.packb(1) + msgpack.packb(b"a/b")
    header = b"\x92" + msgpack.packb("mqtt-user-") + msgpack.packb(b"")
    tail = msgpack.packb(b"payload") + msgpack.packb("too_large") + msgpack.packb(7)
    return b"\x97" + head + b"\xdd" + headers.to_bytes(4, "big") + header * headers + tail


@pytest.mark.parametrize("headers", [MOST_HEADERS + 100, 2_400_000])
def test_an_entry_with_millions_of_headers_that_an_older_version_wrote_is_read_with_the_first_of_them(headers):
    """P6: also as a dead letter."""
    value = old_entry(headers)
    key = b"Uk0\0" + layout.pack_sequence(1, 1)
    with measured() as taken:
        message = unpack_entry(key, value)
    assert (message.payload, message.dead_reason, message.kept_since) == (b"payload", "too_large", 7)
    assert message.headers == [("mqtt-user-", b"")] * MOST_HEADERS + [
        (LEFT_OUT_HEADER, b"%d" % (headers - MOST_HEADERS))
    ]
    assert taken.peak_bytes < 3 * len(value) + 4_000_000, "the reader's own copy, and the headers that stay"
    assert taken.held_bytes < message.size_bytes
    letter = DeadLetter.unpack(b"D" + layout.pack_sequence(1, 1), msgpack.packb(("k0", value)))
    assert len(letter.message.headers) == MOST_HEADERS + 1


@pytest.mark.parametrize("stop", [1, 5, 40, -1])
def test_a_damaged_entry_with_too_many_headers_is_refused_like_any_other(stop):
    with pytest.raises(DataDirectoryError, match=r"."):
        unpack_entry(b"Uk0\0" + layout.pack_sequence(1, 1), old_entry(2_000)[:stop])


def test_what_is_read_from_the_table_at_once_counts_with_its_headers(monkeypatch):
    """P6: thousands of entries of 14 kB are megabytes, and as headers hundreds of them."""
    value = old_entry(MOST_HEADERS)
    stored = [(b"Uk0\0" + layout.pack_sequence(1, number), value) for number in range(1_000)]
    table = SimpleNamespace(data=SimpleNamespace(entries=lambda first: (each for each in stored if each[0] >= first)))
    messages = UndeliveredTable.read(table, b"Uk0\0", b"", 1_000, 4 * 1024 * 1024)
    assert 10 <= len(messages) <= 20
    assert all(message.size_bytes > 250 * MOST_HEADERS for message in messages)


def test_the_deepest_topics_cost_no_more_than_the_filters_are_deep():
    """A topic of 65,536 levels against a thousand wildcard filters, and as part of a key."""
    filters = [Route.of("+/" * depth + f"{number}/#", "k") for depth in range(4) for number in range(250)]
    routes = RouteTable([*filters, Route.of("#", "all")])
    topics = ("/" * LONGEST_BYTES, "0/" * (LONGEST_BYTES // 2), "0/0/0/0/" + "x" * (LONGEST_BYTES - 8))
    key = Template("{1}-{3}")
    for topic in topics:
        with measured() as taken:
            matches = routes.matches(topic)
            key.render(topic)
        assert matches[-1].kafka_topic == "all"
        assert taken.peak_bytes < 4 * LONGEST_BYTES
        assert seconds(lambda topic=topic: (routes.matches(topic), key.render(topic))) < MOST_SECONDS / 10
    assert key.render("0/1/" + "2/" * 30_000) == b"0-2"
    assert key.render("0/1") == b"0-"


@pytest.mark.parametrize("template", ["{topic}" * 5, "{1}{2}" * 5, "{3}/{3}/{3}/{3}/{3}"])
def test_a_key_that_repeats_the_topic_many_times_is_refused(template):
    """It would be in memory as often, for each message with a long topic."""
    with pytest.raises(ValueError, match="more than 4 times"):
        Template(template)
    Template("{topic}{topic}{1}{2}{3}{4}{5}{6}")


def test_the_longest_topics_that_are_no_text_are_shown_in_no_time():
    """The page shows fifty dead letters at once, and each warning names a topic."""
    topic = b"\xff" * LONGEST_BYTES
    assert seconds(lambda: text_of(topic)) < MOST_SECONDS / 10
    assert text_of(b"a/\xff\n") == "a/\\xff\n"
    assert text_of("ä".encode() * 1_000) == "ä" * 1_000
    assert text_of(topic).startswith("\\xff\\xff")
    assert Message(topic, b"", 0, CUT_FLAG, 0, b"", 0, None).topic_text == text_of(topic)


def test_others_have_a_turn_between_the_parts_of_a_batch_that_costs_much():
    """A thousand messages of fifty properties come with one read, and the pages wait for none but a part of them."""
    parts, turns = [], []

    class Recording(Router):
        async def _route(self, messages, size_bytes):
            turns.append(len(parts))
            parts.append((messages, size_bytes))

    cache, _ = cache_of("a/#")
    router = Recording(cache, None, list, "c", None, None)
    messages = [Message(b"a", b"", 1, 2, 1, b"", 0, None, LOT_BYTES // 10) for _ in range(35)]

    async def other():
        while len(parts) < 4:
            turns.append("other")
            await asyncio.sleep(0)

    async def both():
        batch = Batch(messages, Window(lambda: None), sum(message.size_bytes for message in messages))
        await asyncio.gather(router.route(batch), other())

    asyncio.run(both())
    assert [message for lot, _ in parts for message in lot] == messages, "in order, each once"
    assert all(size_bytes == sum(each.size_bytes for each in lot) < 1.2 * LOT_BYTES for lot, size_bytes in parts)
    assert turns[:6] == [0, "other", 1, "other", 2, "other"]


def test_others_have_a_turn_after_each_of_many_costly_messages():
    """Each comes as a batch of its own, and all of them may have come already."""
    turns = []

    class Recording(Router):
        async def _route(self, messages, _size_bytes):
            turns.append(len(messages))

    cache, _ = cache_of("a/#")
    router = Recording(cache, None, list, "c", None, None)
    message = Message(b"a", b"", 1, 2, 1, b"", 0, None, 2_000_000)

    async def other():
        for _ in range(3):
            turns.append("other")
            await asyncio.sleep(0)

    async def all_of_them():
        for _ in range(3):
            await router.route(Batch([message], Window(lambda: None), message.size_bytes))

    async def both():
        await asyncio.gather(all_of_them(), other())

    asyncio.run(both())
    assert turns == [1, "other"] * 3
