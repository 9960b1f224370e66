"""Two sites that are made from one set of files, and what tells them apart; with the files of docs/sites.md.

Both workers have one MQTT_CLIENT_ID, each at the MQTT broker of its site. Agents of Prometheus send what they scrape to
one central Prometheus, both workers write to one Kafka, and one of them has a quota there.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.routes import RouteTable
from app.routing.explained import explain
from app.settings import load_settings
from tests.product.dashboard import expression, panels
from tests.product.prometheus_server import JOB, SCRAPE_SECONDS, Prometheus, needs_prometheus, promtool, write_rules
from tests.support.oracle import Oracle, read, wait_until
from tests.support.system import Bridge, Publisher
from tools.brokers import Kafka, Mosquitto
from tools.brokers.process import HOST

pytestmark = needs_prometheus
REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = (REPOSITORY / "docs" / "sites.md").read_text(encoding="utf-8")
YAML_FILES = dict(re.findall(r"^```yaml\n# ([^\n]*)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE))
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
CENTRAL, AGENT, SCRAPING = "prometheus.yml", "prometheus-agent.yml", "prometheus.yml, which scrapes"
LIMITED, FREE = "oslo-1", "bergen"
CLIENT_ID, WORKER = "connector-0", "oslo-1.connector-0"
# Kafka counts a new client's bytes as those of 10 s. What is more takes as much longer: here 2.5 s.
QUOTA_BYTES_A_SECOND, MESSAGES, PAYLOAD_BYTES = 20_000, 120, 2_000


def commands(program: str) -> list[list[str]]:
    """Return how the document calls a program."""
    return [shlex.split(line, comments=True) for line in COMMANDS.splitlines() if line.startswith(f"{program} ")]


class Central(Prometheus):
    """The central Prometheus as it is documented."""

    def storage_options(self) -> Sequence[str]:
        """Return that it takes what others send, and where that goes."""
        assert "--web.enable-remote-write-receiver" in commands("prometheus")[1]
        return [*super().storage_options(), "--web.enable-remote-write-receiver"]

    def configuration(self) -> dict[str, Any]:
        """Return the documented file; rules are judged as often as all else happens here."""
        configuration = yaml.safe_load(YAML_FILES[CENTRAL])
        assert configuration["rule_files"] == ["connector-rules.yaml"]
        write_rules(self.directory / "connector-rules.yaml")
        configuration["global"] = {"evaluation_interval": f"{SCRAPE_SECONDS}s"}
        return configuration


class Agent(Prometheus):
    """The Prometheus of a site, as it is documented, with addresses of its own."""

    def __init__(self, directory: Path, site: str, worker_port: int, central: Prometheus) -> None:
        super().__init__(directory, [worker_port])
        self._site = site
        self._url = f"http://{HOST}:{central.port}"

    def storage_options(self) -> Sequence[str]:
        """Return that it is an agent."""
        option = "--enable-feature=agent"
        assert option in commands("prometheus")[0]
        return [option, f"--storage.agent.path={self.directory / 'data'}"]

    def configuration(self) -> dict[str, Any]:
        """Return the documented file for this site; what is sent is sent at once."""
        text = YAML_FILES[AGENT].replace(LIMITED, self._site).replace("127.0.0.1:6066", self._targets[0])
        text = text.replace("127.0.0.1:9090", f"{HOST}:{self.port}")
        configuration = yaml.safe_load(text.replace("https://prometheus.example.com", self._url))
        configuration["global"]["scrape_interval"] = f"{SCRAPE_SECONDS}s"
        (sends,) = configuration["remote_write"]
        assert sends.pop("basic_auth")["username"] == self._site
        sends["queue_config"] = {"batch_send_deadline": f"{SCRAPE_SECONDS}s"}
        return configuration


def set_quota(kafka: Kafka) -> None:
    """Call the documented command as its script does, for one worker."""
    (command,) = [each for each in commands("kafka-configs.sh") if WORKER in each]
    here = {
        "localhost:9092": kafka.bootstrap,
        "producer_byte_rate=250000": f"producer_byte_rate={QUOTA_BYTES_A_SECOND}",
    }
    arguments = [here.get(argument, argument) for argument in command[1:]]
    done = subprocess.run(
        [*kafka._java(), "kafka.admin.ConfigCommand", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Sites:
    """Everything that runs, after each site has sent the same."""

    central: Central
    bridges: dict[str, Bridge]
    topics: dict[str, str]
    oracle: Oracle

    def look(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return what a query has, once each site has something in it."""

        def found() -> list[tuple[dict[str, str], float]]:
            series = self.central.query(query)
            return series if {labels.get("site") for labels, _ in series} == {LIMITED, FREE} else []

        return wait_until(found, f"both sites in {query}")


