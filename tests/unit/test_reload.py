"""Routes that are read anew: what it costs the event loop, without brokers."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from app.mqtt.filter_orders import FilterOrders
from app.routes import DerivedNames, Route, RouteTable
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched

with app_settings():
    from app.lifecycle import reload
    from app.metrics import accounts


def reloading(before: RouteTable, after: RouteTable, monkeypatch) -> reload.Reload:
    """Return what reads routes anew, beside a broker and a Kafka that are away."""
    dispatcher = Dispatched()
    dispatcher.producer.connected = False
    subscriptions = SimpleNamespace(orders=FilterOrders(), is_shared=False, refused={})
    session = SimpleNamespace(subscriptions=subscriptions, unsubscribing=SimpleNamespace(has_begun=False))
    source = SimpleNamespace(stopping=False, connected=False, session=session, wake=lambda: None)
    settings = SimpleNamespace(routes_file="routes.yaml")
    monkeypatch.setattr(reload, "_read", lambda settings: (after, settings))
    return reload.Reload(settings, before, DerivedNames(()), dispatcher, source)


@pytest.mark.parametrize("names", [["alpha"], ["alpha", "beta"]])
def test_a_reload_says_which_topics_of_its_routes_kafka_does_not_show(names, monkeypatch):
    """It ended with 0 and no word of a topic that nobody had created; a log line said it alone."""
    routes = [Route.of(f"{name}/#", name) for name in names]
    service = reloading(RouteTable([Route.of("alpha/#", "alpha")]), RouteTable(routes), monkeypatch)
    service._dispatcher.topics.note_not_shown({"beta", "of-a-route-that-is-gone"}, set())
    answer = asyncio.run(service.ask())
    assert answer["missing_topics"] == [name for name in names if name == "beta"]


def test_nothing_that_grows_with_the_routes_is_worked_out_on_the_event_loop_or_it_is_in_parts(monkeypatch):
    """With 20,000 routes messages would wait for 200 ms."""
    before = RouteTable([Route.of("a/b", "alpha")])
    after = RouteTable([Route.of(f"reloaded/{number}", "alpha") for number in range(3 * reload.NAMES_AT_ONCE)])
    service = reloading(before, after, monkeypatch)
    threads, turns = {}, []
    for place, name in ((RouteTable, "headers_bytes"), (reload, "differences")):
        called = getattr(place, name)
        monkeypatch.setattr(
            place,
            name,
            lambda *given, name=name, called=called: (threads.update({name: threading.get_ident()}), called(*given))[1],
        )

    async def other():
        while before.version == 0:
            turns.append(sum(name.startswith("reloaded/") for name in accounts))
            await asyncio.sleep(0)

    async def both():
        return (await asyncio.gather(service.ask(), other()))[0]

    answer = asyncio.run(both())
    assert (len(answer["added"]), answer["routes"]) == (len(after.routes), len(after.routes))
    assert threading.get_ident() not in threads.values()
    assert len(threads) == 2
    assert set(turns) >= {0, reload.NAMES_AT_ONCE, 2 * reload.NAMES_AT_ONCE}


def test_signals_that_come_while_the_file_is_read_have_it_read_once_more(monkeypatch):
    """A thousand of them had it read a thousand times: `connector reload` had no answer meanwhile."""
    routes = RouteTable([Route.of("a/b", "alpha")])
    service = reloading(routes, routes, monkeypatch)
    may_end, reads = threading.Event(), []
    monkeypatch.setattr(reload, "_read", lambda settings: (reads.append(0), may_end.wait(60), (routes, settings))[-1])

    async def until_read(times: int) -> None:
        while len(reads) < times:
            await asyncio.sleep(0.001)

    async def signals():
        service.on_sighup()
        await until_read(1)
        for _ in range(1_000):  # each may be sent for what the file has since then
            service.on_sighup()
        may_end.set()
        await until_read(2)
        await service.ask()  # behind all that waits
        service.on_sighup()
        await until_read(4)

    asyncio.run(asyncio.wait_for(signals(), 60))
    assert len(reads) == 4, "for the first, for all others, for the command, and for the one after it"
