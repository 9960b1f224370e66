"""`connector tap`: shows what passes right now, a line for each message that Kafka has confirmed.

It asks the running worker again and again (`app.kafka.tap` says why), until Ctrl-C, `--limit`, or the worker's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from faust.cli import argument, option

from app.application import app
from app.commands.telling import Told, as_json_option, errors_are_told, no_worker, on_interrupt, way_to_worker
from app.control import ask_worker

ASK_SECONDS = 0.25
EVERYTHING = "#"


async def passing(directory: Path | None, mqtt_filter: str, interrupted: asyncio.Event) -> AsyncIterator[Told]:
    """Yield the messages that pass, and how many were left out, until the worker ends.

    Raises:
        ConnectorError: There is no worker to ask, or it shows none.
    """
    directory = way_to_worker(directory)
    name = secrets.token_hex(8)
    answer = ask_worker(directory, "tap", (name, mqtt_filter))
    if answer is None:
        raise no_worker(directory, "start it, as a tap shows what passes through it")
    while answer is not None and not interrupted.is_set():
        for message in answer["messages"]:
            yield _told(message)
        if answer["left_out"]:
            yield Told(
                f"({answer['left_out']} more are not shown: there are too many)", {"left_out": answer["left_out"]}
            )
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(interrupted.wait(), ASK_SECONDS)
        answer = ask_worker(directory, "tap", (name, mqtt_filter))
    if answer is None:
        yield Told("the worker has ended", {"ended": True})


def _told(message: dict[str, Any]) -> Told:
    text = (
        f"{message['mqtt_topic']!r}  {message['route']}  {message['kafka_topic']}[{message['partition']}]"
        f"@{message['offset']}  {message['milliseconds']} ms"
    )
    return Told(text, message)


def register(directory: Path | None) -> None:
    """Add the command to the app."""

    @app.command(
        argument("mqtt_filter", default=EVERYTHING),
        option("--limit", type=int, default=0, help="end after so many messages; 0: go on"),
        as_json_option,
    )
    async def tap(self: Any, mqtt_filter: str, limit: int, as_json: bool) -> None:
        """Show what passes through a running worker, a line for each message.

        MQTT_FILTER says of which MQTT topics; without it, of all. A line has the MQTT topic, the route, the Kafka topic
        with partition and offset, and the milliseconds from the receipt to Kafka's confirmation. Of many messages a
        part is shown, and how many were left out. Ctrl-C ends it.

        \b
        Example:
          connector tap 'plant/#' --limit 10
        """  # noqa: D301, \b is Click's: lines that stay as they are
        with errors_are_told(), contextlib.suppress(BrokenPipeError):  # who reads has seen enough
            shown = 0
            async for told in passing(directory, mqtt_filter, on_interrupt()):
                self.say(told.line(as_json=as_json or self.json))
                shown += "mqtt_topic" in told.fields
                if limit and shown >= limit:
                    return
