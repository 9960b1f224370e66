"""The network between the MQTT broker and the bridge fails, and a process that stands still looks like one that failed.

A real worker between a real Mosquitto and a real Kafka, with a fault proxy in front of Mosquitto.
"""

from __future__ import annotations

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.frame_faults import cut_after, cut_before, cut_inside, flip_byte
from tests.support.oracle import Verdict, duplicates_allowed, read, wait_until
from tests.support.proxied_protocols import APPLICATION_DATA, TO_CLIENT, TO_SERVER, TlsRecords
from tests.support.scripted_broker import CONNACK, PINGREQ, PUBACK, PUBLISH, SUBACK
from tests.support.system import Bridge, Publisher, frozen, publishing
from tools.brokers import Mosquitto

KEEPALIVE_SECONDS = 8  # half of it is how long anybody may stand still


@pytest.fixture
def proxy(mosquitto):
    """Return a proxy in front of Mosquitto."""
    with FaultProxy(mosquitto.port) as proxy:
        yield proxy


def bridge_behind(proxy, kafka, names, tmp_path, **settings):
    """Create the test's Kafka topic and return a bridge that reaches MQTT through the proxy, not started."""
    kafka.create_topic(names.kafka(), 3)
    return Bridge(tmp_path, proxy.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}", **settings)


def repeated(proxy):
    """Return how many messages Mosquitto sent once more, as it had no acknowledgement of them."""
    return sum(frame.data[0] & 8 > 0 for frame in proxy.seen(TO_CLIENT, PUBLISH))


def assert_acknowledged_in_order_on_their_own_connection(proxy):
    """P9, as the network saw it."""
    for link in proxy.links:
        acknowledged = [frame.identifier for frame in proxy.seen(TO_SERVER, PUBACK, link.number)]
        received = [frame.identifier for frame in proxy.seen(TO_CLIENT, PUBLISH, link.number)]
        assert acknowledged == received[: len(acknowledged)]


def assert_nothing_lost(bridge, publisher, proxy, kafka, names, connections_lost=1):
    """Fail unless everything is in Kafka, with no more repeated than the broker repeated, and the accounts balance."""
    oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
    verdict = oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(connections_lost=connections_lost))
    assert verdict.duplicated <= repeated(proxy)
    assert_acknowledged_in_order_on_their_own_connection(proxy)
    bridge.assert_balanced()
    assert bridge.total("connector_mqtt_sessions_lost_total") == 0
    return verdict


# ---- a connection that ends


@pytest.mark.parametrize(
    "cut",
    [(TO_CLIENT, PUBLISH, cut_inside), (TO_SERVER, PUBACK, cut_before), (TO_SERVER, PUBACK, cut_after)],
    ids=["in the middle of a PUBLISH", "before a PUBACK", "after a PUBACK"],
)
def test_a_connection_that_is_cut_under_load_loses_nothing(cut, mosquitto, proxy, kafka, names, tmp_path):
    """P1, P2, P3 and P9: the session goes on, and no more is repeated than was not acknowledged."""
    with bridge_behind(proxy, kafka, names, tmp_path) as bridge, Publisher(mosquitto.port) as publisher:
        rule = proxy.on(*cut, first=1000)
        with publishing(publisher, names, 3000, 2000):
            rule.wait()
        assert_nothing_lost(bridge, publisher, proxy, kafka, names)
        assert bridge.log_path.read_text().count("session resumed") == 1
        assert len(proxy.seen(TO_CLIENT, CONNACK)) == 2


@pytest.mark.parametrize(
    ("cut", "duplicates"),
    [((TO_CLIENT, PUBLISH, cut_inside), 0), ((TO_SERVER, PUBACK, cut_before), 1), ((TO_SERVER, PUBACK, cut_after), 0)],
    ids=["in the middle of a PUBLISH", "before its PUBACK", "after its PUBACK"],
)
def test_only_a_message_whose_acknowledgement_is_lost_is_repeated(
    cut, duplicates, mosquitto, proxy, kafka, names, tmp_path
):
    """P3, exactly: ten messages one by one, and the connection is cut at the fifth."""
    with bridge_behind(proxy, kafka, names, tmp_path) as bridge, Publisher(mosquitto.port) as publisher:
        proxy.on(*cut, first=5)
        for number in range(10):
            publisher.publish(names.mqtt("a"))
            wait_until(lambda number=number: bridge.total("connector_delivered_total") > number, "its delivery")
        oracle = read(kafka.bootstrap, [names.kafka()], 10 + duplicates)
        assert oracle.verdict(publisher.sent) == Verdict(duplicated=duplicates)
        bridge.assert_balanced()


# ---- a connection that stays and carries nothing


