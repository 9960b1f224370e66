"""What differs among the properties of messages that look alike: what is left of an expiry, and the device's time.

Messages are of the same kind if all the rest of their properties is the same: the *common part*, in which an expiry is
zero, and the user property with the time of the record has no value. Places are those in the common part.
"""

from __future__ import annotations

from typing import NamedTuple

from app.bounds import MOST_HEADERS
from app.mqtt.properties import EXPIRY_BYTES, user_properties

NO_EXPIRY = bytes(EXPIRY_BYTES)
LENGTH_BYTES = 2  # of a value, in front of it
NO_VALUE = bytes(LENGTH_BYTES)


class Places(NamedTuple):
    """Where those are that differ, in the common part.

    Attributes:
        expiry_at: The expiry; 0: there is none.
        time_at: The length of the time's value, which comes next; 0: there is none.
    """

    expiry_at: int = 0
    time_at: int = 0


NOWHERE = Places()


def common_part(properties: bytes, places: Places) -> bytes:
    """Return the common part of properties that have their value of the time, or have it no more."""
    expiry_at, time_at = places
    if time_at:
        properties = without_time(properties, time_at)
    if not expiry_at:
        return properties
    return properties[:expiry_at] + NO_EXPIRY + properties[expiry_at + EXPIRY_BYTES :]


def places_of(properties: bytes, expiry_at: int, time_property: bytes) -> Places:
    """Return where those are that differ.

    Args:
        properties: The properties of a message, as they came.
        expiry_at: Where the expiry is among them; 0: there is none.
        time_property: The user property that has the record's time; empty: the time of receipt.
    """
    time_at = find_time(properties, time_property) if time_property else 0
    is_behind = time_at and expiry_at > time_at
    return Places(expiry_at - len(time_text(properties, time_at)) if is_behind else expiry_at, time_at)


def find_time(properties: bytes, name: bytes) -> int:
    """Return where the length of the value of the first user property of a name is; 0 if there is no such property."""
    if b"\x26" + len(name).to_bytes(2, "big") + name not in properties:
        return 0
    for number, (first, middle, _) in enumerate(user_properties(properties)):
        if properties[first:middle] == name:
            return middle
        if number >= MOST_HEADERS:
            break  # what is behind becomes no header either
    return 0


def time_text(properties: bytes, time_at: int) -> bytes:
    """Return the value of a time."""
    return properties[time_at + LENGTH_BYTES : _end_of_time(properties, time_at)]


def without_time(properties: bytes, time_at: int) -> bytes:
    """Return properties without the value of the time; unchanged if they end before it does, so it is none."""
    end = _end_of_time(properties, time_at)
    return properties if end > len(properties) else properties[:time_at] + NO_VALUE + properties[end:]


def _end_of_time(properties: bytes, time_at: int) -> int:
    begin = time_at + LENGTH_BYTES
    return begin + int.from_bytes(properties[time_at:begin], "big")
