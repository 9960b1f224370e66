"""When what Kafka has not confirmed is stored: not because an answer is late, but because it may not come soon enough.

A message is late when Kafka has not confirmed it STORE_AFTER_MS after librdkafka got it. If the oldest message of a
lane that memory alone holds is late, all of these are stored when one of the following is true:

- The lane is silent: Kafka has confirmed none of its messages for STORE_AFTER_MS, and for twice as long as its answers
  usually take.
- Receiving is held up, or will be soon (`app.core.reception`), and for ten times STORE_AFTER_MS no answer was in time.
- The message is older than ten times STORE_AFTER_MS.

So a Kafka whose answers come late costs nothing more, as long as little is under way; nor does one that is slow for a
moment, as after its start. While it is away, messages are in memory alone for STORE_AFTER_MS, and for ten times as long
at most if its answers were slow before.
"""

from __future__ import annotations

import math

LONG_FACTOR = 10
PATIENCE_FACTOR = 2
# For its first record librdkafka makes connections, and a Kafka that has just started is slow.
FIRST_PATIENCE_FACTOR = 3
SMOOTHING = 8  # answers; as TCP smooths its round trips (RFC 6298)


class Lateness:
    """Decides for one lane; see the module's header. All times are of the monotonic clock.

    Attributes:
        usual_seconds: How long Kafka's answers take, smoothed; 0: not known.
        confirmed_at: When Kafka confirmed a message of the lane last; 0: never.
    """

    def __init__(self, store_after_seconds: float) -> None:
        """Know nothing of Kafka's answers."""
        self.usual_seconds = 0.0
        self._store_after_seconds = store_after_seconds
        self._long_seconds = LONG_FACTOR * store_after_seconds
        self.confirmed_at = 0.0
        self._late_since = math.inf
        self._stored_at = 0.0

    def note_first_answer(self, seconds: float) -> None:
        """Note how long Kafka took to answer a question, before it has confirmed any message of the lane."""
        if not self.confirmed_at:
            least_seconds = FIRST_PATIENCE_FACTOR / PATIENCE_FACTOR * self._store_after_seconds
            self.usual_seconds = min(max(seconds, least_seconds), self._long_seconds)

    def note_confirmed(self, handed_at: float, now: float) -> None:
        """Note that Kafka confirmed a message that librdkafka got at that time; of several at once, any one of them."""
        seconds = min(now - handed_at, self._long_seconds)
        if self.confirmed_at:
            self.usual_seconds += (seconds - self.usual_seconds) / SMOOTHING
        else:
            self.usual_seconds = seconds
        self.confirmed_at = now
        self._late_since = min(self._late_since, handed_at) if self.is_late(handed_at, now) else math.inf

    def ends_storing(self, handed_at: float, now: float, *, are_few: bool) -> bool:
        """Tell whether a lane that stores everything may end that, as Kafka confirmed one of its messages.

        Args:
            handed_at: When librdkafka got it; what it got before the lane began to store was late, and proves nothing.
            now: The present time.
            are_few: So few messages are in flight that they may be in memory alone for as long as Kafka takes.
        """
        return not self.is_late(handed_at, now) or (are_few and handed_at > self._stored_at)

    def is_late(self, handed_at: float, now: float) -> bool:
        """Tell whether a message that librdkafka got at that time is late."""
        return now - handed_at >= self._store_after_seconds

    def is_time_to_store(self, handed_at: float, now: float, *, is_held_up: bool) -> bool:
        """Tell whether messages are to be stored now, and note it; librdkafka got the oldest of them at that time.

        Args:
            handed_at: When librdkafka got it.
            now: The present time.
            is_held_up: Receiving is held up, or will be soon.
        """
        if not self.is_late(handed_at, now):
            return False
        late_since = min(self._late_since, handed_at) if is_held_up else handed_at
        silent_seconds = now - max(self.confirmed_at, handed_at)
        patience_seconds = max(self._store_after_seconds, PATIENCE_FACTOR * self.usual_seconds)
        if now - late_since < self._long_seconds and silent_seconds < patience_seconds:
            return False
        self._stored_at = now
        return True
