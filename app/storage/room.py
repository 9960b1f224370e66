"""What happens when the table is full: with `drop_oldest` the oldest entries are dropped, with `block` nothing is.

Only messages that are in the table alone are dropped: entries of lanes that are behind, from their cursor on. What
librdkafka has may be with Kafka already, and would be counted as dropped although it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.lane_states import State
from app.core.message import Message
from app.metrics import accounts
from tables import layout
from tables.figures import by_route

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.kafka.dispatcher import Dispatcher
    from app.storage.fullness import Fullness
    from tables.undelivered import UndeliveredTable

TABLE_FULL = "table_full"
READ_MESSAGES, READ_BYTES = 100, 1024 * 1024  # of a lane, to be dropped at once


class Room:
    """Makes room in the table; called by the table writer, between two of its writes."""

    def __init__(
        self, table: UndeliveredTable, dispatcher: Dispatcher, fullness: Fullness, *, drop_oldest: bool
    ) -> None:
        """Take the table, the lanes, what logs that something is dropped, and whether anything may be."""
        self._table = table
        self._dispatcher = dispatcher
        self._fullness = fullness
        self._drop_oldest = drop_oldest

    def make(self, size_bytes: int) -> bool:
        """Drop the oldest messages that are in the table alone, until so much fits; return whether it does."""
        if not self._drop_oldest or size_bytes > self._table.limit_bytes:
            return False  # a message that never fits waits for Kafka, and nothing is dropped for it
        while not self._table.has_room_for(size_bytes):
            lane, oldest = self._oldest_waiting()
            if lane is None:
                return False
            self._fullness.log_full("the oldest messages are dropped")
            self._drop(lane, oldest)
        return True

    def _drop(self, lane: Lane, messages: list[Message]) -> None:
        """Remove messages at the cursor of a lane from the table, and count them as dropped."""
        lane.skip_to(messages[-1].key + layout.JUST_BEHIND)
        write = self._table.begin()
        write.remove(messages)
        if lane.first_in_table:
            write.move_head(lane.topic, lane.first_in_table)
        write.commit()
        for route, number, dropped_bytes in by_route(messages):
            accounts[route].leave_table(dropped_bytes, number)
            accounts[route].drop(TABLE_FULL, number)

    def _oldest_waiting(self) -> tuple[Lane | None, list[Message]]:
        """Return some of the oldest entries that librdkafka does not have, all of one lane, and that lane."""
        candidates: list[tuple[Lane | None, list[Message]]] = []
        for lane in self._dispatcher:
            if lane.state is State.BEHIND:
                messages = self._table.read(lane.destination.prefix, lane.cursor, READ_MESSAGES, READ_BYTES)
                if messages:
                    candidates.append((lane, messages))
        return min(candidates, key=lambda found: found[1][0].key[-layout.SEQUENCE_BYTES :], default=(None, []))
