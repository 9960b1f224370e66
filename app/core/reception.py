"""Whether receiving is held up, or will be soon, by messages that are in memory alone.

Two things hold it up. The MQTT broker sends only so many messages ahead of their acknowledgements (its window). And the
MQTT thread reads nothing while the memory budget is used up. Four fifths of either is the sign to store what is late:
with less, what is on its way to a Kafka that is far away would be stored for nothing.

Some brokers have a smaller window than they are asked for, and do not tell it. So it counts as used up, too, when
nothing more has come for a while, and there are as many unacknowledged messages as the last time that this was so.
(Once alone it may be the end of a burst.)
"""

from __future__ import annotations

from collections.abc import Callable

from app.core.memory_budget import MemoryBudget

MQTT_3_WINDOW_MESSAGES = 20  # MQTT 3.1.1 has no way to ask for another; Mosquitto and others send so many
SMALLEST_WINDOW_MESSAGES = 10  # of a broker with its defaults, as far as we know
QUIET_SECONDS = 0.1
MUCH = 0.8  # of what may be in memory alone


class Reception:
    """Tells it; see the module's header.

    Attributes:
        few_messages: With fewer in memory alone, receiving is not held up.
    """

    def __init__(self, budget: MemoryBudget, window_messages: int, unacknowledged: Callable[[], int]) -> None:
        """Take what bounds it.

        Args:
            budget: The memory budget.
            window_messages: How many unacknowledged messages the MQTT broker sends, as far as is known.
            unacknowledged: Counts those of the present connection.
        """
        self.few_messages = int(MUCH * min(window_messages, budget.limit_messages))
        self._budget = budget
        self._window_messages = window_messages
        self._unacknowledged = unacknowledged
        self._received_messages = 0
        self._received_at = 0.0
        self._quiet_with = self._last_quiet_with = 0  # unacknowledged messages, since it is quiet and the last time

    def is_held_up(self, now: float) -> bool:
        """Tell whether receiving is held up, or will be soon (event loop; monotonic clock)."""
        budget = self._budget
        if budget.received_messages != self._received_messages:
            self._received_messages, self._received_at = budget.received_messages, now
            self._last_quiet_with, self._quiet_with = self._quiet_with or self._last_quiet_with, 0
        if budget.held_messages >= MUCH * budget.limit_messages or budget.held_bytes >= MUCH * budget.limit_bytes:
            return True
        unacknowledged = self._unacknowledged()
        if unacknowledged >= MUCH * self._window_messages:
            return True
        if now - self._received_at >= QUIET_SECONDS:
            self._quiet_with = max(self._quiet_with, unacknowledged)
        return SMALLEST_WINDOW_MESSAGES <= self._quiet_with == self._last_quiet_with
