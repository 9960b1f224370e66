"""Properties of a message that do not become headers, as there are too many (`app.bounds`), or as they are broken.

The record says so in a header of ours, `/metrics` counts the messages, and the log names a topic once a minute.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.bounds import CUT_FLAG, LEFT_OUT_HEADER, MOST_HEADERS, MOST_PROPERTY_BYTES
from app.logged_text import LoggedText
from app.metrics import accounts
from app.mqtt.properties import NO_PROPERTIES, PublishProperties, decode
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.message import Header, Message

throttle = Throttle(logging.getLogger(__name__))

MALFORMED = PublishProperties(left_out=1)


def decoded(message: Message) -> PublishProperties:
    """Return the properties of a message; none of them if they are broken."""
    if not message.properties:
        return NO_PROPERTIES
    try:
        return decode(message.properties, is_cut=bool(message.flags & CUT_FLAG))
    except (ValueError, IndexError) as error:
        throttle.warning(
            "broken",
            "properties of a message are left out: %s (its MQTT topic: %r)",
            error,
            LoggedText(message.topic_text),
        )
        return MALFORMED


def log_left_out(message: Message, route: str, properties: PublishProperties) -> Header:
    """Count and log a message without some of its properties; return the header for its record."""
    accounts[route].properties_left_out += 1
    if properties is not MALFORMED:
        throttle.warning(
            route,
            "a message for %s has more properties than the %d, of %d bytes, that become headers: at least %d are left "
            "out, the header %s says so; repair its publisher (its MQTT topic: %r)",
            route,
            MOST_HEADERS,
            MOST_PROPERTY_BYTES,
            properties.left_out,
            LEFT_OUT_HEADER,
            LoggedText(message.topic_text),
        )
    return LEFT_OUT_HEADER, b"%d" % properties.left_out
