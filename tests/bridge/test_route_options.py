"""What the routes of ROUTES_FILE have besides, between real brokers: QoS, tombstones, times, dead letters, room."""

from __future__ import annotations

from pathlib import Path

from tests.support.oracle import read, wait_until
from tests.support.system import Publisher

NO_LISTS = {"topic_list": "", "wildcard_topic_list": ""}


def routes_file(tmp_path: Path, names, text: str) -> Path:
    """Write a file of routes, in which MQTT and KAFKA stand for names of the test."""
    path = tmp_path / "routes.yaml"
    path.write_text("routes:\n" + text.replace("MQTT", names.mqtt("options")).replace("KAFKA", names.kafka("options")))
    path.chmod(0o644)
    return path


def test_each_route_is_subscribed_to_with_its_own_qos(mosquitto, kafka, names, tmp_path, new_bridge):
    """A message comes with the QoS of its subscription at most; the third route has that of MQTT_QOS."""
    topic = names.kafka("options")
    kafka.create_topic(topic)
    file = routes_file(
        tmp_path,
        names,
        "  - {name: often, from: MQTT/often, to: KAFKA, qos: 0}\n"
        "  - {name: once, from: MQTT/once, to: KAFKA, qos: 2}\n"
        "  - {name: usual, from: MQTT/usual, to: KAFKA}\n",
    )
    with new_bridge(**NO_LISTS, routes_file=file) as bridge, Publisher(mosquitto.port, qos=2) as publisher:
        for what in ("often", "once", "usual"):
            publisher.publish(names.mqtt(f"options/{what}"))
        records = read(kafka.bootstrap, [topic], 3).records
        found = {record.headers["mqtt-topic"].decode().rpartition("/")[2]: record.headers for record in records}
        assert {what: headers["mqtt-qos"] for what, headers in found.items()} == {
            "often": b"0", "once": b"2", "usual": b"1",
        }  # fmt: skip
        wait_until(lambda: bridge.total("connector_delivered_total") == 3, "all confirmed")
        assert not bridge.status_page()["mqtt"]["granted"]
