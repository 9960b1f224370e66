"""Ends lanes that are idle (`app.kafka.lanes` says which), and has librdkafka forget their topics.

librdkafka keeps each topic that it ever had a record for, 33 KB and more, most of it for its statistics, as long as a
producer lives (as of librdkafka 2.16). Where the names of topics are made from MQTT topics there are ever more of them.
So after a thousand that are used no more the producer is replaced, once what is in flight has landed: nothing is
repeated. New messages go to the table meanwhile, for three seconds at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.kafka.standstill import change_when_landed

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher

LOOK_SECONDS = 1.0
KEPT_TOPICS = 1_000
LAND_SECONDS = 3.0  # how long all lanes may wait for the records of one
TRY_AGAIN_SECONDS = 60.0


class EndedTopics:
    """Looks for as long as it runs; see the module's header."""

    def __init__(self, dispatcher: Dispatcher, has_ended: Callable[[], bool]) -> None:
        """Take the lanes' dispatcher, and what tells that the service stops."""
        self._dispatcher = dispatcher
        self._has_ended = has_ended
        self._ended_topics = 0  # since the producer is there
        self._try_at = 0.0

    async def run(self) -> None:
        """Look until the end."""
        while not self._has_ended():
            self._ended_topics += self._dispatcher.end_idle_lanes()
            if self._ended_topics >= KEPT_TOPICS and time.monotonic() >= self._try_at:
                await self.renew()
            await asyncio.sleep(LOOK_SECONDS)

    async def renew(self) -> None:
        """Have the producer replaced once nothing is in flight; later if something stays there."""
        self._try_at = time.monotonic() + TRY_AGAIN_SECONDS
        await change_when_landed(self._dispatcher, self._start_anew, LAND_SECONDS, self._has_ended)

    def _start_anew(self) -> None:
        producer = self._dispatcher.producer
        if not producer.is_fatal:  # else the service replaces it
            producer.start_anew()
            self._ended_topics = 0
