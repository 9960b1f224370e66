"""What the nemesis is set on: real brokers, two proxies, the bridge and who starts it again, and the publishers."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import Self

from tests.support.disk import LoopDisk
from tests.support.fault_proxy import FaultProxy, kafka_behind_proxy
from tests.support.nemesis.accounts import Lives
from tests.support.nemesis.watch import Wire
from tests.support.oracle import wait_until
from tests.support.other_brokers import HiveMQ
from tests.support.system import Bridge, Publisher
from tools.brokers import Kafka, Mosquitto, ProcessError
from tools.brokers.process import ServerProcess

TOPICS = {"alpha": 3, "beta": 2}  # Kafka's, with their partitions
MQTT_TOPICS = {1: [f"nemesis/alpha/{number}" for number in range(40)], 2: [f"nemesis/beta/{n}" for n in range(15)]}
PROBE_TOPIC = "nemesis/beta/probe"
WINDOW_MESSAGES = 1000
LANE_MESSAGES = 2000
# Between two keepalives and more a frozen bridge keeps its connection or loses it.
KEEPALIVE_SECONDS = 5
# With more in its queue, a resumed mosquitto 2.0.11 sends so much at once (see `nemesis_watch`) that it comes to use
# packet identifiers twice; then it breaks connections by itself, and nothing can be said about the bridge.
BACKLOG_MESSAGES = {"mosquitto": 8000, "hivemq": 30_000}
STOP_LIMIT_SECONDS = 30.0
EXCUSED_SECONDS = 20.0
SETTINGS = {
    "mqtt_qos": 2,
    "mqtt_keepalive_sec": KEEPALIVE_SECONDS,
    "mqtt_receive_maximum": WINDOW_MESSAGES,
    "invoke_max_goroutine": LANE_MESSAGES,
    "invoke_min_goroutine": LANE_MESSAGES // 4,
}


class LiveBridge(Bridge):
    """A worker that is up when it lives: brokers may be away."""

    start_limit_seconds = 60.0

    def ready(self) -> bool:
        """Tell whether it answers."""
        return self.status("/health/live") is not None


class Supervisor:
    """Starts the bridge whenever it is not running, as an init system does, and notes its ends; a context manager.

    Attributes:
        bridge: The bridge.
        lock: Held while it is started; who holds it keeps it from being started.
        ends: Exit statuses.
        starts: How often it was started, successfully or not.
    """

    def __init__(self, bridge: Bridge, fail: Callable[[str], None], on_end: Callable[[], None]) -> None:
        """Supervise a bridge that is not started.

        Args:
            bridge: The bridge.
            fail: Is told of an end that nobody caused.
            on_end: Called after each end, before the next start.
        """
        self.bridge = bridge
        self._on_end = on_end
        self.lock = threading.RLock()
        self.ends: Counter[int] = Counter()
        self.starts = 0
        self._fail = fail
        self._terminated = False
        self._excused_until = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.signal(signal.SIGCONT)
        self.bridge.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send the bridge a signal, if there is one."""
        process = self.bridge._process
        self._terminated = self._terminated or number is signal.SIGTERM
        if process is not None:
            process.send_signal(number)

    def kill(self) -> None:
        """Kill the bridge and note that; for who holds the lock."""
        self.signal(signal.SIGKILL)
        self._clean_up()

    def excuse(self) -> None:
        """Let it end by itself, for a while: its disk fails."""
        self._excused_until = time.monotonic() + EXCUSED_SECONDS

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            with self.lock:
                if not self.bridge.running:
                    self._clean_up()
                    self._start()

    def _start(self) -> None:
        self.starts += 1
        try:
            self.bridge.start()
        except ProcessError as error:
            status = self.bridge.exit_status
            # A SIGTERM that came before anything of the bridge ran, as its Python was still starting, is no stop.
            is_unborn = self._terminated and status == -signal.SIGTERM
            self._note(0 if is_unborn else status, str(error))
            self._ended.wait(0.5)
        # Armed for one start.
        self.bridge.settings.pop("CONNECTOR_CRASH_POINT", None)

    def _clean_up(self) -> None:
        """Note the end of the process, if there was one."""
        if self.bridge._process is not None:
            self.bridge.stop()
            self._note(self.bridge.exit_status, self.bridge.log_tail())

    def _note(self, status: int | None, explanation: str) -> None:
        self.ends[-1 if status is None else status] += 1
        self._on_end()
        expected = {-signal.SIGKILL} | ({0} if self._terminated else set())
        if time.monotonic() < self._excused_until:
            expected |= {0, 1, 3}
        if status not in expected:
            self._fail(f"the bridge ended by itself with status {status}:\n{explanation}")
        self._terminated = False


