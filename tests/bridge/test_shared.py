"""Shared subscriptions: several workers on one stream, and what a change of group or mappings does to it."""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict

import pytest

from tests.support.oracle import Verdict, parse, read, wait_until
from tests.support.scripted_broker import CONNECT, PUBACK, SUBSCRIBE, UNSUBSCRIBE, ScriptedBroker, packet_of
from tests.support.system import Bridge, Publisher, Traffic
from tools.brokers import Mosquitto

NOT_AUTHORIZED, IDENTIFIER_IN_USE = 0x87, 0x91


# --- what is sent; with a scripted broker


def mapping(names, *levels):
    """Return mappings of filters to the test's Kafka topic."""
    return ",".join(f"{names.mqtt(level)}:{names.kafka()}" for level in levels)


def test_a_group_that_changes_or_is_unset_leaves_no_subscription_behind(kafka, names, tmp_path):
    """P3: the table remembers the filters as subscribed; what was queued for the old ones is kept."""
    kafka.create_topic(names.kafka())
    plain = names.mqtt("#")
    with ScriptedBroker() as broker:
        identifiers = []
        groups = [{"mqtt_shared_group": "one"}, {"mqtt_shared_group": "two"}, {}]
        for connection, settings in enumerate(groups):
            with Bridge(tmp_path, broker.port, kafka.bootstrap, mapping(names, "#"), **settings):
                subscription = broker.wait_for_subscriptions(1, connection=connection)[0]
                identifiers.append(subscription.identifier)
                wait_until(lambda count=connection: len(broker.unsubscriptions) == count, "UNSUBSCRIBE")
                broker.publish(names.mqtt("a"), b"%d" % connection, 1, 1, subscriptions=(identifiers[0],))
                broker.wait_for(PUBACK, connection + 1)
            broker.script.session_present = True
        assert [subscription.topic_filter for subscription in broker.subscriptions] == [
            f"$share/one/{plain}", f"$share/two/{plain}", plain,
        ]  # fmt: skip
        assert broker.unsubscriptions == [f"$share/one/{plain}", f"$share/two/{plain}"]
        assert not any(subscription.options & 4 for subscription in broker.subscriptions), "No Local [MQTT-3.8.3-4]"
        oracle = read(kafka.bootstrap, [names.kafka()], 3)
        assert [record.value for record in oracle.records] == [b"0", b"1", b"2"]


class Once(dict):
    """Reasons that are given once."""

    def get(self, name, default):
        return self.pop(name, default)


def test_the_old_subscription_stays_until_the_new_one_is_granted(kafka, names, tmp_path):
    """P1: without either, the broker would queue nothing for the worker meanwhile."""
    kafka.create_topic(names.kafka())
    with ScriptedBroker() as broker:
        with Bridge(tmp_path, broker.port, kafka.bootstrap, mapping(names, "#")):
            broker.wait_for_subscriptions(1)
            broker.publish(names.mqtt("a"), b"", 1, 1)
            broker.wait_for(PUBACK)
        broker.script.session_present = True
        broker.script.refused_filters = Once({f"$share/one/{names.mqtt('#')}": IDENTIFIER_IN_USE})
        with Bridge(tmp_path, broker.port, kafka.bootstrap, mapping(names, "#"), mqtt_shared_group="one"):
            broker.wait_for(UNSUBSCRIBE)
        kinds = [packet.kind for packet in broker.packets if packet.connection == 1]
        first = kinds.index(UNSUBSCRIBE)
        assert kinds[:first].count(SUBSCRIBE) == 3, "refused, granted, and once more under the new identifiers"
        assert SUBSCRIBE not in kinds[first:]


def test_a_subscription_that_the_broker_does_not_give_up_is_tried_again(kafka, names, tmp_path):
    """P3: a worker that has left a group would get its part of it for ever."""
    kafka.create_topic(names.kafka())
    plain = names.mqtt("#")
    with ScriptedBroker() as broker:
        for kept, asked in [({}, 0), ({plain: NOT_AUTHORIZED}, 1), (Once({plain: IDENTIFIER_IN_USE}), 3), ({}, 3)]:
            broker.script.kept_filters = kept
            group = {"mqtt_shared_group": "one"} if kept or asked else {}
            with Bridge(tmp_path, broker.port, kafka.bootstrap, mapping(names, "#"), **group):
                wait_until(lambda asked=asked: broker.unsubscriptions == [plain] * asked, f"{asked} UNSUBSCRIBE")
                broker.publish(names.mqtt("a"), b"", 1, 1)
                broker.wait_for(PUBACK, connection=broker.connections - 1)
            broker.script.session_present = True
        assert broker.unsubscriptions == [plain] * 3


@pytest.mark.parametrize(
    ("answer", "explanation"),
    [
        (b"\x20\x02\x00\x01", "MQTT_SHARED_GROUP needs MQTT 5"),
        (packet_of(0x20, b"\x00\x00\x02\x2a\x00"), "the MQTT broker has no shared subscriptions"),
    ],
    ids=["MQTT 3.1.1 only", "not available"],
)
def test_a_broker_without_shared_subscriptions_is_named_and_asked_again(answer, explanation, kafka, names, tmp_path):
    """P4: a plain subscription instead would take everything, in each worker."""
    kafka.create_topic(names.kafka())
    with ScriptedBroker() as broker:
        broker.script.refusals.append(answer)
        settings = {"mqtt_shared_group": "group"}
        with Bridge(tmp_path, broker.port, kafka.bootstrap, mapping(names, "#"), **settings) as bridge:
            broker.wait_for_subscriptions(1, connection=1)
            assert explanation in bridge.log_path.read_text()
            assert [packet.body[6] for packet in broker.received(CONNECT)] == [5, 5]
            assert [subscription.connection for subscription in broker.subscriptions] == [1]


