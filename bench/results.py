"""What was measured: a line of JSON for each run of a program, in bench-results.jsonl, as soon as there is one.

A line has `scenario`, `round` and the fields of the scenario's dataclass. The line of scenario `about` says when, and
on what machine, was measured last. A scenario that is measured again replaces its lines, with its first new one, and
leaves those of the others.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "bench-results.jsonl"
SCENARIOS = (
    "throughput",
    "cold",
    "late",
    "latency",
    "killed",
    "payloads",
    "fleet",
    "outage",
    "outages",
    "large",
    "growth",
    "routes",
    "window",
    "scale",
)
ABOUT = "about"
Row = dict[str, Any]


class Results:
    """The file, while it is written."""

    def __init__(self, path: Path = RESULTS) -> None:
        """Leave the file as it is; only the first line of a scenario changes it."""
        self._path = path
        self._begun: set[str] = set()

    def add(self, scenario: str, number: int, measured: Any) -> None:
        """Write down what one run of a round came to: an instance of a dataclass, or a list of them."""
        for result in measured if isinstance(measured, list) else [measured]:
            self._write({"scenario": scenario, "round": number, **dataclasses.asdict(result)})

    def add_about(self, about: Row) -> None:
        """Write down when and on what is measured."""
        self._write({"scenario": ABOUT, **about})

    def _write(self, row: Row) -> None:
        if row["scenario"] not in self._begun:
            self._begun.add(row["scenario"])
            others = [line for line in read(self._path) if line["scenario"] != row["scenario"]]
            self._path.write_text("".join(f"{json.dumps(line)}\n" for line in others), encoding="utf-8")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(row)}\n")


def read(path: Path = RESULTS) -> list[Row]:
    """Return all lines; none if nothing was measured yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_scenario(rows: Iterable[Row], scenario: str) -> list[Row]:
    """Return the lines of one scenario."""
    return [row for row in rows if row["scenario"] == scenario]


def rounds(rows: Iterable[Row]) -> int:
    """Return how many rounds there are of these lines."""
    return len({row["round"] for row in rows if "round" in row})


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return the lines that agree in these fields, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def median(rows: Iterable[Row], name: str) -> float:
    """Return the median of a field."""
    return statistics.median(row[name] for row in rows)
