"""`connector drain`: have a running worker unsubscribe, and wait until Kafka has everything.

The worker does it (`app.lifecycle.drain`); the command asks how far it is, once a second, and shows that: as a bar on a
terminal, as a line elsewhere. It ends with 0 when the worker is drained. If it ends in another way, the drain goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from faust.cli import option

from app.application import app
from app.commands.telling import as_json_option, errors_are_told, no_worker, on_interrupt, way_to_worker
from app.control import ask_worker
from app.errors import ConnectorError
from app.lifecycle.drain import DrainProgress
from app.lines import escaped, escaped_json

ASK_SECONDS = 1.0
RATE_SECONDS = 10.0
ASK_AGAIN = "The same command goes on waiting; a restart of the worker ends the drain and subscribes again."
DRAINED = (
    "drained: Kafka has everything that this worker received. It runs on, subscribed to nothing and not ready. Stop "
    "it; its next start subscribes again."
)


class Pace:
    """How fast Kafka takes messages, over the last seconds."""

    def __init__(self) -> None:
        """Begin without knowing."""
        self._seen: deque[tuple[float, int]] = deque()

    def line(self, progress: DrainProgress) -> str:
        """Take note of where the drain is, and say it in one line."""
        now, waiting = time.monotonic(), progress["waiting_messages"]
        self._seen.append((now, progress["delivered_messages"]))
        while self._seen[0][0] < now - RATE_SECONDS:
            self._seen.popleft()
        (first_at, first), (_, last) = self._seen[0], self._seen[-1]
        rate = max(0, last - first) / max(now - first_at, 1e-3)
        text = f"{waiting:,} messages wait, {rate:,.0f}/s"
        if waiting and rate:
            text += f", about {waiting / rate:,.0f} s left"
        elif not waiting and progress["unsubscribed"]:
            text += ", looking whether the MQTT broker has more"
        return f"{text}; {progress['waits_for']}" if progress["waits_for"] else text


@contextlib.contextmanager
def shown(say: Callable[[str], None], *, as_json: bool) -> Iterator[Callable[[DrainProgress], None]]:
    """Show progress, as a bar if the output is a terminal."""
    if as_json:
        yield lambda progress: say(escaped_json(progress))
        return
    pace = Pace()
    if not sys.stdout.isatty():
        yield lambda progress: say(escaped(pace.line(progress)))
        return
    with click.progressbar(length=1, label="drain", show_eta=False, item_show_func=lambda line: line) as bar:
        delivered_before: int | None = None

        def show(progress: DrainProgress) -> None:
            nonlocal delivered_before
            if delivered_before is None:
                delivered_before = progress["delivered_messages"]
            bar.pos = max(0, progress["delivered_messages"] - delivered_before)
            bar.length = bar.pos + progress["waiting_messages"]
            if progress["drained"]:
                bar.pos = bar.length = max(1, bar.length)
            bar.current_item = escaped(pace.line(progress))
            bar.render_progress()

        yield show


class DrainCommand:
    """Waits for the drain of the worker that uses a data directory."""

    def __init__(self, directory: Path | None, timeout_seconds: float, interrupted: asyncio.Event) -> None:
        """Take the data directory, how long to wait (0: as long as it takes), and what ends the waiting.

        Raises:
            ConnectorError: There is no directory, so no way to the worker.
        """
        self._directory = way_to_worker(directory)
        self._timeout_seconds = timeout_seconds
        self._interrupted = interrupted

    async def wait(self, say: Callable[[str], None], *, as_json: bool = False) -> int:
        """Wait until the worker is drained; return how many dead letters stay in its table.

        Raises:
            ConnectorError: It is not drained; the text says what state it is in.
        """
        progress = self._ask()
        if progress is None:
            raise no_worker(self._directory, "start it, as only a worker empties its table")
        give_up_at = time.monotonic() + self._timeout_seconds
        with shown(say, as_json=as_json) as show:
            while not progress["drained"]:
                show(progress)
                if self._timeout_seconds and time.monotonic() >= give_up_at:
                    raise ConnectorError(f"not drained within {self._timeout_seconds:g} s. {_state(progress)}")
                if await self._is_interrupted():
                    raise ConnectorError(f"the waiting ends, the drain does not. {_state(progress)}")
                progress = self._ask()
                if progress is None:
                    raise ConnectorError("the worker ended before it was drained: start it, and drain it again")
            show(progress)
        return int(progress["dead_letters"])

    def _ask(self) -> DrainProgress | None:
        progress: DrainProgress | None = ask_worker(self._directory, "drain")
        return progress

    async def _is_interrupted(self) -> bool:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._interrupted.wait(), ASK_SECONDS)
        return self._interrupted.is_set()


def _state(progress: DrainProgress) -> str:
    """Say what state the worker is in, for a user who waits no longer."""
    subscribed = "is subscribed to nothing" if progress["unsubscribed"] else "has not been unsubscribed yet"
    why = f" ({progress['waits_for']})" if progress["waits_for"] else ""
    return f"The worker runs on, {subscribed}, and {progress['waiting_messages']:,} messages wait{why}. {ASK_AGAIN}"


def register(directory: Path | None) -> None:
    """Add the command to the app."""

    @app.command(
        option("--timeout-seconds", type=float, default=0.0, help="wait no longer than this; 0: as long as it takes"),
        as_json_option,
    )
    async def drain(self: Any, timeout_seconds: float, as_json: bool) -> None:
        """Unsubscribe a running worker, and wait until its table is empty.

        It receives nothing new then, and others of its shared group get its part. What the MQTT broker had queued for
        it still comes. It goes on running, not ready, and subscribes again at its next start.

        \b
        Example:
          connector drain --timeout-seconds 600
        """  # noqa: D301, \b is Click's: lines that stay as they are
        as_json = as_json or self.json
        with errors_are_told():
            dead_letters = await DrainCommand(directory, timeout_seconds, on_interrupt()).wait(
                self.say, as_json=as_json
            )
            if as_json:  # the last progress has it all
                return
            if dead_letters:
                self.say(escaped(f"{dead_letters} dead letters stay in its table: see dead-letters list"))
            self.say(DRAINED)
