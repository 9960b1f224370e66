"""The history for the page: the last hour in samples of ten seconds, and the present rate of each route.

Both are read from the accounts once a second and are bounded; a message costs nothing here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

INTERVAL_SECONDS = 10.0
SAMPLES = 360  # an hour
RATE_SECONDS = 10  # over which the present flow is the mean: short enough to be live, long enough not to flicker


class Reading(NamedTuple):
    """The counts at one moment, since the start of the worker.

    Attributes:
        at: `time.monotonic()`.
        unix_seconds: The wall clock.
        received: Messages received.
        delivered: Messages that Kafka confirmed.
        waiting: Messages in the table.
    """

    at: float
    unix_seconds: float
    received: int
    delivered: int
    waiting: int


class History:
    """The last hour."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float, int]] = deque(maxlen=SAMPLES)
        self._begin: Reading | None = None
        self._last: Reading | None = None

    def note(self, reading: Reading) -> None:
        """Take note of the counts; called about every second."""
        self._last = reading
        if self._begin is None:
            self._begin = reading
        elif reading.at - self._begin.at >= INTERVAL_SECONDS:
            self._samples.append(_sample(self._begin, reading))
            self._begin = reading

    def as_dictionary(self) -> dict[str, Any]:
        """Return the samples, oldest first, and the interval that is not over as the last one."""
        samples = list(self._samples)
        if self._begin is not None and self._last is not None and self._last.at > self._begin.at:
            samples.append(_sample(self._begin, self._last))
        return {
            "interval_seconds": INTERVAL_SECONDS,
            "columns": ["unix_seconds", "received_per_second", "delivered_per_second", "waiting_messages"],
            "samples": samples,
        }


class Flows:
    """How many messages a second each route receives and delivers."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, Mapping[str, tuple[int, int]]]] = deque(maxlen=RATE_SECONDS + 1)

    def note(self, at: float, counts: Mapping[str, tuple[int, int]]) -> None:
        """Take note of what each route has received and delivered, which nobody changes; called about every second."""
        self._counts.append((at, counts))

    def per_second(self, route: str) -> tuple[float, float]:
        """Return messages received and delivered a second; a route that is new began with none."""
        if len(self._counts) < 2:
            return 0.0, 0.0
        (first_at, first), (last_at, last) = self._counts[0], self._counts[-1]
        seconds = max(last_at - first_at, 1e-3)
        before, now = first.get(route, (0, 0)), last.get(route, (0, 0))
        return round((now[0] - before[0]) / seconds, 1), round((now[1] - before[1]) / seconds, 1)


def _sample(begin: Reading, end: Reading) -> tuple[float, float, float, int]:
    seconds = max(end.at - begin.at, 1e-3)
    return (
        round(end.unix_seconds, 1),
        round((end.received - begin.received) / seconds, 2),
        round((end.delivered - begin.delivered) / seconds, 2),
        end.waiting,
    )
