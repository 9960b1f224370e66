"""The window of one connection and the session that outlives it, without sockets: what is acknowledged, and when."""

from __future__ import annotations

import random
import time

import pytest

from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.mqtt.generations import Generations, identifier_of
from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations
from app.mqtt.subscriptions import RENEW_SECONDS
from app.mqtt.window import Acknowledger, Window
from app.routes import subscription_identifiers

PUBACK, PUBREC, PUBCOMP = 0x40, 0x50, 0x70


class Wakes:
    """Counts how often the MQTT thread was woken."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


def make_message(identifier, window=None, qos=1, dup=False):
    message = Message(b"a", b"payload", qos, dup << 3 | qos << 1, identifier, b"", 0, window)
    if window is not None:
        window.add(message)
    return message


def receive(budget, message):
    """Count a message as the MQTT thread does."""
    budget.received_messages += 1
    budget.received_bytes += message.size_bytes
    return message


def sent(window):
    """Return and take away what waits for the socket: packet type and identifier of each packet."""
    data = b"".join(window.outgoing)
    window.outgoing.clear()
    assert all(data[position + 1] == 2 for position in range(0, len(data), 4))
    return [
        (data[position], int.from_bytes(data[position + 2 : position + 4], "big"))
        for position in range(0, len(data), 4)
    ]


def make_session(*filters, remembered=None, **options):
    identifiers = {name: number for number, name in enumerate(filters, 1)}
    session = Session(Generations(filters, identifiers), **options)
    session.subscriptions.recover(remembered, {})
    return session


def connect(session, *, session_present, renews=True):
    return session.on_connected(session_present=session_present, renews=renews)


def complete(session, plan):
    """Grant everything that was asked for; return what is remembered."""
    for name in plan.subscribe:
        session.subscriptions.on_subscribed(name, None)
    return session.subscriptions.on_all_answered()


# --- acknowledgements


def test_messages_that_become_safe_in_any_order_are_acknowledged_in_the_order_of_receipt():
    """P9: an acknowledgement waits for the older messages; one that is safe alone sends nothing."""
    wakes = Wakes()
    window = Window(wakes)
    acknowledger = Acknowledger(MemoryBudget())
    first, second, third = (make_message(number, window) for number in (7, 3, 5))
    acknowledger.acknowledge([third, second])
    assert (sent(window), wakes.count) == ([], 0)
    acknowledger.acknowledge([first])
    assert sent(window) == [(PUBACK, 7), (PUBACK, 3), (PUBACK, 5)]
    assert wakes.count == 1
    assert not window.pending
    assert not window.identifiers


def test_qos_1_and_2_share_one_order():
    """P9: PUBACK and PUBREC are in one order, that of receipt."""
    window = Window(Wakes())
    messages = [make_message(number, window, qos) for number, qos in ((1, 2), (2, 1), (3, 2))]
    Acknowledger(MemoryBudget()).acknowledge(reversed(messages))
    assert sent(window) == [(PUBREC, 1), (PUBACK, 2), (PUBREC, 3)]


def test_a_message_that_becomes_safe_twice_is_acknowledged_and_counted_once():
    """P8 and P9: Kafka's report and the sync may both come."""
    window, budget = Window(Wakes()), MemoryBudget()
    message = receive(budget, make_message(9, window))
    acknowledger = Acknowledger(budget)
    acknowledger.acknowledge([message, message])
    acknowledger.acknowledge([message])
    assert sent(window) == [(PUBACK, 9)]
    assert (budget.held_messages, budget.received_bytes - budget.safe_bytes) == (0, 0)


def test_a_closed_window_sends_nothing():
    """P9: on the next connection, the packet identifier means another message."""
    wakes = Wakes()
    window, budget = Window(wakes), MemoryBudget()
    message = receive(budget, make_message(1, window))
    window.close()
    Acknowledger(budget).acknowledge([message])
    window.complete([4])
    assert (sent(window), wakes.count) == ([], 0)
    assert budget.held_messages == 0, "it is safe all the same, and makes room"


