"""A real Prometheus scrapes a real worker: through traffic, an outage of Kafka, a drain, a dead letter and a drop."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.metric_definitions import METRICS
from tests.product.dashboard import expression, panels, variables
from tests.product.prometheus_server import JOB, WATCHDOG, Prometheus, needs_prometheus, promtool
from tests.support.oracle import wait_until
from tests.support.system import Bridge, Publisher
from tools.brokers import Kafka, Mosquitto

pytestmark = needs_prometheus
# With the names that the short form gives; the time of a record that has none is counted.
ROUTES = """routes:
  - {name: "a/#:records", from: a/#, to: records}
  - {name: "b:records", from: b, to: records, timestamp: property time}
"""
SITE = "oslo-1"
MAX_MESSAGE_BYTES = 40_000
# Kafka's topic takes less than Kafka's client: in between becomes a dead letter, above it is dropped.
DEAD_LETTER_BYTES, DROPPED_BYTES = 20_000, 60_000


Series = list[tuple[dict[str, str], float]]


@dataclass(frozen=True)
class Scraped:
    """What the tests look at: everything has happened, and everything is still running."""

    prometheus: Prometheus
    bridge: Bridge
    mosquitto: Mosquitto
    fired_in_health: Series
    began_in_outage: Series

    def look(self, query: str) -> Series:
        """Return what a query has; a scrape may be late on a busy machine, and then nothing is there for a second."""
        return wait_until(lambda: self.prometheus.query(query), f"data of {query}")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Let a worker have its life, under the eyes of Prometheus."""
    directory: Path = tmp_path_factory.mktemp("prometheus")
    with Mosquitto(directory / "mosquitto") as mosquitto, Kafka(directory / "kafka") as kafka:
        kafka.create_topic("records", 1, **{"max.message.bytes": 10_000})
        routes = directory / "routes.yaml"
        routes.write_text(ROUTES)
        routes.chmod(0o644)
        bridge = Bridge(
            directory / "bridge", mosquitto.port, kafka.bootstrap, "", topic_list="", wildcard_topic_list="",
            routes_file=routes, mqtt_version="3.1.1", site=SITE,
            kafka_producer_config=f'{{"message.max.bytes": {MAX_MESSAGE_BYTES}}}',
        )  # fmt: skip
        with bridge, Prometheus(directory / "prometheus", [bridge.port]) as prometheus, Publisher(mosquitto.port) as by:
            fired, began = _live(prometheus, kafka, by)
            yield Scraped(prometheus, bridge, mosquitto, fired, began)


def _live(prometheus: Prometheus, kafka: Kafka, publisher: Publisher) -> tuple[Series, Series]:
    """Have messages delivered, stored, drained, set aside and dropped.

    Returns:
        The alerts that fired before Kafka was away, and that of Kafka when it was.
    """
    delivered, waiting = "sum(connector_delivered_total)", "sum(connector_undelivered_messages)"
    wait_until(lambda: prometheus.value(delivered) == 0, "a first scrape")
    publisher.publish_many(["a/1", "a/2", "b"], 300)
    wait_until(lambda: prometheus.value(delivered) == 300, "a scrape with 300 delivered messages")
    wait_until(lambda: not prometheus.query('ALERTS{severity!="none"}'), "no alert, nor one that waits")
    fired = prometheus.query('max_over_time(ALERTS{alertstate="firing"}[10m])')

    kafka.kill()
    wait_until(lambda: prometheus.value("connector_kafka_connected") == 0, "a scrape without Kafka")
    publisher.publish_many(["a/1", "b"], 500)
    wait_until(lambda: prometheus.value(waiting) == 500, "a scrape with a backlog")
    began = wait_until(lambda: prometheus.query('ALERTS{alertname="ConnectorKafkaUnreachable"}'), "its alert")
    kafka.start()
    publisher.raw("a/large", random.Random(1).randbytes(DEAD_LETTER_BYTES))
    publisher.raw("a/larger", random.Random(2).randbytes(DROPPED_BYTES))
    publisher.publish_many(["a/1"], 100)
    wait_until(lambda: (prometheus.value(delivered), prometheus.value(waiting)) == (900, 0), "a scrape after the drain")
    wait_until(lambda: prometheus.value("sum(connector_dropped_total)") == 1, "a scrape with a drop")
    wait_until(lambda: prometheus.value("sum(connector_dead_lettered_total)") == 1, "a scrape with a dead letter")
    return fired, began


# ---- scraping


def test_the_worker_is_up_and_prometheus_has_nothing_to_complain_about(scraped):
    def is_well() -> bool:
        (target,) = scraped.prometheus.ask("targets")["activeTargets"]
        return (target["health"], target["lastError"]) == ("up", "")

    wait_until(is_well, "a scrape without an error")
    assert {value for _, value in scraped.look(f'up{{job="{JOB}"}} == 1')} == {1}
    assert scraped.prometheus.log_path.read_text() == "", "it logs warnings and errors only"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_there_with_its_labels_and_its_type(name, scraped):
    kind, labels, meaning, _ = METRICS[name]
    for found, _ in scraped.look(f"{name}_count" if kind == "histogram" else name):
        assert set(found) == {"__name__", "job", "instance", *labels}
    # The text format that is served has no type of its own for `info`.
    (metadata,) = scraped.prometheus.ask("metadata", metric=name)[name]
    assert metadata == {"type": "gauge" if kind == "info" else kind, "help": meaning, "unit": ""}


def test_promtool_accepts_the_names_and_texts(scraped):
    done = promtool("check", "metrics", text=scraped.bridge.get("/metrics")[1])
    assert (done.returncode, done.stdout) == (0, "")


def test_what_prometheus_has_balances_per_route(scraped):
    """P8: the equation of docs/metrics.md, as an expression, and its metric."""
    settled = [
        f"(sum without (reason) (connector_{name}_total) or connector_received_total * 0)"
        for name in ("dead_lettered", "dropped")
    ]
    present = ["connector_delivered_total", "connector_undelivered_messages", "connector_in_flight_messages"]
    balances = scraped.look(f"connector_received_total + connector_recovered_total - ({' + '.join(present + settled)})")
    assert {labels["route"]: value for labels, value in balances} == {"a/#:records": 0, "b:records": 0}
    assert {value for _, value in scraped.look("connector_imbalance_messages")} == {0}


# ---- alerts, on what a worker really serves


def test_a_worker_in_health_sets_off_no_alert_but_the_one_that_always_fires(scraped):
    assert [labels["alertname"] for labels, _ in scraped.fired_in_health] == [WATCHDOG]


def test_an_outage_of_kafka_a_dead_letter_and_a_drop_set_off_their_alerts(scraped):
    assert [labels["alertstate"] for labels, _ in scraped.began_in_outage] == ["pending"]
    for name, reason in (("DeadLetters", "too_large"), ("MessagesDropped", "packet_too_large")):
        ((labels, _),) = scraped.look(f'ALERTS{{alertname="Connector{name}", alertstate="firing"}}')
        assert (labels["route"], labels["reason"]) == ("a/#:records", reason)


def test_what_the_alerts_say_can_be_read(scraped):
    scraped.look('ALERTS{alertname="ConnectorMessagesDropped"}')
    rules = [rule for group in scraped.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")] == []
    said = [text for rule in rules for alert in rule.get("alerts", ()) for text in alert["annotations"].values()]
    assert "Messages of a/#:records were dropped (packet_too_large)" in said
    assert not [text for text in said if re.search(r"<no value>|<error|\{\{", text)]


# ---- dashboard


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_every_query_of_the_dashboard_has_data(panel, scraped):
    for query in panel.queries:
        found = scraped.look(expression(query))
        assert not [labels for labels, value in found if math.isnan(value)], "not a number"


@pytest.mark.parametrize("name", variables())
def test_every_variable_of_the_dashboard_has_values(name, scraped):
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variables()[name]).groups()
    values = scraped.prometheus.ask(f"label/{label}/values", **{"match[]": expression(selector)})
    instance = f"127.0.0.1:{scraped.bridge.port}"
    wanted = {"job": [JOB], "site": [SITE], "instance": [instance], "route": ["a/#:records", "b:records"]}
    assert values == wanted[name]


def test_a_site_is_chosen_by_its_workers_where_prometheus_has_no_label_for_it(scraped):
    """SITE alone is a label of one metric: the workers that have it there are those of the chosen site."""
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variables()["instance"]).groups()

    def workers_of(site: str) -> list[str]:
        return scraped.prometheus.ask(f"label/{label}/values", **{"match[]": expression(selector, site=site)})

    assert (workers_of(SITE), workers_of("bergen")) == ([f"127.0.0.1:{scraped.bridge.port}"], [])
    ready = next(query for panel in panels() for query in panel.queries if query.startswith("connector_ready{"))
    assert scraped.look(expression(ready, site=SITE, instance=workers_of(SITE)[0]))


# ---- without MQTT


def test_an_mqtt_broker_that_goes_and_forgets_sets_off_its_alerts_and_no_other(scraped):
    scraped.look("connector_ready == 1")
    scraped.mosquitto.stop()
    try:
        scraped.look("connector_ready == 0")
        scraped.look('ALERTS{alertname="ConnectorMqttDisconnected"}')
        assert scraped.prometheus.query('ALERTS{alertname="ConnectorNotReady"}') == []
        scraped.mosquitto.database_path.unlink()
    finally:
        scraped.mosquitto.start()
        scraped.look("connector_ready == 1")
    scraped.look('ALERTS{alertname="ConnectorSessionLost", alertstate="firing"}')
