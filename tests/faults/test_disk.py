"""A disk that is full, slow, read-only or reports errors: nothing acknowledged is lost, and the bridge goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re

import pytest

from tests.support.disk import InjectedBridge, LoopDisk, run
from tests.support.fault_proxy import FaultProxy
from tests.support.oracle import duplicates_allowed, read, wait_until
from tests.support.proxied_protocols import TO_SERVER
from tests.support.scripted_broker import CONNECT, PINGREQ, PUBACK
from tests.support.system import Bridge, Publisher, Traffic
from tests.unit.test_damage import flip, the_file
from tools.brokers import ProcessError

MEBIBYTE = 1024 * 1024


def is_empty(bridge: Bridge) -> bool:
    """Tell whether the table is; a worker that does not answer has not said so."""
    undelivered = bridge.metrics()["connector_undelivered_messages"]
    return bool(undelivered) and sum(undelivered.values()) == 0


def bridge_on(disk: LoopDisk, mosquitto, kafka, names, kind: type[Bridge] = Bridge, **settings: object) -> Bridge:
    """Return a worker with its data on a disk, which stores every message, as its topic is missing at first."""
    return kind(
        disk.path.parent / "bridge", mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}",
        db_persist_path=disk.path / "data", store_after_ms=0, **settings,
    )  # fmt: skip


def stored(bridge: Bridge) -> float:
    return bridge.total("connector_store_seconds_count")


def assert_everything_arrives(bridge: Bridge, kafka, names, publisher: Publisher, duplicates_at_most: int = 0) -> None:
    """Create the topic if it is missing; all that was published must arrive in order, and the accounts balance."""
    if names.kafka() not in kafka.admin().list_topics(timeout=10).topics:
        kafka.create_topic(names.kafka())
    read(kafka.bootstrap, [names.kafka()], publisher.sent).assert_nothing_lost(publisher.sent, duplicates_at_most)
    wait_until(lambda: is_empty(bridge), "an empty table")
    bridge.assert_balanced()


def test_a_disk_that_fills_up_stops_the_acknowledging_and_not_the_worker(mosquitto, kafka, names, tmp_path):
    """P1, P3 and P6: it says so, drains all the same, and goes on when there is room, without a restart."""
    with (
        LoopDisk(tmp_path) as disk,
        bridge_on(disk, mosquitto, kafka, names) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 2_000)
        wait_until(lambda: stored(bridge) == 2_000, "2,000 stored messages")
        filler = disk.fill(leave_bytes=20 * MEBIBYTE)
        wait_until(lambda: bridge.get("/health/ready")[0] == 503, "a worker that is not ready")
        publisher.publish_many([names.mqtt("a")], 3_000)
        wait_until(lambda: bridge.total("connector_in_flight_messages") >= 1_000, "messages that wait")
        reasons = json.loads(bridge.get("/health/ready")[1])["reasons"]
        assert reasons == ["the disk of DB_PERSIST_PATH is full"]
        assert bridge.get("/health/live")[0] == 200, "a restart would not help"
        assert stored(bridge) == 2_000, "nothing more is stored, so nothing more is acknowledged"
        bridge.assert_balanced()

        pid = bridge.pid
        kafka.create_topic(names.kafka())
        read(kafka.bootstrap, [names.kafka()], 2_000)
        filler.unlink()
        wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a worker that is ready again")
        assert_everything_arrives(bridge, kafka, names, publisher)
        wait_until(lambda: "the disk of DB_PERSIST_PATH has room again" in bridge.log_path.read_text(), "the good news")
        assert bridge.running and bridge.pid == pid


def test_a_disk_that_is_full_to_the_last_byte_loses_nothing(mosquitto, kafka, names, tmp_path):
    """P1 and P2: killed there, it starts only when there is room, and until then says why not."""
    with (
        LoopDisk(tmp_path) as disk,
        bridge_on(disk, mosquitto, kafka, names) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many([names.mqtt("a")], 2_000)
        wait_until(lambda: stored(bridge) == 2_000, "2,000 stored messages")
        fillers = [disk.fill()]
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: not (disk.path / "data" / "ballast").exists(), "a ballast file that was given up")
        assert bridge.running
        fillers.append(disk.fill("second filler"))
        publisher.publish_many([names.mqtt("a")], 2_000)
        kafka.create_topic(names.kafka())
        bridge.kill()
        with pytest.raises(ProcessError, match=r"(?s)status 3.*the disk is full; free some space"):
            bridge.start()
        for filler in fillers:
            filler.unlink()
        bridge.start()
        assert_everything_arrives(bridge, kafka, names, publisher, duplicates_allowed(crashes=1, in_flight=0))


@pytest.mark.parametrize("sync", [8, 15, 40])
def test_a_sync_that_fails_acknowledges_nothing_and_ends_the_worker(sync, mosquitto, kafka, names, tmp_path):
    """P1: what the disk holds after a failed sync is unknown; the next start finds out."""
    with LoopDisk(tmp_path) as disk, Publisher(mosquitto.port) as publisher:
        bridge = bridge_on(disk, mosquitto, kafka, names, InjectedBridge)
        assert isinstance(bridge, InjectedBridge)
        bridge.injection = f"fdatasync:error=EIO:when={sync}"
        with bridge:
            # How many messages a sync covers depends on the machine.
            with Traffic(publisher, names.prefix, rate=3_000):
                wait_until(lambda: not bridge.running, "a worker that ended")
            bridge.stop()
            assert bridge.exit_status == 1
            assert "the table cannot be synced" in bridge.log_path.read_text()
            bridge.injection = ""
            bridge.start()
            assert_everything_arrives(bridge, kafka, names, publisher, duplicates_allowed(crashes=1, in_flight=0))


def test_a_disk_that_fails_every_sync_is_said_at_each_start(mosquitto, kafka, names, tmp_path):
    """P1: it neither hangs nor accepts anything; with a sound disk it goes on."""
    with LoopDisk(tmp_path) as disk, Publisher(mosquitto.port) as publisher:
        bridge = bridge_on(disk, mosquitto, kafka, names, InjectedBridge)
        assert isinstance(bridge, InjectedBridge)
        with bridge:
            publisher.publish_many([names.mqtt("a")], 100)
            wait_until(lambda: stored(bridge) == 100, "100 stored messages")
            bridge.stop()
            publisher.publish_many([names.mqtt("a")], 100)
            bridge.injection = "fdatasync:error=EIO:when=1+"
            with pytest.raises(ProcessError, match=r"ended with status [13] before it was ready"):
                bridge.start()
            bridge.injection = ""
            bridge.start()
            assert_everything_arrives(bridge, kafka, names, publisher)


def pings_without_acknowledgements(proxy: FaultProxy) -> int:
    """Return how many PINGREQ the worker has sent since its last PUBACK."""
    kinds = [frame.kind for frame in reversed(list(proxy.frames)) if frame.direction is TO_SERVER]
    return list(itertools.takewhile(lambda kind: kind != PUBACK, kinds)).count(PINGREQ)


def test_a_disk_that_hangs_holds_up_neither_pings_nor_pages(mosquitto, kafka, names, tmp_path):
    """P1 and P3: one sync takes 16 seconds; the connection lives on, and nothing is acknowledged meanwhile."""
    with LoopDisk(tmp_path) as disk, Publisher(mosquitto.port) as publisher, FaultProxy(mosquitto.port) as proxy:
        bridge = bridge_on(disk, proxy, kafka, names, InjectedBridge, mqtt_keepalive_sec=5)
        assert isinstance(bridge, InjectedBridge)
        bridge.injection = f"fdatasync:delay_exit={16_000_000}:when=12"
        with bridge:
            with Traffic(publisher, names.prefix, rate=1_000):
                # Behind the hanging sync acknowledgements stand still, while the connection is kept alive.
                wait_until(lambda: pings_without_acknowledgements(proxy) >= 2, "two PINGREQ while the disk hangs")
                assert bridge.get("/health/live")[0] == 200
                bridge.assert_balanced()
            messages = sum(publisher.sent.values())
            wait_until(lambda: len(proxy.seen(TO_SERVER, PUBACK)) == messages, "all acknowledgements")
            assert len(proxy.seen(TO_SERVER, CONNECT)) == 1, "one connection for all of it"
            assert_everything_arrives(bridge, kafka, names, publisher)


def test_a_slow_disk_only_makes_it_slower(mosquitto, kafka, names, tmp_path):
    """P1, P2 and P3: half a second for each sync, and still everything once and in order."""
    with LoopDisk(tmp_path) as disk, Publisher(mosquitto.port) as publisher:
        bridge = bridge_on(disk, mosquitto, kafka, names, InjectedBridge)
        assert isinstance(bridge, InjectedBridge)
        bridge.injection = "fdatasync:delay_exit=500000"
        with bridge:
            publisher.publish_many([names.mqtt("a")], 5_000, 3_000)
            wait_until(lambda: stored(bridge) == 5_000, "5,000 stored messages")
            assert_everything_arrives(bridge, kafka, names, publisher)


def test_a_read_only_disk_is_said_in_a_sentence(mosquitto, kafka, names, tmp_path):
    """Exit code 3 before MQTT is touched; writable again, it goes on."""
    with LoopDisk(tmp_path) as disk, Publisher(mosquitto.port) as publisher:
        bridge = bridge_on(disk, mosquitto, kafka, names)
        with bridge:
            publisher.publish_many([names.mqtt("a")], 100)
            wait_until(lambda: stored(bridge) == 100, "100 stored messages")
            bridge.stop()
            run("mount", "-o", "remount,ro", disk.path)
            with pytest.raises(ProcessError, match=r"(?is)status 3.*DB_PERSIST_PATH .* read-only file system"):
                bridge.start()
            run("mount", "-o", "remount,rw", disk.path)
            bridge.start()
            assert_everything_arrives(bridge, kafka, names, publisher)


@pytest.mark.parametrize(("pattern", "messages"), [("*.log", 5_000), ("*.sst", 80_000)])
def test_damaged_files_cost_what_is_counted_and_the_rest_arrives_in_order(
    pattern, messages, mosquitto, kafka, names, tmp_path
):
    """P1, P2 and P8: killed, a bit flipped; `connector_lost_messages` is exactly what is missing in Kafka."""
    chance = random.Random(7)
    bridge = Bridge(tmp_path, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:{names.kafka()}", store_after_ms=0)
    with Publisher(mosquitto.port) as publisher, bridge:
        publisher.publish_many([names.mqtt("a")], messages, 20_000)
        wait_until(lambda: stored(bridge) == messages, f"{messages} stored messages")
        bridge.kill()
        file = the_file(tmp_path / "data", pattern)
        flip(file, int(file.stat().st_size * chance.uniform(0.3, 0.7)))
        kafka.create_topic(names.kafka())
        # Damage within a table file shows when it is read: the worker ends, and the next start deals with it.
        with contextlib.suppress(ProcessError):
            bridge.start()
            wait_until(lambda: not bridge.running or is_empty(bridge), "an end of it")
        if not bridge.running:
            bridge.stop()
            assert bridge.exit_status == 1
            bridge.start()
        wait_until(lambda: is_empty(bridge), "an empty table")
        lost = bridge.total("connector_lost_messages")
        assert 0 < lost < messages / 2, "a write that is damaged is lost as a whole"
        bridge.assert_balanced()
        oracle = read(kafka.bootstrap, [names.kafka()], int(messages - lost))
        verdict = oracle.verdict(publisher.sent)
        assert (verdict.lost, verdict.reordered, verdict.corrupted, verdict.spurious) == (lost, 0, 0, 0)
        log = bridge.log_path.read_text()
        assert re.search(r"\d+ messages (of .* )?are lost by damage", log)
        assert list((tmp_path / "data").glob("damaged-*"))
