"""What operators, clocks and time do: a changed mapping, a clock that jumps, restarts, scrapes, a table used long."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support.failing_worker import HOUR_SECONDS, FailingBridge
from tests.support.oracle import read, wait_until
from tests.support.system import KAFKA_AWAY, Publisher, frozen
from tools.brokers import free_port

TAKE_OVER_SECONDS = 15.0  # 5 is the aim; other tests run beside this one


def wait_for_stored(bridge, messages):
    wait_until(lambda: bridge.total("connector_undelivered_messages") == messages, f"{messages} stored messages")


# ---- settings and clocks


def test_messages_of_a_mapping_that_was_removed_go_where_they_were_to_go(mosquitto, kafka, names, new_bridge):
    """P1, P2 and P8: the table keeps the Kafka topic with the message; the new mapping is for new messages."""
    kafka.create_topic(names.kafka())
    kafka.create_topic(names.kafka("new"))
    topic = names.mqtt("a")
    with Publisher(mosquitto.port) as publisher:
        with new_bridge(kafka=KAFKA_AWAY) as bridge:
            publisher.publish_many([topic], 1_000)
            wait_for_stored(bridge, 1_000)
        bridge.settings |= {
            "KAFKA_BROKER": kafka.bootstrap,
            "WILDCARD_TOPIC_LIST": f"{names.mqtt('+')}:{names.kafka('new')}",
        }
        with bridge:
            read(kafka.bootstrap, [names.kafka()], 1_000).assert_each_once_in_order(publisher.sent)
            wait_for_stored(bridge, 0)
            publisher.publish_many([topic], 100)
            assert read(kafka.bootstrap, [names.kafka("new")], 100).numbers()[topic] == [*range(1_000, 1_100)]
            bridge.assert_balanced()


@pytest.mark.parametrize("act", ["an hour ago", "in a year"])
def test_a_wall_clock_that_jumps_changes_nothing_but_timestamps(act, mosquitto, kafka, names, new_bridge):
    """P2 and P3: order, retries and lateness follow counters and the monotonic clock, over a restart too."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    bridge = new_bridge(kafka=KAFKA_AWAY, kind=FailingBridge, function="time:time", act=act)
    with Publisher(mosquitto.port) as publisher:
        with bridge:
            publisher.publish_many(topics, 500)
            wait_for_stored(bridge, 500)
            bridge.begin()
            publisher.publish_many(topics, 500)
            wait_for_stored(bridge, 1_000)
        with bridge:  # the clock is wrong from the start, and right again while the table drains
            publisher.publish_many(topics, 500)
            wait_for_stored(bridge, 1_500)
        kafka.create_topic(names.kafka())
        bridge.settings["KAFKA_BROKER"] = kafka.bootstrap
        with bridge:
            publisher.publish_many(topics, 500)
            bridge.end()
            publisher.publish_many(topics, 500)
            oracle = read(kafka.bootstrap, [names.kafka()], 2_500)
            wait_for_stored(bridge, 0)
            bridge.assert_balanced()
    oracle.assert_each_once_in_order(publisher.sent)
    ages_seconds = [time.time() - record.timestamp_ms / 1000 for record in oracle.records]
    assert min(ages_seconds) > -60, "no record is from the future, as Kafka would refuse it"
    assert (max(ages_seconds) > HOUR_SECONDS) == (act == "an hour ago"), "the clock did jump"


# ---- restarts and looks


def test_the_next_worker_takes_over_within_seconds(mosquitto, kafka, names, new_bridge):
    """P2, P3 and P10: after SIGTERM under load a new process on the same directory goes on at once."""
    kafka.create_topic(names.kafka())
    bridge = new_bridge()
    with bridge, Publisher(mosquitto.port) as publisher, ThreadPoolExecutor() as threads:
        sending = threads.submit(publisher.publish_many, [names.mqtt("a")], 20_000, 2_000)
        wait_until(lambda: bridge.total("connector_delivered_total") > 500, "messages that cross")
        began = time.monotonic()
        bridge.stop()
        bridge.start()
        took_seconds = time.monotonic() - began
        sending.result()
        read(kafka.bootstrap, [names.kafka()], 20_000).assert_each_once_in_order(publisher.sent)
        assert took_seconds < TAKE_OVER_SECONDS
        bridge.assert_balanced()


