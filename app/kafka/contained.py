"""Keeps the tasks that read Kafka's answers running: an unexpected error there costs a pause, not the worker.

These tasks are `watch`, `learning` and `stranded`. None of them has a message, so they can begin anew at any time. Code
that has messages is not run this way: an error in it ends the worker, and the next start recovers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from app.lines import short
from app.throttle import Throttle

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0


async def contained(what: str, run: Callable[[], Awaitable[None]], has_ended: Callable[[], bool]) -> None:
    """Run something until it has ended, again and again when it fails.

    Args:
        what: What it is, for the log.
        run: What runs until the end.
        has_ended: Tells that the end is there.
    """
    throttle, pause_seconds = Throttle(log), FIRST_PAUSE_SECONDS
    while not has_ended() and (failure := await _failure_of(run)) is not None:
        throttle.error(
            what,
            "%s met what nobody expected and begins anew; messages go on. Please report it, with what Kafka runs "
            "there: %s",
            what,
            short(repr(failure)),
        )
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


def guarded(listen: Callable[[Any], None], say: Callable[[Exception], None]) -> Callable[[Any], None]:
    """Make a callback of librdkafka whose errors cost what it was told, and nothing else.

    Args:
        listen: What listens; it holds no message.
        say: What logs the error.
    """

    def call(told: Any) -> None:
        try:
            listen(told)
        except Exception as failure:  # noqa: BLE001, what Kafka says is no reason to end
            say(failure)

    return call


async def _failure_of(run: Callable[[], Awaitable[None]]) -> Exception | None:
    """Run something to its end; return what it failed with."""
    try:
        await run()
    except Exception as failure:
        log.debug("what it met", exc_info=True)
        return failure
    return None
