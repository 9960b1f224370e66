"""The drain: a worker that is to go leaves its subscriptions, and gives Kafka everything before the command ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.support.oracle import Verdict, read, wait_until
from tests.support.other_brokers import HiveMQ
from tests.support.scripted_broker import CONNECT, PUBACK, ScriptedBroker
from tests.support.system import Bridge, Publisher, UnreadyBridge, frozen, publishing
from tests.unit.test_drain import DRAINED
from tools.brokers import Kafka, Mosquitto

LIMIT_BYTES = 1_048_576
# What nobody's rights keep from root: it is imported as oneself, as the interpreter may be one's own as well.
AS_ANOTHER_USER = """\
import os
import app.main
from faust.cli.faust import cli
if os.geteuid() == 0:
    os.seteuid(65_534)
cli()
"""


@contextlib.contextmanager
def draining(bridge, *arguments, program=("-m", "faust"), **options):
    """Run `drain` beside a worker, or without one, while the body runs; give its process."""
    command = [sys.executable, *program, "-A", "app.main", "drain", *arguments]
    process = subprocess.Popen(
        command, env=dict(bridge.environment()), text=True,
        cwd=bridge.directory, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def drain(bridge, *arguments):
    """Run `drain` to its end; return exit code and what it said."""
    with draining(bridge, *arguments) as process:
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


def reasons(bridge):
    return json.loads(bridge.get("/health/ready")[1])["reasons"]


def wait_until_unsubscribed(bridge):
    wait_until(lambda: "unsubscribed from everything" in bridge.log_path.read_text(), "the end of the subscriptions")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_drain_ends_when_kafka_has_everything_and_the_next_start_subscribes_again(
    version, mosquitto, tmp_path, names
):
    """P1, P2 and P3: nothing of before is lost, nothing new is taken; also if the drained worker is killed."""
    kafka = Kafka(tmp_path / "kafka")
    mapping = f"{names.mqtt('#')}:records"
    with (
        Bridge(tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, mapping, mqtt_version=version) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        topics = [names.mqtt(str(number)) for number in range(5)]
        publisher.publish_many(topics, 3_000)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 3_000, "a table with all of them")
        with draining(bridge) as process:
            wait_until_unsubscribed(bridge)
            assert reasons(bridge) == [DRAINED]
            assert bridge.total("connector_draining") == 1, "no alert calls for somebody"
            with Publisher(mosquitto.port) as stranger:
                stranger.publish_many([names.mqtt("nobody-gets-it")], 100)
            assert process.poll() is None, "Kafka is away"
            with kafka:
                kafka.create_topic("records")
                out, err = process.communicate(timeout=60)
                assert (process.returncode, err) == (0, "")
                assert "3,000 messages wait" in out
                assert out.splitlines()[-1].startswith("drained: Kafka has everything")
                assert (
                    bridge.total("connector_undelivered_messages") == bridge.total("connector_in_flight_messages") == 0
                )
                read(kafka.bootstrap, ["records"], 3_000).assert_each_once_in_order(publisher.sent)
                assert bridge.total("connector_received_total") == 3_000
                assert (bridge.get("/health/live")[0], reasons(bridge)) == (200, [DRAINED])
                assert bridge.status_page()["findings"][0]["text"].startswith("The worker is drained")
                bridge.assert_balanced()

                bridge.kill()
                bridge.start()
                publisher.publish_many(topics, 500)
                read(kafka.bootstrap, ["records"], 3_500).assert_each_once_in_order(publisher.sent)
                assert bridge.get("/health/ready")[0] == 200
                assert bridge.total("connector_draining") == 0


@pytest.mark.parametrize(("kind", "messages"), [(Mosquitto, 6_000), (HiveMQ, 4_000)], ids=["mosquitto", "hivemq"])
def test_what_the_broker_had_queued_still_comes_in_a_drain(kind, messages, tmp_path, names):
    """P1, P2 and P3: the session has thousands of messages when the subscriptions end, as the table is full."""
    kafka = Kafka(tmp_path / "kafka")
    with (
        kind(tmp_path / "broker") as broker,
        Bridge(
            tmp_path / names.client_id, broker.port, kafka.bootstrap, f"{names.mqtt('#')}:records",
            undelivered_max_bytes=LIMIT_BYTES, mqtt_receive_maximum=100,
        ) as bridge,
        Publisher(broker.port) as publisher,
    ):  # fmt: skip
        # Faster, and mosquitto 2.0.11 sends so much more than Receive Maximum that the worker reads no UNSUBACK either.
        publisher.publish_many([names.mqtt(str(number)) for number in range(5)], messages, 2_000, size_bytes=200)
        wait_until(lambda: any("the table is full" in reason for reason in reasons(bridge)), "a full table")
        with draining(bridge) as process:
            wait_until_unsubscribed(bridge)
            assert bridge.total("connector_received_total") < messages * 0.9, "the rest is in the broker's queue"
            with kafka:
                kafka.create_topic("records")
                _, err = process.communicate(timeout=90)
                assert (process.returncode, err) == (0, "")
                assert bridge.total("connector_undelivered_messages") == 0
                verdict = read(kafka.bootstrap, ["records"], messages).verdict(publisher.sent)
                assert verdict == Verdict()
                bridge.assert_balanced()


def test_a_broker_that_has_fallen_silent_does_not_count_as_empty(tmp_path, names):
    """It may have anything for this worker; once it answers again, the drain ends."""
    kafka = Kafka(tmp_path / "kafka")
    with (
        Mosquitto(tmp_path / "mosquitto") as broker,
        Bridge(tmp_path / "bridge", broker.port, kafka.bootstrap, f"{names.mqtt('#')}:records") as bridge,
        Publisher(broker.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 10)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 10, "a table with all of them")
        with draining(bridge) as process:
            wait_until_unsubscribed(bridge)
            with kafka:
                with frozen(broker):
                    kafka.create_topic("records")
                    wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
                    unanswered = (line for line in iter(process.stdout.readline, "") if "has not answered yet" in line)
                    assert len(list(itertools.islice(unanswered, 5))) == 5, "else the drain has ended"
                _, err = process.communicate(timeout=60)
                assert (process.returncode, err) == (0, "")


def test_a_worker_that_is_drained_leaves_its_group_and_the_other_gets_everything(kafka, names, tmp_path):
    """P1 and P3: under traffic, and when the drained worker is gone for good."""
    kafka.create_topic(names.kafka())
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(tmp_path / "mosquitto"))
        first, second = (
            stack.enter_context(
                Bridge(
                    tmp_path / name, broker.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}",
                    mqtt_shared_group="group",
                )
            )
            for name in ("first", "second")
        )  # fmt: skip
        publisher = stack.enter_context(Publisher(broker.port))
        with publishing(publisher, names, 4_000, 400):
            first.wait_for_progress(300)
            code, out, err = drain(first)
            assert (code, err) == (0, ""), out
            received = first.total("connector_received_total")
            first.stop()
        publisher.publish_many([names.mqtt("0")], 200)
        verdict = read(kafka.bootstrap, [names.kafka()], 4_200).verdict(publisher.sent)
        assert verdict == Verdict(reordered=verdict.reordered), "no order is promised between workers"
        assert received + second.total("connector_received_total") == 4_200


def test_ctrl_c_and_a_timeout_end_the_waiting_and_say_what_the_worker_does(mosquitto, tmp_path, names):
    """The drain itself goes on; the same command waits for it again."""
    kafka = Kafka(tmp_path / "kafka")
    mapping = f"{names.mqtt('#')}:records"
    with (
        Bridge(tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, mapping) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 100, "a table with all of them")
        for number in (signal.SIGINT, signal.SIGTERM):
            with draining(bridge) as process:
                assert process.stdout.readline()
                wait_until(
                    lambda process=process: "Kafka is not reachable" in process.stdout.readline(), "what it waits for"
                )
                process.send_signal(number)
                _, err = process.communicate(timeout=20)
            assert process.returncode == 1
            assert "the waiting ends, the drain does not" in err
            assert "100 messages wait" in err and "Kafka is not reachable" in err and "Traceback" not in err
        code, _, err = drain(bridge, "--timeout-seconds", "1.5")
        assert code == 1
        assert "not drained within 1.5 s. The worker runs on, is subscribed to nothing, and 100 messages wait" in err
        assert reasons(bridge) == [DRAINED]
        bridge.stop()
        assert bridge.exit_status == 0
        code, _, err = drain(bridge)
        assert code == 1
        assert "no worker runs on" in err and "start it" in err


def test_on_a_terminal_the_drain_is_a_bar(mosquitto, kafka, tmp_path, names):
    """For people; what it says is what the lines say."""
    kafka.create_topic(names.kafka())
    terminal, end = pty.openpty()
    with (
        Bridge(tmp_path / "b", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}") as bridge,
        draining(bridge, stdout=end) as process,
    ):
        os.close(end)
        shown = b""
        # Read while it runs: a drain that takes long would wait for room in a terminal that nobody reads.
        with contextlib.suppress(OSError):  # its end
            while data := os.read(terminal, 65536):
                shown += data
        assert process.wait(60) == 0
    os.close(terminal)
    assert b"\rdrain  [####################################]  100%  0 messages wait" in shown.replace(b"\x1b[?25l", b"")
    assert b"drained: Kafka has everything" in shown


@pytest.mark.parametrize(("directory", "said"), [("", "DB_PERSIST_PATH is not set"), ("nowhere", "no worker runs on")])
def test_a_drain_that_finds_no_worker_says_what_to_do(directory, said, tmp_path, names):
    """It cannot be done without one, as it takes Kafka and the session."""
    path = str(tmp_path / directory) if directory else ""
    bridge = Bridge(tmp_path / "bridge", 1, "127.0.0.1:1", f"{names.mqtt('#')}:a", db_persist_path=path)
    bridge.directory.mkdir(exist_ok=True)
    code, _, err = drain(bridge)
    assert (code, "Traceback" in err) == (1, False)
    assert said in err


def test_a_data_directory_of_another_user_has_an_exit_code_of_its_own(tmp_path, names):
    """The socket is the worker's user's alone."""
    bridge = Bridge(tmp_path / "bridge", 1, "127.0.0.1:1", f"{names.mqtt('#')}:a")
    closed = tmp_path / "bridge" / "data"
    closed.mkdir(mode=0, parents=True)
    with draining(bridge, program=["-c", AS_ANOTHER_USER]) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert f"DB_PERSIST_PATH {closed} cannot be used: Permission denied" in err


def test_the_filters_are_left_youngest_first_and_again_on_a_new_connection(tmp_path):
    """Nothing is subscribed to any more; what the broker refuses to let go is said, and the drain does not end."""
    with (
        ScriptedBroker() as broker,
        Bridge(tmp_path / "bridge", broker.port, "127.0.0.1:1", "a/b:records,a/+:records") as bridge,
    ):
        broker.script.kept_filters["a/+"] = 0x83
        code, _, err = drain(bridge, "--timeout-seconds", "5")
        assert code == 1
        assert "does not end these subscriptions" in err and "has not been unsubscribed yet" in err
        assert broker.unsubscriptions == ["a/+", "a/b"]
        del broker.script.kept_filters["a/+"]
        subscribed = len(broker.subscriptions)
        broker.close_connection()  # and its session is lost with it
        broker.wait_for(CONNECT, 2)
        wait_until_unsubscribed(bridge)
        assert (broker.unsubscriptions[2:], len(broker.subscriptions)) == (["a/+"], subscribed)
        assert drain(bridge)[0] == 0


def test_what_was_queued_before_a_filter_was_granted_is_not_lost_with_a_drain(tmp_path):
    """P1: the filter that is granted only now comes first, but what is queued has no copy of it."""
    with (
        ScriptedBroker(refused_filters={"a/b": 0x87}) as broker,
        UnreadyBridge(tmp_path / "bridge", broker.port, "127.0.0.1:1", "a/b:records,a/+:records") as bridge,
    ):
        granted = broker.wait_for_subscriptions(2)[1]
        wait_until(lambda: "refused the filter" in str(reasons(bridge)), "the refusal")
        assert drain(bridge)[0] == 0
        bridge.stop()
        broker.script.refused_filters.clear()
        broker.script.session_present = True
        bridge.start()
        broker.wait_for_subscriptions(2, connection=1)
        broker.publish("a/b", b"queued", 1, 7, subscriptions=(granted.identifier,))
        broker.wait_for(PUBACK)
        assert bridge.total("connector_undelivered_messages") == 1
