"""A real Prometheus that scrapes workers and knows the project's alert rules, and its promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tools.brokers import ProcessError, ServerProcess
from tools.brokers.process import HOST

MONITORING = Path(__file__).resolve().parents[2] / "k8s" / "monitoring"
JOB = "connector"
WATCHDOG = "ConnectorWatchdog"  # always fires, so that somebody notices when no alert comes any more
SCRAPE_SECONDS = 1

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed; `make brokers` installs it where it can",
)


def prometheus_rule() -> dict[str, Any]:
    """Return the resource that holds the alert rules."""
    return yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    """Return every alert rule."""
    return [rule for group in prometheus_rule()["spec"]["groups"] for rule in group["rules"] if "alert" in rule]


def recorded() -> list[dict[str, Any]]:
    """Return every rule that records what alerts have in common."""
    return [rule for group in prometheus_rule()["spec"]["groups"] for rule in group["rules"] if "record" in rule]


def write_rules(path: Path, *, alone: str = "", **replaced: Any) -> Path:
    """Write the rules as Prometheus itself reads them: what the operator would make of the resource.

    Args:
        path: the file to write.
        alone: the name of the only alert that is wanted.
        **replaced: values to put into every alert, such as another expression.
    """
    specification = prometheus_rule()["spec"]
    for group in specification["groups"]:
        group["rules"] = [rule for rule in group["rules"] if not alone or rule.get("alert", alone) == alone]
        for rule in group["rules"]:
            rule.update(replaced if "alert" in rule else {})
    path.write_text(yaml.safe_dump(specification), encoding="utf-8")
    return path


def promtool(*arguments: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool with a text as its standard input, and return what came of it, with both outputs in one."""
    return subprocess.run(
        ["promtool", *map(str, arguments)],
        input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120,
    )  # fmt: skip


class MonitoringServer(ServerProcess):
    """A server of the Prometheus project."""

    program: ClassVar[str]

    def installed(self) -> str:
        """Return the path of its program, or raise where it is not installed."""
        path = shutil.which(self.program)
        if path is None:
            raise ProcessError(f"{self.program} is not installed; `make brokers` installs it")
        return path

    def ready(self) -> bool:
        """Tell whether it answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=2) as response:
                return response.status == 200
        except OSError:
            return False

    def answer(self, path: str, **parameters: str) -> Any:
        """Return what its interface answers at a path."""
        url = f"http://{HOST}:{self.port}/api/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)


class Prometheus(MonitoringServer):
    """A Prometheus that scrapes workers every second, with its data in its directory."""

    title = program = "prometheus"

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        """Choose the port; nothing is started.

        Args:
            directory: where configuration, rules, data and log go.
            ports: of the workers' web servers.
        """
        super().__init__(directory)
        self._targets = [f"{HOST}:{port}" for port in ports]

    def command(self) -> Sequence[str]:
        """Return the command line, or raise where Prometheus is not installed."""
        return [
            self.installed(),
            f"--config.file={self.directory / 'prometheus.yml'}",
            *self.storage_options(),
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]

    def storage_options(self) -> Sequence[str]:
        """Return the options that say what is kept, and where."""
        return [f"--storage.tsdb.path={self.directory / 'data'}"]

    def prepare(self) -> None:
        """Write configuration and rules."""
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(self.configuration()), encoding="utf-8")

    def configuration(self) -> dict[str, Any]:
        """Write the rules, and return the configuration."""
        rules = write_rules(self.directory / "rules.yaml")
        # What is judged by the last 15 minutes is judged by the last 15 scrapes here, as in life by the last 60.
        rules.write_text(rules.read_text(encoding="utf-8").replace("[15m]) and present", "[15s]) and present"))
        interval = f"{SCRAPE_SECONDS}s"
        return {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": self._targets}]}],
        }

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data that its interface has for a path; fail if it has an error or a warning."""
        answer = self.answer(f"v1/{path}", **parameters)
        assert answer["status"] == "success" and not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that an expression has now."""
        return [
            (series["metric"], float(series["value"][1])) for series in self.ask("query", query=expression)["result"]
        ]

    def value(self, expression: str) -> float | None:
        """Return the value of an expression that has one series, none while it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None
