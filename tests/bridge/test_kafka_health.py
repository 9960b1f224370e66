"""Whether Kafka takes records, and why a lane stands still: what the operator sees, with a real Kafka."""

from __future__ import annotations

import json
import time

from tests.support.frame_faults import answer_with_error
from tests.support.oracle import read, wait_until
from tests.support.proxied_protocols import METADATA, PRODUCE, TO_CLIENT
from tests.support.system import Bridge, Publisher
from tools.brokers.process import free_port

NOT_ENOUGH_REPLICAS = 19


# ---- why a lane stands still


def test_a_lane_whose_records_librdkafka_repeats_in_silence_is_in_trouble_while_another_flows(
    mosquitto, proxied_kafka, names, tmp_path
):
    """Whatever the code: page, `/status`, metric and log name the lane and the node, and nothing is well."""
    kafka, proxy = proxied_kafka
    stuck, well = names.kafka("stuck"), names.kafka("well")
    for topic in (stuck, well):
        kafka.create_topic(topic)
    answer = answer_with_error(NOT_ENOUGH_REPLICAS)
    proxy.on(TO_CLIENT, PRODUCE, lambda it: answer(it) if stuck.encode() in it.data else it.data, times=None)
    mappings = f"{names.mqtt('stuck')}:{stuck},{names.mqtt('well')}:{well}"
    with Bridge(tmp_path, mosquitto.port, proxy.address, mappings) as bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish(names.mqtt("stuck"))

        def trouble():
            publisher.publish(names.mqtt("well"))
            return f"node 1 ({proxy.address}) answers" in bridge.status_page()["lanes"][stuck]["trouble"]

        wait_until(trouble, "the trouble of the lane")
        shown = bridge.status_page()
        assert shown["kafka"]["connected"]
        assert shown["findings"][0]["level"] == "trouble"
        assert f"The lane {stuck} waits: Kafka has not answered its oldest record" in shown["findings"][0]["text"]
        assert shown["lanes"][stuck]["oldest_in_flight_seconds"] >= 10
        assert not shown["lanes"][well]["trouble"]
        assert bridge.total("connector_oldest_in_flight_seconds") >= 10
        waits = f"the lane {stuck} waits: Kafka has not answered"
        wait_until(lambda: waits in bridge.log_path.read_text(), waits)
        proxy.pass_everything()
        read(kafka.bootstrap, [stuck], 1).assert_each_once_in_order({names.mqtt("stuck"): 1})
        wait_until(lambda: f"the lane {stuck} flows again" in bridge.log_path.read_text(), "the end of the trouble")


def test_an_advertised_address_that_refuses_is_named_and_kafka_does_not_come_and_go(
    mosquitto, proxied_kafka, names, tmp_path
):
    """The address to begin at answers all the time; messages wait, and flow once the other one does as well."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka())
    closed = free_port()
    proxy.on(
        TO_CLIENT,
        METADATA,
        lambda frame: frame.data.replace(proxy.port.to_bytes(4, "big"), closed.to_bytes(4, "big")),
        times=None,
    )
    config = json.dumps({"statistics.interval.ms": 300})
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    with (
        Bridge(tmp_path, mosquitto.port, proxy.address, mapping, kafka_producer_config=config) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: bridge.status_page()["kafka"]["trouble"], "what is wrong with Kafka")
        connected, end = set(), time.monotonic() + 4
        while time.monotonic() < end:
            connected.add(bridge.total("connector_kafka_connected"))
        assert connected == {0.0}
        shown = bridge.status_page()
        assert f"127.0.0.1:{closed}" in shown["findings"][0]["text"]
        assert "check advertised.listeners" in shown["findings"][0]["text"]
        wait_until(lambda: f"127.0.0.1:{closed} that it advertises" in bridge.log_path.read_text(), "the log's word")
        proxy.pass_everything()
        read(kafka.bootstrap, [names.kafka()], 100).assert_each_once_in_order(publisher.sent)
        assert bridge.log_path.read_text().count("Kafka is reachable") <= 2
