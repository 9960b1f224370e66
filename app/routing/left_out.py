"""Properties of a message that do not become headers, as there are too many (`app.bounds`), or as they are broken.

Headers of its route are left out as well, where a long topic makes them too long together. The record says so in a
header of ours, `/metrics` counts the messages, and the log names a topic once a minute.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.bounds import CUT_FLAG, LEFT_OUT_HEADER, MOST_ADDED_BYTES, MOST_HEADERS, MOST_PROPERTY_BYTES
from app.logged_text import LoggedText
from app.metrics import accounts
from app.mqtt.properties import NO_PROPERTIES, PublishProperties, decode
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.message import Header, Message
    from app.routing.mapped_to import MappedTo

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


def log_left_out(message: Message, mapped: MappedTo, properties: PublishProperties) -> Header:
    """Count and log a message without some of its properties or its route's headers; return the header about it."""
    route, of_route = mapped.route, mapped.resolved.left_out
    accounts[route].properties_left_out += 1
    if of_route:
        throttle.warning(
            ("headers", route),
            "a message for %s gets %d headers of its route less, as these are longer than %d bytes together; the "
            "header %s says so; repair its publisher, or have the route make less of a topic (its MQTT topic: %r)",
            route,
            of_route,
            MOST_ADDED_BYTES,
            LEFT_OUT_HEADER,
            LoggedText(message.topic_text),
        )
    if properties.left_out and properties is not MALFORMED:
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
    return LEFT_OUT_HEADER, b"%d" % (properties.left_out + of_route)
