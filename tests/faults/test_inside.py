"""Faults inside the process: code that raises, blocks, or is never called; signals; too few open files.

Each has a real worker in which one function fails on purpose (`failing_worker`). What counts is that nothing
acknowledged is lost, and that no part of the worker ends in silence while the rest goes on.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.support.failing_worker import BROKEN, FailingBridge
from tests.support.oracle import duplicates_allowed, read, wait_until
from tests.support.scripted_broker import PINGREQ, PUBACK, ScriptedBroker
from tests.support.system import Publisher
from tools.brokers import Mosquitto, free_port

WINDOW = 1_000  # MQTT_RECEIVE_MAXIMUM


def bridge_of(tmp_path, port, names, kafka, **settings) -> FailingBridge:
    """Return a bridge of one mapping, not started; Kafka is away if there is none."""
    bootstrap = f"127.0.0.1:{free_port()}"
    if kafka is not None:
        kafka.create_topic(names.kafka())
        bootstrap = kafka.bootstrap
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    return FailingBridge(
        tmp_path / names.client_id, port, bootstrap, mapping, mqtt_receive_maximum=WINDOW, **settings
    )  # fmt: skip


def wait_for_the_end(bridge) -> int:
    """Wait until the worker has ended by itself, and return its exit code."""
    wait_until(lambda: not bridge.running, "the end of the worker", 30)
    code = bridge._process.returncode
    bridge.stop()
    return code


# ---- code that raises


@pytest.mark.parametrize(
    "function",
    [
        "reader:PacketReader._parse",
        "reader:PacketReader._on_publish_packet",
        "client:BridgeClient.send_acknowledgements",
    ],
)
def test_an_error_on_the_mqtt_thread_costs_one_connection(function, mosquitto, kafka, names, tmp_path):
    """P1 and P2: the thread makes a new connection, and the broker sends again what was not acknowledged."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    bridge = bridge_of(tmp_path, mosquitto.port, names, kafka, function=f"app.mqtt.{function}")
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 100)
        bridge.begin()
        publisher.publish_many(topics, 500)
        wait_until(bridge.has_failed, "the error")
        publisher.publish_many(topics, 100)
        oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
        oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(connections_lost=1, window=WINDOW))
        log = bridge.log_path.read_text()
        assert log.count("the MQTT connection failed") == 1 and BROKEN in log
        wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a bridge that is ready")
        bridge.assert_balanced()
    assert bridge.exit_status == 0


# One function of each agent, each task, each timer and each callback of librdkafka that has to do with messages.
ENDING = [
    "agents.router:Router.route",
    "app.storage.writer:TableWriter.do",
    "app.storage.syncs:Syncs._after",
    "app.storage.replay_reader:ReplayReader.hand_over",
    "app.storage.replay_reader:ReplayReader.refill",
    "app.kafka.dispatcher:Dispatcher.look_at_all",
    "app.core.message:Message.on_delivery",
]
LISTENING = ["app.kafka.cluster:Cluster.note_statistics", "app.kafka.watch:Watch._log_connected"]


