"""The syncs of the table: what was written is on disk after the next sync, and is acknowledged then.

A sync covers all writes before it. One sync runs at a time; the next one covers everything that was written meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from app.application import app
from app.core.message import LARGE_BYTES, Message
from app.core.requests import ForgetIdentifiers, RememberSubscriptions
from app.metrics import store_seconds

if TYPE_CHECKING:
    from tables.undelivered import UndeliveredTable

SMALL_BYTES = 2_000  # most messages are smaller
REMOVALS_SECONDS = 1.0  # after a power cut, what was delivered in this time may be repeated


class Syncs:
    """Syncs the table: the sync itself in a thread, everything else on the event loop."""

    def __init__(self, table: UndeliveredTable, acknowledge: Callable[[Iterable[Message]], None]) -> None:
        """Take the table, and what marks messages safe and acknowledges them to MQTT."""
        self._table = table
        self._acknowledge = acknowledge
        self._messages: list[Message] = []
        self._requests: list[ForgetIdentifiers | RememberSubscriptions] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_wanted = False

    def add(self, messages: Iterable[Message]) -> None:
        """Have messages acknowledged after the next sync; the caller asks for it with `soon`."""
        self._messages.extend(messages)

    def add_request(self, request: ForgetIdentifiers | RememberSubscriptions) -> None:
        """Have a request answered after the next sync; the caller asks for it with `soon`."""
        self._requests.append(request)

    def soon(self) -> None:
        """Ask for a sync of all that is written by now."""
        if app.first_error is not None:
            return
        self._is_wanted = True  # the one under way may have begun before the last write
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.run())

    def removals_soon(self) -> None:
        """Ask for a sync within a second, as removals are not urgent."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REMOVALS_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.soon()

    async def run(self) -> None:
        """Sync until nothing that was written waits for it, and answer what that made safe."""
        try:
            again = True
            while again:
                messages, self._messages = self._messages, []
                requests, self._requests = self._requests, []
                self._is_wanted = False
                began = time.monotonic()
                await self._table.sync()
                if messages:
                    store_seconds.observe(time.monotonic() - began, len(messages))
                self._after(messages, requests)
                again = self._is_wanted
        except Exception as error:  # noqa: BLE001, a task that lets one out would end without anybody noticing
            # What is on disk is unknown now: nothing of it may be acknowledged, and the sync must not be repeated.
            await app.fail(error)

    def _after(self, messages: list[Message], requests: list[ForgetIdentifiers | RememberSubscriptions]) -> None:
        """Acknowledge and answer what a sync has made safe."""
        if messages:
            self._acknowledge(messages)
        if sum([message.size_bytes for message in messages]) - SMALL_BYTES * len(messages) > LARGE_BYTES:
            for message in messages:  # of which one may be large
                if not message.handed_at:  # it will be read from the table
                    message.let_go_of_payload()
        for request in requests:
            if isinstance(request, RememberSubscriptions):
                if request.on_synced is not None:
                    request.on_synced()
            elif request.packet_identifiers is None:
                request.window.forgotten()
            else:
                request.window.complete(request.packet_identifiers)
