"""Which records of a lane are sent with the time of now, as Kafka does not take the time of their receipt.

A record's time is when its message was received. A topic may refuse records that are older than
`message.timestamp.before.max.ms`, and after an outage they are. Those are sent with the time of now, and the header
`connector-received` keeps the time of receipt. So are records from the future, received when the clock was wrong.

How old is too old is told by what was refused (`note_refused`), or known beforehand (`limit_ms`, asked from Kafka):
then half of it is left for the way to Kafka. What was refused is forgotten when the lane is direct again.

In librdkafka a record keeps its time, and when Kafka refuses it the younger ones behind it pass. So where the limit is
known, nothing is added to records that stand still there (`stand_still`): they are all of about the same age, and Kafka
takes them all or none. The price: where one partition stands still, the others of the lane wait as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.messages import Message

STANDS_STILL_MS = 500  # Kafka confirms within milliseconds, and within 100 to 200 far away
RECEIVED_HEADER = "connector-received"  # milliseconds since 1970


class ReceiptTimes:
    """Decides for one lane; see the module's header.

    Attributes:
        limit_ms: The topic refuses older records, as Kafka said; infinite if it said nothing.
        has_refused: It did refuse some.
    """

    def __init__(self) -> None:
        """Begin with every record's own time."""
        self.limit_ms = self._refused_age_ms = math.inf
        self._refused_until = b""
        self.has_refused = False

    def stand_still(self, oldest: Message) -> bool:
        """Tell whether a lane's records stand still in librdkafka, given the oldest of them."""
        return (time.monotonic() - oldest.handed_at) * 1000 > min(STANDS_STILL_MS, self.limit_ms / 4)

    def cut(self, messages: Sequence[Message], now_ms: int) -> tuple[Sequence[Message], bool]:
        """Return as many messages from the first on as are to be sent alike, and whether with the time of now."""
        if self.limit_ms == self._refused_age_ms == math.inf and messages[0].timestamp_ms <= now_ms:
            return messages, False
        first = self._is_refused(messages[0], now_ms)
        for count, message in enumerate(messages):
            if self._is_refused(message, now_ms) != first:
                return messages[:count], first
        return messages, first

    def _is_refused(self, message: Message, now_ms: float) -> bool:
        if message.key <= self._refused_until:
            return True
        age_ms = now_ms - message.timestamp_ms
        return age_ms >= min(self.limit_ms / 2, self._refused_age_ms) or age_ms < 0

    def grew_too_old(self, message: Message) -> bool:
        """Tell whether a message that was refused had its own time, and is older by now than its topic takes."""
        now_ms = time.time() * 1000
        had_own_time = not self._is_refused(message, now_ms - (time.monotonic() - message.handed_at) * 1000)
        return had_own_time and now_ms - message.timestamp_ms >= self.limit_ms

    def note_refused(self, message: Message, until: bytes) -> bool:
        """Take note that Kafka refused a message for its time.

        Args:
            message: The message, which went alone.
            until: Up to this key others were refused with it.

        Returns:
            False if it had the time of now already, so that it is no use to send it with that once more.
        """
        now_ms = time.time() * 1000
        if self._is_refused(message, now_ms - (time.monotonic() - message.handed_at) * 1000):
            return False
        self.has_refused = True
        self._refused_until = max(until, message.key)
        self._refused_age_ms = min(self._refused_age_ms, max(0.0, now_ms - message.timestamp_ms))
        return True

    def forget(self) -> None:
        """Forget what was refused: a direct lane's record was confirmed, and its topic may take more meanwhile."""
        self.has_refused = False
        self._refused_until = b""
        self._refused_age_ms = math.inf
