"""The network between the bridge and Kafka fails, Kafka answers with errors, and librdkafka has no more room.

A real worker between a real Mosquitto and a real Kafka, with a fault proxy in front of Kafka; the oracle goes past it.
"""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.support.frame_faults import answer_with_error, drop, flip_byte
from tests.support.oracle import Verdict, read, wait_until
from tests.support.other_brokers import HiveMQ
from tests.support.proxied_protocols import (
    INVALID_PRODUCER_EPOCH,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    PRODUCE,
    TO_CLIENT,
    TO_SERVER,
    UNKNOWN_PRODUCER_ID,
)
from tests.support.system import Bridge, Publisher, Traffic, publishing

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
    oracle = read(proxied_kafka[0].bootstrap, [names.kafka()], publisher.sent)
    wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
    bridge.assert_balanced()
    return oracle


# ---- a network that carries nothing, or breaks


@pytest.mark.parametrize("fault", ["hold", "swallow"])
def test_kafka_is_silent_for_five_seconds_and_nothing_is_lost_doubled_or_reordered(
    fault, through, mosquitto, proxied_kafka, names
):
    """P1, P2 and P3: no connection ends, and the messages are stored and acknowledged all the same."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with Traffic(publisher, names.prefix, rate=2_000):
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


@pytest.mark.slow
def test_a_path_to_kafka_that_comes_and_goes_every_two_seconds_repeats_nothing(
    through, mosquitto, proxied_kafka, names
):
    """P2 and P3: five times away and back under traffic."""
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
    """P3: what Kafka appended and did not confirm is sent again, and Kafka knows it."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with Traffic(publisher, names.prefix, rate=2_000):
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
    """P2 and P3: Kafka checks each batch; what it refuses as corrupt comes again, unharmed and in order."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        with Traffic(publisher, names.prefix, rate=2_000):
            wait_until(lambda: bridge.total("connector_delivered_total") >= 1000, "1,000 deliveries")
            proxy.on(TO_SERVER, PRODUCE, flip_byte(-20)).wait()
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)


# ---- answers that come late


LATE_SECONDS = 0.3  # three times STORE_AFTER_MS


def test_a_kafka_whose_answers_always_come_late_costs_no_way_by_the_disk(through, mosquitto, proxied_kafka, names):
    """As long as what it has not confirmed is less than four fifths of the broker's window: here 250 of 1,000."""
    _, proxy = proxied_kafka
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish(names.mqtt("a"))
        wait_until(lambda: bridge.total("connector_delivered_total") == 1, "the first record")
        proxy.late(LATE_SECONDS, TO_CLIENT)
        with Traffic(publisher, names.prefix, rate=500):
            wait_until(lambda: bridge.total("connector_delivered_total") >= 4000, "4,000 deliveries")
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)
        # A machine that stands still for a moment has some stored; before, it was all of them.
        assert bridge.total("connector_stored_total") < 2000


