"""The time of a record whose device says one, and which of these times a Kafka topic takes.

With `timestamp: property NAME` of its route, what the device says is the time of the record; the header
`connector-received` has the time of receipt then. All else goes by the time of receipt: order, age, and what is done
about a clock that was set back.

A topic may refuse times that are too old or too far ahead, and with one such record Kafka refuses its whole batch. So
what it does not take goes with the time of receipt instead. What it takes is known from Kafka's answer, of which half
is used, as the rest is needed for the way to Kafka; or learned when a record is refused: then what is half as far from
now, or further, goes with the time of receipt. So a lane meets a few refusals at most, whatever its devices say.
"""

from __future__ import annotations

import math

from app.core.device_time import DeviceTime
from app.core.message import Header, Message

RECEIVED_HEADER = "connector-received"  # milliseconds since 1970


def _with_receipt(message: Message) -> list[Header]:
    """Return the headers of a record that has another time than that of its receipt, which they say."""
    return [*message.headers, (RECEIVED_HEADER, b"%d" % message.timestamp_ms)]


class TakenTimes:
    """Which times of devices one Kafka topic takes, as far as is known."""

    def __init__(self) -> None:
        """Begin with all of them."""
        self._age_ms = self._ahead_ms = math.inf
        self._refused_age_ms = self._refused_ahead_ms = math.inf

    def note_limits(self, age_ms: float, ahead_ms: float) -> None:
        """Note how old a record of the topic may be, and how far ahead, as Kafka answered."""
        self._age_ms, self._ahead_ms = age_ms / 2, ahead_ms / 2

    def takes(self, device_time: DeviceTime, now_ms: float) -> bool:
        """Tell whether the topic takes a time."""
        ahead_ms = device_time.time_ms - now_ms
        youngest_ms = min(self._ahead_ms, self._refused_ahead_ms)
        return -min(self._age_ms, self._refused_age_ms) < ahead_ms < youngest_ms

    def note_refused(self, device_time: DeviceTime, now_ms: float) -> None:
        """Note that Kafka refused a record of this time."""
        ahead_ms = device_time.time_ms - now_ms
        if ahead_ms > 0:
            self._refused_ahead_ms = min(self._refused_ahead_ms, ahead_ms / 2)
        else:
            self._refused_age_ms = min(self._refused_age_ms, -ahead_ms / 2)

    def of_record(self, message: Message, now_ms: int, *, with_current_time: bool) -> tuple[int, list[Header]]:
        """Return time and headers of the record of a message, where the time may be another than that of receipt."""
        device_time = message.device_time
        if with_current_time:
            return now_ms, _with_receipt(message)
        if device_time is not None and self.takes(device_time, now_ms):
            return device_time.time_ms, _with_receipt(message)
        return message.timestamp_ms, message.headers


ANY_TIME = TakenTimes()
