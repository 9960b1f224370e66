"""The worker with a clock at each stage: `python -m bench.profiled worker` is `connector run` with a report.

The clock is that of the thread's processor time, read once per batch. A stage's time is its own, without that of the
stages that it calls.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faust.cli.faust import cli

from agents.router import Router
from app.kafka.dispatcher import Dispatcher
from app.kafka.producer import KafkaProducer
from app.kafka.reports import Reports
from app.mqtt.client import BridgeClient
from app.mqtt.window import Acknowledger
from app.storage.replay_reader import ReplayReader
from app.storage.writer import TableWriter

OUTPUT_VARIABLE = "PROFILE_OUTPUT"  # a path
# In the order in which a message meets them; the code that is timed.
STAGES: dict[str, tuple[tuple[type, str], ...]] = {
    "receive: read and parse": ((BridgeClient, "loop_read"),),
    "route: topic, key, headers": ((Router, "route"),),
    "produce: hand over to librdkafka": ((Dispatcher, "accept"), (Dispatcher, "hand_over_chunk")),
    "confirm: callbacks of librdkafka": ((KafkaProducer, "poll"),),
    "confirm: lanes and accounts": ((Reports, "on_reports"),),
    "acknowledge: mark and send": ((Acknowledger, "acknowledge"), (BridgeClient, "send_acknowledgements")),
    "store: write and remove": ((TableWriter, "do"), (TableWriter, "remove")),
    "replay: read from the table": ((ReplayReader, "refill"),),
}


class Clocks:
    """Own processor time by stage, and the threads that it was spent in."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.own_ns: dict[str, int] = defaultdict(int)
        self.threads: set[int] = set()
        self._inner_ns = threading.local()

    def put_around(self, owner: type, name: str, stage: str) -> None:
        """Put a clock around a method, coroutine or not."""
        method = getattr(owner, name)
        setattr(
            owner,
            name,
            self._coroutine(method, stage) if inspect.iscoroutinefunction(method) else self._plain(method, stage),
        )

    def _begin(self) -> tuple[list[int], int]:
        stack: list[int] = self._inner_ns.__dict__.setdefault("stack", [])
        if not stack:
            self.threads.add(threading.get_native_id())
        stack.append(0)
        return stack, time.thread_time_ns()

    def _end(self, stage: str, stack: list[int], began_ns: int) -> None:
        took_ns = time.thread_time_ns() - began_ns
        self.own_ns[stage] += took_ns - stack.pop()
        if stack:
            stack[-1] += took_ns

    def _plain(self, method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            stack, began_ns = self._begin()
            try:
                return method(*arguments, **options)
            finally:
                self._end(stage, stack, began_ns)

        return timed

    def _coroutine(self, method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(method)
        async def timed(*arguments: Any, **options: Any) -> Any:
            stack, began_ns = self._begin()
            try:
                return await method(*arguments, **options)  # it never waits: channels have room
            finally:
                self._end(stage, stack, began_ns)

        return timed


def main() -> None:
    """Run Faust's command line with the clocks in, and write what they say in the end."""
    clocks = Clocks()
    for stage, methods in STAGES.items():
        for owner, name in methods:
            clocks.put_around(owner, name, stage)
    output = Path(os.environ[OUTPUT_VARIABLE])

    def write() -> None:
        found = {"stages": list(STAGES), "own_ns": clocks.own_ns, "threads": sorted(clocks.threads)}
        output.write_text(json.dumps(found))

    atexit.register(write)
    sys.argv = ["faust", "-A", "app.main", *sys.argv[1:]]
    cli()


if __name__ == "__main__":
    main()
