"""Cases of alerts as promtool reads them: for one worker, for three in a group, and for 200 sites with a worker each.

`prometheus/alert_cases.yaml` has the series of one worker, bad or good. Here they become those of a fleet: every worker
is `connector-0` at its site, and the bad one is among good ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

CASES = Path(__file__).parent / "prometheus" / "alert_cases.yaml"
Series = Mapping[str, str]
Worker = Mapping[str, str]

FLEETS: dict[str, list[Worker]] = {
    "one": [{"instance": "connector-0"}],
    "three": [{"namespace": "plant", "instance": f"connector-{number}"} for number in range(3)],
    "site": [{"site": "site-0", "instance": "connector-0"}],
    "pair": [{"site": f"site-{number}", "instance": "connector-0"} for number in range(2)],
    "sites": [{"site": f"site-{number:03}", "instance": "connector-0"} for number in range(200)],
}
AGENT = "agent"  # of a site: a Prometheus that asks itself and the worker, and sends both on
ALWAYS = "1x200"


@dataclass(frozen=True)
class Case:
    """One alert: what fires it and what does not; see the file."""

    alert: str
    after: int
    bad: Series
    good: Sequence[Series]
    begins: int = 5
    by: str = ""
    whole: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    fleets: Sequence[str] = ("one", "three", "sites")

    @property
    def ends(self) -> int:
        """Return the minute of the last sample."""
        return max(minutes_of(values) for series in (self.bad, *self.good) for values in series.values()) - 1

    def labels_at(self, worker: Worker) -> dict[str, str]:
        """Return what tells the alert of a worker from others."""
        if self.whole:
            return {}
        identity = {self.by: worker[self.by]} if self.by else worker
        return {**identity, **self.labels}


def cases() -> list[Case]:
    """Return every case of the file."""
    return [Case(**case) for case in yaml.safe_load(CASES.read_text(encoding="utf-8"))]


def promtool_file(tests: Sequence[Mapping[str, Any]]) -> str:
    """Return a file for `promtool test rules`, beside which the rules lie."""
    return yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": list(tests)})


def groups_for(wanted: Sequence[Case], fleet: str) -> Iterator[dict[str, Any]]:
    """Yield the tests of cases in a fleet: one for each, or all of 200 sites in one, each with its own sites."""
    of_fleet = [case for case in wanted if fleet in case.fleets]
    if fleet != "sites":
        yield from (test for case in of_fleet for test in _groups_of_one(case, FLEETS[fleet], fleet))
        return
    for case in of_fleet:
        if case.whole:
            yield _all_are_bad(case, FLEETS[fleet], fleet)
            yield group(f"{case.alert}, {fleet}", _one_is_bad(case, FLEETS[fleet]), _never(case))
    yield group_of_all([case for case in of_fleet if not case.whole])


def group_of_all(wanted: Sequence[Case]) -> dict[str, Any]:
    """Return one test of many cases, in which each has its share of 200 sites."""
    share = len(FLEETS["sites"]) // len(wanted)
    series, expected = [], []
    for case in wanted:
        workers = [{"site": f"{case.alert}-{number}", "instance": "connector-0"} for number in range(share)]
        series += _one_is_bad(case, workers)
        expected += _fires(case, [case.labels_at(workers[1])], f', site=~"{case.alert}-.+"')
    return group("200 sites", series, expected)


def _groups_of_one(case: Case, workers: Sequence[Worker], fleet: str) -> Iterator[dict[str, Any]]:
    name = f"{case.alert}, {fleet}"
    if case.whole or len(workers) == 1:
        yield _all_are_bad(case, workers, fleet)
        for number, good in enumerate(case.good if case.whole else case.good[:1]):
            series = [entry for worker in workers for entry in series_of(worker, good)]
            yield group(f"{name}, good {number}", series, _never(case))
    if len(workers) > 1:
        expected = _never(case) if case.whole else _fires(case, [case.labels_at(workers[1])])
        yield group(name, _one_is_bad(case, workers), expected)


def _all_are_bad(case: Case, workers: Sequence[Worker], fleet: str) -> dict[str, Any]:
    series = [entry for worker in workers for entry in series_of(worker, case.bad)]
    return group(f"{case.alert}, {fleet}, all are bad", series, _fires(case, [case.labels_at(workers[0])]))


def _one_is_bad(case: Case, workers: Sequence[Worker]) -> list[dict[str, str]]:
    """Return the series of workers of which the second is bad, and the others are good, each in its way."""
    variants = cycle([series for series in case.good if "connector_draining" not in series or not case.whole])
    return [
        entry
        for number, worker in enumerate(workers)
        for entry in series_of(worker, case.bad if number == 1 else next(variants))
    ]


def minutes_of(values: str) -> int:
    """Return how many samples there are, missing ones included."""
    numbers = [re.fullmatch(r"(.*?)(?:x(\d+))?", part).groups() for part in values.split()]
    return sum(int(times or 0) + (value != "_") for value, times in numbers)


def _expanded(values: str) -> str:
    """Return the values as promtool reads them, which repeats only what it can add to."""
    return re.sub(r"(Inf|NaN)x(\d+)", lambda found: " ".join([found[1]] * (int(found[2]) + 1)), values)


def series_of(worker: Worker, values: Series) -> list[dict[str, str]]:
    """Return series with the labels of a worker, and those of its site's agent, where it has a site."""
    entries = [
        {"series": _series(name, {"job": "connector", **worker}), "values": _expanded(value)}
        for name, value in values.items()
        if name != AGENT
    ]
    if "site" in worker:
        labels = {"job": AGENT, "site": worker["site"], "instance": AGENT}
        entries.append({"series": _series("up", labels), "values": values.get(AGENT, ALWAYS)})
    return entries


def _series(name: str, labels: Mapping[str, str]) -> str:
    """Return a series by its metric, which may have labels already, and further labels."""
    metric, own = re.fullmatch(r"(\w+)(?:\{(.*)\})?", name).groups()
    return f"{metric}{{{', '.join(filter(None, [matching(labels), own]))}}}"


def matching(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())


def group(name: str, series: list[dict[str, str]], expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "interval": "1m", "input_series": series, "promql_expr_test": expected}


def _fires(case: Case, labels: Sequence[Mapping[str, str]], at: str = "") -> list[dict[str, Any]]:
    """Expect an alert in its time, neither sooner nor for others, and none of others until the end.

    Args:
        case: The case.
        labels: What tells the alerts that fire from others.
        at: Which alerts of its name are meant, as a part of a selector.
    """
    fires_at = case.begins + case.after
    expected = [{"labels": f"{{{matching(each)}}}", "value": 1} for each in labels]
    by = "group by (namespace, site, instance, route)"
    return [
        expectation(_firing(case, at), max(0, fires_at - 1), []),
        expectation(f"{by} ({_firing(case, at)})", fires_at + 1, expected),
        expectation(f"{by} ({_ever(case, at)})", case.ends, expected),
    ]


def _never(case: Case) -> list[dict[str, Any]]:
    return [expectation(_ever(case), case.ends, [])]


def _firing(case: Case, at: str = "") -> str:
    return f'ALERTS{{alertname="{case.alert}", alertstate="firing"{at}}}'


def _ever(case: Case, at: str = "") -> str:
    """Return an expression for what fired since the trouble began."""
    return f"last_over_time({_firing(case, at)}[{case.ends - case.begins + 1}m])"


def expectation(expression: str, minute: int, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what promtool is to find at a minute."""
    return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}