def test_many_scrapes_and_many_topics_cost_neither_files_nor_series(mosquitto, kafka, names, new_bridge):
    """P6 and P8: a series per mapping, not per MQTT topic, and no connection that stays open."""
    kafka.create_topic(names.kafka())
    with new_bridge() as bridge, Publisher(mosquitto.port) as publisher:
        lines_before = len(bridge.get("/metrics")[1].splitlines())
        files_before = psutil.Process(bridge.pid).num_fds()
        with ThreadPoolExecutor(8) as threads:
            scrapes = [threads.submit(bridge.get, "/metrics") for _ in range(200)]
            publisher.publish_many([names.mqtt(f"device/{number}") for number in range(2_000)], 4_000)
            assert {scrape.result()[0] for scrape in scrapes} == {200}
        read(kafka.bootstrap, [names.kafka()], 4_000).assert_each_once_in_order(publisher.sent)
        assert len(bridge.get("/metrics")[1].splitlines()) == lines_before
        wait_until(lambda: psutil.Process(bridge.pid).num_fds() <= files_before + 5, "connections that end")
        bridge.assert_balanced()


def test_when_everything_fails_the_log_stays_short_and_the_worker_alive(new_bridge):
    """P7: both brokers away from the start; what repeats itself is said rarely, and the reasons are shown."""
    bridge = new_bridge(free_port(), KAFKA_AWAY, log_lvl="debug")
    bridge.ready = lambda: bridge.status("/health/live") == 200
    with bridge:
        wait_until(lambda: bridge.log_path.read_text().count("cannot reach the MQTT broker") >= 4, "four tries", 90)
        lines = [line for line in bridge.log_path.read_text().splitlines() if " DEBUG " not in line]
        lines = [line for line in lines if " faust." not in line and " mode." not in line]
        assert sum("cannot reach the MQTT broker" in line for line in lines) == 1, "the others are for LOG_LVL=debug"
        assert len(lines) < 10, lines
        assert bridge.get("/health/live")[0] == 200
        status, text = bridge.get("/health/ready")
        assert status == 503 and "the MQTT broker is not connected" in text
        assert bridge.status_page()["kafka"]["connected"] is False
        os.kill(bridge.pid, signal.SIGTERM)
        wait_until(lambda: not bridge.running, "the end of the worker", 20)
        assert bridge._process.returncode == 0


# ---- a table that is used for long


@pytest.mark.slow
def test_a_table_that_was_filled_and_drained_again_and_again_is_as_fast_as_new(mosquitto, kafka, names, new_bridge):
    """P2, P3 and P6: what was removed is not read again; 200,000 messages through the table in four rounds."""
    rounds, messages = 4, 50_000
    bridge = new_bridge(store_after_ms=0)
    kafka.create_topic(names.kafka())
    drained_seconds = []
    with bridge, Publisher(mosquitto.port) as publisher:
        for count in range(1, rounds + 1):
            with frozen(kafka):
                publisher.publish_many([names.mqtt("a")], messages)
                wait_until(
                    lambda count=count: bridge.total("connector_received_total") == count * messages, "a full table"
                )
            began = time.monotonic()
            wait_for_stored(bridge, 0)
            drained_seconds.append(time.monotonic() - began)
        bridge.assert_balanced()
        read(kafka.bootstrap, [names.kafka()], rounds * messages).assert_each_once_in_order(publisher.sent)
    assert min(drained_seconds[2:]) < 3 * min(drained_seconds[:2]), drained_seconds
