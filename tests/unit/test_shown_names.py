"""Names on pages and in metrics: without secrets, made once, and different ones stay different; and other ways out."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app import metrics
from app.errors import ConnectorError
from app.lines import escaped_json
from app.listed import first_of
from app.metric_definitions import METRICS
from app.pages.exposition import ConnectorCollector
from app.secret_forms import SHOWN_INSTEAD, known
from tests.support.app_settings import app_settings

with app_settings():
    from app.control import ControlServer

SECRETS = ["canary-Kpassword-1234", "canary-Mpassword-5678"]
ROUTES = [f"{SECRETS[0]}/#:t", f"{SECRETS[1]}/#:t", f"{SHOWN_INSTEAD}/#:t (2)", "a/#:t", f"u/#:{SECRETS[0]}"]
SHOWN = [f"{SHOWN_INSTEAD}/#:t", f"{SHOWN_INSTEAD}/#:t (2)", f"{SHOWN_INSTEAD}/#:t (2) (2)", "a/#:t"]
SHOWN.append(f"u/#:{SHOWN_INSTEAD}")


@pytest.fixture(autouse=True)
def _known():
    known.know(SECRETS)
    yield
    known.know(())


@pytest.fixture
def registry():
    accounts = metrics.Accounts()
    for number, route in enumerate(ROUTES):
        accounts[route].received = number
        accounts[route].dropped[f"said {SECRETS[0]}"] = number
    histograms = {name: metrics.Histogram() for name, (kind, *_) in METRICS.items() if kind == "histogram"}
    made = CollectorRegistry()
    made.register(ConnectorCollector(accounts, metrics.Gauges(), histograms, {}))
    return made


def test_no_label_of_a_metric_has_a_secret_and_no_two_routes_become_one(registry):
    """A secret that is also part of a mapping was twenty times on /metrics, and nowhere else."""
    scraped = generate_latest(registry).decode()
    assert not any(secret in scraped for secret in SECRETS)
    for number, shown in enumerate(SHOWN):
        assert f'connector_received_total{{route="{shown}"}} {float(number)}\n' in scraped
        dropped = f'connector_dropped_total{{reason="said {SHOWN_INSTEAD}",route="{shown}"}} {float(number)}\n'
        assert dropped in scraped
    assert generate_latest(registry).decode() == scraped


def test_a_label_is_made_once_and_not_at_each_scrape(registry, monkeypatch):
    generate_latest(registry)
    monkeypatch.setattr(known, "hidden", None)
    generate_latest(registry)


def test_two_names_that_would_look_alike_are_two_on_a_page(registry):
    """One of them was gone: the second took its place in the JSON. They are those of the metrics."""
    generate_latest(registry)
    page = json.loads(escaped_json({"lanes": {route: number for number, route in reversed(list(enumerate(ROUTES)))}}))
    assert page == {"lanes": {shown: number for number, shown in enumerate(SHOWN)}}


def test_a_secret_that_becomes_known_later_is_hidden_from_then_on():
    known.know(())
    assert json.loads(escaped_json({ROUTES[0]: 1})) == {ROUTES[0]: 1}
    known.know(SECRETS)
    assert json.loads(escaped_json({ROUTES[0]: 1})) == {SHOWN[0]: 1}


def test_no_answer_to_a_command_has_a_secret(tmp_path):
    """The command may know other ones, or none: its settings need not be the worker's."""

    def refuse(ids):
        raise ConnectorError(f"lane {SECRETS[0]}/x: {ids[0]} is refused")

    line = json.dumps({"action": "move", "ids": [SECRETS[1]]}).encode()
    answer = asyncio.run(ControlServer(tmp_path, {"move": refuse})._answer(line))
    assert answer == {"error": f"lane {SHOWN_INSTEAD}/x: {SHOWN_INSTEAD} is refused"}


@pytest.mark.parametrize(
    ("names", "number", "said"),
    [
        ([], 0, ""),
        (["a"], 0, "a"),
        (["a", "b"], 0, "a, b"),
        (["a", "b", "c"], 0, "a, b and 1 more"),
        (["a", "b"], 9, "a, b and 7 more"),
    ],
)
def test_of_many_names_the_first_are_named_and_the_rest_counted(names, number, said):
    assert first_of(names, 2, number) == said
