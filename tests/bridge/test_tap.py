"""`connector tap`: what passes right now, as its users see it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager

from tests.support.oracle import read, wait_until
from tests.support.system import Publisher


@contextmanager
def tapping(bridge, *arguments):
    """Run the command while the body runs; give it and the file with what it says."""
    said = bridge.directory / f"tap-{len(list(bridge.directory.glob('tap-*')))}"
    with said.open("w") as output:
        command = [sys.executable, "-m", "app.connector", "tap", *arguments]
        process = subprocess.Popen(command, cwd=bridge.directory, env=dict(bridge.environment()), stdout=output,
                                   stderr=subprocess.STDOUT)  # fmt: skip
    try:
        yield process, said
    finally:
        process.kill()
        process.wait()


def test_a_tap_shows_what_kafka_has_by_filter_and_ends_with_the_worker(mosquitto, kafka, names, new_bridge):
    """Texts of others are escaped: a topic must not turn a line around."""
    kafka.create_topic(names.kafka())
    a, b = names.mqtt("a/\u202e31"), names.mqtt("b/1")
    with new_bridge() as bridge, Publisher(mosquitto.port) as publisher:
        wanted = names.mqtt("a/#")
        with (
            tapping(bridge, wanted) as (people, text),
            tapping(bridge, wanted, "--json", "--limit", "1") as (program, lines),
        ):

            def both_show():
                publisher.publish_many([a, b], 2)
                return "ms" in text.read_text() and program.poll() is not None

            wait_until(both_show, "a line from each")
            assert program.returncode == 0
            (message,) = map(json.loads, lines.read_text().splitlines())
            (record,) = [each for each in read(kafka.bootstrap, [names.kafka()], 2).records
                         if (each.partition, each.offset) == (message["partition"], message["offset"])]  # fmt: skip
            assert record.headers["mqtt-topic"] == a.encode()
            assert (message["kafka_topic"], message["mqtt_topic"]) == (record.topic, a.replace("\u202e", "\\u202e"))
            assert message["milliseconds"] >= 0
            bridge.stop()
            assert people.wait(30) == 0
    shown = text.read_text()
    assert b not in shown
    assert "\u202e" not in shown
    assert shown.endswith("the worker has ended\n")


def test_without_a_worker_and_with_a_wrong_filter_it_says_so(new_bridge, mosquitto, kafka, names):
    kafka.create_topic(names.kafka())
    bridge = new_bridge()
    with tapping(bridge) as (process, said):
        assert process.wait(30) == 1
        assert "no worker runs" in said.read_text()
    with bridge, tapping(bridge, "a/#/b") as (process, said):
        assert process.wait(30) == 1
        assert "a/#/b" in said.read_text()
