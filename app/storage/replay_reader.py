"""The replay reader: reads what waits in the table, lane by lane, in order, for the agent `replayer`.

It looks at a lane after each event that may have made room for more of it (`app.kafka.lanes_to_replay`). It reads a
chunk and puts it into the channel `restored`; the agent calls `hand_over` with it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from mode import Service

from app.application import app
from app.core.message import note_destination
from app.core.requests import ReplayChunk, Requests
from app.metrics import accounts
from app.pieces import Pieces
from app.turns import PART_SECONDS
from tables import layout, pieces

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.kafka.dispatcher import Dispatcher
    from tables.undelivered import UndeliveredTable

CHUNK_BYTES = 4 * 1024 * 1024
CHUNKS_BYTES = 16 * 1024 * 1024  # in memory for all lanes together, unless a single message is larger
RATE_SLICE_SECONDS = 0.1


class ReplayReader(Service):
    """Reads the table for the lanes."""

    mundane_level = "debug"

    def __init__(
        self,
        dispatcher: Dispatcher,
        table: UndeliveredTable,
        requests: Requests,
        rate_messages_per_second: float,
        **kwargs: Any,
    ) -> None:
        """Make the service.

        Args:
            dispatcher: The lanes.
            table: The table.
            requests: What carries chunks to the agent.
            rate_messages_per_second: REPLAY_MAX_RATE; 0: unlimited.
            **kwargs: For `mode.Service`.
        """
        self._dispatcher = dispatcher
        self._requests = requests
        self._table = table
        self._rate = rate_messages_per_second
        self._allowed_messages = 0.0
        self._allowed_at = time.monotonic()
        self._chunks_bytes = 0
        self._waiting: set[Lane] = set()
        self._part_ends = 0.0
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Start the task that waits for lanes to look at."""
        self.add_future(self._on_wake())

    async def _on_wake(self) -> None:
        replay = self._dispatcher.replay
        while not self.should_stop:
            await replay.wake.wait()
            try:
                await self._refill_all(replay.pop_all())
            except Exception as error:  # noqa: BLE001, a task that lets one out would end without its cause
                await app.fail(error)

    async def _refill_all(self, lanes: list[Lane]) -> None:
        """Look at lanes; when a thousand of them go on at once, others have a turn between some of them."""
        ends = time.monotonic() + PART_SECONDS
        for lane in lanes:
            self.refill(lane)
            if time.monotonic() >= ends:
                await asyncio.sleep(0)
                ends = time.monotonic() + PART_SECONDS

    def refill(self, lane: Lane) -> None:
        """Read a chunk for a lane that has room for it, or let the lane catch up when there is none."""
        wanted = self._dispatcher.wanted_messages(lane)
        if wanted and self._rate:
            wanted = self._allowed(lane, wanted)
        if not wanted:
            return
        if self._chunks_bytes >= CHUNKS_BYTES:
            self._waiting.add(lane)
            return
        messages = self._table.read(lane.destination.prefix, lane.cursor, wanted, CHUNK_BYTES)
        if not messages:
            self._dispatcher.catch_up(lane)
            return
        note_destination(messages, lane.destination)
        lane.note_chunk_read(messages, messages[-1].key + layout.JUST_BEHIND)
        self._chunks_bytes += sum([message.size_bytes for message in messages])
        self._allowed_messages -= len(messages)
        self._requests.replay(ReplayChunk(lane.topic, messages, lane.generation))

    async def hand_over(self, chunk: ReplayChunk) -> None:
        """Give librdkafka what was read, and read more."""
        lane = self._dispatcher.lanes[chunk.topic]
        in_pieces = [message for message in chunk.messages if isinstance(message.payload, Pieces)]
        if in_pieces:
            await pieces.read(self._table.data, in_pieces, lambda: lane.generation != chunk.generation)
        self._chunks_bytes -= sum([message.size_bytes for message in chunk.messages])
        handed = self._dispatcher.hand_over_chunk(chunk)
        accounts.replay([message.route for message in chunk.messages[:handed]])
        self.refill(lane)
        for waiting in self._waiting:
            self._dispatcher.replay.look_at(waiting)
        self._waiting.clear()
        await self._give_turn()

    async def _give_turn(self) -> None:
        """Let others have a turn now and then: thousands of lanes may have something to read at the same moment."""
        if time.monotonic() >= self._part_ends:
            await asyncio.sleep(0)
            self._part_ends = time.monotonic() + PART_SECONDS

    def _allowed(self, lane: Lane, wanted: int) -> int:
        """Return how many of the wanted messages the rate allows now; the lane is looked at again for the rest."""
        now = time.monotonic()
        most = max(1.0, self._rate * RATE_SLICE_SECONDS)
        self._allowed_messages = min(most, self._allowed_messages + (now - self._allowed_at) * self._rate)
        self._allowed_at = now
        allowed = min(wanted, max(0, int(self._allowed_messages)))
        if allowed < wanted:
            self._dispatcher.replay.look_later(lane, max(RATE_SLICE_SECONDS, 1 / self._rate))
        return allowed
