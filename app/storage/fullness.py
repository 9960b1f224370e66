"""What is logged of a full table and a full disk: once a minute while it lasts, and once when there is room again."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from app.throttle import Throttle
from tables.entry import expected_bytes

if TYPE_CHECKING:
    from app.core.message import Message
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

TABLE, DISK = "table", "disk"  # what may be full
# With drop_oldest every drop makes some room, in a small table a large share. So room is logged only when it lasts.
ROOM_AGAIN_SHARE = 0.9
ROOM_AGAIN_SECONDS = 5.0


class Fullness:
    """Why the table or its disk is full; logs that it is, and that it is not any more.

    Attributes:
        is_logged: A lack of room was logged, and not yet that there is room again.
    """

    def __init__(self, table: UndeliveredTable, *, drop_oldest: bool) -> None:
        """Take the table, and whether its oldest entries are dropped when it is full."""
        self._table = table
        self._drop_oldest = drop_oldest
        self._throttle = Throttle(log)
        self.is_logged = False
        self._full_at = 0.0
        self._waiting: Message | None = None

    @property
    def fullest_route(self) -> str:
        """The route that takes most of the table."""
        return max(self._table.figures.bytes, key=self._table.figures.bytes.__getitem__, default="")

    @property
    def reason(self) -> str:
        """Why there is no room, for the log and the pages."""
        if self._table.check_disk_full():
            return "the disk of DB_PERSIST_PATH is full"
        table, waiting = self._table, self._waiting
        if waiting is not None and self._is_large(waiting) and table.total_bytes < table.limit_bytes * ROOM_AGAIN_SHARE:
            what = f"a message of {len(waiting.payload)} bytes for {waiting.route}"
            holder = f", most of it is {self.fullest_route}" if table.total_bytes else ""
            return f"the table has no room for {what} (UNDELIVERED_MAX_BYTES){holder}"
        return f"the table is full (UNDELIVERED_MAX_BYTES), most of it is {self.fullest_route}"

    def _is_large(self, message: Message) -> bool:
        """Whether there may be no room for a message in a table that has some; a small one finds it full."""
        return expected_bytes(message) > self._table.limit_bytes * (1 - ROOM_AGAIN_SHARE)

    def log_full(self, consequence: str, waiting: Message | None = None) -> None:
        """Log that there is no room, and what follows from it; `waiting` is the message that needs some."""
        self.is_logged = True
        self._full_at = time.monotonic()
        self._waiting = waiting
        what = DISK if self._table.check_disk_full() else TABLE
        self._throttle.warning(what, "%s: %s", self.reason, consequence)

    def log_room(self) -> bool:
        """Log that there is room again, if a lack of it was logged; return whether something is still full."""
        self._waiting = None
        if self._throttle.lasts(TABLE) and self._table_has_room():
            self._throttle.end(TABLE, "the table has room again: messages are kept")
        if self._throttle.lasts(DISK) and not self._table.check_disk_full():
            self._throttle.end(DISK, "the disk of DB_PERSIST_PATH has room again: messages are accepted")
        self.is_logged = self._throttle.lasts(TABLE) or self._throttle.lasts(DISK)
        return self.is_logged

    def _table_has_room(self) -> bool:
        if not self._drop_oldest:
            return self._table.total_bytes < self._table.limit_bytes
        has_rested = time.monotonic() - self._full_at >= ROOM_AGAIN_SECONDS
        return has_rested and self._table.total_bytes < self._table.limit_bytes * ROOM_AGAIN_SHARE