class Publishers:
    """Publish numbered messages, one thread for QoS 1 and one for QoS 2, a second's worth at a time.

    A publisher's round ends when the broker has acknowledged it; so nobody has to publish anything twice.
    """

    def __init__(self, broker: ServerProcess, rate: float, seed: int, wire: Wire, fail: Callable[[str], None]) -> None:
        """Publish so many messages a second in all, a fifth of them with QoS 2, while the broker passes them on."""
        self._fail = fail
        self._backlog_messages = BACKLOG_MESSAGES[broker.title]
        self._wire = wire
        self._publishers = {qos: Publisher(broker.port, qos) for qos in MQTT_TOPICS}
        self._rates = {1: rate * 0.8, 2: rate * 0.2}
        self._chances = {qos: random.Random(f"{seed} sizes {qos}") for qos in MQTT_TOPICS}
        self._locks = {qos: threading.Lock() for qos in MQTT_TOPICS}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(qos,), name=f"QoS {qos}") for qos in MQTT_TOPICS]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for publisher in self._publishers.values():
            publisher.close()

    def end(self) -> None:
        """Publish nothing more."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> dict[str, int]:
        """How many messages were published to each MQTT topic."""
        return {topic: count for each in self._publishers.values() for topic, count in list(each.sent.items())}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let the broker be restarted with nothing of theirs on the way."""
        with self._locks[1], self._locks[2]:
            yield

    def probe(self) -> None:
        """Publish one message more."""
        self._publishers[2].publish_many([PROBE_TOPIC], 1)

    def _run(self, qos: int) -> None:
        try:
            while not self._ended.is_set():
                if sum(self.sent.values()) - self._wire.delivered > self._backlog_messages:
                    time.sleep(0.1)
                    continue
                rate = self._rates[qos]
                size_bytes = self._chances[qos].choice([80, 120, 300, 1500])
                with self._locks[qos]:
                    self._publishers[qos].publish_many(MQTT_TOPICS[qos], int(rate), rate, size_bytes)
                time.sleep(0.01)  # for who waits for the lock
        except Exception as error:
            self._fail(f"the publisher of QoS {qos} ended, so nothing can be said: {error!r}")


@dataclass
class World:
    """Everything that the faults act on.

    Attributes:
        lives: The ends of the bridge, with what had been sent to it.
        disk: Where the bridge's data are; none if no file system can be mounted here.
        ended: Set when no more faults are wanted; what lasts ends then.
        failures: What went wrong, each with the moment.
    """

    broker: Mosquitto | HiveMQ
    kafka: Kafka
    mqtt_proxy: FaultProxy
    kafka_proxy: FaultProxy
    wire: Wire
    disk: LoopDisk | None
    say: Callable[[str], None]
    lives: Lives = field(default_factory=Lives)
    ended: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    supervisor: Supervisor = field(init=False)
    publishers: Publishers = field(init=False)
    _told_connections: set[int] = field(default_factory=set)

    def fail(self, what: str) -> None:
        """Note that something is wrong, each thing once; nothing ends for it."""
        if what not in self.failures:
            self.failures.append(what)
            self.say(f"FAILURE: {what}")

    def wait(self, seconds: float) -> None:
        """Wait, unless the end comes before."""
        self.ended.wait(seconds)

    def open_connections(self) -> list[int]:
        """Return the connections to the broker that there are."""
        return [link.number for link in list(self.mqtt_proxy.links) if not link.ended.is_set()]

    def ended_connections(self) -> list[int]:
        """Return what each connection to the broker left unacknowledged that ended since this was asked."""
        ended = {link.number for link in list(self.mqtt_proxy.links) if link.ended.is_set()} - self._told_connections
        self._told_connections |= ended
        return [self.wire.close(number) for number in sorted(ended)]


@contextlib.contextmanager
def world(directory: Path, broker_title: str, rate: float, seed: int, say: Callable[[str], None]) -> Iterator[World]:
    """Start everything but the reading."""
    with contextlib.ExitStack() as stack:
        disk = _disk(stack, directory, say)
        broker = stack.enter_context(_broker(broker_title, directory))
        mqtt_proxy = stack.enter_context(FaultProxy(broker.port))
        kafka, kafka_proxy = stack.enter_context(kafka_behind_proxy(directory / "kafka"))
        wire = mqtt_proxy.frames = Wire()
        kafka_proxy.frames = deque(maxlen=1)  # it would keep everything that it saw
        for topic, partitions in TOPICS.items():
            kafka.create_topic(topic, partitions)
        built = World(broker, kafka, mqtt_proxy, kafka_proxy, wire, disk, say)
        mappings = ",".join(f"nemesis/{topic}/#:{topic}" for topic in TOPICS)
        data = (directory if disk is None else disk.path) / "data"
        bridge = LiveBridge(
            directory / "bridge", mqtt_proxy.port, kafka_proxy.address, mappings, db_persist_path=data, **SETTINGS
        )
        supervisor = Supervisor(bridge, built.fail, lambda: built.lives.end(wire.highest()))
        built.supervisor = stack.enter_context(supervisor)
        wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a bridge that has subscribed")
        built.publishers = stack.enter_context(Publishers(broker, rate, seed, wire, built.fail))
        yield built


def _broker(title: str, directory: Path) -> Mosquitto | HiveMQ:
    if title == "hivemq":
        return HiveMQ(directory / title, keeps_sessions=True, window_messages=WINDOW_MESSAGES)
    # Without the first line mosquitto holds small packets back for 40 ms, and QoS 2 has four a message.
    return Mosquitto(
        directory / title, extra_configuration="set_tcp_nodelay true", max_inflight_messages=WINDOW_MESSAGES
    )


def _disk(stack: contextlib.ExitStack, directory: Path, say: Callable[[str], None]) -> LoopDisk | None:
    try:
        return stack.enter_context(LoopDisk(directory, 1024 * 1024 * 1024))
    except pytest.skip.Exception as error:
        say(f"!!! NO POWER CUTS AND NO FULL DISK in this run: {error}")
        return None
