"""What passes between the MQTT thread and the event loop, both ways.

To the event loop: batches of messages, into the channel `inbound`, and requests to the table writer, into the channel
`undelivered`. They go through one deque, so their order is kept.

To the thread: a call that ends its wait for the network, which is the only thing that it waits for. The thread then
looks at everything: acknowledgements in the window, room in the memory budget, a drain, a stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
from collections import deque
from typing import TYPE_CHECKING

from app import channels
from app.core.requests import Batch, ForgetIdentifiers

if TYPE_CHECKING:
    from app.core.memory_budget import MemoryBudget
    from app.core.requests import Remember, RememberSubscriptions

    Request = ForgetIdentifiers | Remember | RememberSubscriptions

WAIT_SECONDS = 1.0  # how long the thread waits at most, so that it is seen to be alive and sends its pings
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class HandOver:
    """Both ways between the threads.

    Attributes:
        is_over: The event loop is closed, as the process ends.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        """Begin with nothing under way; the budget counts what is received."""
        self.is_over = False
        self._budget = budget
        self._received: deque[Batch | Request] = deque()

    def open(self) -> None:
        """Take the running event loop for the other side, before the thread starts (event loop)."""
        self._event_loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._is_wake_sent = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakened, READ)
        self._connection: object = None  # whose events are waited for
        self._events = 0

    # ---- to the event loop

    def pass_batch(self, batch: Batch, released: list[int]) -> None:
        """Pass on what was read at once, and the packet identifiers that the table is to forget (MQTT thread)."""
        self._budget.add(len(batch.messages), batch.size_bytes)
        self.pass_request(batch)
        if released:
            self.pass_request(ForgetIdentifiers(released, batch.window))

    def pass_request(self, item: Batch | Request) -> None:
        """Pass on a batch, or a request to the table writer, in order (MQTT thread)."""
        self._received.append(item)
        try:
            self._event_loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the event loop is closed
            self.is_over = True

    async def into_channels(self) -> None:
        """Put what the thread hands over into the channels, for ever (event loop)."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._received:
                item = self._received.popleft()
                if isinstance(item, Batch):
                    if item.messages:
                        await channels.inbound.put(item)
                    if item.came_again:
                        item.window.acknowledge_safe()
                else:
                    channels.undelivered.put_now(item)

    # ---- to the thread

    def wake(self) -> None:
        """End the thread's wait (any thread)."""
        if not self._is_wake_sent:
            self._is_wake_sent = True
            with contextlib.suppress(BlockingIOError):  # it is awake already
                self._waker.send(b"\0")

    def wait(self, connection: object, events: int) -> int:
        """Wait until the connection is ready, somebody wakes the thread, or a second is over (MQTT thread).

        Args:
            connection: The socket, or paho's object that is like one.
            events: What of it to wait for: `READ`, `WRITE`, both, or 0.

        Returns:
            What it is ready for.
        """
        if connection is not self._connection or events != self._events:
            self._watch(connection, events)
        ready = 0
        for key, what in self._selector.select(WAIT_SECONDS):
            if key.fileobj is self._wakened:
                with contextlib.suppress(BlockingIOError):
                    self._wakened.recv(4096)
                self._is_wake_sent = False  # after it was read: a call in between would be lost, and none come again
            else:
                ready = what
        return ready

    def wait_for_none(self) -> None:
        """Let go of the connection, which is over or about to be closed (MQTT thread)."""
        self._watch(None, 0)

    def _watch(self, connection: object, events: int) -> None:
        if self._events and connection is self._connection and events:
            self._selector.modify(connection, events)  # type: ignore[arg-type]  # paho's socket-like object
        else:
            if self._events:
                self._selector.unregister(self._connection)  # type: ignore[arg-type]
            if events:
                self._selector.register(connection, events)  # type: ignore[arg-type]
        self._connection, self._events = connection, events
