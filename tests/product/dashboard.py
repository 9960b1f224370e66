"""The dashboard for Grafana, as the tests read it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.product.prometheus_server import MONITORING

FILE = MONITORING / "dashboard.json"
# What Grafana would put in; the intervals fit a test that lasts less than a minute.
VALUES = {"job": ".+", "site": ".*", "instance": ".+", "route": ".+", "__rate_interval": "5m", "__range": "10m"}


@dataclass(frozen=True)
class Panel:
    """One panel: its title and its queries."""

    title: str
    queries: tuple[str, ...]


def load() -> dict[str, Any]:
    """Return the whole file."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def panels() -> list[Panel]:
    """Return the panels that show something; rows do not."""
    return [
        Panel(panel["title"], tuple(target["expr"] for target in panel["targets"]))
        for panel in load()["panels"]
        if panel["type"] != "row"
    ]


def variables() -> dict[str, str]:
    """Return what each variable asks Prometheus for."""
    return {
        entry["name"]: entry["query"]["query"] for entry in load()["templating"]["list"] if entry["type"] == "query"
    }


def expression(query: str, **chosen: str) -> str:
    """Return a query with its variables replaced, by the chosen values if there are; fail where one is unknown."""
    values = VALUES | chosen
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], query)
