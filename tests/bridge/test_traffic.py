"""What the metrics say of the traffic: bytes that came and went, and connections that were lost on either side."""

from __future__ import annotations

from tests.support.oracle import read, wait_until
from tests.support.system import Publisher, wait_for_total
from tools.brokers import Kafka, Mosquitto

SMALL, LARGE = 1_000, 400_000  # a large payload is dropped from memory as soon as Kafka has it


def of_route(bridge, name, mapping):
    return bridge.metrics()[name][mapping,]


def test_payloads_and_lost_connections_are_counted(tmp_path, names, new_bridge):
    """P8: by the mapping; a connection that the worker's own stop ends is not lost."""
    mappings = f"{names.mqtt('a')}:one,{names.mqtt('b')}:one,{names.mqtt('c')}:one"
    with Kafka(tmp_path / "kafka") as kafka, Mosquitto(tmp_path / "mosquitto") as mosquitto:
        kafka.create_topic("one", max_message_bytes=1_000_000)
        settings = {"kafka_producer_config": '{"statistics.interval.ms": 100}'}  # in place of five seconds
        with new_bridge(mosquitto, kafka, mappings, **settings) as bridge, Publisher(mosquitto.port) as publisher:
            for topic, size_bytes in (("a", SMALL), ("b", LARGE), ("a", SMALL), ("c", 0)):
                publisher.raw(names.mqtt(topic), bytes(size_bytes))
            read(kafka.bootstrap, ["one"], 4)
            wait_for_total(bridge, "connector_delivered_total", 4)
            for name in ("connector_received_bytes_total", "connector_delivered_bytes_total"):
                found = [of_route(bridge, name, mapping) for mapping in mappings.split(",")]
                assert found == [2 * SMALL, LARGE, 0], name
            lost = "connector_mqtt_connections_lost_total", "connector_kafka_connections_lost_total"
            assert [bridge.total(name) for name in lost] == [0, 0]
            publisher.wait_for_acknowledgements()
            mosquitto.kill()
            kafka.kill()
            for name in lost:
                wait_until(lambda name=name: bridge.total(name) == 1, name)
