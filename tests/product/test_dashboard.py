"""The dashboard and the component that brings it, as files; that its queries have data is in `test_prometheus.py`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from app.metric_definitions import METRICS
from tests.product.dashboard import FILE, VALUES, load, panels, variables
from tests.product.kustomized import rendered
from tests.product.prometheus_server import MONITORING, prometheus_rule

REPOSITORY = Path(__file__).resolve().parents[2]
SDK_VERSION = "0.0.22"
CHECKER = REPOSITORY / ".tools" / f"grafana-{SDK_VERSION}" / "check-dashboard"
# Grafana fills in the usual value.
LEFT_OUT = ": required field is missing from input"
GRID_COLUMNS = 24
# Of Prometheus itself, and of the Prometheus client for Python.
OTHER_METRICS = {
    "ALERTS",
    "scrape_duration_seconds",
    "up",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
}
QUERIES = [query for panel in panels() for query in panel.queries]


def named_metrics(query: str) -> set[str]:
    """Return the metrics that a query names: what stands before its braces, histograms under their own name."""
    return {re.sub(r"_bucket$", "", name) for name in re.findall(r"(\w+)\{", query)}


def test_every_metric_in_the_dashboard_exists_and_every_metric_is_in_the_dashboard():
    named = set.union(*map(named_metrics, QUERIES))
    assert named - OTHER_METRICS == set(METRICS)
    assert named >= OTHER_METRICS


def test_every_query_is_limited_to_what_was_chosen():
    for query in QUERIES:
        for selector in re.findall(r"\w+\{(.*?)\}", query):
            assert 'site=~"($site)?"' in selector, query
            assert "alertname" in selector or ('job=~"$job"' in selector and 'instance=~"$instance"' in selector), query
        assert set(re.findall(r"\$(\w+)", query)) <= set(VALUES), query


def test_no_query_merges_workers_that_only_a_label_of_another_name_tells_apart():
    """Where `instance` is the same at all sites, their labels differ in `site`, `cluster`, `namespace` and the like."""
    for query in QUERIES:
        assert not re.search(r"by \([^)]*\binstance\b", query), query
    shown = [(query["expr"], query["legendFormat"]) for panel in load()["panels"] for query in panel.get("targets", [])]
    assert not [query for query, legend in shown if "{{instance}}" in legend and "{{site}} {{instance}}" not in legend]


def test_all_workers_are_those_of_the_chosen_sites():
    """SITE alone is no label of the metrics but of one: then the site limits the workers, and these the rest."""
    entries = {entry["name"]: entry for entry in load()["templating"]["list"]}
    assert entries["site"]["allValue"] == ".*", "also what has no site"
    assert "allValue" not in entries["instance"]


def test_the_prometheus_can_be_chosen_everywhere():
    dashboard = load()
    (chooser,) = [entry for entry in dashboard["templating"]["list"] if entry["type"] == "datasource"]
    assert (chooser["name"], chooser["query"]) == ("datasource", "prometheus")
    assert list(variables()) == ["job", "site", "instance", "route"], "each is limited by those before it"
    text = FILE.read_text(encoding="utf-8")
    assert set(re.findall(r'"uid": "(.*?)"', text)) == {"connector", "${datasource}"}
    assert dashboard["id"] is None, "Grafana gives it one"


def test_the_panels_have_titles_and_texts_of_their_own_and_do_not_overlap():
    shown = load()["panels"]
    assert len({panel["id"] for panel in shown}) == len({panel["title"] for panel in shown}) == len(shown)
    assert not [panel["title"] for panel in shown if panel["type"] != "row" and not panel["description"]]
    places = [panel["gridPos"] for panel in shown]
    assert all(place["x"] + place["w"] <= GRID_COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_the_document_names_every_row_of_the_dashboard():
    section = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8").partition("## The dashboard")[2]
    rows = [panel["title"] for panel in load()["panels"] if panel["type"] == "row"]
    assert re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[2:] == rows


def complaints(path):
    """Return what Grafana's own schema has against a dashboard, but for fields that are left out."""
    if not CHECKER.exists():
        pytest.skip("needs what `make chart-test` builds where there is Go: the schema of Grafana's dashboards")
    done = subprocess.run([str(CHECKER), str(path)], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if not line.endswith(LEFT_OUT)]


def test_the_schema_of_grafana_has_nothing_against_the_dashboard():
    assert complaints(FILE) == []
    assert f"GRAFANA_SDK_VERSION := {SDK_VERSION}\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [('"graphMode": "none"', '"grafMode": "none"', "grafMode"), ('"legendFormat":', '"legend":', "legend"),
     ('"schemaVersion": 39', '"schemaVersion": "39"', "schemaVersion")],
)  # fmt: skip
def test_what_grafana_does_not_know_is_seen(right, wrong, said, tmp_path):
    """The check itself, which would be worth nothing if it took everything."""
    text = FILE.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "dashboard.json").write_text(text.replace(right, wrong, 1), encoding="utf-8")
    assert [line for line in complaints(tmp_path / "dashboard.json") if said in line]


# ---- the component


def test_the_component_adds_rules_dashboard_and_scraping_to_an_overlay(tmp_path):
    overlay = tmp_path / "overlay"
    shutil.copytree(MONITORING, tmp_path / "monitoring")
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text("namespace: bridge\ncomponents: [../monitoring]\n")
    resources = {resource["kind"]: resource for resource in rendered(overlay)}
    assert set(resources) == {"PrometheusRule", "PodMonitor", "ConfigMap"}
    assert {resource["metadata"]["namespace"] for resource in resources.values()} == {"bridge"}
    assert resources["PrometheusRule"]["spec"] == prometheus_rule()["spec"]
    assert resources["ConfigMap"]["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(resources["ConfigMap"]["data"]["dashboard.json"]) == load()


def test_the_pods_are_scraped_where_the_pages_are_and_as_the_rules_expect():
    monitor = yaml.safe_load((MONITORING / "pod-monitor.yaml").read_text(encoding="utf-8"))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    relabelled = {entry["targetLabel"]: entry for entry in endpoint["relabelings"]}
    assert relabelled["job"]["replacement"] == "connector"
    assert relabelled["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_name"]


def test_the_documented_command_makes_the_file_for_a_plain_prometheus(tmp_path):
    text = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
    command = re.search(r"^(\.venv/bin/python -c .*?) > connector-rules\.yaml$", text, re.DOTALL | re.MULTILINE)[1]
    target = tmp_path / "connector-rules.yaml"
    subprocess.run(f"{command} > {shlex.quote(str(target))}", shell=True, check=True, cwd=REPOSITORY)
    assert yaml.safe_load(target.read_text()) == prometheus_rule()["spec"]
