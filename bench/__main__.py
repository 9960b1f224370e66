"""Measure, and write docs/performance.md: `python -m bench [--rounds 3] [--only throughput,latency] [--no-report]`.

A scenario is a module of `bench` with `runs()`: a list of a name for each run, which has its program's title in it, and
a function that takes the stage and returns one instance of a dataclass, or a list of them. `ROUNDS_LIMIT` there is how
many rounds of it are enough. Each round goes through all scenarios, and begins each with another run than the round
before, so that no program is always the first.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench import report
from bench.machine import about
from bench.peers import Kcat, MosquittoSub, MqBridge, Telegraf, missing_programs
from bench.results import RESULTS, SCENARIOS, Results, read
from bench.stage import Stage, open_stage

INTERRUPTED = 130
NEEDS = {
    "mosquitto_sub": (MosquittoSub.title, Kcat.title),
    "kcat": (Kcat.title,),
    "telegraf": (Telegraf.title,),
    "mq-bridge": (MqBridge.title,),
}
RunFunction = Callable[[Stage], object]


@dataclass(frozen=True)
class Planned:
    """One run to come."""

    scenario: str
    round: int
    name: str
    function: RunFunction


class Interruption:
    """Breaks off once at Ctrl-C or SIGTERM; a second one must not break off the cleaning up.

    Attributes:
        asked: Whether that was so. What is cleaned up then may fail, which is no failure of a run.
    """

    def __init__(self) -> None:
        """Take over both signals."""
        self.asked = False
        self._pid = os.getpid()
        self._former = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            os._exit(INTERRUPTED)  # a publisher, forked from here: nothing is to be cleaned up
        if not self.asked:
            self.asked = True
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)


def plan(scenarios: Sequence[str], rounds: int, left_out: Sequence[str] = ()) -> list[Planned]:
    """Return all runs in their order, without those of the titles that are left out."""
    planned = []
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            module = importlib.import_module(f"bench.{scenario}")
            if number > getattr(module, "ROUNDS_LIMIT", rounds):
                continue
            runs = [run for run in module.runs() if not any(title in run[0] for title in left_out)]
            first = (number - 1) % len(runs) if runs else 0
            planned += [Planned(scenario, number, *run) for run in runs[first:] + runs[:first]]
    return planned


def measure(planned: Sequence[Planned], stage: Stage, results: Results, interruption: Interruption) -> int:
    """Do all runs, each noted at once; return how many failed."""
    began, failed = time.monotonic(), 0
    for count, run in enumerate(planned, 1):
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        _say(f"[{count} of {len(planned)}, {minutes}:{seconds:02}] {run.scenario}, round {run.round}: {run.name}")
        try:
            measured = run.function(stage)
        except Exception as error:  # one run that fails must not cost those of hours
            if interruption.asked:
                raise KeyboardInterrupt from error
            failed += 1
            _say(f"    failed: {type(error).__name__}: {error}")
        else:
            results.add(run.scenario, run.round, measured)
    return failed


def main(
    arguments: Sequence[str] | None = None,
    brokers: Callable[[], AbstractContextManager[Stage]] = open_stage,
    path: Path = RESULTS,
) -> int:
    """Measure what the arguments say; return 0 if no run failed."""
    given = _parser().parse_args(arguments)
    if not given.no_report and importlib.util.find_spec("matplotlib") is None:
        _say("matplotlib is not installed; `make bench` installs it, and --no-report does without")
        return 1
    planned, results, interruption = plan(given.only, given.rounds, _left_out()), Results(path), Interruption()
    try:
        with brokers() as stage:
            results.add_about(about())
            failed = measure(planned, stage, results, interruption)
    except BaseException:
        if not interruption.asked:
            raise
        _say(f"stopped; what was measured until now is in {path.name}, and `python -m bench.report` makes tables of it")
        return INTERRUPTED
    finally:
        interruption.restore()
    if not given.no_report:
        report.write(read(path))
    return 1 if failed else 0


def _left_out() -> list[str]:
    """Return the titles of programs that cannot be run, and say so."""
    titles: list[str] = []
    for program in missing_programs():
        _say(f"{program} is not installed, and left out is {', '.join(NEEDS[program])}; `make peers` installs it")
        titles += NEEDS[program]
    return titles


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Connector beside other programs.")
    parser.add_argument("--rounds", type=_rounds, default=3, metavar="N", help="how often each run is done; 3")
    parser.add_argument(
        "--only", type=_scenarios, default=SCENARIOS, metavar="NAMES", help=f"some of {','.join(SCENARIOS)}"
    )
    parser.add_argument("--no-report", action="store_true", help="only measure; docs/performance.md stays as it is")
    return parser


def _rounds(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return number


def _scenarios(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
