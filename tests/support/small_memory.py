"""A worker in a control group of its own, whose memory is bounded by the kernel as in a container.

By itself (`python -m tests.support.small_memory --limit 512`, as root) it sends messages of many sizes, alone and as
floods, with Kafka there and away, and prints for each whether it was delivered or refused, and whether the kernel had
to kill.
With `--backlogs 200000x1000` it sends small messages instead, with Kafka away, and prints what they took of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.oracle import wait_until
from tests.support.scripted_broker import PUBACK, ScriptedBroker, publish_packet
from tests.support.system import Bridge
from tools.brokers import Kafka, free_port

MEBIBYTE = 1024 * 1024
LARGEST_RECORD_BYTES = 110_000_000
BACKLOG_BYTES, BACKLOG_LOT = 200, 10_000  # of a small message; sent before all are acknowledged
VERSION_1, VERSION_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_numbers = itertools.count(1)


class ControlGroup:
    """A control group with a memory limit, version 1 or 2, made where this process may."""

    def __init__(self, limit_bytes: int) -> None:
        """Make it.

        Raises:
            OSError: This process may not make any.
        """
        name = f"connector-test-{os.getpid()}-{next(_numbers)}"
        self.is_version_1 = (VERSION_1 / "memory.limit_in_bytes").exists()
        self.directory = (VERSION_1 if self.is_version_1 else VERSION_2) / name
        self.directory.mkdir()
        try:
            if self.is_version_1:
                (self.directory / "memory.limit_in_bytes").write_text(str(limit_bytes))
            else:
                (self.directory / "memory.max").write_text(str(limit_bytes))
                (self.directory / "memory.swap.max").write_text("0")
        except OSError:
            self.directory.rmdir()
            raise

    @property
    def kills(self) -> int:
        """How often the kernel killed a process of it for its memory."""
        file = "memory.oom_control" if self.is_version_1 else "memory.events"
        counts = dict(line.split() for line in (self.directory / file).read_text().splitlines())
        return int(counts["oom_kill"])

    def remove(self) -> None:
        """Remove it; its processes have ended."""
        wait_until(lambda: not (self.directory / "cgroup.procs").read_text().split(), "the end of the processes", 10)
        self.directory.rmdir()


@contextlib.contextmanager
def control_group(limit_mebibytes: int) -> Iterator[ControlGroup]:
    """Have a control group while the body runs."""
    group = ControlGroup(limit_mebibytes * MEBIBYTE)
    try:
        yield group
    finally:
        group.remove()


class SmallBridge(Bridge):
    """A worker in a control group."""

    def __init__(self, group: ControlGroup, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self._group = group

    def command(self) -> Sequence[str]:
        """Return the command line: a shell that enters the group and becomes the worker."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["/bin/sh", "-c", enter, str(self._group.directory / "cgroup.procs"), *super().command()]

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    @property
    def largest_packet_bytes(self) -> int:
        """What it said is the largest packet that it accepts."""
        return self.status_page()["mqtt"]["largest_packet_bytes"]


class Outcome:
    """What came of messages."""

    def __init__(self, bridge: SmallBridge) -> None:
        metrics = bridge.metrics()
        self.delivered = sum(metrics["connector_delivered_total"].values())
        self.undelivered = sum(metrics["connector_undelivered_messages"].values())
        self.refused = sum(metrics["connector_dropped_total"].values())
        self.dead = sum(metrics["connector_dead_lettered_total"].values())

    def __str__(self) -> str:
        kept = f"{self.delivered:.0f} delivered, {self.undelivered:.0f} stored"
        return f"{kept}, {self.refused:.0f} refused, {self.dead:.0f} dead letters"


def send_large(broker: ScriptedBroker, sizes: Sequence[int], topics: int = 4) -> None:
    """Send messages of these sizes that cannot be compressed, and a small one of another route behind each."""
    source = random.Random(1)
    for number, size in enumerate(sizes, 1):
        packet = publish_packet(
            f"large/{number % topics}", source.randbytes(size), 1, 2 * number - 1, version=broker.version
        )
        small = publish_packet("small/a", b"%d" % number, 1, 2 * number, version=broker.version)
        broker.send(packet, small)


MAPPINGS = ",".join([*(f"large/{number}:large{number}" for number in range(4)), "small/#:small"])


def create_topics(kafka: Kafka) -> None:
    """Create the topics that the mappings go to; Kafka takes any record that its client takes."""
    for topic in [f"large{number}" for number in range(4)] + ["small"]:
        kafka.create_topic(topic, max_message_bytes=LARGEST_RECORD_BYTES)


