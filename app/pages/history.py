"""The history for the page: the last hour in samples of ten seconds, and the present rate of each route.

Both are read from the accounts once a second and are bounded; a message costs nothing here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

INTERVAL_SECONDS = 10.0
SAMPLES = 360  # an hour
RATE_SECONDS = 10  # the present rate is the mean of these: short enough to be live, long enough not to flicker
TOTALS_SECONDS = 2  # between two of the earlier totals that are kept, as each may have ten thousand routes


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


class Totals(NamedTuple):
    """What each route has received and delivered since the start, at one moment.

    Python's garbage collector leaves out dictionaries of plain numbers. With a pair for each of ten thousand routes, it
    took a tenth of a second at once.

    Attributes:
        at: `time.monotonic()`.
        received: Messages received, by route.
        delivered: Messages that Kafka confirmed, by route.
    """

    at: float
    received: Mapping[str, int]
    delivered: Mapping[str, int]


class Flows:
    """How many messages a second each route receives and delivers."""

    def __init__(self) -> None:
        self._earlier: deque[Totals] = deque()  # of the last ten seconds, the oldest first
        self._latest = Totals(0.0, {}, {})

    def note(self, totals: Totals) -> None:
        """Take note of the totals of all routes, which nobody changes; called about every second."""
        self._latest = totals
        while self._earlier and totals.at - self._earlier[0].at > RATE_SECONDS:
            self._earlier.popleft()
        if not self._earlier or totals.at - self._earlier[-1].at >= TOTALS_SECONDS:
            self._earlier.append(totals)

    def per_second(self, route: str) -> tuple[float, float]:
        """Return messages received and delivered a second; a route that is new began with none."""
        if not self._earlier or self._earlier[0] is self._latest:
            return 0.0, 0.0
        first, last = self._earlier[0], self._latest
        seconds = max(last.at - first.at, 1e-3)
        received = last.received.get(route, 0) - first.received.get(route, 0)
        delivered = last.delivered.get(route, 0) - first.delivered.get(route, 0)
        return round(received / seconds, 1), round(delivered / seconds, 1)


def _sample(begin: Reading, end: Reading) -> tuple[float, float, float, int]:
    seconds = max(end.at - begin.at, 1e-3)
    return (
        round(end.unix_seconds, 1),
        round((end.received - begin.received) / seconds, 2),
        round((end.delivered - begin.delivered) / seconds, 2),
        end.waiting,
    )
