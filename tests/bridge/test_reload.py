"""ROUTES_FILE read anew by a running worker, between real brokers, while messages flow."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oracle import read, wait_until
from tests.support.system import Publisher, Traffic

RATE = 5_000


class Routes:
    """A file of routes below the prefix of a test, which is replaced as a whole."""

    def __init__(self, directory: Path, names) -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "routes.yaml"
        self._names = names

    def write(self, **routes: tuple[str, str]) -> None:
        """Write routes: filter and Kafka topic by their name."""
        entries = [
            {"name": name, "from": self._names.mqtt(mqtt), "to": self._names.kafka(to)}
            for name, (mqtt, to) in routes.items()
        ]
        self.write_text(json.dumps({"routes": entries}))

    def write_text(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o644)
        new.rename(self.path)


@contextlib.contextmanager
def flow(publisher: Publisher, topics: list[str]) -> Iterator[None]:
    """Publish to MQTT topics in turn, at a rate, until the body has ended."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.is_set():
            publisher.publish_many(topics, RATE // 2 // len(topics) * len(topics), RATE)

    sender = threading.Thread(target=publish)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()


@pytest.fixture
def routes(tmp_path, names):
    return Routes(tmp_path / "config", names)


@pytest.fixture
def bridge(new_bridge, routes):
    """Return a bridge with that file, which is not started."""
    return new_bridge(topic_list="", wildcard_topic_list="", routes_file=routes.path)


def ask(bridge, *words: str) -> subprocess.CompletedProcess:
    """Run a command with the settings of a worker."""
    return subprocess.run(
        [sys.executable, "-m", "app.connector", *words], env=dict(bridge.environment()), cwd=bridge.directory,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def reload(bridge) -> dict:
    """Have the routes read anew; return what the worker answers."""
    done = ask(bridge, "reload", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def log_of(bridge) -> str:
    return bridge.log_path.read_text()


def wait_for_changes(bridge, number: int) -> None:
    wait_until(lambda: log_of(bridge).count("the routes were read anew") == number, f"{number} changes")


def create_topics(kafka, names, *topics: str) -> list[str]:
    created = [names.kafka(topic) for topic in topics]
    for topic in created:
        kafka.create_topic(topic)
    return created


def by_topic(oracle, mqtt: str) -> dict[str, list[int]]:
    """Return the numbers of an MQTT topic by Kafka topic, in Kafka's order."""
    topics = dict.fromkeys(record.topic for record in oracle.records)
    parts = {topic: type(oracle)([each for each in oracle.records if each.topic == topic]) for topic in topics}
    return {topic: found for topic, part in parts.items() if (found := part.numbers()[mqtt])}


def test_routes_change_under_load_and_each_message_is_there_once_and_in_order(mosquitto, kafka, names, bridge, routes):
    """P1, P2, P3 and P8: a route is added, one removed, one gets another Kafka topic, and one stays."""
    topics = create_topics(kafka, names, "stays", "goes", "old", "new", "comes")
    routes.write(stays=("stays/#", "stays"), goes=("goes/#", "goes"), moves=("moves/#", "old"))
    stays, goes, moves = flowing = [names.mqtt(f"{name}/1") for name in ("stays", "goes", "moves")]
    with bridge, Publisher(mosquitto.port) as publisher, Publisher(mosquitto.port) as second:
        with flow(publisher, flowing):
            bridge.wait_for_progress(3_000)
            routes.write(stays=("stays/#", "stays"), moves=("moves/#", "new"), comes=("comes/+", "comes"))
            answer = reload(bridge)
            assert (answer["added"], answer["removed"], answer["changed"]) == (["comes"], ["goes"], ["moves"])
            assert not answer["mqtt"] and not answer["problems"]
            second.publish_many([names.mqtt("comes/1")], 2_000)
        sent = publisher.sent
        awaited = {topic: sent[topic] for topic in (stays, moves)} | second.sent
        oracle = read(kafka.bootstrap, topics, awaited)
        assert by_topic(oracle, stays) == {names.kafka("stays"): list(range(sent[stays]))}
        assert by_topic(oracle, names.mqtt("comes/1")) == {names.kafka("comes"): list(range(2_000))}
        moved = by_topic(oracle, moves)
        assert moved[names.kafka("old")] + moved[names.kafka("new")] == list(range(sent[moves]))
        (gone,) = by_topic(oracle, goes).values()
        assert gone == list(range(len(gone)))
        assert len(gone) < sent[goes]
        wait_until(lambda: not bridge.total("connector_in_flight_messages"), "all accounted for")
        metrics = bridge.metrics()
        assert metrics["connector_delivered_total"][("goes",)] == len(gone)
        assert not sum(metrics["connector_dead_lettered_total"].values())
        bridge.assert_balanced(metrics)


def test_a_wrong_file_changes_nothing_and_is_told_with_file_line_and_route(mosquitto, kafka, names, bridge, routes):
    """By SIGHUP, as the command reads the file itself before it asks the worker."""
    (topic,) = create_topics(kafka, names, "stays")
    routes.write(stays=("stays/#", "stays"))
    with bridge, Publisher(mosquitto.port) as publisher:
        routes.write_text("routes:\n  - {name: stays, from: a/#, to: b}\n  - {name: bad, from: a/#/b, to: b}\n")
        os.kill(bridge.pid, signal.SIGHUP)
        wait_until(lambda: "the routes are not read anew, and stay as they are" in log_of(bridge), "the error")
        said = f"ROUTES_FILE: '{routes.path}', line 3, route 'bad': from: "
        assert said in log_of(bridge)
        refused = ask(bridge, "reload")
        assert refused.returncode == 2
        assert said in refused.stderr
        publisher.publish_many([names.mqtt("stays/1")], 100)
        read(kafka.bootstrap, [topic], 100).assert_each_once_in_order(publisher.sent)


def test_sighup_has_the_file_read_and_routes_shows_what_each_did(mosquitto, kafka, names, bridge, routes):
    topics = create_topics(kafka, names, "one", "two")
    routes.write(one=("one/#", "one"))
    with bridge, Publisher(mosquitto.port) as publisher:
        routes.write(one=("one/#", "one"), two=("two/#", "two"), vain=("two/+", "two"))
        os.kill(bridge.pid, signal.SIGHUP)
        wait_until(lambda: "the routes were read anew: 2 added (two, vain)" in log_of(bridge), "the new routes")
        assert f"the route vain ({names.mqtt('two/+')}) never gets a message, as two (" in log_of(bridge)
        wait_until(bridge.ready, "SUBACK")
        publisher.publish_many([names.mqtt("two/1")], 50)
        read(kafka.bootstrap, topics, 50).assert_each_once_in_order(publisher.sent)
        listed = [json.loads(line) for line in ask(bridge, "routes", "--json").stdout.splitlines()]
        assert {row["route"]: row["received"] for row in listed} == {"one": 0, "two": 50, "vain": 0}
        assert "never gets a message" in listed[2]["shadowed"]
        routes.write(one=("one/#", "one"), absent=("x/#", "absent"))
        assert reload(bridge)["missing_topics"] == [names.kafka("absent")], "nobody has created it"


def test_kills_in_the_middle_of_changes_lose_nothing(mosquitto, kafka, names, bridge, routes):
    """P1 and P2: filters come and go around one that stays, and overlap with it.

    What MQTT repeats after a kill goes where the routes lead then: a message that one Kafka topic has already may be in
    another one too, behind younger ones. Order holds between those that a Kafka topic has alone.
    """
    topics = create_topics(kafka, names, "stays", "other")
    choices = (
        {"stays": ("stays/#", "stays")},
        {"other": ("stays/1", "other"), "stays": ("stays/#", "stays")},
        {"stays": ("stays/+", "stays"), "all": ("#", "other")},
    )
    routes.write(**choices[0])
    with Publisher(mosquitto.port) as publisher:
        bridge.start()
        with Traffic(publisher, names.mqtt("stays"), rate=2_000):
            for number in range(1, 7):
                bridge.wait_for_progress(300)
                routes.write(**choices[number % 3])
                os.kill(bridge.pid, signal.SIGHUP)
                wait_for_changes(bridge, number)
                bridge.kill()
                bridge.start()
        oracle = read(kafka.bootstrap, topics, publisher.sent)
        assert oracle.lost(publisher.sent) == 0
        for topic in publisher.sent:
            by_kafka_topic = {
                kafka_topic: list(dict.fromkeys(found)) for kafka_topic, found in by_topic(oracle, topic).items()
            }
            times = Counter(itertools.chain.from_iterable(by_kafka_topic.values()))
            for firsts in by_kafka_topic.values():
                alone = [number for number in firsts if times[number] == 1]
                assert alone == sorted(alone)
