"""compose.yaml: against the compose specification, the worker's settings, and the real programs of the images."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from app.memory import MEBIBYTE, MemoryLimit, plan_for
from app.settings import SECRET_NAMES, load_settings
from app.version import VERSION
from tests.product import composed
from tests.product.composed import (
    FILE,
    LOADER,
    REPOSITORY,
    SUPPORT,
    ComposedKafka,
    ComposedMosquitto,
    ComposedPrometheus,
    environment,
    mounts,
    of_the_image,
    script,
    services,
)  # fmt: skip
from tests.product.dashboard import load
from tests.product.prometheus_server import needs_prometheus, prometheus_rule, promtool
from tests.support.oracle import read, wait_until
from tests.support.system import Publisher
from tools.brokers.kafka import KAFKA_VERSION
from tools.worker import Worker

AFTER_BUDGET_SECONDS = 2  # what docs/commands.md allows for the end of a stop
PORTS_IN_CONTAINERS = {"mosquitto": {1883}, "kafka": {19092, 9092, 9093}, "connector": {6066}, "prometheus": {9090},
                       "grafana": {3000}}  # fmt: skip
SERVICES = sorted(services())
needs_mosquitto_clients = pytest.mark.skipif(
    shutil.which("mosquitto_sub") is None, reason="mosquitto_sub is not installed; `make brokers` installs it"
)


def settings():
    """Return the settings of the worker in the container."""
    return load_settings(of_the_image() | environment("connector"))


def loaded(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Return what the loader of `docker compose` makes of files, or says against them."""
    if not LOADER.exists():
        pytest.skip("needs what `make chart-test` builds where there is Go: the loader of compose files")
    return subprocess.run([str(LOADER), *map(str, paths)], capture_output=True, text=True, cwd=REPOSITORY, check=False)


# ---- the file