def test_late_answers_do_not_hold_up_a_broker_that_waits_for_acknowledgements(proxied_kafka, names, tmp_path):
    """P1: of 20 messages every 0.3 s 4,000 would take 60 s, while the broker's queue grows."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka(), 3)
    with (
        HiveMQ(tmp_path / "hivemq") as broker,  # Mosquitto sends thousands, whatever it is told
        Bridge(
            tmp_path / "bridge", broker.port, proxy.address, f"{names.mqtt('#')}:{names.kafka()}",
            mqtt_receive_maximum=20,
        ) as bridge,
        Publisher(broker.port) as publisher,
    ):  # fmt: skip
        proxy.late(LATE_SECONDS, TO_CLIENT)
        with publishing(publisher, names, 60, rate=20):
            pass  # by then Kafka is known to be slow, and little is under way
        with publishing(publisher, names, 4000, rate=0):
            wait_until(lambda: bridge.total("connector_received_total") == 4060, "all messages", 30)
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)
        assert "linger.ms is now" not in bridge.log_path.read_text(), "Kafka was near when Connector began"


def test_a_kafka_that_is_far_away_takes_no_core_of_a_thread_that_waits_for_it(through, mosquitto, proxied_kafka, names):
    """librdkafka is told at the start how long Kafka takes to answer, and nothing goes by the disk for it."""
    _, proxy = proxied_kafka
    proxy.late(LATE_SECONDS / 3, TO_CLIENT)
    with through(store_after_ms=5_000) as bridge, Publisher(mosquitto.port) as publisher:
        with publishing(publisher, names, 1000, rate=500):
            wait_until(lambda: bridge.total("connector_delivered_total") == 1000, "all deliveries")
        settled(bridge, publisher, proxied_kafka, names).assert_each_once_in_order(publisher.sent)
        assert "linger.ms is now 1" in bridge.log_path.read_text()  # 120 or a little more
        assert bridge.total("connector_stored_total") == 0


@pytest.mark.parametrize("first_is_known", [True, False], ids=["a lane with records", "a new lane"])
def test_a_message_larger_than_the_table_waits_for_answers_that_come_late(
    first_is_known, mosquitto, proxied_kafka, names, tmp_path
):
    """P5: that a small message before it is in the table for a moment does not mean that Kafka is away."""
    kafka, proxy = proxied_kafka
    topic, other = names.kafka("large"), names.kafka("other")
    kafka.create_topic(topic, max_message_bytes=10_000_000)
    kafka.create_topic(other)
    mappings = f"{names.mqtt('large/#')}:{topic},{names.mqtt('other')}:{other}"
    options = {
        "undelivered_max_bytes": 1_048_576,
        "kafka_producer_config": '{"message.max.bytes": 10000000}',
        "store_after_ms": 100,  # soon, as a machine may stand still for a while before the 5 s are over
    }
    with (
        Bridge(tmp_path, mosquitto.port, proxy.address, mappings, **options) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        wanted = [b"first"] * first_is_known
        for payload in wanted:
            publisher.raw(names.mqtt("large/a"), payload)
        publisher.raw(names.mqtt("other"), b"")
        wait_until(lambda: bridge.total("connector_delivered_total") == len(wanted) + 1, "an answer of Kafka's")
        proxy.hold(TO_CLIENT)
        wanted += [b"small", b"small too"]
        for payload in wanted[-2:]:
            publisher.raw(names.mqtt("large/a"), payload)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 2, "stored messages")
        wanted.append(os.urandom(2_097_152))
        publisher.raw(names.mqtt("large/a"), wanted[-1])
        wait_until(lambda: bridge.total("connector_received_total") == len(wanted) + 1, "the large message")
        proxy.let_go()
        assert [record.value for record in read(kafka.bootstrap, [topic], len(wanted)).records] == wanted
        wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "everything to be acknowledged")
        assert bridge.total("connector_dropped_total") == 0
        bridge.assert_balanced()


# ---- errors after which librdkafka gives up, and a queue without room


@pytest.mark.parametrize(
    ("code", "fatal"),
    [(OUT_OF_ORDER_SEQUENCE_NUMBER, True), (UNKNOWN_PRODUCER_ID, False), (INVALID_PRODUCER_EPOCH, False)],
    ids=["OUT_OF_ORDER_SEQUENCE_NUMBER", "UNKNOWN_PRODUCER_ID", "INVALID_PRODUCER_EPOCH"],
)
def test_after_an_error_of_the_idempotent_producer_what_was_not_confirmed_is_sent_once_more(
    code, fatal, through, mosquitto, proxied_kafka, names
):
    """P1, P2 and P3: in order, and nothing else is repeated; a producer that failed for good is replaced."""
    _, proxy = proxied_kafka
    topics = [names.mqtt(str(number)) for number in range(5)]
    with through() as bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 1000)
        wait_until(lambda: bridge.total("connector_delivered_total") == 1000, "1,000 deliveries")
        proxy.hold(TO_CLIENT)
        publisher.publish_many(topics, 500)
        wait_until(lambda: bridge.total("connector_received_total") == 1500, "500 messages without confirmation")
        # After the error nothing more arrives for now: what else is in flight must not be forgotten.
        rule = proxy.on(TO_CLIENT, PRODUCE, answer_with_error(code), then=lambda _: proxy.hold(TO_CLIENT))
        proxy.let_go()
        rule.wait()
        if fatal:
            wait_until(lambda: REPLACED in bridge.log_path.read_text(), "a new producer")
        proxy.let_go()
        publisher.publish_many(topics, 500)
        oracle = settled(bridge, publisher, proxied_kafka, names)
        oracle.assert_nothing_lost(publisher.sent, duplicates_at_most=500)
        assert (REPLACED in bridge.log_path.read_text()) == fatal


def test_a_full_queue_of_librdkafka_loses_and_reorders_nothing(through, mosquitto, proxied_kafka, names):
    """P2 and P3: what finds no room goes through the table."""
    _, proxy = proxied_kafka
    config = json.dumps({"queue.buffering.max.messages": 50})
    with through(kafka_producer_config=config) as bridge, Publisher(mosquitto.port) as publisher:
        proxy.slow(delay_seconds=0.02)
        publisher.publish_many([names.mqtt(str(number)) for number in range(5)], 3000)
        oracle = settled(bridge, publisher, proxied_kafka, names)
        assert oracle.verdict(publisher.sent) == Verdict()
        assert bridge.total("connector_replayed_total") > 1000, "there was no room"
