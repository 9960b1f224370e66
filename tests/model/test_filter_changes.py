"""The filters of a running worker change while messages come: none is lost, and which copies are kept more than once.

A model of a broker queues a copy per subscription, in any order; each step of a change may come between any two copies.
"""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st

from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.routes import subscription_identifiers

NAMES = ("a/b", "a/+", "a/#", "#")  # all of them match a/b


class World:
    """A broker, and a worker that is connected to it.

    Attributes:
        kept: The numbers of the messages that became records.
        carried: Those that a subscription matched.
    """

    def __init__(self, filters):
        self.subscriptions: dict[str, int] = {}
        self.queue: list[tuple[int, int]] = []  # number of the message, identifier of the copy
        self.published = 0
        self.kept: list[int] = []
        self.carried: set[int] = set()
        self.mapped = tuple(filters)
        self.session = Session(Generations(filters, subscription_identifiers(filters)))
        self.session.subscriptions.recover([], {})
        self.subscribe(self.session.on_connected(session_present=False, renews=True).subscribe)
        self.removes = False
        self.steps = iter(())

    def subscribe(self, filters):
        for name in filters:
            self.subscriptions[name] = self.session.generations.identifiers[name]
            self.session.subscriptions.on_subscribed(name, None)

    def start_on_an_empty_directory(self):
        """Take up the session as a worker does that knows nothing of it; messages come between its SUBSCRIBEs."""
        self.session = Session(Generations(self.mapped, subscription_identifiers(self.mapped)))
        self.session.subscriptions.recover(None, {})
        for name in self.session.on_connected(session_present=True, renews=True).subscribe:
            self.subscribe([name])
            self.publish(len(name))
        self.session.subscriptions.on_all_answered()

    def publish(self, order):
        copies = [(self.published, identifier) for identifier in self.subscriptions.values()]
        self.carried.update(number for number, _ in copies)
        self.queue += sorted(copies, key=lambda copy: (copy[1] * order) % 1009)
        self.published += 1

    def receive(self, copies):
        """Judge the first copies of the queue as the router does."""
        judge = self.session.copies
        matching = (*self.mapped, *judge.removed_filters(self.mapped))
        for number, identifier in self.queue[:copies]:
            winning = judge.winning_identifier(matching)
            if winning in (0, identifier) or judge.is_older_copy([identifier], matching):
                self.kept.append(number)
        del self.queue[:copies]

    def change(self, filters):
        """Begin a change, once the last one is done."""
        self.go_on(9)
        self.removes |= not set(self.mapped) <= set(filters)
        self.steps = self.change_in_steps(filters)

    def go_on(self, steps):
        for _ in range(steps):
            next(self.steps, None)

    def change_in_steps(self, filters):
        """Change as `app.lifecycle.reload` on the event loop and `Subscriber` on the MQTT thread do, step by step."""
        subscriptions = self.session.subscriptions
        subscriptions.orders.order(filters)
        self.mapped = tuple(filters)
        yield
        removed = set(subscriptions.filters).difference(filters)
        added = subscriptions.take_up_order()
        yield
        for name in added:
            self.subscribe([name])
            yield
        subscriptions.leave(removed)
        yield
        for name in removed:
            self.subscriptions.pop(name, None)
        yield
        subscriptions.on_all_answered()


FILTERS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 1000)),
    st.tuples(st.just("receive"), st.integers(1, 3)),
    st.tuples(st.just("change"), FILTERS),
    st.tuples(st.just("go_on"), st.integers(1, 2)),
    st.tuples(st.just("reconnect")),
)


@hypothesis.given(FILTERS, st.lists(STEPS, max_size=30))
@hypothesis.settings(max_examples=1000)
def test_no_change_of_filters_loses_a_message_and_only_one_that_removes_some_may_double_any(filters, steps):
    world = World(filters)
    for name, *values in steps:
        if name == "reconnect":
            world.go_on(9)
            world.subscribe(world.session.on_connected(session_present=True, renews=True).subscribe)
        else:
            getattr(world, name)(*values)
    world.go_on(9)
    world.receive(len(world.queue))
    assert set(world.kept) == world.carried
    if not world.removes:
        assert len(world.kept) == len(world.carried)
    before = len(world.kept)
    world.publish(1)
    world.receive(len(world.queue))
    assert len(world.kept) == before + 1


@hypothesis.given(FILTERS, st.lists(STEPS, max_size=12), st.integers(0, 9))
@hypothesis.settings(max_examples=300)
def test_a_worker_on_an_empty_directory_loses_nothing_of_the_session_and_soon_doubles_nothing(filters, steps, copies):
    """P4: what an earlier one left queued is kept; what is published after the filters were subscribed to, once."""
    world = World(filters)
    for name, *values in steps:
        if name != "reconnect":
            getattr(world, name)(*values)
    world.go_on(9)
    world.receive(copies)
    world.start_on_an_empty_directory()
    queued = {number for number, _ in world.queue}
    world.receive(len(world.queue))
    assert queued <= set(world.kept)
    before = len(world.kept)
    world.publish(1)
    world.receive(len(world.queue))
    assert len(world.kept) == before + 1
