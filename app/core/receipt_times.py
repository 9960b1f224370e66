"""Which records of a lane are sent with the current time, as Kafka does not take the time of their receipt.

A record's time is when its message was received. A topic may refuse records that are older than
`message.timestamp.before.max.ms`, and after an outage they are. Those are sent with the current time, and the header
`connector-received` keeps the time of receipt. So are records from the future, received when the clock was wrong.

How old is too old is known from Kafka's answer (`limit_ms`), or learned when a record is refused (`note_refused`). With
an answer, records get the current time at half that age, as the rest is needed for the way to Kafka. What was learned
from refusals is forgotten when the lane is direct again.

A record that librdkafka has cannot get another time. If Kafka refuses it, younger records behind it may pass it. So
where the limit is known, a lane gets nothing more while its oldest record in librdkafka has waited for half a second,
or a quarter of the limit (`stand_still`): all records there have about the same age, and Kafka accepts all of them or
none. The price: where one partition stands still, the others of the lane wait as well. For the same reason a lane gets
nothing more while it has records in flight that were received later than now: the clock was set back (`app.core.lane`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.core.lane_states import Lot
from app.core.message import Message
from app.core.moment import Moment
from app.core.record_times import TakenTimes

STANDS_STILL_MS = 500  # Kafka confirms within milliseconds, and within 100 to 200 far away


class ReceiptTimes:
    """Decides for one lane; see the module's header.

    Attributes:
        limit_ms: The topic refuses older records, as Kafka said; infinite if it said nothing.
        has_refused: It did refuse some.
        are_of_interest: Some records may have to go with the current time, besides those from the future.
        of_devices: Which times of devices the topic takes.
    """

    def __init__(self) -> None:
        """Begin with every record's own time."""
        self.limit_ms = self._refused_age_ms = math.inf
        self._refused_until = b""
        self.has_refused = self.are_of_interest = False
        self.of_devices = TakenTimes()

    def note_limit(self, limit_ms: float, ahead_ms: float = math.inf) -> None:
        """Note how old a record of the topic may be, and how far ahead of now, as Kafka answered."""
        self.of_devices.note_limits(limit_ms, ahead_ms)
        self.limit_ms = limit_ms
        self.are_of_interest = not self._refuses_nothing

    def stand_still(self, oldest: Message, at: Moment) -> bool:
        """Tell whether a lane's records stand still in librdkafka, given the oldest of them."""
        return at.since(oldest.handed_at) * 1000 > min(STANDS_STILL_MS, self.limit_ms / 4)

    @property
    def _refuses_nothing(self) -> bool:
        return self.limit_ms == self._refused_age_ms == math.inf and not self._refused_until

    def cut(self, messages: Sequence[Message], at: Moment) -> list[Lot]:
        """Return messages in lots of those that are sent alike, with the current time or with their own."""
        lots: list[Lot] = []
        first = 0
        while first < len(messages):
            with_current_time = self._is_refused(messages[first], at.wall_ms)
            last = first + 1
            while last < len(messages) and self._is_refused(messages[last], at.wall_ms) == with_current_time:
                last += 1
            lots.append(Lot(messages[first:last], with_current_time))
            first = last
        return lots

    def _is_refused(self, message: Message, now_ms: float) -> bool:
        if message.key <= self._refused_until:
            return True
        age_ms = now_ms - message.timestamp_ms
        return age_ms >= min(self.limit_ms / 2, self._refused_age_ms) or age_ms < 0

    def _had_own_time(self, message: Message, at: Moment) -> bool:
        """Tell whether a message was handed to librdkafka with its own time."""
        return not self._is_refused(message, _handed_ms(message, at))

    def note_device_time_refused(self, message: Message, at: Moment) -> bool:
        """Take note that Kafka refused a message, which went alone, for the time that its device says.

        Returns:
            False if it did not go with that.
        """
        device_time, handed_ms = message.device_time, _handed_ms(message, at)
        if device_time is None or self._is_refused(message, handed_ms):
            return False
        if not self.of_devices.takes(device_time, handed_ms):
            return False
        self.of_devices.note_refused(device_time, at.wall_ms)
        return True

    def grew_too_old(self, message: Message, at: Moment) -> bool:
        """Tell whether a message that was refused had its own time, and is older by now than its topic takes."""
        return self._had_own_time(message, at) and at.wall_ms - message.timestamp_ms >= self.limit_ms

    def note_refused(self, message: Message, until: bytes, at: Moment) -> bool:
        """Take note that Kafka refused a message for its time.

        Args:
            message: The message, which went alone.
            until: Up to this key others were refused with it.
            at: The present moment.

        Returns:
            False if it had the current time already, so that it is no use to send it with that once more.
        """
        if not self._had_own_time(message, at):
            return False
        self.has_refused = True
        self._refused_until = max(until, message.key)
        self._refused_age_ms = min(self._refused_age_ms, max(0.0, at.wall_ms - message.timestamp_ms))
        self.are_of_interest = True
        return True

    def forget(self) -> None:
        """Forget what was refused: a direct lane's record was confirmed, and its topic may take more meanwhile."""
        self.has_refused = False
        self._refused_until = b""
        self._refused_age_ms = math.inf
        self.are_of_interest = not self._refuses_nothing


def _handed_ms(message: Message, at: Moment) -> float:
    """Return when a message was handed to librdkafka, milliseconds since 1970."""
    return at.wall_ms + 1 - at.since(message.handed_at) * 1000  # as the wall clock is rounded down
