"""What happens to operators: promtool says which alerts that sets off, and Alertmanager what becomes of these."""

from __future__ import annotations

import re
from itertools import product

import pytest
import yaml

from tests.product.alert_fleets import promtool_file
from tests.product.alert_scenarios import scenarios
from tests.product.alertmanager_server import SAMPLE, Alertmanager, amtool, needs_alertmanager
from tests.product.prometheus_server import JOB, WATCHDOG, alerts, needs_prometheus, promtool, write_rules
from tests.support.oracle import wait_until

SCENARIOS = scenarios()
IDENTITY = ("cluster", "namespace", "site", "job", "instance")
NAMES = {alert["alert"]: alert["labels"]["severity"] for alert in alerts()}


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory):
    with Alertmanager(tmp_path_factory.mktemp("alertmanager")) as running:
        yield running


@needs_prometheus
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_happens_sets_off_these_alerts_and_no_other(scenario, tmp_path):
    write_rules(tmp_path / "rules.yaml", annotations={})
    (tmp_path / "scenario.yaml").write_text(promtool_file([scenario.group()]))
    done = promtool("test", "rules", tmp_path / "scenario.yaml")
    assert done.returncode == 0, done.stdout


@needs_alertmanager
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_one_cause_makes_one_notification(scenario, alertmanager):
    """The alerts of one worker that follow from each other are one, and so are warnings of many sites with one cause.

    What is critical at two sites makes two: a pager may tell nobody of what joins an incident that it knows.
    """
    firing = [{**labels, "job": JOB, "severity": NAMES[labels["alertname"]]} for labels in scenario.alerts()]
    firing.append({"alertname": WATCHDOG, "severity": NAMES[WATCHDOG]})
    alertmanager.post(firing)
    try:
        wait_until(lambda: alertmanager.known() == len(firing), "all alerts")
        expected = {"pager": scenario.pager, "mail": scenario.mail, "watchdog": {WATCHDOG: 1}}
        wait_until(lambda: alertmanager.notifications() == expected, lambda: f"{alertmanager.notifications()}")
    finally:
        alertmanager.post(firing, lasts=False)
        wait_until(lambda: alertmanager.known() == 0, "no alerts")


@needs_alertmanager
def test_the_sample_is_what_alertmanager_reads():
    done = amtool("check-config", SAMPLE)
    assert done.returncode == 0, done.stdout


@needs_alertmanager
@pytest.mark.parametrize("name", NAMES)
def test_what_is_critical_wakes_somebody_and_a_warning_does_not(name):
    done = amtool("config", "routes", "test", f"--config.file={SAMPLE}", f"alertname={name}", f"severity={NAMES[name]}")
    receiver = {"critical": "pager", "warning": "mail", "none": "watchdog"}[NAMES[name]]
    assert receiver in done.stdout.splitlines()


@needs_alertmanager
def test_what_one_worker_has_silences_nothing_at_another(alertmanager):
    """Every pair of alerts of every rule, at one worker, and at workers that differ from it in one label that counts.

    A label that both lack counts as equal, so each of them is left out once, too.
    """
    pairs = [(rule, *pair) for rule in inhibitions() for pair in product(named(rule, "source"), named(rule, "target"))]
    sources, same, others = [], [], []
    for number, (rule, source, target) in enumerate(pairs):
        here = {label: f"{label}-{number}" for label in IDENTITY}
        of_source = {name: value for name, value in here.items() if name in scope_of(rule, source)}
        sources.append({**of_source, "alertname": source})
        same.append({**here, "alertname": target})
        for label in scope_of(rule, source):
            others.append({**here, label: "another", "alertname": target})
            others.append({name: value for name, value in same[-1].items() if name != label})
    fires = [*sources, *same, *others]
    alertmanager.post(fires)
    try:
        wait_until(lambda: alertmanager.known() == len(fires), "all alerts")
        wait_until(lambda: alertmanager.silenced() == {frozenset(alert.items()) for alert in same}, "what is silenced")
    finally:
        alertmanager.post(fires, lasts=False)


def scope_of(rule, source):
    """Return the labels that an alert has which silences others."""
    if source == "ConnectorKafkaAway":
        return ("cluster", "site", "job") if 'site!=""' in rule["source_matchers"] else ("job",)
    return {"ConnectorSiteUnreachable": ("cluster", "site"), "ConnectorAbsent": ("cluster", "site", "job")}.get(
        source, IDENTITY
    )


def inhibitions():
    """Return the rules of the sample by which an alert silences others."""
    return yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))["inhibit_rules"]


def named(rule, kind):
    """Return the names of the alerts that a rule means, as its source or target."""
    return [name for name in NAMES if re.fullmatch(pattern_of(rule[f"{kind}_matchers"]), name)]


def pattern_of(matchers):
    """Return what the name of an alert has to match."""
    (pattern,) = [text for text in matchers if text.startswith("alertname")]
    return re.fullmatch(r'alertname=~?"(.*)"', pattern)[1]


def test_every_part_of_the_sample_means_an_alert_that_there_is():
    """A name with a mistake would silence, or send, nothing."""
    sample = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    matchers = [route["matchers"] for route in sample["route"]["routes"]]
    matchers += [rule[f"{kind}_matchers"] for rule in inhibitions() for kind in ("source", "target")]
    for pattern in map(pattern_of, matchers):
        before, parts = re.fullmatch(r"(\w+)(?:\((.*)\)|\.\+)?\??", pattern).groups()
        for part in (parts or ".*").split("|"):
            assert [name for name in NAMES if re.fullmatch(before + part, name)], (pattern, part)
