"""A moment by both clocks: what decides is told the time, and does not look at a clock itself."""

from __future__ import annotations

from typing import NamedTuple


class Moment(NamedTuple):
    """A moment.

    Attributes:
        seconds: The monotonic clock.
        wall_ms: The wall clock, milliseconds since 1970.
    """

    seconds: float
    wall_ms: int

    def since(self, earlier_seconds: float) -> float:
        """Return the seconds that have passed since an earlier time of the monotonic clock."""
        return self.seconds - earlier_seconds
