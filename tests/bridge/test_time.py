"""Time, not counts: the age of the oldest message, when the table is full, when it is empty; and the plan before."""

from __future__ import annotations

import math
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.plan import Stream
from tests.support.oracle import read, wait_until
from tests.support.system import Bridge, Publisher, frozen

REPOSITORY = Path(__file__).resolve().parents[2]
AGE, FULL, DRAIN = "connector_oldest_undelivered_age_seconds", "connector_store_full_seconds", "connector_drain_seconds"


class Steady:
    """Messages at a steady rate while the body runs."""

    def __init__(self, publisher, topic, rate):
        self._publisher, self._topic, self._rate = publisher, topic, rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ended.is_set():
            self._publisher.publish_many([self._topic], self._rate, self._rate, size_bytes=1000)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


class Reading:
    """What the metrics say at one moment, which is after one time and before another: a busy machine answers late."""

    def __init__(self, bridge):
        self.after = time.monotonic()
        metrics = bridge.metrics()
        self.before = time.monotonic()
        self.at = (self.after + self.before) / 2
        self.age, self.full, self.drain = (metrics[name][()] for name in (AGE, FULL, DRAIN))
        self.bytes = sum(metrics["connector_undelivered_bytes"].values())
        self.messages = sum(metrics["connector_undelivered_messages"].values())
        self.limit_bytes = metrics["connector_store_limit_bytes"][()]


def within(factor, found, truth):
    return truth / factor <= found <= truth * factor


def test_age_time_to_full_and_time_to_empty_are_true_through_an_outage(mosquitto, kafka, tmp_path, names):
    """Under a steady inflow; the drain is held to a rate, so that it takes some seconds."""
    kafka.create_topic(names.kafka())
    with (
        Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}",
            undelivered_max_bytes="100MB", replay_max_rate=500,
            # So that it is the table which has what Kafka does not take.
            kafka_producer_config='{"queue.buffering.max.messages": 100}',
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        publisher.publish_many([names.mqtt("a")], 500, 200)
        wait_until(lambda: not Reading(bridge).messages, "an empty table")
        wait_until(lambda: Reading(bridge).full == math.inf, "a table that does not grow")
        assert (Reading(bridge).age, Reading(bridge).drain) == (0, 0)
        with Steady(publisher, names.mqtt("a"), 200):
            with frozen(kafka):
                check_the_outage(bridge)
            check_the_drain(bridge)
        assert bridge.total("connector_undelivered_messages") < 100
    read(kafka.bootstrap, [names.kafka()], sum(publisher.sent.values())).assert_each_once_in_order(publisher.sent)


def check_the_outage(bridge):
    """It has just begun; the age and the room that is left are known from what the table holds."""
    wait_until(lambda: Reading(bridge).messages > 300, "the first second of an outage")
    first = Reading(bridge)
    assert 0.5 < first.age < 6
    wait_until(lambda: Reading(bridge).messages > 1_400, "an outage of seven seconds")
    second = Reading(bridge)
    grown_seconds = second.age - first.age
    assert second.after - first.before - 0.5 < grown_seconds < second.before - first.after + 0.5, "as the clock does"
    assert second.drain == math.inf
    # The two rates are over different times, so a moment in which nothing was published takes a while to even out.
    wait_until(lambda: is_true_of_the_room(first, Reading(bridge)), "a time to a full table that is true")


def is_true_of_the_room(first, now):
    """Whether the time to a full table follows from how much the table has grown since a first reading."""
    inflow = (now.bytes - first.bytes) / (now.at - first.at)
    return within(1.5, now.full, (now.limit_bytes - now.bytes) / inflow)


