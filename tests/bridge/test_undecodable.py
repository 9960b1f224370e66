"""Packets that cannot be decoded: a real worker delivers what comes before and after them."""

from __future__ import annotations

from app.mqtt.undecodable import ENDED_CONNECTIONS
from tests.support.oracle import wait_until
from tests.support.scripted_broker import (
    CONNECT,
    PUBACK,
    PUBREC,
    ScriptedBroker,
    packet_of,
    publish_packet,
)
from tests.support.system import Bridge, wait_for_total
from tests.unit.test_undecodable import UNDECODABLE


def test_a_worker_gets_past_a_packet_that_comes_on_each_connection_and_keeps_it(kafka, names, tmp_path):
    """Also of a topic that no route has."""
    kafka.create_topic(names.kafka())
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    bad = names.mqtt("a").encode()
    bad = packet_of(0x32, len(bad).to_bytes(2, "big") + bad + b"\0\x07\x7fabc")
    with (
        ScriptedBroker(session_present=True) as broker,
        Bridge(tmp_path, broker.port, kafka.bootstrap, mapping) as bridge,
    ):
        for connection in range(ENDED_CONNECTIONS + 1):
            wait_until(lambda connection=connection: len(broker.received(CONNECT)) > connection, "a connection")
            broker.wait_for_subscriptions(1, connection=0)
            wait_until(lambda: bridge.total("connector_mqtt_connected") == 1, "its acceptance")
            broker.send(bad, UNDECODABLE["QoS 3"][0], publish_packet(names.mqtt("a"), b"behind", 1, 500))
        assert broker.wait_for(PUBACK, 2, connection=ENDED_CONNECTIONS)
        assert broker.identifiers(PUBACK) == [7, 500]
        wait_for_total(bridge, "connector_delivered_total", 1)
        dead = bridge.metrics()["connector_dead_lettered_total"]
        assert dead == {(mapping, "undecodable"): 1, ("unmapped", "undecodable"): 1}
        assert not broker.received(PUBREC)
        bridge.assert_balanced()
        assert "cannot be decoded came although 3 connections ended" in bridge.log_path.read_text()