def kafka_for_large_records(directory: Path) -> Kafka:
    """Return a Kafka with memory for them, not started."""
    options = ("-Xmx1500m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    return Kafka(directory, java_options=options, properties={"socket.request.max.bytes": "209715200"})


def try_sizes(
    directory: Path, kafka: Kafka, limit_mebibytes: int, sizes: Sequence[int], *, away: bool, **settings: object
) -> str:
    """Send messages, with Kafka away or not until all are acknowledged; return a line about what came of them."""
    version = "3.1.1" if settings.get("mqtt_version") == "3.1.1" else "5"
    with control_group(limit_mebibytes) as group, ScriptedBroker() as broker:
        bridge = SmallBridge(group, directory, broker.port, kafka.bootstrap, MAPPINGS, **settings)
        if away:
            kafka.stop()
        try:
            with bridge:
                broker.wait_for_subscriptions(2)
                largest = bridge.largest_packet_bytes
                sender = threading.Thread(target=send_large, args=(broker, sizes))
                began = time.monotonic()
                sender.start()
                try:
                    wait_until(
                        lambda: group.kills or len(broker.received(PUBACK)) >= 2 * len(sizes), "acknowledgements", 180
                    )
                    acknowledged_seconds = time.monotonic() - began
                    if away:
                        kafka.start()
                    expected = sum(size + 100 < largest for size in sizes) + len(sizes)
                    wait_until(lambda: group.kills or Outcome(bridge).delivered >= expected, "delivery", 180)
                    return (
                        f"{Outcome(bridge)}; largest {largest}; acknowledged in {acknowledged_seconds:.1f} s, "
                        f"peak {bridge.peak_bytes / 1e6:.0f} MB, {group.kills} kills, MQTT {version}"
                    )
                finally:
                    if group.kills:
                        broker.close_connection()
                    sender.join()
        except Exception as error:
            return f"FAILED, {group.kills} kills: {str(error)[:300]!r}"
        finally:
            if away and not kafka.running:
                kafka.start()


def try_backlog(directory: Path, limit_mebibytes: int, messages: int, topics: int) -> str:
    """Send small messages on so many topics with Kafka away; return a line about the memory that they took."""
    payload = random.Random(1).randbytes(BACKLOG_BYTES)
    with control_group(limit_mebibytes) as group, ScriptedBroker() as broker:
        away = f"127.0.0.1:{free_port()}"
        with SmallBridge(group, directory, broker.port, away, MAPPINGS) as bridge:
            broker.wait_for_subscriptions(2)
            before_bytes = bridge.peak_bytes
            for first in range(0, messages, BACKLOG_LOT):
                lot = range(first, min(first + BACKLOG_LOT, messages))
                broker.send(*(publish_packet(f"small/{n % topics}", payload, 1, n - first + 1, version=5) for n in lot))
                wait_until(lambda end=lot.stop: len(broker.received(PUBACK)) >= end, "acknowledgements", 120)
            return (
                f"{Outcome(bridge)}; {before_bytes / 1e6:.0f} MB before, "
                f"{(bridge.peak_bytes - before_bytes) / 1e6:.0f} MB more, {group.kills} kills"
            )


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=512, help="memory of the worker, in MiB")
    parser.add_argument("--single", default="1,10,20,30,34,36,50,100", help="sizes of single messages, in MB")
    parser.add_argument("--floods", default="300x0.2,100x1,60x5,60x10,20x20,20x30", help="numbers and sizes of floods")
    parser.add_argument("--version", default="3.1.1,5", help="MQTT versions of single messages")
    parser.add_argument("--backlogs", default="", help="numbers of small messages and of their topics: 200000x1000")
    options = parser.parse_args()
    for backlog in filter(None, options.backlogs.split(",")):
        messages, topics = map(int, backlog.split("x"))
        with tempfile.TemporaryDirectory() as name:
            found = try_backlog(Path(name) / "data", options.limit, messages, topics)
            print(f"{messages} messages of {BACKLOG_BYTES} bytes, {topics} topics, Kafka away", found, sep=": ")
    if options.backlogs:
        return
    with tempfile.TemporaryDirectory() as name, kafka_for_large_records(Path(name) / "kafka") as kafka:
        create_topics(kafka)
        cases = [[int(float(size) * 1e6)] for size in options.single.split(",") if size]
        for flood in filter(None, options.floods.split(",")):
            number, size = flood.split("x")
            cases.append([int(float(size) * 1e6)] * int(number))
        for count, (sizes, away) in enumerate(itertools.product(cases, (False, True))):
            for version in options.version.split(",") if len(sizes) == 1 else ["5"]:
                what = f"{len(sizes)} x {sizes[0] / 1e6:g} MB, Kafka {'away' if away else 'there'}"
                directory = Path(name) / f"{count}-{version}"
                found = try_sizes(directory, kafka, options.limit, sizes, away=away, mqtt_version=version)
                print(what, found, sep=": ", flush=True)


if __name__ == "__main__":
    main()