def test_a_message_without_a_window_only_makes_room():
    """P6: QoS 0 is never acknowledged but counts while memory alone holds it."""
    budget = MemoryBudget()
    message = receive(budget, make_message(0, None, qos=0))
    Acknowledger(budget).acknowledge([message])
    assert budget.held_messages == 0


def test_pubcomp_is_sent_for_every_identifier_in_order():
    """P9: also for one that nobody knows."""
    window = Window(Wakes())
    window.complete([5, 65535, 1])
    assert sent(window) == [(PUBCOMP, 5), (PUBCOMP, 65535), (PUBCOMP, 1)]


def test_the_reader_is_woken_when_half_of_the_room_is_free():
    """P6: a full memory stops the reading, and room lets it go on."""
    wakes = Wakes()
    budget = MemoryBudget(limit_messages=4, wake=wakes)
    messages = [receive(budget, make_message(number)) for number in range(4)]
    assert budget.check_full()
    acknowledger = Acknowledger(budget)
    acknowledger.acknowledge(messages[:2])
    assert wakes.count == 0
    acknowledger.acknowledge(messages[2:3])
    assert wakes.count == 1
    assert not budget.check_full()


def test_the_reader_is_woken_when_memory_was_full_by_bytes():
    """P6: few large messages fill the memory as many small ones do."""
    wakes = Wakes()
    budget = MemoryBudget(limit_bytes=2000, wake=wakes)
    messages = [receive(budget, make_message(number)) for number in range(4)]
    assert budget.check_full()
    Acknowledger(budget).acknowledge(messages)
    assert wakes.count
    assert not budget.check_full()


@pytest.mark.parametrize("seed", range(20))
def test_any_interleaving_acknowledges_what_a_naive_model_does(seed):
    """P1 and P9: never before it is safe, never out of order, never for another connection."""
    moves = random.Random(seed)
    budget = MemoryBudget()
    acknowledger = Acknowledger(budget)
    window, acknowledged, expected = Window(Wakes()), [], []
    received, unsafe, done = [], [], 0
    for _ in range(400):
        move = moves.random()
        if move < 0.5:
            message = receive(budget, make_message(moves.randrange(1, 65536), window, moves.choice((1, 2))))
            received.append(message)
            unsafe.append(message)
        elif move < 0.97 and unsafe:
            chosen = moves.sample(unsafe, moves.randrange(1, min(5, len(unsafe)) + 1))
            unsafe = [message for message in unsafe if message not in chosen]
            acknowledger.acknowledge(chosen)
        elif move >= 0.97:
            window.close()
            acknowledged += sent(window)
            window, received, done = Window(Wakes()), [], 0
        # The model: of this connection's messages, all up to the first that is not safe.
        while done < len(received) and received[done] not in unsafe:
            message = received[done]
            expected.append((PUBACK if message.qos == 1 else PUBREC, message.packet_identifier))
            done += 1
        acknowledged += sent(window)
        assert acknowledged == expected
        assert budget.held_messages == len(unsafe)


# --- one message on two connections


def test_a_message_on_two_windows_is_acknowledged_on_the_open_one_only():
    """P9: a QoS 2 message that came again after a reconnect gets its PUBREC on the new connection."""
    old, new = Window(Wakes()), Window(Wakes())
    message = make_message(8, old, qos=2)
    old.close()
    message.window = new
    new.add(message)
    Acknowledger(MemoryBudget()).acknowledge([message])
    assert (sent(old), sent(new)) == ([], [(PUBREC, 8)])


def test_a_message_that_was_safe_before_its_redelivery_is_acknowledged_in_its_turn():
    """P9: it waits for what the new connection received before it."""
    acknowledger = Acknowledger(MemoryBudget())
    old, new = Window(Wakes()), Window(Wakes())
    known = make_message(8, old, qos=2)
    acknowledger.acknowledge([known])
    old.close()
    first = make_message(1, new)
    known.window = new
    new.add(known)
    new.acknowledge_safe()
    assert sent(new) == []
    acknowledger.acknowledge([first])
    assert sent(new) == [(PUBACK, 1), (PUBREC, 8)]


