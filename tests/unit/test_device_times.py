"""Records whose time is what their device says: which times count, what is kept, and what Kafka does not take."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import msgpack
import pytest

from app.core.attempts import Attempts, Refusal, Verdict
from app.core.device_time import DeviceTime
from app.core.message import Message
from app.core.moment import Moment
from app.core.record_times import TakenTimes
from app.kafka.producer import KafkaProducer
from app.kafka.topic_limits import configuration_of
from app.kafka.topics import Topics
from app.metrics import accounts
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.routes import Route, RouteTable, Template, subscription_identifiers
from app.routing.derived_topics import DerivedTopics
from tables import layout
from tables.entry import pack_entry
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched, make_lane, make_message
from tests.support.scripted_broker import variable_byte_integer
from tests.support.stored_messages import Maker, add_dead_letter, append, opened

with app_settings():
    from agents.router import Router
    from app.routing.route_cache import RouteCache
    from app.storage.dead_letters import DeadLetters

NOW_MS = 1_700_000_000_000
MINUTE_MS = 60_000
EXPIRY = b"\x02\0\0\0\x0a"


def user_property(name: str, value: bytes) -> bytes:
    return b"\x26" + b"".join(len(text).to_bytes(2, "big") + text for text in (name.encode(), value))


def timed(value: bytes) -> bytes:
    return user_property("unit", b"K") + user_property("time", value) + user_property("last", b"1")


class Routing:
    """A router of two routes that only addresses messages: `a/#` has `timestamp: property time`, `b/#` has not."""

    def __init__(self) -> None:
        routes = RouteTable(
            [Route("a", "a/#", Template("k"), timestamp_property="time"), Route("b", "b/#", Template("k"))]
        )
        names = [route.mqtt_filter for route in routes.routes]
        self.identifiers = subscription_identifiers(names)
        session = Session(Generations(names, self.identifiers))
        lanes = SimpleNamespace(is_in_use=lambda _: True, passing=0)
        destinations = {"k": make_lane("k").destination, "": make_lane("").destination}
        self.cache = RouteCache(routes, Template("{topic}"), destinations.get, DerivedTopics(9, lanes), session.copies)
        self.router = Router(self.cache, None, lambda _: None, "client", None, SimpleNamespace())

    def routed(self, properties: bytes, topic: bytes = b"a/1") -> Message:
        return self.address(Message(topic, b"payload", 1, 2, 1, properties, NOW_MS, None))

    def address(self, message: Message) -> Message:
        self.router._address([message])
        return message

    @property
    def kept(self) -> int:
        return len(self.cache.known.by_topic) + len(self.cache.known._others)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"%d" % (NOW_MS - 5), ""),
        (b"1000000000000", ""),
        (b"%d" % (NOW_MS + 30 * MINUTE_MS), ""),
        (b"%d" % (NOW_MS + 30 * MINUTE_MS + 1), "out_of_range"),
        (b"0999999999999", "out_of_range"),
        (b"0000000000000", "out_of_range"),  # it has 13 digits
        (b"9999999999999", "out_of_range"),
        (b"0", "unreadable"),
        (b"1700000000", "unreadable"),  # seconds
        (b"1700000000000000", "unreadable"),  # microseconds
        (b"170000000000.", "unreadable"),
        (b"-170000000000", "unreadable"),
        (b" 170000000000", "unreadable"),
        ("١٢٣٤٥٦".encode(), "unreadable"),
        (b"", "unreadable"),
        (None, "missing"),
    ],
)
def test_a_time_is_13_digits_since_2001_and_up_to_half_an_hour_ahead_and_all_else_is_counted(text, why):
    routing, before = Routing(), accounts["a"].timestamps_replaced[why]
    message = routing.routed(b"" if text is None else timed(text))
    said = message.device_time and message.device_time[:2]
    assert said == (None if why else (text, int(text)))
    assert accounts["a"].timestamps_replaced[why] == before + bool(why)
    assert message.timestamp_ms == NOW_MS, "all but the record goes by the time of receipt"


@pytest.mark.parametrize(
    "more", [b"", EXPIRY, user_property("long", bytes(300)), EXPIRY + user_property("x", bytes(300))]
)
def test_under_the_topic_of_another_route_a_message_has_the_time_of_its_own_and_all_of_its_headers(more):
    """P1, P2: brokers with rewriting rules do so; the subscription identifier says whose the message is."""
    routing = Routing()
    for number, (topic, route) in enumerate([("a/1", "b"), ("a/1", "a"), ("b/1", "a"), ("b/1", "b")] * 3):
        time = b"%d" % (NOW_MS + number)
        identifier = b"\x0b" + variable_byte_integer(routing.identifiers[f"{route}/#"])
        message = routing.routed(timed(time) + more + identifier, topic.encode())
        assert message.route == route
        assert dict(message.headers)["mqtt-user-time"] == time
        assert (message.device_time is not None) == (route == "a")


def test_a_message_that_is_looked_up_and_not_known_stays_as_it_came():
    """P2: between two parts of a batch a reload may change which user property has the time of its record, if any."""
    routing, others = Routing(), Routing()
    message = Message(b"a/1", b"payload", 1, 2, 1, timed(b"%d" % NOW_MS), NOW_MS, None)
    routing.routed(timed(b"%d" % (NOW_MS - 1)) + EXPIRY)
    assert routing.cache.look_up(message) is None
    assert message.device_time is None and message.properties == timed(b"%d" % NOW_MS)
    routing.cache._routes.become(RouteTable([Route("a", "a/#", Template("k")), others.cache._routes.routes[1]]))
    asyncio.run(routing.cache.follow_changes())
    routing.address(message)
    assert message.device_time is None
    assert dict(message.headers)["mqtt-user-time"] == b"%d" % NOW_MS


def test_each_header_has_the_value_that_its_message_has_in_the_same_place():
    routing = Routing()
    for value in (b"%d" % NOW_MS, b"%d" % (NOW_MS + 1), b"noon", b"%d" % (NOW_MS + 2)):
        headers = routing.routed(timed(value) + EXPIRY).headers
        assert headers[4:] == [
            ("mqtt-user-unit", b"K"), ("mqtt-user-time", value), ("mqtt-user-last", b"1"),
            ("mqtt-message-expiry", b"%d" % (NOW_MS + 10_000)),
        ]  # fmt: skip


def test_in_an_event_of_cloudevents_the_header_has_the_name_that_it_has_there():
    event = user_property("specversion", b"1.0")
    for value in (b"2026-01-01T00:00:00Z", b"%d" % NOW_MS):
        assert ("ce_time", value) in Routing().routed(event + timed(value)).headers


TIME, NO_TIME = (user_property("time", text) for text in (b"%d" % NOW_MS, b""))
OF_A, OF_B = (b"\x0b" + variable_byte_integer(Routing().identifiers[name]) for name in ("a/#", "b/#"))
CUT_SHORT = NO_TIME[:-2]  # it ends where another one has its time
# Kinds that differ in one thing; broken ones too.
BLOCKS = st.lists(
    st.sampled_from([
        TIME, user_property("time", b"%d" % (NOW_MS + 1)), user_property("time", b"noon"), NO_TIME, CUT_SHORT, b"\0",
        user_property("unit", b"K"), EXPIRY, b"\x02\0\0\0\x09", OF_A, OF_B,
    ]), max_size=4,
)  # fmt: skip


@hypothesis.given(st.lists(st.tuples(st.sampled_from([b"a/1", b"a/2", b"b/1"]), BLOCKS, st.sampled_from([2, 3]))))
@hypothesis.example([(b"a/1", [TIME], 2), (b"a/1", [CUT_SHORT], 2)])
@hypothesis.example([(b"a/1", [NO_TIME, OF_B], 2), (b"a/1", [TIME], 2), (b"a/1", [TIME, OF_B], 2)])
@hypothesis.settings(max_examples=600, deadline=None)
def test_what_is_known_of_other_messages_changes_no_record(kinds):
    """P1, P2: a message becomes the record that it would be as the first one of all."""
    experienced = Routing()
    for topic, blocks, flags in kinds:
        records = []
        for routing in (experienced, Routing()):
            message = Message(topic, b"payload", 1, flags, 1, b"".join(blocks), NOW_MS, None)
            routing.address(message)
            records.append((message.route, message.record_key, message.headers[1:], message.device_time))
        assert records[0] == records[1]


def test_messages_that_differ_in_their_time_alone_are_one_entry_of_the_route_cache():
    """P6: a device sends another time with each message."""
    routing = Routing()
    for number in range(500):
        routing.routed(timed(b"%d" % (NOW_MS - number)))
        routing.routed(timed(b"noon %d" % number))
        routing.routed(timed(b"%d" % (NOW_MS - number)) + EXPIRY)
    assert routing.kept == 2


def test_a_batch_of_messages_with_other_times_is_routed_in_one_go():
    """What is known of their topic is used, however many there are."""
    routing = Routing()
    messages = [Message(b"a/1", b"", 1, 2, 1, timed(b"%d" % (NOW_MS - n)), NOW_MS, None) for n in range(2_000)]
    (lot,) = routing.router._address(messages).values()
    assert [message.device_time.time_ms for message in lot] == [NOW_MS - number for number in range(2_000)]


def test_kinds_that_take_turns_are_not_worked_out_again_for_another_time(monkeypatch):
    """Retained messages and others, of one topic."""
    routing = Routing()
    kinds = [(2, b""), (3, b""), (2, user_property("more", b""))]
    messages = [
        Message(b"a/1", b"", 1, flags, 1, timed(b"%d" % (NOW_MS - number)) + more, NOW_MS, None)
        for number in range(3)
        for flags, more in kinds
    ]
    for message in messages[:3]:
        routing.address(message)
    monkeypatch.setattr(routing.cache, "_work_out", None)
    for message in messages[3:]:
        routing.address(message)
    assert [message.device_time.time_ms for message in messages] == [NOW_MS - number // 3 for number in range(9)]


def test_routes_without_the_option_take_nothing_out():
    message = Routing().routed(timed(b"%d" % NOW_MS), b"b/1")
    assert message.device_time is None and message.properties == timed(b"%d" % NOW_MS)


@pytest.mark.parametrize(
    "properties", [b"\x26\0\x04time", b"\x26\0\x04time\0\x20", b"\x7e", timed(b"1")[:-1], b"\x0b\xff\xff\xff\xff\xff"]
)
def test_broken_properties_have_no_time_and_end_nothing(properties):
    assert Routing().routed(properties).device_time is None


def test_the_time_of_a_property_that_becomes_no_header_as_there_are_too_many_is_not_used():
    many = user_property("x", b"") * 1_001
    assert Routing().routed(many + timed(b"%d" % NOW_MS)).device_time is None


# ---- what Kafka takes


def test_the_record_has_the_devices_time_and_a_header_with_that_of_receipt(monkeypatch):
    produced = []
    producer = KafkaProducer({})
    monkeypatch.setattr(producer, "_producer", SimpleNamespace(produce=lambda *record: produced.append(record)))
    message = Routing().routed(timed(b"%d" % (NOW_MS - MINUTE_MS)))
    times = TakenTimes()
    producer.produce("k", [message], NOW_MS, times=times)
    producer.produce("k", [message], NOW_MS + 7, times=times, with_current_time=True)
    times.note_limits(MINUTE_MS, MINUTE_MS)
    producer.produce("k", [message], NOW_MS, times=times)
    received = [("connector-received", b"%d" % NOW_MS)]
    assert [record[6] for record in produced] == [NOW_MS - MINUTE_MS, NOW_MS + 7, NOW_MS]
    assert [record[7][len(message.headers) :] for record in produced] == [received, received, []]


def test_half_of_what_kafka_says_is_taken_on_either_side():
    times = TakenTimes()
    times.note_limits(60 * MINUTE_MS, 20 * MINUTE_MS)
    taken = {
        minutes: times.takes(DeviceTime(b"", NOW_MS + minutes * MINUTE_MS), NOW_MS) for minutes in (-31, -29, 9, 11)
    }
    assert taken == {-31: False, -29: True, 9: True, 11: False}


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_lane_meets_few_refusals_whatever_devices_say(sign):
    """Each is a record that goes alone; a device of 1970 is half a century behind."""
    times, refusals = TakenTimes(), 0
    for offset_ms in range(56 * 365 * 24 * 3600 * 1000, 0, -MINUTE_MS * 60 * 24 * 7):
        device_time = DeviceTime(b"", NOW_MS + sign * offset_ms)
        if times.takes(device_time, NOW_MS):
            refusals += 1
            times.note_refused(device_time, NOW_MS)
    assert refusals <= 14


OF_TIME = Refusal(is_final=False, is_of_batch=True, is_of_time=True, went_alone=True)
AT = Moment(100.0, NOW_MS)


def sent_alone(device_ms: int | None) -> Message:
    message = Message(b"a", b"", 1, 2, 1, b"", NOW_MS, None)
    message.key, message.handed_at = b"k", AT.seconds
    message.device_time = None if device_ms is None else DeviceTime(b"", device_ms)
    return message


def test_a_record_that_is_refused_for_the_devices_time_goes_with_that_of_receipt_at_once_and_no_other_is_touched():
    attempts = Attempts(10.0)
    message = sent_alone(NOW_MS - 1000 * MINUTE_MS)
    assert attempts.judge(message, OF_TIME, AT) is Verdict.AGAIN_WITH_TIME_OF_RECEIPT
    assert not attempts.times.has_refused and not attempts.times.are_of_interest, "others keep their time"
    assert not attempts.times.of_devices.takes(message.device_time, NOW_MS)
    assert attempts.retry.due_at <= AT.seconds, "it does not wait"


def test_if_the_time_of_receipt_is_refused_too_it_goes_with_the_current_time():
    attempts = Attempts(10.0)
    message = sent_alone(NOW_MS - 1000 * MINUTE_MS)
    verdicts = [attempts.judge(message, OF_TIME, AT) for _ in range(3)]
    assert verdicts == [Verdict.AGAIN_WITH_TIME_OF_RECEIPT, Verdict.AGAIN_WITH_CURRENT_TIME, Verdict.AGAIN]


def test_a_device_whose_clock_is_ahead_holds_up_nothing_of_its_lane():
    """The clock of this machine was set back only where the time of receipt is ahead."""
    lane = make_lane()
    lane.attempts.note_learned(100)
    for number in range(3):
        message = make_message(lane.destination, number, timestamp_ms=NOW_MS)
        message.device_time = DeviceTime(b"", NOW_MS + 20 * MINUTE_MS)
        (lot,) = lane.accept([message], AT).lots
        assert not lot.with_current_time


# ---- the table


def test_the_devices_time_is_kept_in_the_table_with_large_payloads_too_and_as_a_dead_letter(tmp_path):
    times = [None, NOW_MS - 5, NOW_MS + 5]
    with opened(tmp_path) as table:
        make = Maker(table)
        messages = [make(payload=payload) for payload in (b"a", b"b", bytes(300_000), b"letter")]
        for message, device_ms in zip(messages, [*times, NOW_MS], strict=True):
            message.device_time = None if device_ms is None else DeviceTime(b"text", device_ms)
        append(table, messages[:3])
        add_dead_letter(table, messages[3], "alpha")
    with opened(tmp_path) as table:
        prefix = layout.undelivered_prefix("alpha")
        found = table.read(prefix, prefix, 10, 10_000_000)
        assert [message.device_time and message.device_time.time_ms for message in found] == times
        assert [message.timestamp_ms for message in found] == [message.timestamp_ms for message in messages[:3]]
        (letter,) = table.dead_letters()
        assert letter.revived(b"key").device_time == DeviceTime(b"", NOW_MS)


def test_a_build_that_knows_no_second_time_refuses_the_entry():
    """Where it expects a number it finds none: it says that the table is of another version, and changes nothing."""
    message = Routing().routed(timed(b"%d" % NOW_MS))
    assert msgpack.unpackb(pack_entry(message))[1] == [NOW_MS, NOW_MS]


def test_a_dead_letter_in_a_kafka_topic_is_of_the_same_time_and_has_no_value_if_it_had_none(tmp_path):
    with opened(tmp_path) as table:
        dispatcher, make = Dispatched(), Maker(table)
        message = make(payload=None)
        message.device_time, message.destination = DeviceTime(b"", NOW_MS), dispatcher.destination("alpha")
        message.name_dead("too_large")
        letters = DeadLetters(
            table, dispatcher, "letters", lambda prefix: prefix + layout.pack_sequence(9, 9), RouteTable([])
        )
        write = table.begin()
        letters.add(message, write)
        write.commit()
        prefix = layout.undelivered_prefix("letters")
        (sent,) = table.read(prefix, prefix, 10, 1_000_000)
        assert (sent.device_time, sent.is_tombstone) == (DeviceTime(b"", NOW_MS), True)


def test_a_reload_that_brings_the_first_route_with_a_time_has_its_times_read():
    routing = Routing()
    with_time, without = routing.cache._routes.routes
    routing.cache._routes.become(RouteTable([dataclasses.replace(with_time, timestamp_property=""), without]))
    asyncio.run(routing.cache.follow_changes())
    assert routing.routed(timed(b"%d" % NOW_MS)).device_time is None
    routing.cache._routes.become(RouteTable([with_time, without]))
    asyncio.run(routing.cache.follow_changes())
    assert routing.routed(timed(b"%d" % NOW_MS)).device_time == DeviceTime(b"%d" % NOW_MS, NOW_MS)


def test_what_kafka_says_of_times_bounds_those_of_devices_unless_it_stamps_records_itself():
    said = {"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "3600000"}
    topics = Topics()
    topics.known = {
        "k": configuration_of(said),
        "stamped": configuration_of({**said, "message.timestamp.type": "LogAppendTime"}),
    }
    assert topics.time_limits_ms("k") == (60_000, 3_600_000)
    assert topics.time_limits_ms("stamped") == topics.time_limits_ms("unknown") == (math.inf, math.inf)
