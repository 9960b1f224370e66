"""`dead-letters retry` of all of them, in parts: hundreds of thousands of messages that others do not wait for.

A part is read for 5 ms, and handed to the table writer with one request for each lane. Then everything else has its
turn. What was handed over is in memory until it is stored, so there is a bound of it, in number and in bytes; at the
bound the next part waits until all of it is stored. Nothing else is remembered between two parts than the key to go on
at: what is deleted meanwhile is not met any more. What is refused again gets a key behind all that there were at the
beginning, and is not sent a second time. A dead letter stays in the table until the write that stores it as a message,
so a stop or a kill between two parts loses none.

A command waits for its answer: after 20 seconds it gets the number so far, and the rest is sent when it is asked for
again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.errors import ConnectorError
from tables import layout, pieces
from tables.dead_letter import unmapped_error
from tables.dead_letters import RETRIED_BYTES, RETRIED_MESSAGES

if TYPE_CHECKING:
    from app.storage.dead_letters import DeadLetters
    from tables.dead_letter import DeadLetter
    from tables.undelivered import UndeliveredTable

PART_SECONDS = 0.005  # to read a part; to hand it over and to store it takes as long again, each
RETRY_SECONDS = 20.0  # less than `app.control.ANSWER_SECONDS`
LOOK_SECONDS = 0.005  # whether what was handed over is stored


class RetryAll:
    """Sends all dead letters once more; one command at a time."""

    def __init__(self, dead_letters: DeadLetters, table: UndeliveredTable, may_go_on: Callable[[], bool]) -> None:
        """Take the dead letters, the table, and what says whether more may be sent."""
        self._dead_letters = dead_letters
        self._table = table
        self._may_go_on = may_go_on
        self._is_running = False

    async def run(self) -> int:
        """Send those that there are now, as far as there is time; return how many.

        Raises:
            ConnectorError: Somebody else does it just now; or there are some, and no route matches any of them.
        """
        if self._is_running:
            raise ConnectorError("nothing was changed: all dead letters are being retried already")
        self._is_running = True
        try:
            return await self._run(_Walk(self._dead_letters), time.monotonic() + RETRY_SECONDS)
        finally:
            self._is_running = False

    async def _run(self, walk: _Walk, give_up_at: float) -> int:
        while not walk.is_over and time.monotonic() < give_up_at and self._may_go_on():
            if walk.has_room:
                walk.take_part()
                await pieces.others_turn(self._table.data)
            elif self._dead_letters.are_under_way:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                walk.note_stored()
        if walk.lost is not None and not walk.count:
            raise unmapped_error(walk.lost)
        return walk.count


class _Walk:
    """One walk over the dead letters.

    Attributes:
        count: How many were sent once more.
        lost: One that no route matches.
        is_over: All were met.
    """

    def __init__(self, dead_letters: DeadLetters) -> None:
        self.count = 0
        self.lost: DeadLetter | None = None
        self.is_over = False
        self._dead_letters = dead_letters
        self._next, self._end = layout.DEAD_LETTER, dead_letters.end
        self._messages = self._bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether memory may hold more."""
        return self._messages < RETRIED_MESSAGES and self._bytes < RETRIED_BYTES

    def note_stored(self) -> None:
        """Note that memory holds nothing more of what was taken."""
        self._messages = self._bytes = 0

    def take_part(self) -> None:
        """Read for a moment, and hand over what was read; also where the next one cannot be read."""
        part: list[DeadLetter] = []
        try:
            self._read(part)
        finally:
            self._dead_letters.revive(part)
            self.count += len(part)

    def _read(self, part: list[DeadLetter]) -> None:
        ends = time.monotonic() + PART_SECONDS
        for letter, sent in self._dead_letters.idle(self._next, self._end):
            self._next = letter.key + b"\0"
            if sent is None:
                self.lost = letter
            else:
                part.append(sent)
                self._messages += 1
                self._bytes += sent.retried_bytes
            if time.monotonic() >= ends or not self.has_room:
                return
        self.is_over = True