# --- the session


def test_without_a_session_everything_is_subscribed_and_old_identifiers_are_forgotten():
    """P9: an identifier of the lost session must not swallow a message of the new one."""
    session = make_session("a", "b/#")
    session.qos2.recover({4: 0, 5: 0})
    plan = connect(session, session_present=False)
    assert (plan.subscribe, plan.unsubscribe) == (["a", "b/#"], [])
    assert not session.qos2.awaiting_release
    assert session.copies.winning_identifier(["a", "b/#"]) == 1, "the first match's"
    assert session.lost == 0, "there was none that could be lost"


def test_a_session_is_lost_only_if_there_was_one():
    """P8: losses are counted, first starts are not."""
    session = make_session("a", remembered=["a"])
    connect(session, session_present=False)
    assert session.lost == 1
    complete(session, connect(session, session_present=True))
    connect(session, session_present=False)
    assert session.lost == 2


def test_a_resumed_session_gets_the_new_filters_and_loses_the_removed_ones():
    """P4: what was queued before a filter was added has no copy of it, so the oldest one's is kept."""
    session = make_session("a", "b/#", remembered=["b/#", "old"])
    session.generations.replace({"b/#": 1, "old": 1})
    plan = connect(session, session_present=True)
    assert (plan.subscribe, plan.unsubscribe) == (["b/#", "a"], ["old"]), "the oldest first"
    assert session.copies.winning_identifier(["a", "b/#"]) == 2
    assert session.copies.winning_identifier(["a"]) == session.generations.identifiers["a"]
    again = make_session("a", "b/#", remembered=complete(session, plan))
    again.generations.replace(session.generations.by_filter)
    connect(again, session_present=True)
    assert again.copies.winning_identifier(["a", "b/#"]) == 2, (
        "the next start keeps the same copy, old ones may still be queued"
    )


def test_copies_by_removed_filters_are_kept_where_nothing_else_may_carry_the_message():
    """P4: a message that was queued for a filter that is no longer mapped is not lost."""
    session = make_session("a", "b/#", remembered=["b/#"])
    session.generations.replace({"older": 1, "b/#": 2, "same": 2})
    connect(session, session_present=True)
    identifiers = subscription_identifiers(["older", "never heard of"]) | {"same": identifier_of("same", 2)}
    assert session.copies.is_older_copy([identifiers["older"]], ["a", "b/#"])
    assert session.copies.is_older_copy([identifiers["never heard of"]], ["a", "b/#"])
    assert not session.copies.is_older_copy([identifiers["same"]], ["a", "b/#"]), "the copy of b/# comes as well"
    assert not session.copies.is_older_copy([session.generations.identifiers["a"]], ["a", "b/#"]), (
        "a mapped filter's has its sibling"
    )


def test_of_a_session_whose_data_directory_is_lost_every_copy_is_kept_until_its_filters_are_subscribed_to_anew():
    """P4: on an empty directory, or in memory, nothing may be lost for it; and nothing comes twice for ever."""
    first = make_session("a", "b/#")
    connect(first, session_present=False)
    session = make_session("a", "b/#")
    assert connect(session, session_present=True).subscribe == ["a", "b/#"]
    identifiers = session.generations.identifiers
    assert session.copies.winning_identifier(["a", "b/#"]) == identifiers["a"]
    assert not session.copies.is_older_copy([identifiers["b/#"]], ["a", "b/#"]), "that of a comes as well"
    for name, identifier in first.generations.identifiers.items():
        assert session.copies.is_older_copy([identifier], ["a", "b/#"]), f"the only copy may be that of {name}"
    assert session.copies.is_older_copy([12345], ["a", "b/#"]), "of a filter that nobody knows"


def test_the_start_after_that_knows_its_subscriptions():
    """P4: they are remembered, as those of a new session are."""
    session = make_session("a", "b/#")
    remembered = complete(session, connect(session, session_present=True))
    again = make_session("a", "b/#", remembered=remembered)
    again.generations.replace(dict(session.generations.by_filter))
    connect(again, session_present=True)
    assert again.generations.identifiers == session.generations.identifiers
    assert again.copies.winning_identifier(["a", "b/#"]) == session.generations.identifiers["a"]


