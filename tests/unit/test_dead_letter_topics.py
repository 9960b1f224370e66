"""Where a dead letter goes: to the topic of its route for them, to DEAD_LETTER_TOPIC, or nowhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.core.message import Message
from app.routes import Route, RouteTable, Template
from tests.support.app_settings import app_settings

with app_settings():
    from app.storage.dead_letters import DeadLetters

ROUTES = RouteTable(
    [Route("own", "a", Template("k"), dead_letter_topic="own-letters"), Route("usual", "b", Template("k"))]
)


def goes_to(route: str, topic: str = "k", default: str | None = "letters", *, was_sent: bool = False) -> str:
    message = Message(b"a", b"", 0, 0, 0, b"", 0, None)
    message.route, message.headers, message.destination = route, [], SimpleNamespace(topic=topic)
    message.name_dead("too_large")
    if was_sent:
        message.headers = message.dead_letter_headers()
    return DeadLetters(None, None, default, lambda prefix: prefix, ROUTES).topic_for(message, topic)


@pytest.mark.parametrize(
    ("route", "default", "goes"),
    [
        ("own", "letters", "own-letters"),
        ("own", None, "own-letters"),
        ("usual", "letters", "letters"),
        ("usual", None, ""),
        ("a route that is gone", "letters", "letters"),
        ("unmapped", None, ""),
    ],
)
def test_a_dead_letter_goes_to_the_topic_of_its_route_or_to_the_one_of_the_settings(route, default, goes):
    assert goes_to(route, default=default) == goes


@pytest.mark.parametrize("topic", ["own-letters", "letters", "one of an earlier file"])
@pytest.mark.parametrize("route", ["own", "usual"])
def test_what_a_topic_for_dead_letters_does_not_take_stays_in_the_table(route, topic):
    """Else it would go round, with more and more headers."""
    assert goes_to(route, topic, was_sent=True) == ""