@pytest.mark.parametrize("function", ENDING, ids=lambda function: function.partition(":")[2])
def test_an_error_in_an_agent_a_timer_or_a_callback_ends_the_worker_with_its_cause(
    function, mosquitto, kafka, names, tmp_path
):
    """P1, P2 and P8: exit code 1, the cause in the log; the next start takes up everything."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    # With so little room at librdkafka some of each batch goes by way of the table, however fast Kafka is.
    bridge = bridge_of(
        tmp_path, mosquitto.port, names, kafka, function=function, store_after_ms=0,
        kafka_producer_config='{"statistics.interval.ms": 100, "queue.buffering.max.messages": 10}',
    )  # fmt: skip
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 200)
        bridge.begin()
        publisher.publish_many(topics, 2_000, 5_000)  # batch by batch, so that others follow the one that fails
        assert wait_for_the_end(bridge) == 1
        assert BROKEN in bridge.log_path.read_text()
        with bridge:
            oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
            bridge.assert_balanced()
    oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(crashes=1, window=WINDOW, in_flight=2_000))


@pytest.mark.parametrize("function", LISTENING, ids=lambda function: function.partition(":")[2])
def test_an_error_in_what_only_listens_to_kafka_ends_nothing(function, mosquitto, kafka, names, tmp_path):
    """P1, P2, P3 and P8: it holds no message, so the log has the cause and the messages go on."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    bridge = bridge_of(
        tmp_path, mosquitto.port, names, kafka, function=function,
        kafka_producer_config='{"statistics.interval.ms": 100}',
    )  # fmt: skip
    with bridge, Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 200)
        bridge.begin()
        wait_until(bridge.has_failed, "the error")
        publisher.publish_many(topics, 500)
        read(kafka.bootstrap, [names.kafka()], 700).assert_each_once_in_order(publisher.sent)
        assert BROKEN in bridge.log_path.read_text()
        bridge.assert_balanced()
    assert bridge.exit_status == 0


# ---- what is never called, or blocks


@pytest.mark.parametrize("orders", [["clear"], ["suspend", "resume"], ["suspend"]], ids="-".join)
def test_the_flow_control_of_faust_has_no_power_over_the_channels(orders, mosquitto, kafka, names, tmp_path):
    """P1, P2 and P3: Faust suspends and empties its queues for its own consumer, which is off here."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    bridge = bridge_of(tmp_path, mosquitto.port, names, kafka, store_after_ms=0)
    with bridge, Publisher(mosquitto.port) as publisher:
        for _ in range(10):
            publisher.publish_many(topics, 1_000)
            for order in orders:
                bridge.obey(order)
        publisher.publish_many(topics, 1_000)
        read(kafka.bootstrap, [names.kafka()], 11_000).assert_each_once_in_order(publisher.sent)
        bridge.assert_balanced()


def test_a_blocked_event_loop_costs_no_connection_and_no_message(kafka, names, tmp_path):
    """P3 and P9: the MQTT thread goes on with its pings for longer than the keepalive interval."""
    with (
        ScriptedBroker() as broker,
        bridge_of(
            tmp_path, broker.port, names, kafka, function="agents.router:Router.route", act="block",
            mqtt_keepalive_sec=5,
        ) as bridge,
    ):  # fmt: skip
        broker.wait_for_subscriptions(1)
        bridge.begin()
        broker.publish(names.mqtt("a"), b"1", 1, 1)
        wait_until(bridge.has_failed, "a blocked event loop")
        broker.publish(names.mqtt("a"), b"2", 1, 2)
        assert broker.identifiers(PUBACK) == [], "nothing becomes safe while the event loop stands still"
        broker.wait_for(PUBACK, 2)
        assert broker.connections == 1
        assert broker.received(PINGREQ)
        assert [record.value for record in read(kafka.bootstrap, [names.kafka()], 2).records] == [b"1", b"2"]
        bridge.assert_balanced()


def test_while_nobody_polls_librdkafka_everything_is_kept_and_acknowledged(mosquitto, kafka, names, tmp_path):
    """P1, P2 and P3: no delivery report comes, so all is late, stored and shown; later each is there once."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    function = "app.kafka.producer:KafkaProducer._called_back"
    with (
        bridge_of(tmp_path, mosquitto.port, names, kafka, function=function, act="skip") as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many(topics, 500)
        wait_until(lambda: bridge.total("connector_delivered_total") == 500, "500 delivered messages")
        bridge.begin()
        publisher.publish_many(topics, 2_000)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 2_000, "2,000 stored messages")
        wait_until(lambda: bridge.total("connector_in_flight_messages") == 0, "nothing in memory alone")
        bridge.assert_balanced()
        bridge.end()
        read(kafka.bootstrap, [names.kafka()], 2_500).assert_each_once_in_order(publisher.sent)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")


