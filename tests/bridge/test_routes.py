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


MISSING = """\
routes:
  - name: sites
    from: {mqtt}/{{site}}/#
    to: {kafka}.{{site}}
"""


def test_what_is_for_a_derived_topic_that_there_is_not_becomes_dead_letters_while_the_others_flow(
    mosquitto, kafka, names, tmp_path, new_bridge
):
    """P5: old and new ones, without an interval for each, until somebody creates the topic."""
    there, missing = names.kafka("fleet.there"), names.kafka("fleet.missing")
    kafka.create_topic(there)
    mqtt = {site: names.mqtt(f"fleet/{site}/a") for site in ("there", "missing")}
    file = routes_file(tmp_path, names, MISSING)
    with (
        new_bridge(topic_list="", wildcard_topic_list="", routes_file=file, routes_missing_topic_sec=1) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many(list(mqtt.values()), 4_000)
        read(kafka.bootstrap, [there], 2_000).assert_each_once_in_order({mqtt["there"]: 2_000})
        dead = ("sites", "no_kafka_topic")
        wait_until(lambda: bridge.metrics()["connector_dead_lettered_total"].get(dead) == 2_000, "old dead letters")
        publisher.publish_many(list(mqtt.values()), 400)
        wait_until(lambda: bridge.metrics()["connector_dead_lettered_total"].get(dead) == 2_200, "new dead letters")
        read(kafka.bootstrap, [there], 2_200).assert_each_once_in_order({mqtt["there"]: 2_200})
        assert "there is no such topic" in bridge.status_page()["lanes"][missing]["trouble"]
        bridge.assert_balanced()
        kafka.create_topic(missing)
        wait_until(lambda: bridge.status_page()["lanes"][missing]["trouble"] == "", "the topic to be seen")
        publisher.publish_many([mqtt["missing"]], 200)
        numbers = read(kafka.bootstrap, [missing], 200).numbers()
        assert numbers == {mqtt["missing"]: list(range(2_200, 2_400))}
        bridge.assert_balanced()


def test_a_lane_of_a_derived_topic_ends_when_it_is_idle_and_comes_again(mosquitto, kafka, names, tmp_path, new_bridge):
    """P6: what is kept of a topic, in memory and in the table, does not stay for ever."""
    topics = [names.kafka(f"fleet.{site}") for site in ("a", "b", "c")]
    for topic in topics:
        kafka.create_topic(topic)
    file = routes_file(tmp_path, names, MISSING)
    settings = {"routes_max_topics": 2, "routes_idle_topic_sec": 1, "store_after_ms": 0}
    with (
        new_bridge(topic_list="", wildcard_topic_list="", routes_file=file, **settings) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        for number, topic in enumerate([*topics, topics[0]]):
            mqtt = names.mqtt(f"fleet/{topic[-1]}")
            publisher.publish_many([mqtt], 10)
            read(kafka.bootstrap, [topic], 20 if number == 3 else 10)
            assert list(bridge.status_page()["lanes"]) == [topic]
            wait_until(lambda: bridge.status_page()["lanes"] == {}, "the end of the lane")
        assert bridge.total("connector_dead_lettered_total") == 0
        bridge.assert_balanced()


def test_what_waits_goes_to_the_topic_that_it_was_for_whatever_the_routes_are_after_a_restart(
    mosquitto, kafka, names, tmp_path, new_bridge
):
    """P1: also of a derived topic whose route is gone."""
    topics = [names.kafka("fleet.a"), names.kafka("fleet.b"), names.kafka("other")]
    mqtt = names.mqtt("fleet/a")
    settings = {"topic_list": "", "wildcard_topic_list": ""}
    first = new_bridge(routes_file=routes_file(tmp_path, names, MISSING), **settings)
    with first as bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([mqtt, names.mqtt("fleet/b")], 20)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 20, "20 stored messages")
        other = "routes: [{{name: other, from: '{mqtt}/#', to: {kafka}}}]"
        path = routes_file(tmp_path, names, other)
        path.write_text(path.read_text().replace(names.kafka("fleet"), topics[2]))
        bridge.stop()
        bridge.start()
        for topic in topics:
            kafka.create_topic(topic)
        publisher.publish_many([mqtt], 10)
        oracle = read(kafka.bootstrap, topics, 30)
        assert sorted(record.topic for record in oracle.records) == sorted([*topics * 10])
        oracle.assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()
