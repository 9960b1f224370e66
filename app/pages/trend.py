"""How fast the table fills or empties, for the estimates of when it will be full or empty."""

from __future__ import annotations

import time


class Trend:
    """How fast the table grows or shrinks: over the last minute, or since it turned.

    Over a whole minute an outage that has just begun would look slow, and a table that Kafka empties within it would
    seem to grow. A turn counts once it has taken back a tenth of the minute's range, so that a ripple does not.
    """

    WINDOW_SECONDS = 60.0
    TURN_SHARE = 0.1

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def sample(self, value: int) -> None:
        """Note the value now; called about every second."""
        now = time.monotonic()
        self._samples.append((now, value))
        while self._samples[0][0] < now - self.WINDOW_SECONDS:
            self._samples.pop(0)

    @property
    def per_second(self) -> float:
        """The mean change per second; 0 until there are two samples."""
        if len(self._samples) < 2:
            return 0.0
        first_at, first = self._begin()
        last_at, last = self._samples[-1]
        return (last - first) / max(last_at - first_at, 1e-3)

    def _begin(self) -> tuple[float, int]:
        """Return the sample with which the present growth or shrinking began."""
        values = [value for _, value in self._samples]
        lowest, highest = min(values), max(values)
        # Of equal values the last one: what stood still before it moved says nothing about how fast it moves.
        low, high = (len(values) - 1 - values[::-1].index(value) for value in (lowest, highest))
        earlier, turn = sorted((low, high))
        turned = abs(values[-1] - values[turn]) > self.TURN_SHARE * (highest - lowest)
        return self._samples[turn if turned else earlier]