@pytest.fixture(scope="module")
def sites(kafka, tmp_path_factory) -> Iterator[Sites]:
    directory = tmp_path_factory.mktemp("sites")
    # Names of their own each time: the tests of a module that are shared out may set this up twice, at one Kafka.
    topics = {site: f"{site}.plant-{secrets.token_hex(4)}" for site in (LIMITED, FREE)}
    for topic in topics.values():
        kafka.create_topic(topic, 1)
    set_quota(kafka)
    with contextlib.ExitStack() as running:
        central = running.enter_context(Central(directory / "central", []))
        bridges, brokers = {}, {}
        for site, topic in topics.items():
            brokers[site] = running.enter_context(Mosquitto(directory / f"mosquitto-{site}"))
            bridges[site] = Bridge(
                directory / site, brokers[site].port, kafka.bootstrap, f"plant/#:{topic}", site=site,
                mqtt_client_id=CLIENT_ID,
            )  # fmt: skip
            running.enter_context(bridges[site])
            running.enter_context(Agent(directory / f"agent-{site}", site, bridges[site].port, central))
        for broker in brokers.values():
            with Publisher(broker.port) as publisher:
                for number in range(MESSAGES):
                    publisher.raw("plant/line1/temperature", random.Random(number).randbytes(PAYLOAD_BYTES))
                publisher.wait_for_acknowledgements()
        yield Sites(central, bridges, topics, read(kafka.bootstrap, list(topics.values()), 2 * MESSAGES))


# ---- Kafka


def test_a_quota_for_one_worker_holds_that_one_up_and_loses_nothing(sites):
    """P1 and P3: both have one MQTT_CLIENT_ID; the lane of the limited one waits and goes on, the other never waits."""
    logs = {site: bridge.log_path.read_text() for site, bridge in sites.bridges.items()}
    assert "throttles Connector for" in logs[LIMITED]
    assert "throttles Connector for" not in logs[FREE]
    for site, bridge in sites.bridges.items():
        values = [record.value for record in sites.oracle.records if record.topic == sites.topics[site]]
        assert values == [random.Random(number).randbytes(PAYLOAD_BYTES) for number in range(MESSAGES)]
        bridge.assert_balanced()


def test_each_record_says_of_which_site_it_is(sites):
    sites_of = {topic: site for site, topic in sites.topics.items()}
    for record in sites.oracle.records:
        assert record.headers["connector-id"].startswith(f"{sites_of[record.topic]}.{CLIENT_ID}/".encode())


def test_each_line_of_a_log_says_of_which_site_it_is_from_the_first_on(sites):
    for site, bridge in sites.bridges.items():
        lines = bridge.log_path.read_text().splitlines()
        assert lines and all(line.split(" ")[2] == f"[{site}]" for line in lines if not line.startswith("    ")), lines


# ---- Prometheus


def test_one_prometheus_tells_workers_of_one_name_apart_by_their_sites(sites):
    found = {labels["site"]: labels for labels, _ in sites.look("connector_build_info")}
    assert set(found) == {LIMITED, FREE}
    for labels in found.values():
        assert labels["instance"] == CLIENT_ID
        assert "exported_site" not in labels, "the worker and its agent say the same"
    assert len(sites.look(f'up{{job="{JOB}"}} == 1')) == 2
    assert len(sites.look('up{job="agent"} == 1')) == 2, "a worker is told from its site"


