"""Other filters for a running worker: what is sent to the broker, and what the table is told before and after it."""

from __future__ import annotations

import logging

from paho.mqtt.enums import MQTTProtocolVersion

from app.core.requests import Remember, RememberSubscriptions
from app.mqtt.client import BridgeClient
from app.mqtt.conversation import Conversation
from app.mqtt.generations import Generations
from app.mqtt.race import Attempt
from app.mqtt.session import Session
from app.mqtt.window import Window
from app.routes import Route, RouteTable, subscription_identifiers
from app.throttle import Throttle
from tests.support.scripted_broker import connack_packet, packet_of

UNHEARD = logging.getLogger("unheard")
GRANTED, REFUSED = b"\x01", b"\x87"


class Client(BridgeClient):
    """A client that notes what it would send."""

    sent: list

    def subscribe(self, topic, qos=0, options=None, properties=None):  # noqa: ARG002, paho's signature
        self.sent.append(("SUBSCRIBE", topic, options.QoS))
        return 0, len(self.sent)

    def unsubscribe(self, topic, properties=None):  # noqa: ARG002, the same
        self.sent.append(("UNSUBSCRIBE", *topic))
        return 0, len(self.sent)


class Connection:
    """A connection on which the broker has granted filters.

    Attributes:
        done: What was sent and what the table was asked to remember, in order.
    """

    def __init__(self, session, *, session_present=False):
        self.done = []
        self.session = session
        self.client = Client("c", MQTTProtocolVersion.MQTTv5, session, Window(bool), print, 10**6)
        self.client.sent = self.done
        self.conversation = Conversation(self.client, session, self.note, Throttle(UNHEARD), Attempt(60))
        self.client.reader.feed(connack_packet(5, session_present=session_present))

    def note(self, request):
        if isinstance(request, Remember):
            self.done.append(("generations", sorted(request.value)))
        elif isinstance(request, RememberSubscriptions):
            self.done.append(("subscriptions", request.filters))

    def answer(self, reason=GRANTED):
        """Answer everything that was sent and not answered."""
        for number, (kind, *filters) in enumerate(list(self.done), 1):
            if kind in {"SUBSCRIBE", "UNSUBSCRIBE"} and number > self.answered:
                reasons = reason if kind == "SUBSCRIBE" else b"\0" * len(filters)
                self.answered = number
                self.client.reader.feed(
                    packet_of(0x90 if kind == "SUBSCRIBE" else 0xB0, number.to_bytes(2, "big") + b"\0" + reasons)
                )

    answered = 0


def session_of(*filters, qos=None):
    routes = RouteTable([Route(name, name, Route.of(name, "k").to, qos=(qos or {}).get(name)) for name in filters])
    return Session(Generations(filters, subscription_identifiers(filters)), 1, routes), routes


def granted(*filters):
    """Return a connection of which all filters are granted, with nothing noted yet, and the routes."""
    session, routes = session_of(*filters)
    connection = Connection(session)
    connection.answer()
    del connection.done[:]
    connection.answered = 0
    return connection, routes


def test_what_is_new_is_granted_before_what_is_gone_is_given_up_and_the_table_knows_each_step_before():
    """A crash between any two of these steps leaves a table of which the next start makes the rest."""
    connection, _ = granted("a/#", "b/#")
    orders = connection.session.subscriptions.orders
    orders.order(["a/#", "c/#"])
    connection.conversation.go_on()
    assert connection.done == [("generations", ["", "a/#", "c/#"]), ("SUBSCRIBE", "c/#", 1)]
    assert connection.session.standing.unanswered
    assert "b/#" in connection.session.generations.there
    connection.answer()
    assert connection.done[2:] == [("generations", ["", "a/#", "c/#"]), ("UNSUBSCRIBE", "b/#")]
    assert orders.is_under_way
    assert "b/#" not in connection.session.generations.there, "its copies may be missing from now on"
    connection.answer()
    assert connection.done[4:] == [("subscriptions", ["a/#", "c/#"])]
    assert not orders.is_under_way


def test_a_filter_that_is_refused_is_told_and_a_refused_one_that_is_gone_is_not_any_more():
    connection, _ = granted("a/#", "b/#")
    subscriptions = connection.session.subscriptions
    subscriptions.orders.order(["a/#", "c/#"])
    connection.conversation.go_on()
    connection.answer(REFUSED)
    connection.answer()
    assert subscriptions.refused == {"c/#": "Not authorized"}
    subscriptions.orders.order(["a/#"])
    connection.conversation.go_on()
    connection.answer()
    assert not subscriptions.refused
    assert connection.done[-1] == ("subscriptions", ["a/#"])


def test_what_is_ordered_without_a_connection_is_in_the_plan_of_the_next_one():
    """The last order counts, and a filter of one before it is never asked for."""
    connection, _ = granted("a/#", "b/#")
    session = connection.session
    session.subscriptions.orders.order(["a/#", "c/#"])
    session.subscriptions.orders.order(["a/#", "d/#"])
    again = Connection(session, session_present=True)
    asked = [entry[1] for entry in again.done if entry[0] == "SUBSCRIBE"]
    assert asked == ["a/#", "d/#"]
    again.answer()
    again.answer()
    assert again.done[-2:] == [("UNSUBSCRIBE", "b/#"), ("subscriptions", ["a/#", "d/#"])]


def test_a_filter_with_another_qos_is_subscribed_to_once_more():
    connection, routes = granted("a/#", "b/#")
    routes.become(session_of("a/#", "b/#", qos={"b/#": 2})[1])
    connection.session.subscriptions.orders.order(["a/#", "b/#"], ["b/#"])
    connection.conversation.go_on()
    assert [entry for entry in connection.done if entry[0] == "SUBSCRIBE"] == [("SUBSCRIBE", "b/#", 2)]
    connection.answer(b"\x02")
    assert connection.done[-1] == ("subscriptions", ["a/#", "b/#"])


def test_a_filter_that_comes_again_before_unsuback_is_not_given_up_once_more(monkeypatch):
    """A broker that is silent is asked again for what was not answered: by then it is subscribed to anew."""
    connection, _ = granted("a/#", "b/#")
    subscriptions, subscriber = connection.session.subscriptions, connection.conversation.subscriber
    subscriptions.orders.order(["a/#"])
    connection.conversation.go_on()
    assert connection.done[-1] == ("UNSUBSCRIBE", "b/#")
    subscriptions.orders.order(["a/#", "b/#"])
    connection.conversation.go_on()
    assert connection.done[-1] == ("SUBSCRIBE", "b/#", 1)
    monkeypatch.setattr(subscriber.requests, "check_overdue", lambda **_: True)
    connection.conversation.go_on()
    assert [entry[0] for entry in connection.done].count("UNSUBSCRIBE") == 1
