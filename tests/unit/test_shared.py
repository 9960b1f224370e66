"""Shared subscriptions: what a change of group or mappings does to the MQTT session."""

from __future__ import annotations

import itertools

import pytest

from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations

FIRST, SECOND = "a/b", "a/+"


# --- which copy is kept; without brokers


def make_session(*filters, like=None):
    """Return a session of the group; as after a restart, where another one is given that it is like."""
    session = Session(SharedGenerations("group", filters))
    if like is not None:
        session.subscriptions.recover(like.subscriptions.remembered, dict(like.generations.by_filter))
    return session


def connect(session, *, session_present=True, refused=()):
    """Connect, and answer what is asked for until nothing is left; return what was asked for."""
    plan = session.on_connected(session_present=session_present, renews=True)
    asked = list(plan.subscribe)
    for name in asked:
        session.subscriptions.on_subscribed(name, "Not authorized" if name in refused else None)
    session.subscriptions.pop_outdated()
    session.subscriptions.on_all_answered()
    return asked


def copies(session):
    """Return the identifiers of the copies of a message to `a/b`, by plain filter."""
    return {name.removeprefix("$share/group/"): number for name, number in session.generations.identifiers.items()}


def keeps(session, identifier):
    """Tell whether a worker keeps a copy of a message to `a/b`; the decision as the router makes it."""
    matching = [name for name in (FIRST, SECOND) if f"$share/group/{name}" in session.subscriptions.filters]
    kept = session.copies.winning_identifier(matching)
    return not kept or kept == identifier or session.copies.is_older_copy([identifier], matching)


def test_workers_of_different_age_keep_each_message_once_wherever_its_copies_go():
    """P1 and P4: the oldest subscription would win at one worker, and the first match at the other."""
    before = make_session(SECOND)
    connect(before, session_present=False)
    old, new = make_session(FIRST, SECOND, like=before), make_session(FIRST, SECOND)
    connect(old)
    connect(new, session_present=False)
    for first_goes_to, second_goes_to in itertools.product([old, new], repeat=2):
        assert keeps(first_goes_to, copies(first_goes_to)[FIRST])
        assert not keeps(second_goes_to, copies(second_goes_to)[SECOND])


def test_what_was_queued_before_a_filter_was_added_is_kept():
    """P1: there is no copy of it for the new filter, at no worker; also after another restart."""
    before = make_session(SECOND)
    connect(before, session_present=False)
    session = make_session(FIRST, SECOND, like=before)
    connect(session)
    assert keeps(session, copies(before)[SECOND])
    again = make_session(FIRST, SECOND, like=session)
    connect(again)
    assert copies(again) == copies(session), "nothing has changed, so nothing is doubled"
    assert keeps(again, copies(before)[SECOND])


def test_what_was_queued_before_the_order_of_the_filters_changed_is_kept():
    """P1: its other copy may have been dropped by a worker with the old order."""
    before = make_session(SECOND, FIRST)
    connect(before, session_present=False)
    session = make_session(FIRST, SECOND, like=before)
    connect(session)
    assert keeps(session, copies(before)[SECOND])
    assert keeps(session, copies(before)[FIRST])


@pytest.mark.parametrize("restarted", [False, True])
def test_a_worker_on_an_empty_directory_keeps_what_was_queued_and_soon_doubles_nothing(restarted):
    """P1 and P4: its node was lost, or its volume is not mounted; it was never sure of a generation from then on."""
    lost, other = make_session(FIRST, SECOND), make_session(FIRST, SECOND)
    for each in (lost, other):
        connect(each, session_present=False)
    session = make_session(FIRST, SECOND)
    session.subscriptions.recover(None, {})
    assert connect(session) == ["$share/group/a/b", "$share/group/a/+"], "in the order of precedence"
    if restarted:
        session = make_session(FIRST, SECOND, like=session)
        connect(session)
    for queued in copies(lost).values():
        assert keeps(session, queued), "the other copy may have been dropped, or acknowledged, by the lost worker"
    for first_goes_to, second_goes_to in itertools.product([session, other], repeat=2):
        assert keeps(first_goes_to, copies(first_goes_to)[FIRST])
        assert not keeps(second_goes_to, copies(second_goes_to)[SECOND])


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_queued_while_the_first_match_was_refused_is_kept(restarted):
    """P1: when it is granted, all are subscribed to again under new identifiers."""
    session = make_session(FIRST, SECOND)
    connect(session, session_present=False, refused=["$share/group/a/b"])
    queued = copies(session)[SECOND]
    assert keeps(session, queued), "nobody gets a copy for the refused filter"
    if restarted:
        session = make_session(FIRST, SECOND, like=session)
        asked = connect(session)
    else:
        session.subscriptions.on_subscribed("$share/group/a/b", None)
        assert not session.subscriptions.answered, "a connection that ends now is not the end of it"
        asked = session.subscriptions.pop_outdated()
        assert session.subscriptions.pop_outdated() == []
    assert asked == ["$share/group/a/b", "$share/group/a/+"], "in the order of precedence"
    assert keeps(session, queued)
    assert keeps(session, copies(session)[FIRST])
    assert not keeps(session, copies(session)[SECOND])
