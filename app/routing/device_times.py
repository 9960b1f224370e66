"""`timestamp: property NAME` of a route: the time of the record is what this user property of its message says.

It differs from message to message, so it is no part of what is kept of its topic (`app.routing.varying`). Once it is
known which route a message belongs to, the value is taken out of the properties, and becomes that of its header.

A time has 13 decimal digits, milliseconds since 1970: from 2001-09-09 on, so that seconds or microseconds, and clocks
that were never set, are no times. It may be up to half an hour after the time of receipt: half of what Kafka takes
unless a topic says otherwise (message.timestamp.after.max.ms). Where there is none that can be used, the record has the
time of receipt. That is counted, and logged once a minute for each route.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.core.device_time import DeviceTime
from app.logged_text import LoggedText
from app.metrics import accounts
from app.mqtt.property_names import user_header
from app.routing.varying import time_text, without_time
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.message import Header, Message
    from app.routing.known_routes import CachedRoute

throttle = Throttle(logging.getLogger(__name__))

DIGITS, EARLIEST_MS = 13, 10**12
AHEAD_MS = 30 * 60 * 1000
MISSING, UNREADABLE, OUT_OF_RANGE = "missing", "unreadable", "out_of_range"
WHAT = {
    MISSING: "has no user property with the time of its record",
    UNREADABLE: "has a time that is not 13 decimal digits, milliseconds since 1970",
    OUT_OF_RANGE: "has a time before 2001-09-09 (13 digits of which the first is 0), or more than half an hour after "
    "it came",
}


def take_out(message: Message, time_at: int) -> None:
    """Take the value of the user property with the time out of a message's properties, and note what it says."""
    text = time_text(message.properties, time_at)
    message.take_time(DeviceTime(text, _time_ms(text)), without_time(message.properties, time_at))


def _time_ms(text: bytes) -> int:
    """Return the time that a text says; 0 if it says none, or 1970."""
    return int(text) if _is_time(text) else 0


def _is_time(text: bytes) -> bool:
    return len(text) == DIGITS and text.isdigit()


def place_of(headers: tuple[Header, ...], name: bytes) -> int | None:
    """Return which of a message's headers has the value of the first user property of a name; None if none has."""
    names = user_header(name), f"ce_{name.decode()}"
    return next((place for place, (header, _) in enumerate(headers) if header in names), None)


def give_time(message: Message, found: CachedRoute) -> None:
    """Have the record of a message be of the time that its device says; the property gets its value back."""
    if message.device_time is None and found.time_at:
        take_out(message, found.time_at)
    given = message.device_time
    if given is not None and found.time_place:
        place = len(message.headers) - len(found.headers) + found.time_place
        message.headers[place] = message.headers[place][0], given.text
    why = _why_not(given, message.timestamp_ms)
    if why:
        message.drop_device_time()
        _note(message, why)


def _why_not(given: DeviceTime | None, received_ms: int) -> str:
    """Return why a time cannot be used, empty if it can."""
    if given is None:
        return MISSING
    if not given.time_ms:
        return OUT_OF_RANGE if _is_time(given.text) else UNREADABLE
    return "" if EARLIEST_MS <= given.time_ms <= received_ms + AHEAD_MS else OUT_OF_RANGE


def _note(message: Message, why: str) -> None:
    accounts[message.route].timestamps_replaced[why] += 1
    throttle.warning(
        (message.route, why),
        "a message for %s %s: its record has the time of receipt (its MQTT topic: %r)",
        message.route,
        WHAT[why],
        LoggedText(message.topic_text),
    )