def test_no_panel_adds_up_what_is_of_two_workers_or_shows_what_was_not_chosen(sites):
    """With all that each worker has said since the start, in both."""
    sites.look(f"sum by (site) (connector_delivered_total) == {MESSAGES}")
    sites.look("count_over_time(process_cpu_seconds_total[5m]) >= 2")
    for panel in panels():
        for query in panel.queries:
            both = sites.central.query(expression(query))
            if any("instance" in labels for labels, _ in both):
                assert {labels["site"] for labels, _ in both} == {LIMITED, FREE}, query
            for chosen in (LIMITED, FREE):
                one = sites.central.query(expression(query, site=chosen))
                assert {labels["site"] for labels, _ in one if "instance" in labels} <= {chosen}, query
    query = 'sum(connector_delivered_total{site=~"($site)?"})'
    assert sites.central.value(expression(query, site=FREE)) == MESSAGES


# ---- the files and commands of the document


@pytest.mark.parametrize("name", [CENTRAL, AGENT, SCRAPING])
def test_promtool_accepts_the_files_as_they_stand_there(name, tmp_path):
    (tmp_path / "password").touch()
    write_rules(tmp_path / "connector-rules.yaml")
    path = tmp_path / "prometheus.yml"
    path.write_text(YAML_FILES[name].replace("/etc/prometheus/password", str(tmp_path / "password")))
    done = promtool("check", "config", *(["--agent"] if name == AGENT else []), path)
    assert done.returncode == 0, done.stdout


def test_the_routes_name_the_site_in_topic_key_and_header_and_are_made_for_another(tmp_path):
    (tmp_path / "routes.yaml").write_text(YAML_FILES["routes.yaml"])
    (line,) = [line for line in COMMANDS.splitlines() if line.startswith("sed ")]
    subprocess.run(line, shell=True, check=True, cwd=tmp_path)
    for file, site in (("routes.yaml", LIMITED), ("bergen.yaml", FREE)):
        (tmp_path / file).chmod(0o644)
        told = explained(tmp_path / file, "plant/line1/temperature")
        assert f"{site}.plant" in told and f"{site}/plant/line1/temperature" in told
        assert re.search(rf"\bsite[:= ]+'?{site}\b", told), told
        assert "heartbeats" in explained(tmp_path / file, "$SYS/broker/uptime")


def explained(routes: Path, topic: str) -> str:
    """Return what `connector routes explain` says."""
    settings = load_settings({
        "RUN_MODE": "PRODUCTION", "MQTT_BROKER_URL": "localhost", "MQTT_CLIENT_ID": CLIENT_ID,
        "KAFKA_BROKER": "localhost", "ROUTES_FILE": str(routes),
    })  # fmt: skip
    return "\n".join(explain(settings, RouteTable(settings.routes), topic).lines())


def test_the_job_for_heartbeats_writes_the_last_one_of_each_site(tmp_path):
    """A program stands for the one of Kafka's, which the tests do not have, and prints what that one prints."""
    reader = tmp_path / "kafka-console-consumer.sh"
    records = [("1000500", "oslo-1"), ("2000000", "bergen"), ("3000250", "oslo-1")]
    printed = "".join(f"CreateTime:{time}\t{site}\n" for time, site in records)
    reader.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}END\n")
    reader.chmod(0o755)
    script = re.search(r"^timeout 30 kafka-console-consumer\.sh.*?\.prom$", DOCUMENT, re.DOTALL | re.MULTILINE)[0]
    script = script.replace("/var/lib/node_exporter", str(tmp_path))
    subprocess.run(script, shell=True, check=True, env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    written = (tmp_path / "heartbeats.prom").read_text()
    assert sorted(written.splitlines()) == [
        'site_heartbeat_time_seconds{site="bergen"} 2000.000',
        'site_heartbeat_time_seconds{site="oslo-1"} 3000.250',
    ]