def check_the_drain(bridge):
    """What was said in its middle is compared with when it ended."""
    seen = []

    def empty():
        seen.append(Reading(bridge))
        return not seen[-1].messages

    wait_until(empty, "an empty table, with new messages going on")
    end, fullest = seen[-1], max(seen, key=lambda reading: reading.messages)
    # From when the turn is a tenth of the way, and a second for the sampler.
    middle = [
        reading
        for reading in seen
        if reading.at > fullest.at + 1.5 and 0.3 < reading.messages / fullest.messages < 0.75
    ]
    assert middle, [(round(one.at - fullest.at, 2), one.messages) for one in seen]
    # A single one may follow a moment in which the machine had other things to do.
    assert within(2, statistics.median(reading.drain / (end.at - reading.at) for reading in middle), 1)
    assert statistics.median(reading.full for reading in middle) == math.inf, "it does not grow"
    assert end.age == end.drain == 0, "neither an age nor a time to an empty table"


def test_a_full_table_has_no_time_left(mosquitto, tmp_path, names):
    """Also when it has been full for long, and so has stopped to grow; with either way to meet it."""
    for what_gives_way in ("block", "drop_oldest"):
        with (
            Bridge(
                tmp_path / what_gives_way, mosquitto.port, "127.0.0.1:1", f"{names.mqtt(what_gives_way)}:records",
                undelivered_max_bytes=8_388_608, undelivered_when_full=what_gives_way,
            ) as bridge,
            Publisher(mosquitto.port) as publisher,
        ):  # fmt: skip
            publisher.publish_many([names.mqtt(what_gives_way)], 12_000, size_bytes=1000)
            wait_until(lambda bridge=bridge: Reading(bridge).full == 0, "a table that is known to be full")
            if what_gives_way == "block":
                assert any("is full" in line for line in bridge.get("/health/ready")[1].split('"'))


# ---- the plan


def plan(*arguments, **environment):
    command = [sys.executable, "-m", "faust", "-A", "app.main", "plan", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd="/",
        env={"PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip


def test_the_plan_needs_no_settings_and_says_what_to_set():
    """In figures that can be pasted; what cannot be reached is said."""
    done = plan("--rate", "1000", "--message-bytes", "200", "--outage", "8h")
    assert (done.returncode, done.stderr) == (0, "")
    values = dict(re.findall(r"^  (.+?)  +(\S+(?: \S+)?)  ", done.stdout, re.MULTILINE))
    assert values["UNDELIVERED_MAX_BYTES"] == "19GB"
    assert (values["taken of the disk"], values["disk of DB_PERSIST_PATH"]) == ("24GB", "46GB")
    assert values["a start that repairs it takes"] == "2h 58m"
    assert values["drained afterwards in"] == "53m 20s"
    assert values["MQTT_RECEIVE_MAXIMUM"] == "160"
    assert (values["max_queued_messages"], values["max_queued_bytes"]) == ("31680000", "6336000000")
    assert values["MQTT_SESSION_EXPIRY_SEC"] == "57600"
    done = plan("--rate", "500000", "--message-bytes", "100", "--outage", "1d", MQTT_BROKER_URL="wrong://")
    assert (done.returncode, done.stderr) == (0, "")
    assert "never" in done.stdout and done.stdout.count("use more workers") == 2
    done = plan("--rate", "1", "--message-bytes", "1", "--outage", "8 hours")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "connector: '8 hours' is no duration: write it as 90s, 30m, 8h or 2d\n"
    assert plan("--rate", "0", "--message-bytes", "1", "--outage", "8h").returncode == 1


def test_what_a_worker_stores_stays_under_the_plan(mosquitto, tmp_path, names):
    """With the headers, the key and the names that it really has."""
    topic = names.mqtt("a")
    with (
        Bridge(tmp_path / "bridge", mosquitto.port, "127.0.0.1:1", f"{topic}:records") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([topic], 5_000, size_bytes=300)
        wait_until(lambda: Reading(bridge).messages == 5_000, "a table with all of them")
        stream = Stream(5_000, 300, 1, 10_000, topic_bytes=len(topic))
        assert Reading(bridge).bytes < stream.limit_bytes < 1.6 * Reading(bridge).bytes
