"""The QoS of each subscription: that of its route, or MQTT_QOS."""

from __future__ import annotations

import time

import pytest

from app.mqtt.generations import Generations
from app.mqtt.granted import of_suback
from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations
from app.mqtt.subscriptions import RENEW_SECONDS
from app.mqtt.wanted_qos import WantedQos
from app.routes import Route, RouteTable, Template

TO = Template("k")
ROUTES = RouteTable([Route("a", "a", TO, qos=0), Route("b", "b/#", TO), Route("c", "c", TO, qos=2)])
FILTERS = ("a", "b/#", "c")


def make_session(routes: RouteTable = ROUTES, default: int = 1) -> Session:
    return Session(Generations(FILTERS, {name: number for number, name in enumerate(FILTERS, 1)}), default, routes)


def granted(session: Session) -> dict[str, int]:
    """Have a session begin, and all of it granted; return with which QoS each filter is asked for."""
    for name in session.on_connected(session_present=False, renews=False).subscribe:
        session.subscriptions.on_subscribed(name, None)
    session.subscriptions.on_all_answered()
    return {name: session.qos.to_ask(name) for name in FILTERS}


def asked_again(session: Session, asked_qos: dict[str, int] | None) -> list[str]:
    """Return what the next process subscribes to with MQTT 3.1.1, after a time in which nothing is renewed."""
    old = dict.fromkeys(FILTERS, time.time() - RENEW_SECONDS - 60)
    session.subscriptions.recover(FILTERS, dict.fromkeys(FILTERS, 1), granted_at=old, asked_qos=asked_qos)
    return session.on_connected(session_present=True, renews=False).subscribe


def test_each_filter_is_asked_for_with_the_qos_of_its_route():
    assert granted(make_session()) == {"a": 0, "b/#": 1, "c": 2}
    assert granted(make_session(default=2)) == {"a": 0, "b/#": 2, "c": 2}


def test_a_shared_filter_has_the_qos_of_its_route():
    session = Session(SharedGenerations("group", FILTERS), 1, ROUTES)
    assert [session.qos.of(name) for name in session.subscriptions.filters] == [0, 1, 2]


def test_a_broker_that_does_not_answer_to_qos_2_is_asked_for_1_where_2_was_wanted():
    qos = WantedQos(1, ROUTES)
    assert qos.is_asked_for_2(FILTERS) and not qos.is_asked_for_2(["a", "b/#"])
    assert qos.named(FILTERS) == "0 and 1 and 2"
    qos.ask_for_1_at_most()
    assert {name: qos.to_ask(name) for name in FILTERS} == {"a": 0, "b/#": 1, "c": 1}
    assert qos.of("c") == 2 and not qos.is_asked_for_2(FILTERS)


def test_what_is_granted_is_compared_with_what_was_wanted_for_each_filter():
    found = of_suback(WantedQos(1, ROUTES).of, {"a": 0, "b/#": 0, "c": 1})
    assert [(each.what, each.asked, each.granted) for each in found] == [
        ("for 'b/#' QoS", "1", "0"),
        ("for 'c' QoS", "2", "1"),
    ]


@pytest.mark.parametrize(
    ("asked_qos", "again"),
    [
        ({"a": 0, "b/#": 1, "c": 2}, []),
        ({"a": 1, "b/#": 1, "c": 1}, ["a", "c"]),
        (None, ["a", "c"]),  # an older version remembered none, and asked for all with MQTT_QOS
    ],
)
def test_with_3_1_1_a_filter_whose_qos_is_another_one_is_asked_for_again(asked_qos, again):
    """Else it would keep the old QoS for as long as the session lives: with this version nothing else is renewed."""
    assert asked_again(make_session(), asked_qos) == again


def test_what_was_asked_for_is_remembered_as_long_as_the_session_has_it():
    session = make_session()
    granted(session)
    assert session.subscriptions.asked_qos == {"a": 0, "b/#": 1, "c": 2}
    session.on_connected(session_present=False, renews=True)
    assert session.subscriptions.asked_qos == {}, "the broker has lost it"