# --- two workers; with real brokers


def two_workers(broker, kafka, names, tmp_path, mappings):
    """Return two workers of one group, to be started."""
    return [
        Bridge(tmp_path / name, broker.port, kafka.bootstrap, mappings, mqtt_shared_group=names.prefix)
        for name in ("one", "two")
    ]


@contextlib.contextmanager
def a_group_at_work(kafka, names, tmp_path):
    """Give a publisher at a broker of its own, and the two workers there; all of them are started."""
    kafka.create_topic(names.kafka())
    with Mosquitto(tmp_path / "mosquitto") as broker:
        first, second = two_workers(broker, kafka, names, tmp_path, mapping(names, "#"))
        with first, second, Publisher(broker.port) as publisher:
            yield publisher, first, second


def numbers_by_worker(oracle):
    """Return the numbers of the messages in Kafka's order, by MQTT topic and the worker that took them."""
    numbers = defaultdict(list)
    for record in oracle.records:
        topic, number = parse(record.value)
        numbers[topic, record.headers["connector-id"].split(b"/")[0]].append(number)
    return numbers


def test_two_workers_share_a_stream_while_one_is_stopped_and_started(kafka, names, tmp_path):
    """P1, P2 and P3: each message once; in order as far as it went through one worker."""
    with a_group_at_work(kafka, names, tmp_path) as (publisher, first, second):
        with Traffic(publisher, names.prefix, rate=500):
            first.wait_for_progress(300)
            first.stop()
            assert first.exit_status == 0
            second.wait_for_progress(500)
            first.start()
            first.wait_for_progress(500)
        oracle = read(kafka.bootstrap, [names.kafka()], sum(publisher.sent.values()))
        verdict = oracle.verdict(publisher.sent)
        assert verdict == Verdict(reordered=verdict.reordered), "no order is promised between workers"
        numbers = numbers_by_worker(oracle)
        assert len(numbers) == 10, "both workers had messages of each of the five MQTT topics"
        assert all(found == sorted(found) for found in numbers.values())
        for worker in (first, second):
            assert worker.total("connector_received_total") > 300
            worker.assert_balanced()


def test_what_a_stopped_worker_was_given_waits_for_it(kafka, names, tmp_path):
    """P1: Mosquitto goes on giving it its part, which nobody else gets."""
    with a_group_at_work(kafka, names, tmp_path) as (publisher, first, second):
        first.stop()
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: second.total("connector_delivered_total") == 50, "every second message")
        first.start()
        oracle = read(kafka.bootstrap, [names.kafka()], 100)
        assert (oracle.lost(publisher.sent), oracle.duplicates()) == (0, 0)
        assert [first.total("connector_received_total"), second.total("connector_received_total")] == [50, 50]


def test_overlapping_filters_of_a_group_give_one_record_at_the_first_match(mosquitto, kafka, names, tmp_path):
    """P4: copies go to either worker, of which one is older than the first match's filter, the other not."""
    for name in ("records", "first"):
        kafka.create_topic(names.kafka(name))
    topic = names.mqtt("a/b")
    with contextlib.ExitStack() as stack:
        workers = two_workers(mosquitto, kafka, names, tmp_path, mapping(names, "a/+"))
        publisher = stack.enter_context(Publisher(mosquitto.port))
        stack.enter_context(workers[0])
        publisher.publish_many([topic], 100)
        wait_until(lambda: workers[0].total("connector_delivered_total") == 100, "the first 100")
        workers[0].stop()
        publisher.publish_many([topic], 100)  # queued with one copy each
        for worker in workers:
            worker.settings["TOPIC_LIST"] = f"{topic}:{names.kafka('first')}"
        workers[0].start()
        stack.enter_context(workers[1])
        publisher.publish(names.mqtt("a/c"))  # now it is the turn of the one for a/b and of the other for a/+
        publisher.publish_many([topic], 1_000)
        oracle = read(kafka.bootstrap, [names.kafka("records"), names.kafka("first")], 1_201)
        assert (oracle.lost(publisher.sent), oracle.duplicates()) == (0, 0)
        assert sum(record.topic == names.kafka("first") for record in oracle.records) == 1_100, "the first match's"
        for worker in workers:
            assert worker.total("connector_received_total") >= 500, "a copy that is dropped is not received"
            worker.assert_balanced()


def test_a_worker_of_a_group_that_lost_its_directory_says_so_and_doubles_nothing_that_comes_then(
    mosquitto, kafka, names, tmp_path
):
    """P4: it has the session of the one before it, and no record of when its filters were subscribed to."""
    kafka.create_topic(names.kafka())
    topic = names.mqtt("a/b")
    with contextlib.ExitStack() as stack:
        workers = two_workers(mosquitto, kafka, names, tmp_path, mapping(names, "a/+"))
        publisher = stack.enter_context(Publisher(mosquitto.port))
        for worker in workers:
            worker.settings["TOPIC_LIST"] = f"{topic}:{names.kafka()}"
            stack.enter_context(worker)
        workers[0].stop()
        shutil.rmtree(workers[0].settings["DB_PERSIST_PATH"])
        workers[0].start()
        assert "but the data directory has no record of it" in workers[0].log_path.read_text()
        for offset in range(2):  # it is the turn of either one for a/b
            publisher.publish_many([topic], 500)
            publisher.publish_many([names.mqtt("a/c")], 1 + offset)
        oracle = read(kafka.bootstrap, [names.kafka()], 1_003)
        assert (oracle.lost(publisher.sent), oracle.duplicates()) == (0, 0)
