"""Whether receiving is held up, or will be soon, by messages that are in memory alone.

Two things hold it up. The MQTT broker sends only so many messages ahead of their acknowledgements (its window). And the
MQTT thread reads nothing while the memory budget is used up. Half of either is the sign to store what is late.

Some brokers have a smaller window than they are asked for, and do not tell it. So it counts as used up, too, when there
are unacknowledged messages and nothing more has come for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from app.core.memory_budget import MemoryBudget

MQTT_3_WINDOW_MESSAGES = 20  # MQTT 3.1.1 has no way to ask for another; Mosquitto and others send so many
SMALLEST_WINDOW_MESSAGES = 10  # of a broker with its defaults, as far as we know
QUIET_SECONDS = 0.1


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
        self.few_messages = min(window_messages, budget.limit_messages) // 2
        self._budget = budget
        self._window_messages = window_messages
        self._unacknowledged = unacknowledged
        self._received_messages = 0
        self._received_at = 0.0

    def is_held_up(self, now: float) -> bool:
        """Tell whether receiving is held up, or will be soon (event loop; monotonic clock)."""
        budget = self._budget
        if budget.received_messages != self._received_messages:
            self._received_messages, self._received_at = budget.received_messages, now
        if 2 * budget.held_messages >= budget.limit_messages or 2 * budget.held_bytes >= budget.limit_bytes:
            return True
        unacknowledged = self._unacknowledged()
        if 2 * unacknowledged >= self._window_messages:
            return True
        return unacknowledged >= SMALLEST_WINDOW_MESSAGES and now - self._received_at >= QUIET_SECONDS
