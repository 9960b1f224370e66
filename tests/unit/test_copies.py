"""Which copy of a message is kept, while filters come, go, and come again and the broker holds messages from before.

A model of a broker queues a copy per subscription that it has, with the identifier that the subscription had then.
"""

from __future__ import annotations

import logging

import hypothesis
import hypothesis.strategies as st
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from app.core.requests import Remember
from app.mqtt.client import BridgeClient
from app.mqtt.conversation import Conversation
from app.mqtt.generations import Generations
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations
from app.mqtt.window import Window
from app.routes import subscription_identifiers
from app.throttle import Throttle
from tests.support.scripted_broker import connack_packet

HEARD = logging.getLogger("heard")

NAMES = ("a/b", "a/+", "#")  # all of them match a/b, in this order of precedence


class Broker:
    """What a broker does: one subscription per filter, a copy per subscription, and a queue."""

    def __init__(self):
        self.subscriptions: dict[str, int] = {}
        self.queue: list[tuple[int, int]] = []  # number of the message, identifier of the copy
        self.published = 0

    def publish(self):
        self.queue += [(self.published, identifier) for identifier in self.subscriptions.values()]
        self.published += 1


class Bridge:
    """One process after the other, with what the table remembers from one to the next."""

    def __init__(self, broker):
        self.broker = broker
        self.remembered = None
        self.generations: dict[str, int] = {}
        self.kept: list[int] = []
        self.refuses: set[str] = set()
        self.session = None

    def start(self, filters, *, dies_before_unsuback=False):
        """Start a process with these mappings, on a session that is kept; grant what the broker does not refuse."""
        session = self.session = Session(Generations(filters, subscription_identifiers(filters)))
        first = self.remembered is None
        session.subscriptions.recover(self.remembered, self.generations)
        plan = session.on_connected(session_present=not first, renews=True)
        self.ask(plan.subscribe)
        if plan.unsubscribe and dies_before_unsuback:
            self.generations = session.subscriptions.generations_without(plan.unsubscribe)
        for name in plan.unsubscribe:
            self.broker.subscriptions.pop(name, None)
        if not (plan.unsubscribe and dies_before_unsuback):
            self.remember()

    def ask(self, filters):
        for name in filters:
            if name in self.refuses:
                self.broker.subscriptions.pop(name, None)
                self.session.subscriptions.on_subscribed(name, "Not authorized")
            else:
                self.broker.subscriptions[name] = self.session.generations.identifiers[name]
                self.session.subscriptions.on_subscribed(name, None)
        for name in self.session.subscriptions.pop_outdated():
            self.broker.subscriptions[name] = self.session.generations.identifiers[name]
            self.session.subscriptions.on_subscribed(name, None)

    def remember(self):
        self.remembered = frozenset(self.session.subscriptions.on_all_answered())
        self.generations = self.session.generations.by_filter

    def drain(self):
        """Receive everything that is queued, and keep of it what is to be kept."""
        for number, identifier in self.broker.queue:
            kept = self.session.copies.winning_identifier(self.session.subscriptions.filters)
            if (
                not kept
                or kept == identifier
                or self.session.copies.is_older_copy([identifier], self.session.subscriptions.filters)
            ):
                self.kept.append(number)
        self.broker.queue.clear()


def test_a_filter_that_is_removed_and_added_again_does_not_cost_what_was_queued_when_it_was_alone():
    """Its copy is the only one, though an overlapping subscription is older by now."""
    broker = Broker()
    bridge = Bridge(broker)
    bridge.start(("a/b",))
    broker.publish()
    for filters in (("a/b", "a/+"), ("a/+",), ("a/b", "a/+")):
        bridge.start(filters)
    bridge.drain()
    assert bridge.kept == [0]
    broker.publish()
    bridge.drain()
    assert bridge.kept == [0, 1], "and nothing is doubled from then on"


def with_a_filter_refused():
    """Return a broker, and a bridge of which a later start is refused the older filter, between two messages."""
    broker = Broker()
    bridge = Bridge(broker)
    bridge.start(("a/b",))
    broker.publish()
    bridge.refuses.add("a/b")
    bridge.start(("a/b", "a/+"))
    broker.publish()
    return broker, bridge


def test_a_filter_that_is_refused_for_a_while_does_not_cost_what_was_queued_when_it_was_alone():
    broker, bridge = with_a_filter_refused()
    bridge.refuses.clear()
    bridge.ask(["a/b"])
    bridge.remember()
    broker.publish()
    bridge.drain()
    assert bridge.kept == [0, 1, 2]
    broker.publish()
    bridge.start(("a/b", "a/+"))
    broker.publish()
    bridge.drain()
    assert bridge.kept == [0, 1, 2, 3, 4]


def test_while_a_filter_is_refused_what_was_queued_for_it_alone_is_kept():
    _, bridge = with_a_filter_refused()
    bridge.drain()
    assert bridge.kept == [0, 1]


def test_a_process_that_ends_before_unsuback_does_not_cost_what_was_queued_without_the_filter():
    """The broker did what it was asked, and nobody was left to hear of it."""
    broker = Broker()
    bridge = Bridge(broker)
    bridge.start(("a/b",))
    bridge.start(("a/b", "a/+"))
    bridge.start(("a/+",), dies_before_unsuback=True)
    broker.publish()
    bridge.start(("a/b", "a/+"))
    broker.publish()
    bridge.drain()
    assert bridge.kept == [0, 1]


