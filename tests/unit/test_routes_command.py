"""`connector routes`: what becomes of an MQTT topic, in words, and what the command says without a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.routes import RouteTable, shadowed
from app.routing.explained import explain
from app.settings import load_settings
from tests.support.app_settings import app_settings

with app_settings():
    from app.commands.reload import told
    from app.commands.routes import program

REPOSITORY = Path(__file__).resolve().parents[2]
ROUTES = """\
routes:
  - name: lines
    from: plant/{site}/{line}/#
    to: plant.{site}
    key: "{site}/{line}"
    headers: {site: "{site}"}
    qos: 2
  - {name: all, from: "#", to: rest}
  - {name: vain, from: x/+, to: rest}
  - {name: one, from: plant/a/b/c, to: one}
"""
NEEDED = {"RUN_MODE": "PRODUCTION", "MQTT_BROKER_URL": "h", "MQTT_CLIENT_ID": "c", "KAFKA_BROKER": "h"}


@pytest.fixture
def environment(tmp_path):
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    file.chmod(0o644)
    return {**NEEDED, "ROUTES_FILE": str(file)}


def explained(environment, topic):
    settings = load_settings(environment)
    table = RouteTable(settings.routes)
    return explain(settings, table, topic, {each.route.name for each in shadowed(table.routes)})


def test_the_record_that_a_topic_becomes_is_told_with_what_it_is_made_of(environment):
    found = explained(environment, "plant/oslo/press/state")
    assert found.as_dictionary() == {
        "mqtt_topic": "plant/oslo/press/state",
        "route": "lines",
        "filter": "plant/+/+/#",
        "dead_letter": None,
        "record": {
            "kafka_topic": "plant.oslo",
            "key": "oslo/press",
            "headers": {"site": "oslo"},
            "qos": 2,
            "timestamp": "received",
            "empty_payload": "value",
        },
        "others": [{"route": "all", "filter": "#", "why_not": "lines stands before it"}],
    }
    assert "  headers        site=oslo, and those of every record" in found.lines()
    assert "  empty payload  value" in found.lines()
    assert found.lines()[-1] == "  not by         all (#): lines stands before it"


@pytest.mark.parametrize(
    ("topic", "route", "dead_letter", "others"),
    [
        ("plant/a/b/c", "one", "", ["one has no wildcard, and such routes come first"] * 2),
        ("x/1", "all", "", ["all stands before it; it never gets a message at all"]),
        ("plant//b/c", "lines", "illegal_kafka_topic: a part of the MQTT topic", ["lines stands before it"]),
        ("$SYS/uptime", None, "unmapped: no route matches it", []),
        ("a/#", "all", "invalid_mqtt_topic", []),
    ],
)
def test_who_takes_a_topic_and_why_not_the_others(environment, topic, route, dead_letter, others):
    found = explained(environment, topic)
    assert (found.route.name if found.route else None) == route
    assert found.dead_letter.startswith(dead_letter)
    assert bool(found.dead_letter) is bool(dead_letter) is not found.becomes_record
    assert [why for _, why in found.others] == others


def run(environment, *words):
    """Run the command in this process: a start of its own takes half a second."""
    return CliRunner().invoke(program, words, env=environment)


def run_alone(environment, *words):
    """Run the whole command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "app.connector", "routes", *words], capture_output=True, text=True, check=False,
        timeout=60, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip


def test_the_exit_code_says_whether_every_topic_becomes_a_record(environment):
    """Without a worker, and without anything to connect to."""
    assert run(environment, "explain", "x/1", "plant/a/b/c").exit_code == 0
    assert run(environment, "explain", "x/1", "$SYS/a").exit_code == 1
    in_json = run(environment, "--json", "explain", "x/1").stdout
    assert json.loads(in_json) == explained(environment, "x/1").as_dictionary(), "also where --json comes first"
    refused = run_alone({**environment, "ROUTES_FILE": "/none"}, "explain", "x/1")
    assert refused.returncode == 2
    assert [line.partition(";")[0] for line in refused.stderr.splitlines()] == [
        "connector: 1 setting(s) to correct:",
        "  ROUTES_FILE: must be the path of a readable file",
        ".env.example explains every setting",
    ]


def test_without_a_worker_the_routes_alone_are_listed_and_the_schema_needs_not_even_settings(environment):
    listed = run(environment)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "route",
        "one",
        "lines",
        "all",
        "vain",
        "warning:",
    ]
    assert listed.stderr.startswith("nothing is counted, as ")
    assert json.loads(run_alone({}, "schema").stdout)["title"] == "Routes of Connector"


CREATE_IT = "create it, or allow the worker's user to see it; what goes there waits in the table"


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        ({"routes": 1}, ["nothing has changed: 1 route, as before"]),
        ({"added": ["a"], "routes": 2}, ["added: a", "the worker has taken up the file: 2 routes"]),
        (
            {"missing_topics": ["a"] * 22, "routes": 1},
            [
                f"warning: Kafka shows no topic named {', '.join('a' * 20)} and 2 more: {CREATE_IT}",
                "nothing has changed: 1 route, as before",
            ],
        ),
        (
            {"moved": True, "routes": 2},
            ["the routes are in another order", "the worker has taken up the file: 2 routes"],
        ),
        (
            {"problems": ["ROUTES_FILE: ..."], "routes": 2},
            ["ROUTES_FILE: ...", "connector: the file is wrong, and the routes of the worker stay as they are"],
        ),
    ],
)
def test_a_reload_says_last_what_the_worker_has_now(found, lines):
    nothing = {"problems": [], "added": [], "removed": [], "changed": [], "moved": False, "mqtt": "", "shadowed": []}
    assert list(told({**nothing, "missing_topics": [], **found})) == lines
