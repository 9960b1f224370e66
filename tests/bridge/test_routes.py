"""ROUTES_FILE between real brokers: named routes, and Kafka topics that are made from MQTT topics."""

from __future__ import annotations

from pathlib import Path

from tests.support.oracle import read, wait_until
from tests.support.system import Publisher

ROUTES = """\
routes:
  - name: machines
    from: {mqtt}/{{site}}/{{machine}}/#
    to: {kafka}.{{site}}
    key: "{{site}}/{{machine}}"
    headers: {{site: "{{site}}"}}
"""


def routes_file(tmp_path: Path, names, text: str = ROUTES) -> Path:
    """Write a file of routes, with the names of the test in it."""
    path = tmp_path / "routes.yaml"
    path.write_text(text.format(mqtt=names.mqtt("fleet"), kafka=names.kafka("fleet")))
    path.chmod(0o644)
    return path


def test_each_site_of_a_fleet_has_its_kafka_topic_with_keys_and_headers(mosquitto, kafka, names, tmp_path, new_bridge):
    """P2 and P8: in order, and accounted for by the name of the route."""
    topics = {site: names.kafka(f"fleet.{site}") for site in ("oslo", "s_o")}
    for topic in topics.values():
        kafka.create_topic(topic, 3)
    mqtt = [names.mqtt(f"fleet/{site}/press/{what}") for site in ("oslo", "são") for what in ("state", "alarm")]
    with (
        new_bridge(topic_list="", wildcard_topic_list="", routes_file=routes_file(tmp_path, names)) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many(mqtt, 400)
        publisher.publish(names.mqtt("fleet//press"))
        oracle = read(kafka.bootstrap, list(topics.values()), 400)
        assert oracle.numbers() == {topic: list(range(100)) for topic in mqtt}
        found = {(record.topic, record.key, record.headers["site"]) for record in oracle.records}
        assert found == {
            (topics["oslo"], b"oslo/press", b"oslo"),
            (topics["s_o"], "são/press".encode(), "são".encode()),
        }
        reasons = {("machines", "illegal_kafka_topic"): 1}
        wait_until(lambda: bridge.metrics()["connector_dead_lettered_total"] == reasons, "the dead letter")
        wait_until(lambda: bridge.total("connector_delivered_total") == 400, "all confirmed")
        assert set(bridge.metrics()["connector_received_total"]) == {("machines",)}
        bridge.assert_balanced()
