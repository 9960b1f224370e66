"""The alert rules, judged by promtool, and against the metrics and the document; nothing is scraped here."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from app.metric_definitions import METRICS
from tests.product.alert_fleets import cases, expectation, group, group_of_all, groups_for, promtool_file
from tests.product.alert_scenarios import HEALTHY, scenarios
from tests.product.kustomized import rendered
from tests.product.prometheus_server import (
    MONITORING,
    WATCHDOG,
    alerts,
    needs_prometheus,
    promtool,
    recorded,
    write_rules,
)

REPOSITORY = Path(__file__).resolve().parents[2]
MONITORING_DOCUMENT = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
NAMES = [alert["alert"] for alert in alerts()]
TROUBLES = [name for name in NAMES if name != WATCHDOG]
# What every target has, and what the Prometheus client for Python adds.
OTHER_METRICS = {"up", "process_start_time_seconds"}
RUNBOOKS = "https://connector.example/docs/monitoring.md"
CASES = cases()


def judge(directory, groups, **replaced):
    """Run tests on the rules, changed as asked, and return the names of the alerts that are wrong.

    The tests of one alert have its rule alone beside them, as they are many.
    """
    files = []
    for name, of_one in groupby(groups, lambda group: group["name"].partition(",")[0]):
        here = directory / name
        here.mkdir(exist_ok=True)
        write_rules(here / "rules.yaml", alone=name if name in NAMES else "", annotations={}, **replaced)
        files.append(here / "cases.yaml")
        files[-1].write_text(promtool_file([*of_one]))
    done = promtool("test", "rules", *files)
    wrong = set(re.findall(r'alertname=\\"(\w+)\\"', done.stdout))
    assert bool(wrong) == (done.returncode != 0), done.stdout
    return wrong


def every_case():
    """Return each case once, most of them together."""
    alone = [case for case in CASES if case.whole]
    return [*groups_for(alone, "three"), group_of_all([case for case in CASES if case not in alone])]


@needs_prometheus
def test_the_rules_are_what_prometheus_reads(tmp_path):
    done = promtool("check", "rules", write_rules(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stdout
    assert f"{len(NAMES) + len(recorded())} rules found" in done.stdout


@needs_prometheus
@pytest.mark.parametrize("fleet", ["one", "three", "pair", "sites"])
def test_each_alert_fires_when_it_should_and_only_then(fleet, tmp_path):
    """At the bad worker alone: of one, of three in a group, and of 200 sites whose workers all have the same name."""
    assert judge(tmp_path, list(groups_for(CASES, fleet))) == set()


@needs_prometheus
def test_the_cases_find_each_alert_that_never_fires_or_always_fires(tmp_path):
    assert judge(tmp_path, every_case(), expr="vector(0) > 1") == set(TROUBLES)
    assert judge(tmp_path, every_case(), expr="vector(1)", **{"for": "0m"}) == set(TROUBLES)


@needs_prometheus
def test_the_cases_find_each_alert_that_waits_for_nothing(tmp_path):
    """How long a trouble must last is shown by the case, where an alert waits at all."""
    waiting = {alert["alert"] for alert in alerts() if "for" in alert}
    assert judge(tmp_path, every_case(), **{"for": "0m"}) == waiting
    assert judge(tmp_path, every_case(), **{"for": "1d"}) == set(TROUBLES)


@needs_prometheus
def test_the_watchdog_fires_at_once_where_there_is_nothing_to_scrape_yet(tmp_path):
    """It is silent only where nobody evaluates the rules. That it fires whatever happens is in all scenarios."""
    write_rules(tmp_path / "rules.yaml", annotations={})
    expected = [{"labels": f'{{alertname="{WATCHDOG}"}}', "value": 1}]
    firing = expectation('group by (alertname) (ALERTS{alertstate="firing"})', 0, expected)
    (tmp_path / "cases.yaml").write_text(promtool_file([group("nothing", [], [firing])]))
    done = promtool("test", "rules", tmp_path / "cases.yaml")
    assert done.returncode == 0, done.stdout


def test_every_alert_has_a_case_that_fires_it_and_one_that_does_not_in_every_fleet():
    assert [case.alert for case in CASES] == TROUBLES
    fleets = {case.alert: {"one", "three", "sites"} - set(case.fleets) for case in CASES}
    # One worker is not most of many, and without sites none is away.
    assert {alert: left_out for alert, left_out in fleets.items() if left_out} == {
        "ConnectorSiteUnreachable": {"one", "three"},
        "ConnectorKafkaAway": {"one"},
    }
    assert all(case.good for case in CASES)


def test_the_scenarios_have_every_metric_that_an_alert_looks_at():
    """Else a healthy worker would be silent because it says nothing."""
    named = {name for rule in [*alerts(), *recorded()] for name in metrics_of(rule)}
    given = {re.match(r"\w+", name)[0] for name in HEALTHY}
    # These have no series before the first message of their reason.
    assert named - given == {"connector_dead_lettered_total", "connector_dropped_total"}
    assert {scenario.fleet for scenario in scenarios()} >= {"one", "three", "sites"}


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert):
    assert alert["labels"]["severity"] in ({"none"} if alert["alert"] == WATCHDOG else {"critical", "warning"})
    annotations = alert["annotations"]
    assert len(re.sub(r"\{\{.*?\}\}", "", annotations["summary"])) < 100
    assert len(annotations["description"]) > 60
    assert annotations["runbook_url"] == f"{RUNBOOKS}#{alert['alert'].lower()}"


def test_the_document_has_a_section_for_every_alert_and_for_no_other():
    sections = re.split(r"^### ", MONITORING_DOCUMENT, flags=re.MULTILINE)[1:]
    named = [section.partition("\n")[0] for section in sections if section.startswith("Connector")]
    assert named == NAMES
    for section in sections:
        if section.startswith("Connector"):
            assert all(part in section for part in ("**Meaning.**", "**Causes.**", "**Steps.**")), section


def test_the_document_says_the_severity_and_the_time_of_every_alert():
    """The time is the one that promtool has seen; see `after` of the cases."""
    rows = dict(re.findall(r"^\| \[(Connector\w+)\]\(#\w+\) \| (.*?) \|$", MONITORING_DOCUMENT, re.MULTILINE))
    minutes = {WATCHDOG: 0} | {case.alert: case.after for case in CASES}
    for alert in alerts():
        name, severity = alert["alert"], alert["labels"]["severity"]
        after = f"{minutes[name]}m" if minutes[name] else "at once"
        assert rows[name].split(" | ")[:2] == [severity, after], name
    assert list(rows) == NAMES


def test_one_line_of_an_overlay_says_where_the_runbooks_are(tmp_path):
    """A pager opens the address; nothing else in the rules changes."""
    block = re.search(r"^```yaml\n(namespace: .*?runbooks.*?)```", MONITORING_DOCUMENT, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "overlay").mkdir()
    (tmp_path / "monitoring").symlink_to(MONITORING)
    (tmp_path / "overlay" / "kustomization.yaml").write_text(block.replace("../../monitoring", "../monitoring"))
    (rule,) = [manifest for manifest in rendered(tmp_path / "overlay") if manifest["kind"] == "PrometheusRule"]
    address = re.search(r"address=(\S+)", block)[1]
    found = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
    assert [rule["annotations"]["runbook_url"] for rule in found if "alert" in rule] == [
        f"{address}#{name.lower()}" for name in NAMES
    ]
    assert [rule["expr"] for rule in found] == [rule["expr"] for rule in [*recorded(), *alerts()]]


def metrics_of(rule):
    """Return the metrics that a rule names; what another rule has recorded is none."""
    return set(re.findall(r"(?<![:\w])(?:connector|process)_\w+|\bup\b(?!:)", rule["expr"]))


def test_every_metric_in_the_rules_exists():
    recordings = {rule["record"] for rule in recorded()}
    for rule in [*recorded(), *alerts()]:
        uses = set(re.findall(r"connector:[\w:]+", rule["expr"]))
        assert metrics_of(rule) or uses or rule.get("alert") == WATCHDOG
        assert metrics_of(rule) <= {*METRICS, *OTHER_METRICS}, rule
        assert uses <= recordings, rule


def test_no_rule_merges_two_workers():
    """All are `connector-0` at their sites: whatever is compared by labels is compared by all that tell them apart."""
    identity = "(cluster, namespace, site, job, instance)"
    for rule in [*recorded(), *alerts()]:
        for lists in re.findall(r"\b(?:on|by) (\(.*?\))", rule["expr"]):
            is_of_all = rule.get("alert") in {"ConnectorKafkaAway", "ConnectorAbsent"}
            assert lists in {identity, "(cluster, site)", *(("(job)",) if is_of_all else ()), "()"}, rule
