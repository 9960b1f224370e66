"""Kafka as it runs in production: three nodes, of which each record is on all, and which go away under traffic."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, Producer

from tests.support.kafka_cluster import KafkaCluster
from tests.support.oracle import read, wait_until
from tests.support.system import Bridge, Publisher, Traffic, wait_for_total


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return a cluster that is running; who stops a node starts it again."""
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def assert_all_arrived_once_in_order(cluster, names, bridge, publisher):
    oracle = read(cluster.bootstrap, [names.kafka()], sum(publisher.sent.values()))
    oracle.assert_each_once_in_order(publisher.sent)
    wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
    bridge.assert_balanced()
    print("messages", len(oracle.records))


@pytest.mark.slow
def test_the_leader_is_killed_three_times_under_traffic(mosquitto, cluster, names, tmp_path):
    """P1, P2, P3 and P8: another node takes the lead, and nothing is lost, doubled or reordered."""
    topic = names.kafka()
    cluster.create_topic(topic)
    with (
        Bridge(tmp_path, mosquitto.port, cluster.bootstrap, f"{names.mqtt('#')}:{topic}") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        with Traffic(publisher, names.prefix):
            for _ in range(3):
                bridge.wait_for_progress()
                killed = cluster.leader(topic)
                cluster.nodes[killed].kill()
                wait_until(lambda killed=killed: cluster.leader(topic) != killed, "another leader")
                bridge.wait_for_progress()
                cluster.start(killed)
                cluster.wait_until_replicated(topic)
        assert_all_arrived_once_in_order(cluster, names, bridge, publisher)


@pytest.mark.slow
def test_a_rolling_restart_under_traffic(mosquitto, cluster, names, tmp_path):
    """P1, P2, P3 and P8: each node is stopped in order and comes back; partitions change their leaders."""
    topic = names.kafka()
    cluster.create_topic(topic, 3)
    with (
        Bridge(tmp_path, mosquitto.port, cluster.bootstrap, f"{names.mqtt('#')}:{topic}") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        with Traffic(publisher, names.prefix):
            for number, node in cluster.nodes.items():
                bridge.wait_for_progress()
                node.stop()
                bridge.wait_for_progress()
                cluster.start(number)
                for partition in range(3):
                    cluster.wait_until_replicated(topic, partition)
        wait_for_total(bridge, "connector_kafka_connected", 1)
        assert_all_arrived_once_in_order(cluster, names, bridge, publisher)


def refusal(bootstrap, topic):
    """Return what Kafka says to a record that is written to it once."""
    errors = []
    # Not idempotent, as that would try again for ever.
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "retries": 0, "log_level": 0})
    producer.produce(topic, b"", on_delivery=lambda error, _: errors.append(error.code() if error else None))
    producer.flush(10)
    return errors[0] if errors else None


def test_with_two_of_three_nodes_away_everything_waits_and_flows_when_they_return(mosquitto, cluster, names, tmp_path):
    """P1, P2, P3, P7 and P8: Kafka refuses what too few nodes would have; the table takes it meanwhile."""
    topic, other = names.kafka(), names.kafka("other")
    for name in (topic, other):
        cluster.create_topic(name)
    with (
        Bridge(tmp_path, mosquitto.port, cluster.bootstrap, f"{names.mqtt('#')}:{topic}") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        with Traffic(publisher, names.prefix):
            bridge.wait_for_progress()
            killed, stopped = (number for number in cluster.nodes if number != cluster.leader(topic))
            cluster.nodes[killed].kill()
            for name in (topic, other):
                cluster.wait_until_replicated(name, replicas=2)
            # In order, so that it is known to the last one that it is alone; without a majority nobody could say so.
            cluster.nodes[stopped].stop()
            wait_until(
                lambda: (
                    refusal(cluster.bootstrap, other)
                    in (KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
                ),
                "a refusal for want of replicas",
            )
            # By then it has heard of all that Kafka took before.
            wait_until(lambda: bridge.total("connector_undelivered_messages") > 1_000, "1,000 stored messages")
            delivered = bridge.total("connector_delivered_total")
            wait_until(lambda: bridge.total("connector_undelivered_messages") > 3_000, "3,000 stored messages")
            assert bridge.total("connector_delivered_total") == delivered
            assert bridge.get("/health/ready")[0] == 200
            bridge.assert_balanced()
            cluster.start(killed, stopped)
            cluster.wait_until_replicated(topic)
            bridge.wait_for_progress(3_000)
        assert_all_arrived_once_in_order(cluster, names, bridge, publisher)
