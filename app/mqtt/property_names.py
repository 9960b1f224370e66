"""Under which name a header has an MQTT 5 property: chosen by us, so that a publisher can forge none of ours.

A user property has its own name behind `mqtt-user-`, with two exceptions that others have standardised: the trace
context of the W3C (https://w3c.github.io/trace-context-mqtt/), which has the same names in MQTT and in Kafka; and the
attributes of an event of CloudEvents 1.0, which are user properties of their plain names in MQTT (its MQTT binding,
3.1.3), and headers beginning with `ce_` in Kafka (its Kafka binding, 3.2.3). What makes an event is `specversion`.
"""

from __future__ import annotations

import re

from app.characters import escaped_bytes
from app.core.message import Header

CONTENT_TYPE = "mqtt-content-type"
MESSAGE_EXPIRY = "mqtt-message-expiry"
_USER = "mqtt-user-"
_TRACE_CONTEXT = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_SPECVERSION = f"{_USER}specversion"
# CloudEvents 1.0, 2.1: lower-case letters and digits. What the event is about has another place in both protocols.
_ATTRIBUTE = re.compile(rf"{_USER}(?!data$|datacontenttype$)([a-z0-9]+)")


def user_header(name: bytes) -> str:
    """Return the header of a user property."""
    if name in _TRACE_CONTEXT:
        return _TRACE_CONTEXT[name]
    try:
        return _USER + name.decode()
    except UnicodeDecodeError:  # all of it is escaped, or one character of four bytes would make all the rest as wide
        return _USER + escaped_bytes(name)


def named_as_event(headers: list[Header]) -> list[Header]:
    """Return the headers of a message, of an event of CloudEvents as its Kafka binding names them."""
    if not any(name == _SPECVERSION for name, _ in headers):
        return headers
    named = [(_as_attribute(name), value) for name, value in headers]
    content_types = [value for name, value in headers if name == CONTENT_TYPE]  # MQTT allows one, some send more
    return [*named, ("content-type", content_types[0])] if content_types else named


def _as_attribute(name: str) -> str:
    attribute = _ATTRIBUTE.fullmatch(name)
    return f"ce_{attribute[1]}" if attribute else name
