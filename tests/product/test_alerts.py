"""The alert rules, judged by promtool, and against the metrics and the document; nothing is scraped here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from app.metric_definitions import METRICS
from tests.product.prometheus_server import alerts, needs_prometheus, promtool, write_rules

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "prometheus" / "alert_cases.yaml"
MONITORING_DOCUMENT = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
NAMES = [alert["alert"] for alert in alerts()]
# What every target has, and what the Prometheus client for Python adds.
OTHER_METRICS = {"up", "process_start_time_seconds"}


@pytest.fixture
def judged(tmp_path):
    """Return a function that runs the cases on the rules, changed as asked, and returns which alerts are wrong."""

    def judge(**replaced: object) -> set[str]:
        write_rules(tmp_path / "rules.yaml", **replaced)
        shutil.copy(CASES, tmp_path)
        done = promtool("test", "rules", tmp_path / CASES.name)
        wrong = set(re.findall(r'alertname=\\"(\w+)\\"', done.stdout))
        assert bool(wrong) == (done.returncode != 0), done.stdout
        return wrong

    return judge


@needs_prometheus
def test_the_rules_are_what_prometheus_reads(tmp_path):
    done = promtool("check", "rules", write_rules(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stdout
    assert f"{len(NAMES)} rules found" in done.stdout


@needs_prometheus
def test_each_alert_fires_when_it_should_and_only_then(judged):
    assert judged() == set()


@needs_prometheus
def test_the_cases_find_each_alert_that_never_fires_or_always_fires(judged):
    assert judged(expr="vector(0) > 1") == set(NAMES)
    assert judged(expr="vector(1)", **{"for": "0m"}) == set(NAMES)


@needs_prometheus
def test_the_cases_find_each_alert_that_waits_for_nothing(judged):
    """How long a trouble must last is shown by the case, where an alert waits at all."""
    waiting = {alert["alert"] for alert in alerts() if "for" in alert}
    assert judged(**{"for": "0m"}) == waiting
    assert judged(**{"for": "1d"}) == set(NAMES)


def test_every_alert_has_a_case_that_fires_it_and_one_that_does_not():
    groups = {group["name"]: group for group in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]}
    assert list(groups) == NAMES
    for name, group in groups.items():
        expectations = [bool(test["exp_samples"]) for test in group["promql_expr_test"] if name in test["expr"]]
        assert expectations == [False, True], name


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    annotations = alert["annotations"]
    assert len(annotations["summary"]) < 120
    assert len(annotations["description"]) > 60
    assert annotations["runbook_url"] == f"docs/monitoring.md#{alert['alert'].lower()}"


def test_the_document_has_a_section_for_every_alert_and_for_no_other():
    sections = re.split(r"^### ", MONITORING_DOCUMENT, flags=re.MULTILINE)[1:]
    named = [section.partition("\n")[0] for section in sections if section.startswith("Connector")]
    assert named == NAMES
    for section in sections:
        if section.startswith("Connector"):
            assert all(part in section for part in ("**Meaning.**", "**Causes.**", "**Steps.**")), section


def test_the_document_says_the_severity_and_the_time_of_every_alert():
    rows = dict(re.findall(r"^\| \[(Connector\w+)\]\(#\w+\) \| (.*?) \|$", MONITORING_DOCUMENT, re.MULTILINE))
    for alert in alerts():
        severity, after = alert["labels"]["severity"], alert.get("for", "at once")
        assert rows[alert["alert"]].split(" | ")[:2] == [severity, after], alert["alert"]
    assert list(rows) == NAMES


def test_every_metric_in_the_rules_exists():
    for alert in alerts():
        named = set(re.findall(r"\b(?:connector|process)_\w+|\bup\b", alert["expr"]))
        assert named
        assert named <= {*METRICS, *OTHER_METRICS}, alert["alert"]
