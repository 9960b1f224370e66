"""The real worker in a control group of 512 MiB, as a manifest has it, or less: no message makes the kernel kill it.

The whole matrix of sizes and floods is `python -m tests.support.small_memory`, by hand.
"""

from __future__ import annotations

import json
import random
import threading

import pytest

from tests.support.oracle import read, wait_until
from tests.support.scripted_broker import PUBACK, ScriptedBroker, publish_packet
from tests.support.small_memory import LARGEST_RECORD_BYTES, ControlGroup, Outcome, SmallBridge
from tools.brokers import free_port

LIMIT_MEBIBYTES, TIGHT_MEBIBYTES = 512, 320
MEGABYTE = 1_000_000
LANES = 3
PATIENCE_SECONDS = 120.0  # 300 MB, through a table on a disk that others use as well


@pytest.fixture
def group(request):
    """Return a control group of 512 MiB, or of what the test says."""
    try:
        made = ControlGroup(getattr(request, "param", LIMIT_MEBIBYTES) * 1024 * 1024)
    except OSError as error:
        pytest.skip(f"no control group with a memory limit can be made here: {error}")
    yield made
    made.remove()


def send(broker, names, sizes):
    """Send a message of each size to one lane after the other, and a small one of another lane behind each."""
    for number, size in enumerate(sizes, 1):
        large = random.Random(number).randbytes(size)
        broker.send(
            publish_packet(names.mqtt(f"large/{number % LANES}"), large, 1, 2 * number - 1, version=broker.version),
            publish_packet(names.mqtt("small"), b"%d" % number, 1, 2 * number, version=broker.version),
        )


def mappings(names):
    large = [f"{names.mqtt(f'large/{number}')}:{names.kafka(f'large{number}')}" for number in range(LANES)]
    return ",".join([*large, f"{names.mqtt('small')}:{names.kafka('small')}"])


def sent_and_acknowledged(group, bridge, broker, names, sizes):
    """Send, and wait until all is acknowledged; fail as soon as the kernel kills the worker."""
    broker.wait_for_subscriptions(LANES + 1)
    sender = threading.Thread(target=send, args=(broker, names, sizes))
    sender.start()
    try:
        acknowledged = lambda: len(broker.received(PUBACK)) >= 2 * len(sizes)  # noqa: E731
        wait_until(lambda: group.kills or acknowledged(), "all acknowledgements", PATIENCE_SECONDS)
    finally:
        if group.kills:
            broker.close_connection()
        sender.join()
    assert not group.kills, "the kernel killed the worker"
    assert bridge.running


def test_messages_that_fit_are_stored_and_one_that_does_not_is_counted_while_kafka_is_away(group, names, tmp_path):
    """Promised sizes: what the log says at the start; more than the limit would hold at once, in several lanes."""
    with ScriptedBroker() as broker:
        address = f"127.0.0.1:{free_port()}"
        with SmallBridge(group, tmp_path, broker.port, address, mappings(names), mqtt_version="3.1.1") as bridge:
            largest = bridge.largest_packet_bytes
            assert 30 * MEGABYTE < largest < 40 * MEGABYTE
            assert f"packets of up to {largest} bytes are accepted" in bridge.log_path.read_text()
            sizes = [30 * MEGABYTE] * 4 + [100 * MEGABYTE] + [largest - 200] * 2 + [MEGABYTE] * 10
            sent_and_acknowledged(group, bridge, broker, names, sizes)
            wait_until(lambda: Outcome(bridge).refused == 1, "one that is refused and counted")
            wait_until(lambda: Outcome(bridge).undelivered == 2 * len(sizes) - 1, "all others in the table")
            bridge.assert_balanced()


def test_messages_that_fit_reach_kafka_and_small_ones_of_another_lane_with_them(group, kafka, names, tmp_path):
    for topic in [f"large{number}" for number in range(LANES)] + ["small"]:
        kafka.create_topic(names.kafka(topic), max_message_bytes=LARGEST_RECORD_BYTES)
    sizes = [20 * MEGABYTE] * 3 + [34 * MEGABYTE] + [MEGABYTE] * 10
    with (
        ScriptedBroker() as broker,
        SmallBridge(group, tmp_path, broker.port, kafka.bootstrap, mappings(names)) as bridge,
    ):
        sent_and_acknowledged(group, bridge, broker, names, sizes)
        wait_until(lambda: group.kills or Outcome(bridge).delivered == 2 * len(sizes), "all in Kafka", PATIENCE_SECONDS)
        assert not group.kills, "the kernel killed the worker"
        assert len(read(kafka.bootstrap, [names.kafka("small")], len(sizes)).records) == len(sizes)
        bridge.assert_balanced()


@pytest.mark.parametrize("group", [TIGHT_MEBIBYTES], indirect=True)
def test_the_oldest_of_hundreds_of_lanes_give_way_in_little_memory(group, names, tmp_path):
    """P6: publishers choose the names of derived topics. A MiB of each lane was held, until the kernel killed."""
    lanes, payload = 300, random.Random(1).randbytes(MEGABYTE)
    routes = tmp_path / "routes.yaml"
    route = {"name": "r", "from": names.mqtt("{site}"), "to": names.kafka("{site}")}
    routes.write_text(json.dumps({"routes": [route]}))
    settings = {"undelivered_when_full": "drop_oldest", "undelivered_max_bytes": lanes * MEGABYTE}
    address = f"127.0.0.1:{free_port()}"
    with (
        ScriptedBroker() as broker,
        SmallBridge(
            group, tmp_path / "w", broker.port, address, "",
            topic_list="", wildcard_topic_list="", routes_file=routes, **settings,
        ) as bridge,
    ):  # fmt: skip
        broker.wait_for_subscriptions(1)
        for sent in range(0, lanes + 40, 5):
            topics = {number: names.mqtt(f"site{number % lanes}") for number in range(sent + 1, sent + 6)}
            broker.send(*(publish_packet(topic, payload, 1, number, version=5) for number, topic in topics.items()))
            wait_until(lambda sent=sent: group.kills or len(broker.received(PUBACK)) >= sent + 5, "acknowledgements")
            if group.kills:
                broker.close_connection()
                break
        assert not group.kills, "the kernel killed the worker"
        assert Outcome(bridge).refused > 30, "the oldest were dropped"
        bridge.assert_balanced()


@pytest.mark.parametrize(("most_topics", "fits"), [(10_000, False), (1_000, True)])
def test_the_start_warns_of_more_kafka_topics_than_memory_carries_and_accepts_smaller_messages(
    most_topics, fits, group, names, tmp_path
):
    """P6: with 9,000 topics in use the kernel killed a worker, and nothing had said that 512 MiB do not carry them."""
    mapping = f"{names.mqtt('{site}/#')}:{names.kafka('k')}.{{site}}"
    away = f"127.0.0.1:{free_port()}"
    settings = {"topic_list": "", "wildcard_topic_list": mapping, "routes_max_topics": most_topics}
    with ScriptedBroker() as broker, SmallBridge(group, tmp_path, broker.port, away, "", **settings) as bridge:
        broker.wait_for_subscriptions(1)
        log, largest_bytes = bridge.log_path.read_text(), bridge.largest_packet_bytes
    assert (f"up to {most_topics} Kafka topics may be in use" in log) != fits
    assert (str(LIMIT_MEBIBYTES * 1024 * 1024) in log and "lower ROUTES_MAX_TOPICS" in log) != fits
    assert 25 * MEGABYTE < largest_bytes < 35 * MEGABYTE if fits else largest_bytes == 1024 * 1024
