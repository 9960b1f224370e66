"""The drain, as the MQTT session sees it: which subscriptions are left, and when."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.mqtt.unsubscribe_handshake import UnsubscribeHandshake
from app.mqtt.unsubscribing import Phase
from app.routes import subscription_identifiers

LOG = logging.getLogger(__name__)
DRAINED = "drained: subscribed to nothing until the next start"


def test_a_filter_that_was_removed_before_a_drain_and_comes_back_is_new():
    """P1: what was queued meanwhile has no copy of it. And nobody stays subscribed to what is not mapped."""
    session = Session(Generations(("a/+",), subscription_identifiers(["a/+"])))
    session.subscriptions.recover(["a/+"], {"a/b": 1, "a/+": 1})
    session.on_connected(session_present=True, renews=True)
    left = session.subscriptions.to_leave()
    assert left == ["a/+"]
    filters = ("a/b", "a/+")
    again = Session(Generations(filters, subscription_identifiers(filters)))
    again.subscriptions.recover([], session.generations.by_filter, left=left)
    plan = again.on_connected(session_present=True, renews=True)
    assert plan.subscribe == ["a/+", "a/b"]
    assert again.copies.winning_identifier(filters) == again.generations.identifiers["a/+"]
    assert again.subscriptions.to_leave() == ["a/+", "a/b"]


def test_filters_are_subscribed_to_again_from_the_oldest_to_the_youngest():
    """P1: else a message that comes between two SUBSCRIBEs had only the copy that is not kept."""
    filters = ("a/b", "a/+")
    session = Session(Generations(filters, subscription_identifiers(filters)))
    session.subscriptions.recover([], {"a/+": 1, "a/b": 2}, left=filters)
    assert session.subscriptions.youngest_first() == ["a/b", "a/+"]
    plan = session.on_connected(session_present=True, renews=True)
    assert plan.subscribe == ["a/+", "a/b"]
    assert session.copies.winning_identifier(["a/b", "a/+"]) == session.generations.identifiers[plan.subscribe[0]]


def test_a_removed_filter_is_left_though_its_subscription_was_never_answered():
    """An earlier process asked for it and ended before SUBACK; it would be subscribed to for ever."""
    session = Session(Generations(("kept",), subscription_identifiers(["kept"])))
    session.subscriptions.recover(frozenset(), {"removed": 1, "kept": 1})
    plan = session.on_connected(session_present=True, renews=True)
    assert (plan.subscribe, plan.unsubscribe) == (["kept"], ["removed"])


def test_while_the_broker_keeps_a_subscription_nobody_says_that_there_is_none():
    session = Session(Generations(("a/+", "b"), subscription_identifiers(["a/+", "b"])))
    assert session.unsubscribing.reason == ""
    session.unsubscribing.begin()
    assert session.unsubscribing.reason == "draining: the MQTT broker has not ended our subscriptions yet"
    session.unsubscribing.on_forgotten()
    session.unsubscribing.on_answered(1.0, {"a/+": "Not authorized"})
    assert session.unsubscribing.reason == (
        "draining: the MQTT broker does not end the subscription 'a/+' (Not authorized)"
    )
    session.unsubscribing.on_answered(2.0, {})
    assert session.unsubscribing.reason == DRAINED


@pytest.mark.parametrize("refused", [False, True])
def test_a_drain_says_that_it_has_left_when_the_last_of_several_unsubscribes_is_answered(refused):
    """A broker that takes small packets only gets one for each filter."""
    filters = ("a/+", "b")
    session = Session(Generations(filters, subscription_identifiers(filters)))
    session.unsubscribing.begin()
    sent = []
    client = SimpleNamespace(
        expect_answer=lambda *_: None,
        largest_bytes=12,
        unsubscribe=lambda names: (sent.append(names), len(sent)),
    )
    handshake = UnsubscribeHandshake(
        client, session.subscriptions, session.unsubscribing, lambda request: request.on_synced(), LOG
    )
    handshake.go_on()
    handshake.go_on()
    assert sorted(sent) == [["a/+"], ["b"]]
    reason = SimpleNamespace(is_failure=refused)
    handshake.on_unsubscribe(None, None, 1, [reason], None)
    assert (session.unsubscribing.phase, session.unsubscribing.kept) == (Phase.UNSUBSCRIBING, {})
    handshake.on_unsubscribe(None, None, 2, [SimpleNamespace(is_failure=False)], None)
    assert (session.unsubscribing.phase is Phase.UNSUBSCRIBED) == (not refused)
    assert list(session.unsubscribing.kept) == (sent[0] if refused else [])


def test_a_broker_that_closes_the_connection_at_each_unsubscribe_of_a_drain_is_named_with_what_to_do(caplog):
    """The third time: one connection may end for another reason. An answer begins the count anew."""
    session = Session(Generations(("a/+",), subscription_identifiers(["a/+"])))
    session.unsubscribing.begin()

    def connect():
        client = SimpleNamespace(expect_answer=lambda *_: None, largest_bytes=1000, unsubscribe=lambda _: (0, 1))
        handshake = UnsubscribeHandshake(
            client, session.subscriptions, session.unsubscribing, lambda request: request.on_synced(), LOG
        )
        handshake.go_on()
        handshake.go_on()
        return handshake

    for _ in range(3):
        handshake = connect()
        assert session.unsubscribing.reason == "draining: the MQTT broker has not ended our subscriptions yet"
    connect()
    assert "does not end the subscription 'a/+' (it closes the connection" in session.unsubscribing.reason
    assert "delete the session of this client id" in session.unsubscribing.reason
    handshake = connect()
    assert len(caplog.messages) == 1, "it is said once"
    handshake.on_unsubscribe(None, None, 1, [], None)
    assert session.unsubscribing.reason == DRAINED
    connect()
    assert not session.unsubscribing.kept
