"""Processor time per message of this checkout beside another one: `make compare BASE=COMMIT`.

The worker of each runs in turn, one pair after the other, between the same brokers: at QoS 0 and 1, directly to Kafka,
and with everything stored first (STORE_AFTER_MS=0). What is told is the ratio of each pair, this checkout to the other:
their median, and the interval that holds the median of all such pairs with 95% certainty (by ranks).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.bridges import Connector
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.stage import Stage, open_stage
from tools.worker import Worker

REPOSITORY = Path(__file__).resolve().parents[1]
MESSAGES = 100_000
WAYS: dict[str, dict[str, Any]] = {"direct": {}, "storing": {"store_after_ms": 0}}


class WorkerOfCheckout(Worker):
    """A worker whose code is that of a directory."""

    def __init__(self, directory: Path, settings: Mapping[str, str], checkout: Path) -> None:
        """See `Worker`."""
        super().__init__(directory, settings)
        self._checkout = checkout

    def environment(self) -> Mapping[str, str]:
        """Return the settings, and where the code is."""
        return {**super().environment(), "PYTHONPATH": str(self._checkout)}


def cpu_us(stage: Stage, checkout: Path, qos: int, settings: Mapping[str, Any]) -> float:
    """Return the processor time per message of the worker of a checkout, in microseconds."""
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, fifty_topics(MESSAGES, qos))
        bridge = run.bridge(Connector, qos, MESSAGES, **settings)
        bridge.worker = WorkerOfCheckout(bridge.directory, bridge.worker.settings, checkout)
        with bridge:
            run.warm_up(qos, expected=WARM_UP_MESSAGES // 2)
            return cross(run, publisher, MESSAGES, bridge).cpu_us


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return the interval that holds the median with 95% certainty; of few pairs, all of them."""
    ordered, pairs = sorted(ratios), len(ratios)
    # The number of pairs below the median is binomial; half of the normal approximation's width, rounded outwards.
    rank = max(0, int((pairs - 1.96 * pairs**0.5) // 2))
    return ordered[rank], ordered[pairs - 1 - rank]


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out beside this one, for as long as it is measured."""
    with tempfile.TemporaryDirectory(prefix="connector-compare-") as name:
        directory = Path(name) / "base"
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(directory), commit], check=True)
        try:
            yield directory
        finally:
            subprocess.run([*git, "remove", "--force", str(directory)], check=True)


def main() -> None:
    """Measure, and print a line for each way."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("commit", help="what to compare with")
    arguments.add_argument("--pairs", type=int, default=10, help="how many, for each way (10)")
    given = arguments.parse_args()
    with checked_out(given.commit) as base, open_stage() as stage:
        cpu_us(stage, REPOSITORY, 1, {})  # the first run warms Kafka up, and is not counted
        for qos in (0, 1):
            for way, settings in WAYS.items():
                compare(stage, base, given.pairs, f"QoS {qos}, {way}", qos, settings)


def compare(stage: Stage, base: Path, pairs: int, title: str, qos: int, settings: Mapping[str, Any]) -> None:
    """Measure pairs, the one or the other first in turn, and print what came of them."""
    here: list[float] = []
    there: list[float] = []
    for number in range(pairs):
        order = [(here, REPOSITORY), (there, base)]
        for figures, checkout in order if number % 2 else reversed(order):
            figures.append(cpu_us(stage, checkout, qos, settings))
        _print(f"  {title}: pair {number + 1} of {pairs}: {here[-1]:.2f} us here, {there[-1]:.2f} us there")
    low, high = interval([one / other for one, other in zip(here, there, strict=True)])
    median = statistics.median([one / other for one, other in zip(here, there, strict=True)])
    _print(
        f"{title}: {statistics.median(here):.2f} us a message here, {statistics.median(there):.2f} us there; "
        f"ratio {median:.3f} ({low:.3f} to {high:.3f})"
    )


def _print(text: str) -> None:
    print(text, file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
