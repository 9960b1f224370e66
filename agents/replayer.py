"""The replayer: feeds what waits in the table back to Kafka, lane by lane, in order.

It looks at a lane when something happened that may give it room (`Lanes.look_at`), and the timer looks at all lanes
that are behind, in case nothing does: its period is the worst case, not the usual one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from mode import Service

from agents.shell import for_each
from app import channels
from app.application import app
from app.metrics import accounts
from tables import layout, pieces

if TYPE_CHECKING:
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from app.messages import Restored
    from tables.undelivered import UndeliveredTable

READ_BYTES = 4 * 1024 * 1024
RESTORING_BYTES = 16 * 1024 * 1024  # read for all lanes at once, as far as a single message is no larger
RATE_SLICE_SECONDS = 0.1


class Replayer(Service):
    """Reads the table for the lanes."""

    mundane_level = "debug"

    def __init__(self, lanes: Lanes, table: UndeliveredTable, rate_messages_per_second: float, **kwargs: Any) -> None:
        """Make the service.

        Args:
            lanes: All lanes.
            table: The table.
            rate_messages_per_second: REPLAY_MAX_RATE; 0: unlimited.
            **kwargs: For `mode.Service`.
        """
        self._lanes = lanes
        self._table = table
        self._rate = rate_messages_per_second
        self._allowed_messages = 0.0
        self._allowed_at = time.monotonic()
        self._restoring_bytes = 0
        self._waiting: set[Lane] = set()
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Start the task that waits for lanes to look at."""
        self.add_future(self._on_wake())

    async def _on_wake(self) -> None:
        lanes = self._lanes
        while not self.should_stop:
            await lanes.wake_replayer.wait()
            lanes.wake_replayer.clear()
            hungry = list(lanes.hungry)
            lanes.hungry.clear()
            try:
                for lane in hungry:
                    self.refill(lane)
                await lanes.flush()
            except Exception as error:  # noqa: BLE001, a task that lets one out would end without its cause
                await app.fail(error)

    def refill(self, lane: Lane) -> None:
        """Read a chunk for a lane that has room for it, or let the lane catch up when there is none."""
        wanted = self._allowed(lane, lane.refill_messages)
        if not wanted:
            return
        if self._restoring_bytes >= RESTORING_BYTES:
            self._waiting.add(lane)
            return
        messages = self._table.read(lane.prefix, lane.cursor, wanted, READ_BYTES)
        if not messages:
            lane.catch_up()
            return
        for message in messages:
            message.lane = lane
        lane.cursor = layout.after(messages[-1].key)
        lane.restoring_messages = len(messages)
        self._restoring_bytes += sum([message.size_bytes for message in messages])
        self._allowed_messages -= len(messages)
        self._lanes.restore(lane, messages)

    async def read_large(self, restored: Restored) -> None:
        """Read the payloads that are in pieces, with others' turns in between; not if the lane was rewound since."""
        lane, generation = restored.lane, restored.generation
        await pieces.read(self._table.data, restored.messages, lambda: lane.generation != generation)

    def hand_over(self, restored: Restored) -> None:
        """Give librdkafka what was read, and read more."""
        lane = restored.lane
        self._restoring_bytes -= sum([message.size_bytes for message in restored.messages])
        handed = lane.take_restored(restored.messages, restored.generation)
        for route, times in Counter([message.route for message in restored.messages[:handed]]).items():
            accounts[route].replayed += times
        self.refill(lane)
        for waiting in self._waiting:
            self._lanes.look_at(waiting)
        self._waiting.clear()

    def _allowed(self, lane: Lane, wanted: int) -> int:
        """Return how many of the wanted messages the rate allows now; the lane is looked at again for the rest."""
        if not self._rate or not wanted:
            return wanted
        now = time.monotonic()
        most = max(1.0, self._rate * RATE_SLICE_SECONDS)
        self._allowed_messages = min(most, self._allowed_messages + (now - self._allowed_at) * self._rate)
        self._allowed_at = now
        allowed = min(wanted, max(0, int(self._allowed_messages)))
        if allowed < wanted:
            asyncio.get_running_loop().call_later(max(RATE_SLICE_SECONDS, 1 / self._rate), self._lanes.look_at, lane)
        return allowed


def register(replayer: Replayer, lanes: Lanes, interval_seconds: float) -> None:
    """Start the agent that hands over what was read, and the timer."""

    async def hand_over(restored: Restored) -> None:
        await replayer.read_large(restored)
        replayer.hand_over(restored)
        await lanes.flush()

    @app.agent(channels.restored, name="restorer")
    async def restore(lots):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Hand what was read from the table to Kafka."""
        await for_each(lots, hand_over)

    @app.timer(interval=interval_seconds, name="replayer")
    async def look() -> None:
        """Look at every lane that is behind."""
        lanes.look_at_all()
