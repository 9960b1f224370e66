"""What happens to operators, as promtool and Alertmanager read it: fleets that are healthy but for what is said.

`prometheus/alert_scenarios.yaml` has the scenarios, and in its header how to read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.product.alert_fleets import (
    FLEETS,
    Series,
    Worker,
    cases,
    expectation,
    group,
    matching,
    minutes_of,
    series_of,
)
from tests.product.prometheus_server import WATCHDOG

SCENARIOS = Path(__file__).parent / "prometheus" / "alert_scenarios.yaml"
STOPS = "stops"
BY = ("alertname", "namespace", "site", "instance", "route")
OF_A_SITE = {case.alert for case in cases() if case.by == "site"}
# What a worker says that has nothing to complain about; of each metric that a rule names.
HEALTHY = {
    "up": "1",
    "process_start_time_seconds": "-9000",
    "connector_ready": "1",
    "connector_draining": "0",
    "connector_mqtt_connected": "1",
    "connector_mqtt_connections_lost_total": "0",
    "connector_mqtt_sessions_lost_total": "0",
    "connector_kafka_connected": "1",
    "connector_store_durable": "1",
    'connector_tls_weakened{way="kafka_name_unchecked"}': "0",
    'connector_received_total{route="a"}': "0+10",
    'connector_delivered_total{route="a"}': "0+10",
    'connector_undelivered_messages{route="a"}': "0",
    'connector_in_flight_messages{route="a"}': "0",
    'connector_undelivered_bytes{route="a"}': "0",
    'connector_imbalance_messages{route="a"}': "0",
    "connector_oldest_in_flight_seconds": "0",
    "connector_oldest_undelivered_age_seconds": "0",
    "connector_retention_exceeded_messages": "0",
    "connector_store_full_seconds": "Inf",
    "connector_store_limit_bytes": "1e9",
    "connector_disk_free_bytes": "5e9",
    "connector_dead_letter_messages": "0",
    "connector_dead_letters_dropped_total": "0",
    "connector_lost_messages": "0",
}


@dataclass(frozen=True)
class Scenario:
    """One of them; see the file."""

    name: str
    fleet: str
    at: int
    fires: Mapping[str, Any]
    pager: Mapping[str, int]
    mail: Mapping[str, int]
    minutes: int = 60
    workers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    all: Mapping[str, Any] = field(default_factory=dict)

    def group(self) -> dict[str, Any]:
        """Return the test for promtool: what fires at its minute, and that nothing else has fired until then."""
        series = [
            entry
            for number, worker in enumerate(FLEETS[self.fleet])
            for entry in series_of(worker, self._series(self.workers.get(number, self.all)))
        ]
        fires = [*self.alerts(), {"alertname": WATCHDOG}]
        samples = [{"labels": f"{{{matching(labels)}}}", "value": 1} for labels in fires]
        firing, by = 'ALERTS{alertstate="firing"}', f"group by ({', '.join(BY)})"
        expected = [
            expectation(f"{by} ({firing})", self.at, samples),
            expectation(f"{by} (last_over_time({firing}[{self.at}m]))", self.at, samples),
        ]
        return group(self.name, series, expected)

    def alerts(self) -> list[dict[str, str]]:
        """Return the labels of what fires."""
        return [labels for name, who in self.fires.items() for labels in self._alerts(name, who)]

    def _alerts(self, name: str, who: Any) -> list[dict[str, str]]:
        workers = FLEETS[self.fleet]
        if not who:
            return [{"alertname": name}]
        numbers = range(len(workers)) if who == "all" else who
        return [{"alertname": name, **_labels(name, workers, number)} for number in numbers]

    def _series(self, said: Mapping[str, Any]) -> Series:
        """Return all series of a worker, of which something is said."""
        ends = said.get(STOPS, self.minutes)
        # Where the link is away there is not even a sign that a series has ended.
        is_cut = minutes_of(str(said.get("up", ""))) == ends and "stale" not in said["up"]
        after = "" if is_cut or ends == self.minutes else " stale"
        series = {name: f"{value}x{ends - 1}{after}" for name, value in HEALTHY.items()}
        series["up"] = f"1x{self.minutes}"
        return series | {name: self._filled(values) for name, values in said.items() if name != STOPS}

    def _filled(self, values: str) -> str:
        """Return the values; those without a number of times are repeated to the end."""
        return values if "x" in values else " ".join([values] * (self.minutes // len(values.split()) + 1))


def _labels(name: str, workers: Sequence[Worker], who: Any) -> dict[str, str]:
    """Return what tells the alert of a worker from others, by its number, or by labels of the first worker's."""
    if isinstance(who, Mapping):
        return {**workers[0], **who}
    worker = workers[who]
    return {"site": worker["site"]} if name in OF_A_SITE else dict(worker)


def scenarios() -> list[Scenario]:
    """Return every scenario of the file."""
    return [Scenario(**scenario) for scenario in yaml.safe_load(SCENARIOS.read_text(encoding="utf-8"))]