# ---- signals


def test_a_stop_while_the_table_drains_loses_and_repeats_nothing(mosquitto, kafka, names, tmp_path):
    """P2, P3 and P10: what Kafka confirmed is removed, the rest waits in its order for the next start."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    with Publisher(mosquitto.port) as publisher:
        with bridge_of(tmp_path, mosquitto.port, names, None) as bridge:
            publisher.publish_many(topics, 20_000)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 20_000, "20,000 stored messages")
        kafka.create_topic(names.kafka())
        # Five seconds for all, so that we are not too late though somebody stands still.
        bridge.settings |= {"KAFKA_BROKER": kafka.bootstrap, "REPLAY_MAX_RATE": "4000"}
        with bridge:
            wait_until(lambda: bridge.total("connector_delivered_total") > 1_000, "a table that drains")
            os.kill(bridge.pid, signal.SIGTERM)
            os.kill(bridge.pid, signal.SIGINT)
            assert wait_for_the_end(bridge) == 0
        del bridge.settings["REPLAY_MAX_RATE"]
        with bridge:
            assert 0 < bridge.total("connector_recovered_total") < 19_000
            read(kafka.bootstrap, [names.kafka()], 20_000).assert_each_once_in_order(publisher.sent)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")


# ---- open files


def test_without_any_file_left_to_open_messages_cross_and_later_it_connects_again(kafka, names, tmp_path):
    """P1, P2 and P3: what is open goes on; a connection that ends then is made again once a file may be opened."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    with (
        Mosquitto(tmp_path / "mosquitto") as broker,
        bridge_of(tmp_path, broker.port, names, kafka) as bridge,
    ):
        process = psutil.Process(bridge.pid)
        usual = process.rlimit(psutil.RLIMIT_NOFILE)
        with Publisher(broker.port) as publisher:
            publisher.publish_many(topics, 500)
            wait_until(lambda: bridge.total("connector_delivered_total") == 500, "500 delivered messages")
            process.rlimit(psutil.RLIMIT_NOFILE, (3, usual[1]))
            publisher.publish_many(topics, 500)
            read(kafka.bootstrap, [names.kafka()], 1_000).assert_each_once_in_order(publisher.sent)
            sent = publisher.sent
        broker.restart()
        with Publisher(broker.port) as publisher:
            publisher.sent = sent
            wait_until(lambda: "Too many open files" in bridge.log_path.read_text(), "a line that says why")
            publisher.publish_many(topics, 500)
            process.rlimit(psutil.RLIMIT_NOFILE, usual)
            read(kafka.bootstrap, [names.kafka()], 1_500).assert_each_once_in_order(sent)
            bridge.assert_balanced()
    assert bridge.exit_status == 0


def test_a_table_that_may_open_no_file_ends_the_worker_and_keeps_what_it_acknowledged(
    mosquitto, kafka, names, tmp_path
):
    """P1 and P2: it ends with a sentence, instead of acknowledging what is not on disk."""
    topics = [names.mqtt("a"), names.mqtt("b")]
    with Publisher(mosquitto.port) as publisher:
        with bridge_of(tmp_path, mosquitto.port, names, None) as bridge:
            publisher.publish_many(topics, 500)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 500, "500 stored messages")
            process = psutil.Process(bridge.pid)
            process.rlimit(psutil.RLIMIT_NOFILE, (3, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
            publisher.publish_many(topics, 15_000, size_bytes=2_000)  # more than a log file of the table takes
            assert wait_for_the_end(bridge) == 1
            assert "connector: the table" in bridge.log_path.read_text()
        kafka.create_topic(names.kafka())
        bridge.settings["KAFKA_BROKER"] = kafka.bootstrap
        with bridge:
            oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
        oracle.assert_nothing_lost(publisher.sent, duplicates_allowed(crashes=1, window=WINDOW, in_flight=0))
