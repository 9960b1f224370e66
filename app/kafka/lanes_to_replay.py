"""Which lanes the replay reader should look at, as they may have room for messages from the table."""

from __future__ import annotations

import asyncio

from app.core.lane import Lane


class LanesToReplay:
    """The lanes to look at; on the event loop.

    Attributes:
        wake: Set when there is one.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._lanes: set[Lane] = set()

    def look_at(self, lane: Lane) -> None:
        """Have a lane looked at, if something of it waits in the table alone."""
        if not lane.is_direct:
            self._lanes.add(lane)
            self.wake.set()

    def look_later(self, lane: Lane, seconds: float) -> None:
        """Have a lane looked at after some seconds."""
        asyncio.get_running_loop().call_later(seconds, self.look_at, lane)

    def pop_all(self) -> list[Lane]:
        """Return the lanes to look at, each once, and begin anew."""
        lanes = list(self._lanes)
        self._lanes.clear()
        self.wake.clear()
        return lanes