@pytest.mark.parametrize("directions", [(), (TO_SERVER,)], ids=["both ways", "acknowledgements only"])
def test_a_half_open_connection_is_noticed_and_made_anew(directions, mosquitto, proxy, kafka, names, tmp_path):
    """P1, P3 and P9: pings find out; what was acknowledged in vain comes once more, and nothing else does."""
    with (
        bridge_behind(proxy, kafka, names, tmp_path, mqtt_keepalive_sec=KEEPALIVE_SECONDS) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        with publishing(publisher, names, 3000, 1500):
            wait_until(lambda: bridge.total("connector_delivered_total") >= 500, "500 deliveries")
            proxy.swallow(*directions)
        first = proxy.links[0]
        wait_until(lambda: first.client_ended_at, "the bridge to give the connection up")
        ping = proxy.seen(TO_SERVER, PINGREQ)[-1]
        assert first.client_ended_at - ping.at < KEEPALIVE_SECONDS, "half of it, and what the thread sleeps"
        wait_until(lambda: bridge.get("/health/ready")[0] == 503, "the bridge to say so")
        assert bridge.total("connector_mqtt_connected") == 0
        proxy.pass_everything()
        assert_nothing_lost(bridge, publisher, proxy, kafka, names)


# ---- a process that stands still


def test_a_process_that_stands_still_longer_than_the_keepalive_loses_nothing(
    mosquitto, proxy, proxied_kafka, names, tmp_path
):
    """P1, P3 and P9: its connection is over when it goes on, and so are the acknowledgements for it."""
    kafka, kafka_proxy = proxied_kafka
    bridge = bridge_behind(
        proxy, kafka, names, tmp_path, kafka_broker=kafka_proxy.address, mqtt_keepalive_sec=5,
        store_after_ms=60_000,
    )  # fmt: skip
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: bridge.total("connector_delivered_total") == 100, "100 deliveries")
        kafka_proxy.hold()
        publisher.publish_many([names.mqtt("a")], 200)
        wait_until(lambda: bridge.total("connector_received_total") > 100, "messages in memory alone")
        with frozen(bridge):
            kafka_proxy.pass_everything()
            # Mosquitto gives a silent client up after one and a half times the keepalive interval.
            wait_until(proxy.links[0].ended.is_set, "mosquitto to end the connection", 60)
        verdict = assert_nothing_lost(bridge, publisher, proxy, kafka, names)
        assert verdict.duplicated <= 200


# ---- a slow network, and one that changes what it carries


def test_a_network_of_a_few_bytes_at_a_time_is_slow_and_works(mosquitto, proxy, proxied_kafka, names, tmp_path):
    """P1, P2 and P3: from the first byte on, towards both brokers."""
    kafka, kafka_proxy = proxied_kafka
    for each in (proxy, kafka_proxy):
        each.slow(slice_bytes=5, delay_seconds=0.001)
    with (
        bridge_behind(proxy, kafka, names, tmp_path, kafka_broker=kafka_proxy.address) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        wait_until(lambda: proxy.seen(TO_CLIENT, SUBACK), "an answer to the subscription, as it is slow too")
        publisher.publish_many([names.mqtt("a"), names.mqtt("b")], 60)
        read(kafka.bootstrap, [names.kafka()], 60).assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        bridge.assert_balanced()


@pytest.mark.parametrize(
    "place",
    [(TO_CLIENT, PUBLISH, flip_byte(0)), (TO_CLIENT, PUBLISH, flip_byte(3)), (TO_SERVER, PUBACK, flip_byte(0))],
    ids=["the type of a PUBLISH", "the length of its topic", "the type of a PUBACK"],
)
def test_a_byte_that_changes_in_the_structure_of_a_packet_costs_one_connection(
    place, mosquitto, proxy, kafka, names, tmp_path
):
    """P1 and P2: whoever finds the packet malformed closes the connection; nothing is lost or corrupted."""
    with bridge_behind(proxy, kafka, names, tmp_path) as bridge, Publisher(mosquitto.port) as publisher:
        rule = proxy.on(*place, first=200)
        with publishing(publisher, names, 1000, 2000):
            rule.wait()
        assert_nothing_lost(bridge, publisher, proxy, kafka, names)
        assert len(proxy.links) == 2
        assert bridge.total("connector_dead_lettered_total") == 0


def test_with_tls_any_byte_that_changes_is_noticed(certificates, kafka, names, tmp_path):
    """P1 and P2: a record of TLS that was tampered with ends the connection, and its messages come again."""
    with (
        Mosquitto(tmp_path / "mosquitto", certificates=certificates) as mosquitto,
        FaultProxy(mosquitto.tls_port, TlsRecords) as proxy,
        bridge_behind(
            proxy, kafka, names, tmp_path / "bridge", mqtt_tls="true", mqtt_ca_file=certificates.ca_file
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        rule = proxy.on(TO_CLIENT, APPLICATION_DATA, flip_byte(-40), first=20)
        with publishing(publisher, names, 1000, 500):
            rule.wait()
        oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
        oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(connections_lost=1))
        assert len(proxy.links) == 2
        bridge.assert_balanced()