class Asking:
    """One process that asks a broker which never answers, and what it has remembered."""

    def __init__(self, filters, remembered, generations, *, session_present=True, on_disk=False, version=5, group=""):
        self.requests = []
        alone = Generations(filters, subscription_identifiers(filters))
        session = Session(SharedGenerations(group, filters) if group else alone)
        session.subscriptions.recover(remembered, generations, on_disk=on_disk)
        self.session, self.version = session, version
        self.connect(session_present=session_present)

    def connect(self, *, session_present):
        """Begin a connection, with another client, as the MQTT thread does."""
        client = BridgeClient("c", MQTTProtocolVersion(self.version), self.session, Window(bool), print, 10**6)
        self.conversation = Conversation(client, self.session, self.requests.append, Throttle(HEARD), Attempt(60))
        client.reader.feed(connack_packet(self.version, session_present=session_present))

    @property
    def generations(self):
        return [each.value for each in self.requests if isinstance(each, Remember)][-1]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("start", "is_told"),
    [
        ({"remembered": None, "generations": {}}, True),
        ({"remembered": None, "generations": {}, "group": "g"}, True),
        ({"remembered": frozenset({"$share/g/a/b"}), "generations": {"$share/g/a/b": 1}, "group": "g"}, False),
        ({"remembered": None, "generations": {}, "session_present": False}, False),
        ({"remembered": None, "generations": {}, "on_disk": False}, False),  # that nothing is on disk was said before
        ({"remembered": frozenset({"a/b"}), "generations": {"a/b": 1}}, False),
        ({"remembered": frozenset(), "generations": {"a/b": 1}}, False),  # the process before ended without SUBACK
    ],
)
def test_a_session_of_which_a_data_directory_knows_nothing_is_warned_of_once(start, is_told, version, caplog):
    """As where a volume was not mounted: the log had `session resumed` alone, and the backlog stayed behind."""
    process = Asking(("a/b",), **{"on_disk": True, "version": version, **start})
    process.connect(session_present=True)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == is_told
    assert all("check that the right volume is mounted" in text for text in told)


def test_what_is_asked_for_and_never_answered_is_remembered_and_its_generation_stands_for_nothing_else():
    first = Asking(("a/b", "a/+"), frozenset({"a/b"}), {"a/b": 1})
    assert first.generations["a/+"] == 2
    second = Asking(("a/b", "#"), frozenset({"a/b"}), first.generations)
    assert second.generations["#"] == 3
    assert second.conversation.subscriber.unwanted == ["a/+"], "the broker may have it"


def test_a_process_that_ends_before_unsuback_is_followed_by_one_that_unsubscribes_from_filters_only():
    """An empty filter is none: paho raises an error, and the bridge would connect again and again."""
    session = Session(Generations(("a/b",), subscription_identifiers(["a/b"])))
    session.subscriptions.recover(frozenset({"a/b", "a/+"}), {"a/b": 1, "a/+": 2})
    generations = session.subscriptions.generations_without(["a/+"])
    assert Asking(("a/b",), frozenset({"a/b", "a/+"}), generations).conversation.subscriber.unwanted == ["a/+"]


def test_of_a_new_session_only_what_was_heard_to_be_granted_is_of_its_first_generation():
    """A message that came between two connections has a copy of what was granted by then, and no other one."""
    session = Session(Generations(("a/b", "a/+"), subscription_identifiers(["a/b", "a/+"])))
    session.on_connected(session_present=False, renews=True)
    session.subscriptions.on_subscribed("a/b", None)
    session.on_connected(session_present=True, renews=True)
    assert session.generations.by_filter["a/b"] < session.generations.by_filter["a/+"]


FILTERS = st.sets(st.sampled_from(NAMES), min_size=1).map(lambda names: tuple(name for name in NAMES if name in names))
STEPS = st.one_of(
    st.just(("publish",)),
    st.just(("publish",)),
    st.just(("drain",)),
    st.tuples(st.just("start"), FILTERS, st.booleans()),
    st.tuples(st.just("refuse"), st.sampled_from(NAMES)),
    st.just(("ask again",)),
)


@hypothesis.given(st.lists(STEPS, max_size=25))
@hypothesis.settings(max_examples=400)
def test_no_history_of_filters_loses_a_message_and_in_a_quiet_time_none_is_doubled(steps):
    """Whatever was added, removed, refused and cut short before: a message that some subscription carried is kept."""
    broker = Broker()
    bridge = Bridge(broker)
    bridge.start(NAMES[:1])
    carried = set()
    for step in steps:
        if step[0] == "publish":
            if broker.subscriptions:
                carried.add(broker.published)
            broker.publish()
        elif step[0] == "drain":
            bridge.drain()
        elif step[0] == "start":
            bridge.start(step[1], dies_before_unsuback=step[2])
        elif step[0] == "refuse":
            bridge.refuses.symmetric_difference_update({step[1]})
        else:
            bridge.ask(list(bridge.session.subscriptions.refused))
            bridge.remember()
    bridge.refuses.clear()
    bridge.start(NAMES)
    bridge.drain()
    assert set(bridge.kept) == carried
    quiet = broker.published
    broker.publish()
    bridge.drain()
    assert bridge.kept.count(quiet) == 1
