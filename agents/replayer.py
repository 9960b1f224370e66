"""The replayer: hands what was read from the table to librdkafka; and a timer has all lanes looked at.

The replay reader looks at a lane after each event that may have made room for more of it. The timer is for the case
that no such event comes: its interval is the longest delay, not the usual one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.application import app
from app.channels import restored

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.storage.replay_reader import ReplayReader


def register(reader: ReplayReader, dispatcher: Dispatcher, interval_seconds: float) -> None:
    """Start the agent and the timer."""

    @app.agent(restored, name="replayer")
    async def replay(chunks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Hand what was read from the table to librdkafka, in order."""
        async for chunk in chunks:
            if app.first_error is not None:
                continue
            try:
                await reader.hand_over(chunk)
            except Exception as error:  # noqa: BLE001, see the header of `agents`
                await app.fail(error)

    @app.timer(interval=interval_seconds, name="replay-timer")
    async def look() -> None:
        """Have the replay reader look at every lane that is behind."""
        dispatcher.look_at_all()
