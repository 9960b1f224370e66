"""What the nemesis can do, and the plan that a seed makes of it.

Each fault begins, lasts, and heals what it did. Faults of a step act at the same time, on different parts. All choices
come from the seed, also those that a fault makes itself; how long the machine takes for things does not.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.fault_proxy import FaultProxy
from tests.support.nemesis.system import KEEPALIVE_SECONDS, STOP_LIMIT_SECONDS, World
from tests.support.proxied_protocols import TO_CLIENT, TO_SERVER
from tools.brokers import Mosquitto

MEBIBYTE = 1024 * 1024
# Read, not imported: a module of the bridge wants its settings.
_CRASH_POINTS = Path(__file__).resolve().parents[3] / "app" / "crash_points.py"
PLACES = sorted(re.findall(r'^    "([a-z-]+)": _(?:before|after)\(', _CRASH_POINTS.read_text(), re.MULTILINE))
TOGETHER = (1, 1, 2, 2, 3)  # faults per step, to choose from


class Fault(NamedTuple):
    """A kind of fault.

    Attributes:
        parts: What it acts on; of two faults for one part only one acts at a time.
        seconds: The least and the most that it lasts.
        act: Does it, and heals it.
        cuts_power: What was removed from the table within the last second may be there again.
    """

    parts: frozenset[str]
    seconds: tuple[float, float]
    act: Callable[[World, float, random.Random], None]
    cuts_power: bool = False


class Planned(NamedTuple):
    """A fault with its choices made."""

    name: str
    after_seconds: float
    seconds: float
    seed: int

    def __str__(self) -> str:
        return f"{self.name} for {self.seconds:.1f} s after {self.after_seconds:.1f} s"

    def act(self, world: World) -> None:
        """Do it, and heal it."""
        world.wait(self.after_seconds)
        if not world.ended.is_set():
            FAULTS[self.name].act(world, self.seconds, random.Random(self.seed))


# ---- the bridge


def kill_bridge(world: World, seconds: float, chance: random.Random) -> None:
    """Once or twice; the second one may hit the start."""
    world.supervisor.signal(signal.SIGKILL)
    if chance.random() < 0.3:
        world.wait(seconds)
        world.supervisor.signal(signal.SIGKILL)


def stop_bridge(world: World, seconds: float, chance: random.Random) -> None:
    """It has to end by itself, whatever does not answer."""
    ends = world.supervisor.ends.total()
    world.supervisor.signal(signal.SIGTERM)
    give_up_at = time.monotonic() + STOP_LIMIT_SECONDS
    while world.supervisor.ends.total() == ends:
        if time.monotonic() > give_up_at:
            world.fail(f"the bridge did not stop within {STOP_LIMIT_SECONDS:.0f} s")
            world.supervisor.signal(signal.SIGKILL)
            return
        time.sleep(0.05)


def freeze_bridge(world: World, seconds: float, chance: random.Random) -> None:
    world.supervisor.signal(signal.SIGSTOP)
    world.wait(seconds)
    world.supervisor.signal(signal.SIGCONT)


def crash_at_a_place(world: World, seconds: float, chance: random.Random) -> None:
    """The worker that is started next dies there, if it gets there."""
    place = f"{chance.choice(PLACES)}:{chance.randint(1, 200)}"
    world.say(f"  the crash point is {place}")
    world.supervisor.bridge.settings["CONNECTOR_CRASH_POINT"] = place
    world.supervisor.signal(signal.SIGKILL)
    world.wait(seconds)


def cut_power(world: World, seconds: float, chance: random.Random) -> None:
    assert world.disk is not None
    world.supervisor.excuse()
    world.disk.cut_power()
    with world.supervisor.lock:
        world.supervisor.kill()
        world.disk.unmount()
        world.wait(seconds)
        world.disk.mount()


# ---- its disk


def fill_disk(world: World, seconds: float, chance: random.Random) -> None:
    """Some room is left, so that it waits; or none at all, so that writes fail once the ballast is gone."""
    assert world.disk is not None
    leave_bytes = chance.choice([20 * MEBIBYTE, 20 * MEBIBYTE, 0])
    fillers = [world.disk.path / f"filler {number}" for number in range(2)]
    rounds = 1 if leave_bytes else 2
    try:
        for filler in fillers[:rounds]:
            if not leave_bytes:
                world.supervisor.excuse()
            with contextlib.suppress(OSError):  # the bridge took some of the room meanwhile
                world.disk.fill(filler.name, leave_bytes)
            world.wait(seconds / rounds)
    finally:
        for filler in fillers:
            filler.unlink(missing_ok=True)
        if not leave_bytes:
            world.supervisor.excuse()


# ---- the brokers


def kill_kafka(world: World, seconds: float, chance: random.Random) -> None:
    world.kafka.kill()
    world.wait(seconds)
    world.kafka.start()


def restart_kafka(world: World, seconds: float, chance: random.Random) -> None:
    world.kafka.restart()


def restart_broker(world: World, seconds: float, chance: random.Random) -> None:
    """In order, and with nothing on the way from the publishers: what the broker loses is not the question here."""
    with world.publishers.paused():
        if isinstance(world.broker, Mosquitto):
            world.broker.save()
        world.broker.stop()
        world.wait(seconds)
        world.broker.start()


# ---- the two networks


@contextlib.contextmanager
def _healed(proxy: FaultProxy, world: World, seconds: float) -> Iterator[None]:
    yield
    world.wait(seconds)
    proxy.pass_everything()


def cut_mqtt(world: World, seconds: float, chance: random.Random) -> None:
    """At once, and at every attempt for a while."""
    with _healed(world.mqtt_proxy, world, seconds):
        world.mqtt_proxy.refuse()


def cut_mqtt_often(world: World, seconds: float, chance: random.Random) -> None:
    for _ in range(chance.randint(2, 5)):
        world.mqtt_proxy.cut(reset=chance.random() < 0.5)
        world.wait(seconds / 5)


def half_open_mqtt(world: World, seconds: float, chance: random.Random) -> None:
    with _healed(world.mqtt_proxy, world, seconds):
        world.mqtt_proxy.swallow()


def lose_one_way_of_mqtt(world: World, seconds: float, chance: random.Random) -> None:
    direction = chance.choice([TO_SERVER, TO_CLIENT])
    act = chance.choice([world.mqtt_proxy.hold, world.mqtt_proxy.swallow])
    with _healed(world.mqtt_proxy, world, seconds):
        act(direction)


def slow_mqtt(world: World, seconds: float, chance: random.Random) -> None:
    with _healed(world.mqtt_proxy, world, seconds):
        world.mqtt_proxy.slow(chance.choice([500, 4000]), chance.choice([0.01, 0.05]))


def cut_kafka(world: World, seconds: float, chance: random.Random) -> None:
    with _healed(world.kafka_proxy, world, seconds):
        world.kafka_proxy.refuse()


def half_open_kafka(world: World, seconds: float, chance: random.Random) -> None:
    with _healed(world.kafka_proxy, world, seconds):
        world.kafka_proxy.swallow()


def drop_kafkas_responses(world: World, seconds: float, chance: random.Random) -> None:
    """Kafka has the records and nobody learns of it."""
    with _healed(world.kafka_proxy, world, seconds):
        world.kafka_proxy.swallow(TO_CLIENT)


def slow_kafka(world: World, seconds: float, chance: random.Random) -> None:
    with _healed(world.kafka_proxy, world, seconds):
        world.kafka_proxy.slow(chance.choice([0, 16_384]), chance.choice([0.02, 0.1]))


def _parts(*names: str) -> frozenset[str]:
    return frozenset(names)


BRIDGE, DISK, KAFKA, BROKER = (_parts(name) for name in ("bridge", "disk", "kafka", "MQTT broker"))
MQTT_NETWORK, KAFKA_NETWORK = _parts("network to the MQTT broker"), _parts("network to kafka")

FAULTS = {
    "SIGKILL of the bridge": Fault(BRIDGE, (0.2, 3), kill_bridge),
    "SIGTERM of the bridge": Fault(BRIDGE, (0, 1), stop_bridge),
    "SIGSTOP of the bridge, shorter than the keepalive": Fault(BRIDGE, (0.5, KEEPALIVE_SECONDS * 0.8), freeze_bridge),
    "SIGSTOP of the bridge, longer than the keepalive": Fault(
        BRIDGE, (KEEPALIVE_SECONDS * 1.6, KEEPALIVE_SECONDS * 3), freeze_bridge
    ),
    "crash point": Fault(BRIDGE, (5, 10), crash_at_a_place),
    "power cut": Fault(BRIDGE | DISK, (0, 3), cut_power, cuts_power=True),
    "disk full": Fault(DISK, (4, 15), fill_disk),
    "SIGKILL of Kafka": Fault(KAFKA, (0, 3), kill_kafka),
    "restart of Kafka": Fault(KAFKA, (0, 1), restart_kafka),
    "Kafka away for long": Fault(KAFKA, (25, 60), kill_kafka),
    "restart of the MQTT broker": Fault(BROKER, (0, 5), restart_broker),
    "MQTT cut": Fault(MQTT_NETWORK, (0, 6), cut_mqtt),
    "MQTT cut several times": Fault(MQTT_NETWORK, (1, 8), cut_mqtt_often),
    "MQTT half-open": Fault(MQTT_NETWORK, (2, KEEPALIVE_SECONDS * 4), half_open_mqtt),
    "MQTT loses one way": Fault(MQTT_NETWORK, (1, KEEPALIVE_SECONDS * 3), lose_one_way_of_mqtt),
    "MQTT slow": Fault(MQTT_NETWORK, (3, 12), slow_mqtt),
    "Kafka cut": Fault(KAFKA_NETWORK, (0, 10), cut_kafka),
    "Kafka half-open": Fault(KAFKA_NETWORK, (2, 20), half_open_kafka),
    "Kafka's responses dropped": Fault(KAFKA_NETWORK, (1, 12), drop_kafkas_responses),
    "Kafka slow": Fault(KAFKA_NETWORK, (3, 12), slow_kafka),
}


def plan(
    seed: int, pause_seconds: tuple[float, float], *, with_disk: bool, longest_seconds: float = 60.0
) -> Iterator[tuple[float, list[Planned]]]:
    """Yield without end how long nothing happens, and which faults then happen together.

    Args:
        seed: The same seed makes the same plan.
        pause_seconds: The least and the most between two steps.
        with_disk: The bridge's data are on a disk of their own.
        longest_seconds: Faults that always last longer are left out, and none lasts longer.
    """
    chance = random.Random(seed)
    names = [
        name
        for name, fault in FAULTS.items()
        if (with_disk or "disk" not in fault.parts) and fault.seconds[0] < longest_seconds
    ]
    bag: list[str] = []
    while True:
        yield chance.uniform(*pause_seconds), list(_together(chance, bag, names, longest_seconds))


def _together(chance: random.Random, bag: list[str], names: list[str], longest_seconds: float) -> Iterator[Planned]:
    """Take faults for different parts out of the bag, which holds each kind once: so every kind has its turn."""
    taken: frozenset[str] = frozenset()
    for _ in range(chance.choice(TOGETHER)):
        if not any(not FAULTS[name].parts & taken for name in bag):
            bag += chance.sample(names, len(names))
        name = next(name for name in bag if not FAULTS[name].parts & taken)
        bag.remove(name)
        taken |= FAULTS[name].parts
        seconds = min(chance.uniform(*FAULTS[name].seconds), longest_seconds)
        yield Planned(name, chance.uniform(0, 3), seconds, chance.getrandbits(32))
