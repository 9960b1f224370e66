"""The headers that records of messages of one kind have in common: all but `connector-id` and `mqtt-topic`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from app.core.constant_headers import CONSTANT_HEADERS
from app.routing.device_times import place_of

if TYPE_CHECKING:
    from app.core.message import Header, Message
    from app.mqtt.properties import PublishProperties
    from app.routing.mapped_to import MappedTo


class CommonHeaders(NamedTuple):
    """The headers that the records of a kind have in common.

    Attributes:
        headers: Those with QoS, RETAIN and DUP, those of the route, and those that the properties become.
        time_place: Which of them has the time of the device, without its value; 0: none.
    """

    headers: tuple[Header, ...]
    time_place: int = 0


def headers_of(message: Message, mapped: MappedTo, properties: PublishProperties, *, has_time: bool) -> CommonHeaders:
    """Return the headers of a message's kind.

    Args:
        message: A message of that kind.
        mapped: Where it goes.
        properties: Its properties.
        has_time: One of the properties has the time of the record.
    """
    added = mapped.resolved.headers
    ours = constant_headers(message) + added
    named = _without(properties.headers, mapped.header_names)
    place = place_of(named, mapped.time_property) if has_time else None
    if place is None:
        return CommonHeaders(ours + named)  # with nothing added this is the same tuple, which many topics share
    timeless = (*named[:place], (named[place][0], b""), *named[place + 1 :])
    return CommonHeaders((*ours, *timeless), len(ours) + place)


def constant_headers(message: Message) -> tuple[Header, ...]:
    """Return the headers that only depend on QoS, RETAIN and DUP."""
    flags = message.flags
    return CONSTANT_HEADERS[message.qos, flags & 1, flags >> 3 & 1]


def _without(named: tuple[Header, ...], names: Collection[str]) -> tuple[Header, ...]:
    """Return the headers that a publisher named, without those that have the names of headers of the route.

    They would be second values; or, where the route's own is left out as it is too long, be taken for it.
    """
    return tuple([header for header in named if header[0] not in names]) if names else named
