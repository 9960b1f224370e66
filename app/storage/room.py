"""What happens when the table is full: with `drop_oldest` the oldest entries are dropped, with `block` nothing is.

Before, a route with a limit of its own has its oldest entries dropped (`app.storage.route_limits`).

Only messages that are in the table alone are dropped: entries of lanes that are behind, from their cursor on. What
librdkafka has may be with Kafka already, and would be counted as dropped although it is not.

One large message may have a hundred thousand small ones give way, so that is done in parts. What was dropped for a
message that Kafka confirms meanwhile stays dropped; nothing more is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.metrics import accounts
from app.storage.oldest_first import PART_BYTES, OldestFirst, Waiting
from app.turns import next_part
from tables.entry import expected_bytes
from tables.figures import by_route

if TYPE_CHECKING:
    from app.core.message import Message
    from app.kafka.dispatcher import Dispatcher
    from app.storage.fullness import Fullness
    from app.storage.route_limits import RouteLimits
    from tables.undelivered import UndeliveredTable

TABLE_FULL = "table_full"
# So much is dropped besides, so that the next messages find some room: a part of the limit, and no more than a MiB. It
# is less than a hundredth: such a table still counts as full (`app.pages.status`).
HEAD_ROOM, HEAD_ROOM_BYTES = 200, 1024 * 1024


class Room:
    """Makes room in the table; called by the table writer, between two of its writes."""

    def __init__(
        self,
        table: UndeliveredTable,
        dispatcher: Dispatcher,
        fullness: Fullness,
        route_limits: RouteLimits,
        *,
        drop_oldest: bool,
    ) -> None:
        """Take what room is made in.

        Args:
            table: The table.
            dispatcher: The lanes.
            fullness: Logs that something is dropped.
            route_limits: Has a route that takes too much make room for itself.
            drop_oldest: Whether messages of any route may be dropped.
        """
        self._table = table
        self._dispatcher = dispatcher
        self._fullness = fullness
        self._route_limits = route_limits
        self._drop_oldest = drop_oldest
        self._oldest = OldestFirst(table, dispatcher.lanes)

    def make_some(self, message: Message) -> bool:
        """Have some older messages give way for one that does not fit, if they may; return whether any did.

        Others are to have a turn after that, and then it may fit or not. Nothing is dropped on a full disk: where other
        programs have filled it, that may free nothing.
        """
        size_bytes = expected_bytes(message)
        if size_bytes > self._table.limit_bytes or self._table.check_disk_full():
            return False  # a message that never fits waits for Kafka, and nothing is dropped for it
        return self._route_limits.make_some(message, size_bytes) or (self._drop_oldest and self._drop_some(size_bytes))

    def _drop_some(self, size_bytes: int) -> bool:
        """Drop some of the oldest messages that are in the table alone; return whether there are any."""
        part = next_part(self._giving_way(self._oldest.walk(self._dispatcher), size_bytes))
        if not part:
            return False
        self._fullness.log_full("the oldest messages are dropped")
        self._oldest.remove(part)
        for route, number, dropped_bytes in by_route([each.message for each in part]):
            accounts[route].leave_table(dropped_bytes, number)
            accounts[route].drop(TABLE_FULL, number)
        return True

    def _giving_way(self, walk: Iterator[Waiting], size_bytes: int) -> Iterator[Waiting]:
        """Iterate over what is to be dropped in one part, unless the time for it is over before."""
        table = self._table
        head_room_bytes = min(HEAD_ROOM_BYTES, table.limit_bytes // HEAD_ROOM)
        left_bytes = table.total_bytes + size_bytes + head_room_bytes - table.limit_bytes
        read_bytes = 0
        for waiting in walk:
            yield waiting
            left_bytes -= waiting.message.stored_bytes
            read_bytes += waiting.message.size_bytes
            if left_bytes <= 0 or read_bytes >= PART_BYTES:
                return
