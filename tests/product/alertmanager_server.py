"""A real Alertmanager with the project's sample, and its amtool."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.product.prometheus_server import MONITORING, MonitoringServer
from tools.brokers.process import HOST

SAMPLE = MONITORING / "alertmanager.yaml"
RECEIVERS, NOBODY = "http://127.0.0.1:9095/", "http://127.0.0.1:1/"

needs_alertmanager = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None or shutil.which("amtool") is None,
    reason="Alertmanager is not installed; `make brokers` installs it where it can",
)


def amtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run amtool, and return what came of it, with both outputs in one."""
    return subprocess.run(
        ["amtool", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
    )  # fmt: skip


class Alertmanager(MonitoringServer):
    """An Alertmanager with the sample, that notifies nobody."""

    title, program = "alertmanager", "prometheus-alertmanager"

    def __init__(self, directory: Path) -> None:
        """Choose the ports; nothing is started."""
        super().__init__(directory)
        self._configuration = self.directory / "alertmanager.yaml"

    def prepare(self) -> None:
        """Write the sample with addresses at which nobody listens: something else may, where it sends to."""
        text = SAMPLE.read_text(encoding="utf-8")
        assert text.count(RECEIVERS) == 3
        self._configuration.write_text(text.replace(RECEIVERS, NOBODY), encoding="utf-8")

    def command(self) -> Sequence[str]:
        """Return the command line, or raise where Alertmanager is not installed."""
        return [
            self.installed(),
            f"--config.file={self._configuration}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def post(self, alerts: Sequence[Mapping[str, str]], *, lasts: bool = True) -> None:
        """Say that alerts fire, or that they have ended, by their labels."""
        now = datetime.now(timezone.utc)
        ends = now + timedelta(hours=1) if lasts else now
        times = {"startsAt": (now - timedelta(hours=1)).isoformat(), "endsAt": ends.isoformat()}
        body = json.dumps([{"labels": dict(labels), **times} for labels in alerts]).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}/api/v2/alerts", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10):
            pass

    def notifications(self) -> dict[str, dict[str, int]]:
        """Return how many notifications there are of each alert that nothing inhibits, by receiver."""
        counts: dict[str, Counter[str]] = {"pager": Counter(), "mail": Counter(), "watchdog": Counter()}
        for group in self._ask("alerts/groups", inhibited="false"):
            counts[group["receiver"]["name"]][group["labels"]["alertname"]] += 1
        return {receiver: dict(count) for receiver, count in counts.items()}

    def silenced(self) -> set[frozenset[tuple[str, str]]]:
        """Return the labels of what another alert inhibits."""
        found = self._ask("alerts", active="false", inhibited="true")
        return {frozenset(alert["labels"].items()) for alert in found if alert["status"]["inhibitedBy"]}

    def known(self) -> int:
        """Return how many alerts it has in its groups, inhibited or not."""
        return sum(len(group["alerts"]) for group in self._ask("alerts/groups"))

    def _ask(self, path: str, **parameters: str) -> Any:
        return self.answer(f"v2/{path}", **parameters)
