"""Changes librdkafka while nothing is in flight, so that nothing is repeated and nothing changes its order.

All lanes stand still for that moment, as one producer serves them all: new messages go to the table. So the wait for
the records of one lane, whose partition may have no leader, has a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher

POLL_SECONDS = 0.002


async def change_when_landed(
    dispatcher: Dispatcher, change: Callable[[], None], wait_seconds: float, has_ended: Callable[[], bool]
) -> bool:
    """Hand nothing more over, call `change` once everything in flight has its delivery report, and go on.

    Args:
        dispatcher: The lanes.
        change: What is done to the producer; it must not wait.
        wait_seconds: How long all lanes may stand still.
        has_ended: Tells that the service stops: then nothing is changed, and nothing more is handed over, as the stop
            ends librdkafka.

    Returns:
        False if something stayed in flight, and nothing was changed.
    """
    while dispatcher.bounds.is_closed and not has_ended():  # another change is under way
        await asyncio.sleep(POLL_SECONDS)
    dispatcher.bounds.close()
    try:
        give_up_at = time.monotonic() + wait_seconds
        while dispatcher.in_flight_messages and time.monotonic() < give_up_at and not has_ended():
            await asyncio.sleep(POLL_SECONDS)
        if has_ended():
            return True
        landed = not dispatcher.in_flight_messages
        if landed:
            change()
    finally:  # whatever happens: while it is closed, every lane stands still
        if not has_ended():
            dispatcher.bounds.open()
    dispatcher.look_at_all()
    return landed
