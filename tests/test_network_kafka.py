"""The network between the bridge and Kafka fails, and librdkafka has no more room.

A real worker between a real Mosquitto and a real Kafka, with a fault proxy in front of Kafka; the oracle goes past it.
"""

from __future__ import annotations

import json
import time

import pytest
from frame_faults import drop, flip_byte
from oracle import Verdict, read, wait_until
from proxied_protocols import PRODUCE, TO_CLIENT, TO_SERVER
from system import Bridge, Publisher, publishing

REPLACED = "the Kafka producer failed for good and is replaced"


@pytest.fixture
def through(mosquitto, proxied_kafka, names, tmp_path):
    """Return a function that makes a bridge which reaches Kafka through the proxy; the test's topic is created."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka(), 3)

    def make(**settings):
        return Bridge(tmp_path, mosquitto.port, proxy.address, f"{names.mqtt('#')}:{names.kafka()}", **settings)

    return make


def settled(bridge, publisher, proxied_kafka, names):
    """Return what is in Kafka once the table is empty, and everything accounted for."""
    oracle = read(proxied_kafka[0].bootstrap, [names.kafka()], sum(publisher.sent.values()))
    wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
    bridge.assert_balanced()
    return oracle


# ---- a network that carries nothing, or breaks


@pytest.mark.parametrize("fault", ["hold", "swallow"])
def test_kafka_is_silent_for_five_seconds_and_nothing_is_lost_doubled_or_reordered(
    fault, through, mosquitto, proxied_kafka, names
):
    """Invariants 1, 2 and 3: no connection ends, and the messages are stored and acknowledged all the same."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with publishing(publisher, names, 10_000, 2000):
            wait_until(lambda: bridge.total("connector_delivered_total") >= 1000, "1,000 deliveries")
            getattr(proxy, fault)()
            silent_until = time.monotonic() + 5
            received = bridge.total("connector_received_total")
            # More than the broker would send without acknowledgements.
            wait_until(lambda: bridge.total("connector_store_seconds_count") > received + 2000, "stored messages")
            bridge.assert_balanced()
            assert bridge.get("/health/ready")[0] == 200
            time.sleep(max(0.0, silent_until - time.monotonic()))
            proxy.pass_everything()
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)


def test_a_path_to_kafka_that_comes_and_goes_every_two_seconds_repeats_nothing(
    through, mosquitto, proxied_kafka, names
):
    """Invariants 2 and 3: five times away and back under traffic."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with publishing(publisher, names, 20_000, 1000):
            for _ in range(5):
                time.sleep(2)
                proxy.refuse()
                time.sleep(2)
                proxy.pass_everything()
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)
        assert REPLACED not in bridge.log_path.read_text()


def test_answers_of_kafka_that_are_lost_after_it_acted_repeat_nothing(through, mosquitto, proxied_kafka, names):
    """Invariant 3: what Kafka appended and did not confirm is sent again, and Kafka knows it."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with publishing(publisher, names, 10_000, 2000):
            # Before that there is one record in flight at a time.
            wait_until(lambda: bridge.total("connector_delivered_total") >= 1000, "1,000 deliveries")
            for _ in range(4):
                proxy.on(TO_CLIENT, PRODUCE, drop, first=5, times=None).wait()
                proxy.pass_everything()
                proxy.cut()
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)
        answered = [frame for frame in proxy.seen(TO_CLIENT, PRODUCE) if frame.forwarded]
        assert len(proxy.seen(TO_SERVER, PRODUCE)) >= len(answered) + 4, "what was lost was sent again"


def test_a_byte_that_changes_on_the_way_to_kafka_is_noticed(through, mosquitto, proxied_kafka, names):
    """Invariants 2 and 3: Kafka checks each batch; what it refuses as corrupt comes again, unharmed and in order."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with publishing(publisher, names, 4000, 2000):
            wait_until(lambda: bridge.total("connector_delivered_total") >= 1000, "1,000 deliveries")
            proxy.on(TO_SERVER, PRODUCE, flip_byte(-20)).wait()
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)


# ---- a queue without room


def test_a_full_queue_of_librdkafka_loses_and_reorders_nothing(through, mosquitto, proxied_kafka, names):
    """Invariants 2 and 3: what finds no room goes through the table."""
    _, proxy = proxied_kafka
    config = json.dumps({"queue.buffering.max.messages": 50})
    with through(kafka_producer_config=config) as bridge, Publisher(mosquitto.port) as publisher:
        proxy.slow(delay_seconds=0.02)
        publisher.publish_many([names.mqtt(str(number)) for number in range(5)], 3000)
        oracle = settled(bridge, publisher, proxied_kafka, names)
        assert oracle.verdict(publisher.sent) == Verdict()
        assert bridge.total("connector_replayed_total") > 1000, "there was no room"
