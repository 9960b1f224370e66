"""What a route makes of a long topic, headers and key, is bounded, and counts for what it takes."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from app.bounds import ADDED_BYTE_COST, LEFT_OUT_HEADER, MOST_ADDED_BYTES, USUAL_ADDED_BYTES
from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.core.requests import Batch
from app.metrics import LARGER_THAN_TABLE, accounts
from app.mqtt.window import Acknowledger, Window
from app.routes import Route, RouteTable
from tables.dead_letter import DeadLetter, with_topic
from tables.entry import expected_bytes
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched, do_what_is_asked
from tests.support.stored_messages import opened
from tests.unit.test_bounds import LONGEST_BYTES, user_property
from tests.unit.test_derived_topics import cache_with, route_of
from tests.unit.test_kinds import Router, router_of

with app_settings():
    from app.storage import writer as table_writer
    from app.storage.dead_letters import DeadLetters
    from app.storage.oversize import Oversize

with_no_limits = SimpleNamespace(harmless_bytes=1 << 60)


def on_topic(topic: bytes, properties: bytes = b"", identifier: int = 1) -> Message:
    return Message(topic, b"", 1, 2, identifier, properties, 0, None)


def long_topic(number: int, length: int = LONGEST_BYTES) -> bytes:
    return b"f/%d/" % number + b"x" * (length - len(b"f/%d/" % number))


def routed(route: Route, message: Message) -> Message:
    router_of(cache_with(route))._address([message])
    return message


def named(message: Message, name: str) -> list[bytes]:
    return [value for each, value in message.headers if each == name]


def test_headers_of_a_route_that_are_too_long_together_are_left_out_and_the_record_and_the_metrics_say_so(caplog):
    """P5 and P6: a topic of 65 kB became 4.2 MB, which Kafka refused besides."""
    route = route_of("f/#", "k", **{f"h{number}": "{topic}" for number in range(16)}, short="{1}")
    before = accounts["named"].properties_left_out
    message = routed(route, on_topic(long_topic(1, 60_000)))
    fit = MOST_ADDED_BYTES // 60_002
    assert [name for name, _ in message.headers if name.startswith("h")] == [f"h{number}" for number in range(fit)]
    assert named(message, "short") == [b"f"], "what fits is there"
    assert named(message, LEFT_OUT_HEADER) == [b"%d" % (16 - fit)]
    assert accounts["named"].properties_left_out == before + 1
    assert f"{16 - fit} headers of its route less, as these are longer than {MOST_ADDED_BYTES} bytes" in caplog.text
    cache = cache_with(route)
    router_of(cache)._address([on_topic(long_topic(1, 60_000)) for _ in range(3)])
    assert accounts["named"].properties_left_out == before + 4, "each message is counted"
    for name in ("first", "again"):
        short = routed(route, on_topic(b"f/" + name.encode()))
        assert not named(short, LEFT_OUT_HEADER) and len(short.headers) == 2 + 2 + 17


def test_what_is_left_out_of_properties_and_of_the_route_is_counted_together():
    route = route_of("f/#", "k", **{f"h{number}": "{topic}" for number in range(8)})
    message = routed(route, on_topic(long_topic(1, 60_000), user_property(b"n", b"v") * 1_007))
    assert named(message, LEFT_OUT_HEADER) == [b"%d" % (7 + 8 - MOST_ADDED_BYTES // 60_002)]


def test_nobody_takes_the_name_of_a_header_that_a_route_leaves_out():
    """A publisher chooses the length of the topic, and so which headers of the route are left out."""
    route = route_of("f/#", "k", site="{topic}" * 4, traceparent="{topic}" * 4)
    forged = user_property(b"traceparent", b"forged")
    assert named(routed(route_of("f/#", "k"), on_topic(b"f/a", forged)), "traceparent") == [b"forged"]
    message = routed(route, on_topic(long_topic(1, 60_000), forged))
    assert len(named(message, "site")) == 1 and not named(message, "traceparent")
    letter = on_topic(b"")
    letter.headers, letter.record_key = [("mqtt-topic", long_topic(1, 60_000)), ("traceparent", b"forged")], None
    found = with_topic(DeadLetter(b"", 0, "", letter), RouteTable([route])).message
    assert (
        not named(found, "traceparent") and len(named(found, "site")) == 1 and named(found, LEFT_OUT_HEADER) == [b"1"]
    )


@pytest.mark.parametrize("length", [2, 255, 256, 257, 4_096, 20_000, LONGEST_BYTES])
def test_an_entry_is_never_larger_than_is_counted_for_its_message(length):
    """P6: the parts in which messages are routed and stored, and all bounds of memory, go by that."""
    headers = {f"h{number}": "{topic}" * 4 for number in range(16)}
    key = "{topic}{topic}{topic}{topic}{1}{1}{1}{1}{rest}{rest}{rest}{rest}"
    for pattern in ("{rest#}", "f/{rest#}"):
        message = routed(route_of(pattern, "k", key, **headers), on_topic((b"f/1/" + b"x" * length)[:length]))
        assert message.size_bytes >= expected_bytes(message) - 16 * 2 * USUAL_ADDED_BYTES
        if length > 256:
            made = len(message.record_key) + sum(len(name) + len(value) for name, value in message.headers[4:])
            assert message.size_bytes >= length + ADDED_BYTE_COST * (made - 100)


def routed_with_turns(router: Router, batch: Batch) -> list[int]:
    """Route a batch; return how many messages were routed whenever others had a turn."""
    seen = []

    async def other():
        while router.routed_messages < len(batch.messages):
            seen.append(router.routed_messages)
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(router.route(batch), other())

    asyncio.run(both())
    return [*seen, len(batch.messages)]


@pytest.mark.parametrize("known", [False, True])
def test_others_have_a_turn_between_parts_of_what_routes_make_of_long_topics(known):
    """P5: 13 messages were routed and stored in one go, which became 54 MB; the pages waited for a second."""
    dispatcher = Dispatched()
    route = route_of("f/#", "k", "{topic}" * 4, h="{topic}" * 4)
    router = Router(cache_with(route, lanes=dispatcher.lanes), dispatcher, list, "c", None, with_no_limits)
    router.begin_epoch(1)
    topics = [long_topic(number, 60_000) for number in range(12)]
    if known:
        asyncio.run(router._route([on_topic(topic) for topic in topics], 0))
        router.routed_messages = 0
    messages = [on_topic(topic) for topic in topics for _ in range(3)]
    seen = routed_with_turns(router, Batch(messages, Window(lambda: None), 1))
    sizes = [sum(each.size_bytes for each in messages[one:other]) for one, other in itertools.pairwise(seen)]
    assert max(sizes) < 6_000_000
    assert [each.key for each in messages] == sorted(each.key for each in messages), "in order"


def test_memory_counts_what_routes_make_and_has_it_back_when_the_messages_are_safe():
    """P6: else thousands of messages of long topics were received while Kafka is away."""
    budget, dispatcher = MemoryBudget(limit_bytes=1_000_000), Dispatched()
    acknowledger = Acknowledger(budget)
    route = route_of("f/#", "k", h="{topic}" * 4)
    cache = cache_with(route, lanes=dispatcher.lanes)
    more = budget.count_more
    router = Router(cache, dispatcher, acknowledger.acknowledge, "c", None, with_no_limits, count_more=more)
    router.begin_epoch(1)
    messages = [on_topic(long_topic(1, 60_000)) for _ in range(3)]
    size_bytes = sum(each.size_bytes for each in messages)
    budget.add(3, size_bytes)
    asyncio.run(router.route(Batch(messages, Window(lambda: None), size_bytes)))
    assert budget.held_bytes == sum(each.size_bytes for each in messages) > size_bytes + 3 * 240_000
    assert budget.check_full()
    acknowledger.acknowledge(messages)
    assert (budget.held_messages, budget.held_bytes) == (0, 0)


def test_a_message_that_its_route_makes_larger_than_the_table_is_dropped_and_holds_up_no_other():
    """P5: it passed, as its packet is small; then it was held, and all later acknowledgements with it."""
    table = SimpleNamespace(limit_bytes=15_000)
    dispatcher, dropped = Dispatched(), []
    dispatcher.producer.connected = False
    oversize = Oversize(table, dispatcher, dropped.extend)
    oversize._wait_until = 1.0
    route = route_of("f/#", "k", **{f"h{number}": "{topic}" * 4 for number in range(16)})
    router = Router(cache_with(route, lanes=dispatcher.lanes), dispatcher, list, "c", None, oversize)
    router.begin_epoch(1)
    message = on_topic(long_topic(1, 256))
    before = accounts["named"].dropped.get(LARGER_THAN_TABLE, 0)
    asyncio.run(router.route(Batch([message], Window(lambda: None), message.size_bytes)))
    assert dropped == [message] and accounts["named"].dropped[LARGER_THAN_TABLE] == before + 1


def test_a_dead_letter_counts_for_its_key_and_headers_on_its_way_to_a_topic_for_dead_letters(tmp_path):
    """P6: as every other message does that is to be stored, or is with the Kafka client."""
    with opened(tmp_path) as table:
        dispatcher = Dispatched()
        dead_letters = DeadLetters(
            table, dispatcher, "dead", lambda prefix: prefix + bytes(12), RouteTable([Route.of("a/#", "alpha")]), bool
        )
        message = dispatcher.message("alpha", 1)
        message.headers, message.record_key, message.dead_reason = [("h", b"x" * 100_000)], b"k" * 50_000, "too_large"
        sent = []
        dispatcher.send_appended = sent.append
        write = table.begin()
        dead_letters.add(message, write)
        write.commit()
        assert sent[0].size_bytes > 150_000
        assert sent[0].stored_bytes < 152_000


def test_what_routes_make_of_long_topics_is_stored_in_several_writes(tmp_path, monkeypatch):
    """P5: what was written in one go was up to 13 times as much as was counted for it."""
    written = []
    with opened(tmp_path) as table:
        dispatcher = Dispatched()
        write = table.begin
        monkeypatch.setattr(table, "begin", lambda: written.append(0) or write())
        oversize = Oversize(table, dispatcher, list)
        letters = SimpleNamespace()
        routes = RouteTable([route_of("f/#", "k", h="{topic}" * 4)])
        writer = table_writer.TableWriter(
            table, dispatcher, list, drop_oldest=False, dead_letters=letters, oversize=oversize, routes=routes
        )
        router = Router(cache_with(*routes.routes, lanes=dispatcher.lanes), dispatcher, list, "c", None, with_no_limits)
        router.begin_epoch(1)

        async def store():
            messages = [on_topic(long_topic(1, 60_000), identifier=number + 1) for number in range(40)]
            size_bytes = sum(each.size_bytes for each in messages)
            await router.route(Batch(messages, Window(lambda: None), size_bytes))
            dispatcher.store_everything()
            (requests,) = [[each for each in dispatcher.requests.table if each.messages]]
            whole = [message for request in requests for message in request.messages]
            dispatcher.requests.table[:] = [type(requests[0])(whole)]
            await do_what_is_asked(dispatcher, writer, SimpleNamespace(refill=lambda _: None))

        asyncio.run(store())
    assert len(written) >= 40 * 480_000 // (table_writer.WRITE_BYTES + 1_000_000)