def test_the_loader_of_docker_compose_accepts_the_file():
    done = loaded(FILE)
    assert (done.returncode, done.stderr) == (0, "")
    project = yaml.safe_load(done.stdout)
    assert set(project["services"]) | {"publisher"} == set(services()), "all but the one with a profile"
    declared = yaml.safe_load(FILE.read_text(encoding="utf-8"))["volumes"]
    used = {source for service in services() for source in mounts(service).values() if not source.startswith(".")}
    assert set(declared) == used


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [("stop_grace_period: 30s", "stop_grace_time: 30s", "stop_grace_time"),
     ("kafka: {condition: service_started}", "kakfa: {condition: service_started}", "kakfa"),
     ('["kafka-data:/var', '["kafka-date:/var', "kafka-date")],
)  # fmt: skip
def test_what_is_wrong_in_a_compose_file_is_seen(right, wrong, said, tmp_path):
    """The check itself, which would be worth nothing if it took everything."""
    text = FILE.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "compose.yaml").write_text(text.replace(right, wrong))
    done = loaded(tmp_path / "compose.yaml")
    assert done.returncode != 0 and said in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_no_rights_a_bound_for_its_memory_and_ports_for_this_machine_alone(service):
    described = services()[service]
    assert described["cap_drop"] == ["ALL"] and described["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & described.keys()
    assert described["restart"] == "unless-stopped" and described["mem_limit"]
    for port in described.get("ports", []):
        address, published, inside = port.rsplit(":", 2)
        assert ipaddress.ip_address(address).is_loopback and published == inside
        assert int(inside) in PORTS_IN_CONTAINERS[service]
    assert not [
        entry for entry in described.get("volumes", []) if entry.startswith(".") and not entry.endswith(":ro,z")
    ]


def test_only_images_that_write_into_themselves_may():
    writing = {name for name, service in services().items() if not service.get("read_only")}
    assert writing == {"kafka", "grafana"}


def test_each_image_is_named_by_its_version_and_ours_by_that_of_the_sources():
    images = {name: service["image"].rpartition(":") for name, service in services().items()}
    assert not [name for name, (_, _, tag) in images.items() if not re.fullmatch(r"v?\d+\.\d+\.\d+", tag)]
    assert images["connector"][2] == VERSION
    assert images["kafka"][2] == KAFKA_VERSION, "the Kafka that the tests run"


def test_every_file_that_is_mounted_is_there_and_every_file_beside_is_mounted():
    sources = {source for service in services() for source in mounts(service).values() if source.startswith(".")}
    paths = {(REPOSITORY / source).resolve() for source in sources}
    assert not [path for path in paths if not path.is_file()]
    assert {path for path in SUPPORT.rglob("*") if path.is_file()} <= paths


def test_who_is_asked_by_name_is_a_service_that_listens_there():
    """A name or a port that nobody has is found by nobody but by who tries it."""
    mqtt = urlsplit(environment("connector")["MQTT_BROKER_URL"])
    asked = [(mqtt.hostname, mqtt.port)]
    asked += [tuple(address.split(":")) for address in environment("connector")["KAFKA_BROKER"].split(",")]
    configuration = yaml.safe_load((SUPPORT / "prometheus.yml").read_text(encoding="utf-8"))
    targets = configuration["scrape_configs"][0]["static_configs"][0]["targets"]
    asked += [tuple(target.split(":")) for target in targets]
    (source,) = yaml.safe_load((SUPPORT / "grafana" / "datasources.yaml").read_text(encoding="utf-8"))["datasources"]
    asked += [(urlsplit(source["url"]).hostname, urlsplit(source["url"]).port)]
    assert [name for name, _ in asked] == ["mosquitto", "kafka", "connector", "prometheus"]
    assert all(int(port) in PORTS_IN_CONTAINERS[name] for name, port in asked)
    # By its own name the worker answers only because it is told so, and Kafka sends clients to where it advertises.
    assert targets[0].split(":")[0] in settings().web_allowed_hosts.split(",")
    advertised = environment("kafka")["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"INTERNAL://{environment('connector')['KAFKA_BROKER']}" in advertised


# ---- Connector


def test_the_file_of_the_document_takes_other_brokers_with_passwords_from_files(tmp_path):
    text = (REPOSITORY / "docs" / "compose.md").read_text(encoding="utf-8")
    own = REPOSITORY / "build" / f"override-{tmp_path.name}.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    try:
        done = loaded(FILE, own)
    finally:
        own.unlink()
    assert done.returncode == 0, done.stderr
    project = yaml.safe_load(done.stdout)
    assert set(project["services"]) == {"connector", "prometheus", "grafana"}
    connector = project["services"]["connector"]
    assert "depends_on" not in connector
    assert {f"/run/secrets/{secret['source']}" for secret in connector["secrets"]} == {
        value for name, value in connector["environment"].items() if name.endswith("_FILE")
    }
    variables = of_the_image() | connector["environment"]
    for secret in connector["secrets"]:
        (tmp_path / secret["source"]).write_text(f"of {secret['source']}\n")
        variables[f"{secret['source']}_FILE"] = str(tmp_path / secret["source"])
    loaded_settings = load_settings(variables)
    assert loaded_settings.mqtt_user_password.get_secret_value() == "of MQTT_USER_PASSWORD"
    assert loaded_settings.kafka_tls and loaded_settings.unknown_names == ()


def test_the_worker_knows_its_settings_and_finds_nothing_wrong(tmp_path):
    variables = of_the_image() | environment("connector") | {"DB_PERSIST_PATH": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "app.connector", "check", "--offline"],
        env={**variables, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "doubtful" not in done.stdout.replace("0 doubtful", "")
    assert settings().unknown_names == ()
    assert not set(environment("connector")) & set(SECRET_NAMES)


def test_the_table_is_in_its_volume_and_a_stop_has_the_time_that_it_takes():
    assert mounts("connector")[str(settings().db_persist_path)] == "connector-data"
    grace_seconds = int(services()["connector"]["stop_grace_period"].removesuffix("s"))
    assert grace_seconds > settings().stop_budget_sec + AFTER_BUDGET_SECONDS


def test_its_memory_carries_the_messages_that_the_file_says():
    said = int(re.search(r"Carries messages of up to (\d+) MB", FILE.read_text(encoding="utf-8"))[1])
    limit_bytes = int(services()["connector"]["mem_limit"].removesuffix("m")) * MEBIBYTE
    plan = plan_for(MemoryLimit(limit_bytes, "mem_limit"))
    assert plan.packet_limit(None, 1 << 40).size_bytes / 1_000_000 == pytest.approx(said, abs=0.5)


# ---- Prometheus and Grafana


def test_prometheus_gets_the_rules_of_its_operator(tmp_path):
    composed.make_rules(tmp_path / "rules.yaml")
    assert yaml.safe_load((tmp_path / "rules.yaml").read_text(encoding="utf-8")) == prometheus_rule()["spec"]


@needs_prometheus
def test_promtool_accepts_the_configuration(tmp_path):
    prometheus = ComposedPrometheus(tmp_path, [6066])
    prometheus.prepare()
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0 and "1 rule files found" in done.stdout, done.stdout
    scraped = yaml.safe_load((SUPPORT / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert [entry["job_name"] for entry in scraped] == ["connector"], "as rules and dashboard expect"
    labels = scraped[0]["static_configs"][0]["labels"]
    assert labels == {"site": settings().site, "instance": settings().mqtt_client_id}


def test_grafana_has_the_dashboard_and_a_prometheus_that_it_takes():
    (provider,) = yaml.safe_load((SUPPORT / "grafana" / "dashboards.yaml").read_text(encoding="utf-8"))["providers"]
    (source,) = yaml.safe_load((SUPPORT / "grafana" / "datasources.yaml").read_text(encoding="utf-8"))["datasources"]
    home = environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == provider["options"]["path"]
    assert mounts("grafana")[home] == "./k8s/monitoring/dashboard.json"
    (chooser,) = [entry for entry in load()["templating"]["list"] if entry["type"] == "datasource"]
    assert (source["type"], source["isDefault"]) == (chooser["query"], True)


# ---- all of it


@needs_prometheus
def test_a_message_crosses_and_is_counted_with_the_configuration_that_is_shipped(tmp_path):
    """The services as processes; the health checks of compose.yaml that need no image are asked too."""
    with ComposedMosquitto(tmp_path / "mosquitto") as mosquitto, ComposedKafka(tmp_path / "kafka") as kafka:
        variables = environment("connector") | {
            "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{mosquitto.port}",
            "KAFKA_BROKER": f"127.0.0.1:{kafka.internal_port}",
        }
        with (
            Worker(tmp_path / "worker", {"RUN_MODE": "PRODUCTION", **variables}) as worker,
            ComposedPrometheus(tmp_path / "prometheus", [worker.port]) as prometheus,
            Publisher(mosquitto.port) as publisher,
        ):
            assert healthy("mosquitto", mosquitto.port)
            # Debian's is older than the image's, and may not know the question.
            assert "ready" not in promtool("check", "--help").stdout or healthy("prometheus", prometheus.port)
            publisher.publish("plant/line1/count")
            read(kafka.bootstrap, ["plant"], 1).assert_each_once_in_order(publisher.sent)
            delivered = 'connector_delivered_total{job="connector"}'
            wait_until(lambda: prometheus.value(delivered) == 1, "the message, counted")
            assert prometheus.value('up{job="connector", site="demo", instance="connector-1"}') == 1
            rules = [rule["name"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
            assert "ConnectorDown" in rules
    assert worker.exit_status == 0


def healthy(service: str, port: int) -> bool:
    """Tell what the health check of a service says, at another port."""
    how, *command = services()[service]["healthcheck"]["test"]
    assert how == "CMD"
    command = [re.sub(r"(?<=127\.0\.0\.1:)\d+", str(port), word) for word in command]
    if command[0] == "mosquitto_sub":
        command[1:1] = ["-p", str(port)]
    return subprocess.run(command, check=False, timeout=10, capture_output=True).returncode == 0


@needs_mosquitto_clients
def test_a_broker_that_is_away_is_not_healthy():
    assert not healthy("mosquitto", 1)


@needs_mosquitto_clients
def test_the_publisher_of_the_demonstration_publishes_numbers_that_the_worker_is_subscribed_to(tmp_path):
    with ComposedMosquitto(tmp_path / "mosquitto") as mosquitto:
        command = script("publisher").replace("-h mosquitto", f"-h 127.0.0.1 -p {mosquitto.port}")
        listener = subprocess.Popen(
            ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "plant/#", "-q", "1", "-C", "2", "-v"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with subprocess.Popen(["sh", "-c", command], start_new_session=True) as publishing:
            try:
                lines = listener.communicate(timeout=20)[0].splitlines()
            finally:
                subprocess.run(["kill", "--", f"-{publishing.pid}"], check=True)
        numbers = [int(line.removeprefix("plant/line1/count ")) for line in lines]
        assert numbers[1] == numbers[0] + 1
