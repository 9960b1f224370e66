"""The MQTT source: the service that starts the MQTT thread, and the stop sequence.

This service runs the stop sequence, as it stops first, while all others still run: read nothing more; wait until Kafka
has confirmed what is in flight; store the rest; send the acknowledgements; DISCONNECT, which keeps the session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mode import Service

from app.mqtt.hand_over import HandOver
from app.mqtt.thread import MqttThread, Order

if TYPE_CHECKING:
    from app.core.memory_budget import MemoryBudget
    from app.mqtt.connection import ConnectionSettings
    from app.mqtt.session import Session

JOIN_SECONDS = 1.0  # how long the thread is waited for, to halt and to end
LOOK_SECONDS = 0.002


class MqttSource(Service):
    """Receives from the broker until it is stopped.

    Attributes:
        session: What outlives connections.
        budget: What is held in memory alone.
    """

    mundane_level = "debug"

    def __init__(
        self,
        connection: ConnectionSettings,
        session: Session,
        budget: MemoryBudget,
        make_safe: Callable[[], Awaitable[None]],
        **kwargs: object,
    ) -> None:
        """Make the service; nothing is connected before it starts.

        Args:
            connection: How to connect.
            session: What outlives connections.
            budget: What may be held in memory alone.
            make_safe: Waits until everything that was received is with Kafka or on disk, within the stop budget.
            **kwargs: For `mode.Service`.
        """
        self.session = session
        self.budget = budget
        self._make_safe = make_safe
        self._hand_over = HandOver(budget)
        self._thread = MqttThread(connection, session, budget, self._hand_over)
        self._has_started = False
        super().__init__(**kwargs)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._thread.connected

    @property
    def connections(self) -> int:
        """How many connections the broker has accepted."""
        return self._thread.connections

    @property
    def connections_lost(self) -> int:
        """How many of them ended otherwise than by a stop."""
        return self._thread.connections_lost

    @property
    def unacknowledged_messages(self) -> int:
        """How many messages of this connection are not acknowledged."""
        return self._thread.unacknowledged_messages

    @property
    def moved_at(self) -> float:
        """`time.monotonic()` when the thread last moved."""
        return self._thread.moved_at

    @property
    def stopping(self) -> bool:
        """Whether the stop sequence has begun."""
        return self._thread.order is not Order.RUN

    def wake(self) -> None:
        """Have the thread look at what was asked of it (event loop)."""
        self._hand_over.wake()

    async def on_start(self) -> None:
        """Start the thread, and the task that passes on what it receives."""
        self._hand_over.open()
        self.budget.wake_by(self.wake)
        self.add_future(self._hand_over.into_channels())
        self._thread.start()
        self._has_started = True

    async def on_stop(self) -> None:
        """Run the whole stop sequence; see the module's header."""
        if not self._has_started:
            return  # another service failed to start before this one
        self._thread.tell(Order.HALT)
        give_up_at = time.monotonic() + JOIN_SECONDS
        while not self._thread.has_halted and time.monotonic() < give_up_at:
            await asyncio.sleep(LOOK_SECONDS)
        await self._make_safe()
        self._thread.tell(Order.QUIT)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, JOIN_SECONDS)