def test_a_process_that_ended_before_its_subscriptions_were_answered_does_not_cost_their_messages():
    """P4: what the broker queued for the older filter alone is kept, though a new one comes first now."""
    first = make_session("b/#")
    connect(first, session_present=False)
    session = make_session("b/c", "b/#")
    session.subscriptions.recover(frozenset(), dict(first.generations.by_filter))
    connect(session, session_present=True)
    assert session.copies.is_older_copy([first.generations.identifiers["b/#"]], ["b/c", "b/#"]), (
        "it is not known what was granted"
    )


def test_what_was_asked_for_and_not_answered_is_unsubscribed_from_when_it_is_not_mapped_any_more():
    """P4: the broker may have granted it, and would send it for ever."""
    first = make_session("old", "b/#")
    connect(first, session_present=False)
    session = make_session("b/#", remembered=[])
    session.generations.replace(dict(first.generations.by_filter))  # as the table has them
    assert connect(session, session_present=True).unsubscribe == ["old"]
    again = make_session("b/#", remembered=complete(session, connect(session, session_present=True)))
    again.generations.replace(session.generations.by_filter)
    assert connect(again, session_present=True).unsubscribe == ["old"], "as the broker may resume an older session"
    connect(again, session_present=False)
    assert connect(again, session_present=True).unsubscribe == [], "it was of the session that is lost"


@pytest.mark.parametrize(
    ("age_seconds", "asked"), [(RENEW_SECONDS + 60, ["a"]), (RENEW_SECONDS - 60, ["b/#", "a"]), (-60, ["b/#", "a"])]
)
def test_with_3_1_1_what_was_granted_less_than_a_day_ago_is_asked_for_again(age_seconds, asked):
    """The broker may have saved the session before; and MQTT 3.1.1 sends retained messages again at each SUBSCRIBE."""
    session = make_session("a", "b/#", remembered=["b/#", "old"])
    session.subscriptions.granted_at = {"b/#": time.time() - age_seconds}  # as the table has it
    plan = connect(session, session_present=True, renews=False)
    assert (plan.subscribe, plan.unsubscribe) == (asked, ["old"])


def test_a_clock_that_was_not_set_when_a_filter_was_granted_makes_it_no_older(monkeypatch):
    """Machines without a battery begin in 1970; hours later the filter would seem to be decades old."""
    session = make_session("a")
    monkeypatch.setattr(time, "time", lambda: 60.0)
    complete(session, connect(session, session_present=False, renews=False))
    monkeypatch.undo()
    later = make_session("a", remembered=["a"])
    later.subscriptions.granted_at = session.subscriptions.granted_at
    for each in (session, later):
        assert connect(each, session_present=True, renews=False).subscribe == ["a"]


def test_a_reconnect_subscribes_to_everything_where_that_is_harmless():
    """MQTT 5: the broker may have resumed a session that it saved before the newest subscriptions."""
    session = make_session("a", remembered=["a"])
    complete(session, connect(session, session_present=True))
    plan = connect(session, session_present=True)
    assert (plan.subscribe, plan.unsubscribe) == (["a"], [])


@pytest.mark.parametrize("session_present", [False, True])
def test_what_was_not_answered_is_asked_again_on_the_next_connection(session_present):
    """A connection that ends before SUBACK must not leave the session without its subscriptions."""
    session = make_session("a", "b", remembered=["a", "old"])
    connect(session, session_present=session_present)
    plan = connect(session, session_present=True)
    assert plan.subscribe == ["a", "b"]
    assert plan.unsubscribe == (["old"] if session_present else [])


def test_a_lost_session_is_subscribed_anew_whatever_was_remembered():
    """Without subscription identifiers too, a connection that ends before SUBACK loses no filter."""
    session = make_session("a", "b", remembered=["a"])
    connect(session, session_present=False, renews=False)
    assert connect(session, session_present=True, renews=False).subscribe == ["a", "b"]


