"""What passes between the MQTT thread and the event loop, and the phases of a drain; without brokers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.core.requests import Batch, ForgetIdentifiers, Remember
from app.mqtt.unsubscribing import ATTEMPTS, Phase, Unsubscribing
from app.mqtt.window import Window
from tests.support.app_settings import app_settings

with app_settings():
    from app import channels
    from app.mqtt.hand_over import READ, WRITE, HandOver


def handed_over(act):
    """Return a hand-over of a running event loop, and what `act` did with it on another thread."""

    async def main():
        with opened(MemoryBudget()) as hand_over:
            return hand_over, await asyncio.to_thread(act, hand_over)

    return asyncio.run(main())


@contextlib.contextmanager
def opened(flow):
    """Give a hand-over of the running event loop; the worker's lasts as long as its process."""
    hand_over = HandOver(flow)
    hand_over.open()
    with hand_over._waker, hand_over._wakened, hand_over._selector:
        yield hand_over


def test_a_wake_ends_the_wait_also_when_it_came_before(monkeypatch):
    monkeypatch.setattr("app.mqtt.hand_over.WAIT_SECONDS", 60.0)

    def act(hand_over):
        began = time.monotonic()
        hand_over.wake()
        hand_over.wake()
        assert hand_over.wait(None, 0) == 0
        threading.Timer(0.05, hand_over.wake).start()
        assert hand_over.wait(None, 0) == 0
        return time.monotonic() - began

    assert handed_over(act)[1] < 30


def test_the_wait_says_what_the_connection_is_ready_for():
    def act(hand_over):
        ours, brokers = socket.socketpair()
        with ours, brokers:
            found = [hand_over.wait(ours, READ | WRITE)]
            brokers.send(b"x")
            found.extend(hand_over.wait(ours, events) for events in (READ | WRITE, READ, WRITE))
            hand_over.wake()
            found.append(hand_over.wait(ours, 0))
            hand_over.wait_for_none()
        return found

    assert handed_over(act)[1] == [WRITE, READ | WRITE, READ, WRITE, 0]


def test_what_the_thread_hands_over_arrives_in_its_order_and_is_counted(monkeypatch):
    arrived = []

    class Channel:
        async def put(self, item):
            arrived.append(item)

        put_now = arrived.append

    monkeypatch.setattr(channels, "inbound", Channel())
    monkeypatch.setattr(channels, "undelivered", Channel())

    async def main():
        flow = MemoryBudget()
        with opened(flow) as hand_over:
            await hand_over_some(hand_over)
        assert (flow.received_messages, flow.received_bytes) == (
            1,
            sum(each.size_bytes for each in arrived[0].messages),
        )

    async def hand_over_some(hand_over):
        passing = asyncio.ensure_future(hand_over.into_channels())
        window = Window(hand_over.wake)
        message = Message(b"a", b"1", 0, 0, 0, b"", 0, None)
        batch, empty = Batch([message], window, message.size_bytes), Batch([], window)
        remembered = Remember("generations", {})
        await asyncio.to_thread(hand_over.pass_batch, batch, [7])
        await asyncio.to_thread(hand_over.pass_batch, empty, [])
        await asyncio.to_thread(hand_over.pass_request, remembered)
        while len(arrived) < 3:
            await asyncio.sleep(0)
        passing.cancel()
        assert arrived == [batch, ForgetIdentifiers([7], window), remembered]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_qos_2_message_that_came_again_and_is_safe_already_is_acknowledged_on_its_new_connection():
    """P9: nothing else will make it safe, so nobody but the hand-over would acknowledge it."""

    async def main():
        with opened(MemoryBudget()) as hand_over:
            passing = asyncio.ensure_future(hand_over.into_channels())
            window = Window(hand_over.wake)
            known = Message(b"a", b"1", 2, 4, 8, b"", 0, window)
            known.safe = True
            window.add(known)
            await asyncio.to_thread(hand_over.pass_batch, Batch([], window, came_again=True), [])
            while not window.outgoing:
                await asyncio.sleep(0)
            passing.cancel()
            return list(window.outgoing)

    assert asyncio.run(asyncio.wait_for(main(), 10)) == [b"\x50\x02\x00\x08"]


def test_when_the_event_loop_is_closed_the_thread_is_told():
    hand_over, _ = handed_over(lambda _hand_over: None)
    hand_over.pass_request(Remember("generations", {}))
    assert hand_over.is_over


def test_a_drain_goes_through_its_phases_and_begins_anew_with_each_connection():
    drain = Unsubscribing()
    assert (drain.on_connection(), drain.has_begun) == ([], False)
    drain.begin()
    drain.on_forgotten()
    drain.on_asked(["a"])
    drain.on_answered(1.0, {"a": "Not authorized"})
    assert (drain.phase, drain.kept) == (Phase.UNSUBSCRIBING, {"a": "Not authorized"})
    drain.on_answered(2.0, {})
    assert (drain.phase, drain.answered_at, drain.kept) == (Phase.UNSUBSCRIBED, 2.0, {})
    assert drain.has_answered_since(1.5, 3.0)
    assert not drain.has_answered_since(2.5, 3.0)
    assert drain.wants_answer
    drain.on_connection()
    assert (drain.phase, drain.unsubscribed_at, drain.answered_at) == (Phase.FORGETTING, 0.0, 0.0)


def test_a_step_of_a_drain_that_cannot_be_fails_in_place():
    drain = Unsubscribing()
    with pytest.raises(AssertionError, match="SUBSCRIBED"):
        drain.on_forgotten()
    drain.begin()
    with pytest.raises(AssertionError, match="FORGETTING"):
        drain.on_answered(1.0, {})


def test_a_filter_without_an_answer_on_several_connections_counts_as_kept():
    drain = Unsubscribing()
    drain.begin()
    news = []
    for _ in range(ATTEMPTS + 1):
        drain.on_asked(["a", "b"])
        drain.on_unsuback(["b"])
        news.append(drain.on_connection())
    assert news == [[], [], ["a"], []]
    assert list(drain.kept) == ["a"]
