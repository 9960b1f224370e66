"""Routes that are read anew: what it costs the event loop, without brokers."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from app.errors import ConnectorError
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


def slow(before: RouteTable, monkeypatch) -> tuple[reload.Reload, threading.Event, list[int]]:
    """Return what reads routes anew, what lets it go on, and how many reads have begun."""
    service = reloading(before, before, monkeypatch)
    go_on, reads = threading.Event(), []

    def read(settings):
        reads.append(len(reads))
        assert go_on.wait(20)
        return before, settings

    monkeypatch.setattr(reload, "_read", read)
    return service, go_on, reads


def test_a_reload_during_another_one_is_answered_within_a_bound(monkeypatch):
    """It waited for as long as the other one took, and its command gave up without an answer."""
    service, go_on, reads = slow(RouteTable([Route.of("a/#", "alpha")]), monkeypatch)
    monkeypatch.setattr(reload, "WAIT_SECONDS", 0.05)

    async def run():
        first = asyncio.create_task(service.ask())
        await asyncio.sleep(0)
        with pytest.raises(ConnectorError, match="another reload is under way: try again when it is done"):
            await service.ask()
        monkeypatch.setattr(reload, "WAIT_SECONDS", 20.0)
        waits = asyncio.create_task(service.ask())
        await asyncio.sleep(0.05)
        go_on.set()
        return await first, await waits

    first, waited = asyncio.run(run())
    assert (first["routes"], waited["routes"], len(reads)) == (1, 1, 2)


def test_sighup_during_a_reload_has_the_file_read_once_more_however_often_it_comes(monkeypatch):
    """The file may have changed after it was read; the last one who asks gets what is there then."""
    service, go_on, reads = slow(RouteTable([Route.of("a/#", "alpha")]), monkeypatch)
    monkeypatch.setattr(reload, "WAIT_SECONDS", 0.0)

    async def run():
        first = asyncio.create_task(service.ask())
        await asyncio.sleep(0)
        signals = [asyncio.create_task(service._reload_and_log()) for _ in range(20)]
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(first, *signals)
        await service._reload_and_log()

    asyncio.run(run())
    assert len(reads) == 3


def test_names_of_derived_topics_are_known_before_messages_are_routed_to_them(monkeypatch):
    """And the filters are compared in a thread."""
    before, after = RouteTable([Route.of("a/#", "alpha")]), RouteTable([Route.with_names("b/{x}", "k.{x}")])
    service = reloading(before, after, monkeypatch)
    order, threads = reload._order, []
    monkeypatch.setattr(reload, "_order", lambda *given: (threads.append(threading.get_ident()), order(*given))[1])
    asyncio.run(service.ask())
    assert service._derived_names.may_have("k.oslo")
    assert service._subscriptions.orders.take_up() == (("b/+",), frozenset())
    assert threads
    assert threading.get_ident() not in threads