def test_a_refused_filter_is_named_until_it_is_granted():
    """Its copies are not waited for, as none will come."""
    session = make_session("a", "b")
    connect(session, session_present=False)
    session.subscriptions.on_subscribed("a", "Not authorized")
    session.subscriptions.on_subscribed("b", None)
    assert session.subscriptions.refused == {"a": "Not authorized"}
    assert session.copies.winning_identifier(["a", "b"]) == 2
    session.subscriptions.on_subscribed("a", None)
    assert session.subscriptions.refused == {}
    assert session.copies.winning_identifier(["a", "b"]) == 2, (
        "what is queued has no copy of the one that was just granted"
    )


class AskedInBetween(dict):
    """A dict that asks a question whenever an entry was taken away, as another thread may."""

    def __init__(self, entries, ask):
        super().__init__(entries)
        self._ask = ask
        self.answers = []

    def pop(self, *arguments):
        value = super().pop(*arguments)
        self.answers.append(self._ask())
        return value

    def __delitem__(self, name):
        super().__delitem__(name)
        self.answers.append(self._ask())


@pytest.mark.parametrize("group", ["", "group"])
def test_the_router_may_ask_while_a_filter_is_granted_that_was_refused(group):
    """P1: it runs on another thread; the copy of the other filter, queued by then, has no sibling."""
    session = Session(SharedGenerations(group, ("a", "b"))) if group else make_session("a", "b")
    connect(session, session_present=False)
    name = session.subscriptions.filters[0]
    session.subscriptions.on_subscribed(name, "Not authorized")
    queued = session.generations.identifiers[session.subscriptions.filters[1]]

    def is_kept():
        return session.copies.winning_identifier(["a", "b"]) == queued or session.copies.is_older_copy(
            [queued], ["a", "b"]
        )

    session.subscriptions.refused = AskedInBetween(session.subscriptions.refused, is_kept)
    session.subscriptions.on_subscribed(name, None)
    assert session.subscriptions.refused.answers == [True]
    assert is_kept()


def test_restored_identifiers_await_their_pubrel():
    """P3: a stored QoS 2 message that comes again is recognised, and safe to acknowledge."""
    session = make_session("a")
    session.qos2.recover({3: 0})
    message = session.qos2.awaiting_release[3]
    assert (message.qos, message.packet_identifier) == (2, 3)
    assert message.safe
    assert message.stored


def test_a_stored_message_is_not_held_until_its_pubrel():
    """P6: a broker that sends no PUBREL does not fill the memory; the identifier is known all the same."""
    session = make_session("a")
    messages = [make_message(identifier, qos=2) for identifier in range(1, 11)]
    for message in messages:
        session.qos2.begin(message)
        message.stored = message.safe = True
    session.qos2.begin(make_message(11, qos=2))
    assert not any(message in session.qos2.awaiting_release.values() for message in messages)
    again = make_message(4, qos=2)
    again.flags |= 8
    assert session.qos2.redelivered(again) is session.qos2.awaiting_release[4]
    assert session.qos2.awaiting_release[4].safe
    again.payload = b"another message"
    assert session.qos2.redelivered(again) is None, "the broker has used the identifier for another one"
    assert session.qos2.end(4), "the table must forget it"


def test_a_message_whose_identifier_is_used_again_is_stored_without_it():
    """P1: in the table, the identifier would outlive the flow, and swallow another message after a crash."""
    session = make_session("a")
    old, new = make_message(3, qos=2), make_message(3, qos=2)
    session.qos2.begin(old)
    session.qos2.begin(new)
    assert (old.packet_identifier, new.packet_identifier) == (0, 3)
    assert not session.qos2.end(3), "there is nothing that the table would have to forget"


def test_an_identifier_that_is_used_again_and_again_stays_one_that_the_table_may_hold():
    """P1: the table still holds it of the first message, whatever became of the next ones."""
    session = make_session("a")
    first = make_message(3, qos=2)
    session.qos2.begin(first)
    first.stored = True
    for _ in range(2):
        session.qos2.begin(make_message(3, qos=2))
    assert session.qos2.end(3), "PUBREL has it forgotten"
