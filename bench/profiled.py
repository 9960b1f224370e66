"""The worker with a clock at each stage: `python -m bench.profiled worker` is `faust -A app.main worker` with a report.

The clock is that of the thread's processor time, read per batch. A stage's time is its own, without that of the stages
that it calls. What the threads of Python take beside the stages is the event loop, Faust's channels and selectors; what
the process takes beside its Python threads is librdkafka and RocksDB.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTPUT_VARIABLE = "PROFILE_OUTPUT"


class Stages:
    """Own processor time by stage; each stage runs on one thread only."""

    def __init__(self) -> None:
        self.own_ns: dict[str, int] = defaultdict(int)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner_ns: dict[int, list[int]] = defaultdict(list)

    def time(self, owner: Any, name: str, stage: str) -> None:
        """Put a clock around a function or coroutine function of a class."""
        function = getattr(owner, name)
        wrapper = self._around_coroutine if function.__code__.co_flags & 0x80 else self._around
        setattr(owner, name, wrapper(function, stage, stage.startswith("receive") or "send" in name))

    def _around(self, function: Callable[..., Any], stage: str, other_thread: bool) -> Callable[..., Any]:
        stack, own_ns, clock = self._inner_ns[other_thread], self.own_ns, time.thread_time_ns

        def timed(*arguments: Any, **options: Any) -> Any:
            stack.append(0)
            began = clock()
            try:
                return function(*arguments, **options)
            finally:
                took = clock() - began
                own_ns[stage] += took - stack.pop()
                self.calls[stage] += 1
                if stack:
                    stack[-1] += took

        return timed

    def _around_coroutine(self, function: Callable[..., Any], stage: str, other_thread: bool) -> Callable[..., Any]:
        stack, own_ns, clock = self._inner_ns[other_thread], self.own_ns, time.thread_time_ns

        async def timed(*arguments: Any, **options: Any) -> Any:
            stack.append(0)
            began = clock()
            try:
                return await function(*arguments, **options)  # it never waits: what it puts into channels has room
            finally:
                took = clock() - began
                own_ns[stage] += took - stack.pop()
                self.calls[stage] += 1
                if stack:
                    stack[-1] += took

        return timed


def install() -> Stages:
    """Put the clocks in."""
    from agents.keeper import Keeper
    from agents.replayer import Replayer
    from agents.router import Router
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from app.kafka.producer import KafkaProducer
    from app.mqtt.acknowledgements import Acknowledger
    from app.mqtt.client import BridgeClient

    stages = Stages()
    stages.time(BridgeClient, "loop_read", "receive")
    stages.time(Router, "route", "route")
    stages.time(Lane, "hand_over", "produce")
    stages.time(KafkaProducer, "poll", "confirm: callbacks")
    stages.time(Lanes, "take_reports", "confirm")
    stages.time(Acknowledger, "acknowledge", "acknowledge")
    stages.time(BridgeClient, "send_acknowledgements", "acknowledge: send")
    stages.time(Keeper, "take", "store")
    stages.time(Keeper, "remove", "store: remove")
    stages.time(Replayer, "hand_over", "replay")
    return stages


def main() -> None:
    """Run Faust's command line with the clocks in."""
    stages = install()
    output = Path(os.environ[OUTPUT_VARIABLE])
    main_thread = time.thread_time_ns

    def write() -> None:
        whole = {"own_ns": dict(stages.own_ns), "calls": dict(stages.calls), "process_ns": time.process_time_ns(), "main_ns": main_thread()}
        output.write_text(json.dumps(whole))

    atexit.register(write)
    from faust.cli.faust import cli

    sys.argv = ["faust", "-A", "app.main", *sys.argv[1:]]
    cli()


if __name__ == "__main__":
    main()
