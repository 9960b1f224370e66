"""Each program killed ten times (SIGKILL) under 2,000 messages/s at QoS 1, and started again at once.

Mosquitto keeps the session of a program that is away, and has no limit to its queue. Between two kills a program has
the same time from its connection on, so that each kill hits one that works, however long its start takes. Messages are
published until it has worked again after the last kill; the end is when nothing more arrives.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Bridge, Connector
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.peers import Kcat, MqBridge, Telegraf
from bench.stage import Run, Stage

BRIDGES: tuple[type[Bridge], ...] = (Connector, Telegraf, MqBridge, Kcat)
RATE = 2_000
KILLS = 10
WORKS_SECONDS = 2.0
LONGEST_SECONDS = 600
CONNECT_SECONDS = 60.0
QUIET_SECONDS = 8.0
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Killed:
    """What one run came to.

    Attributes:
        title: The program.
        promise: When it acknowledges a message to MQTT.
        published: How many messages.
        lost: Messages that did not arrive.
        twice: Records too many.
        away_seconds: From a kill until the program has connected again, on average.
        rate: Messages a second, from the first published to the last arrived; twice ones count once.
    """

    title: str
    promise: str
    published: int
    lost: int
    twice: int
    away_seconds: float
    rate: float


def measure(stage: Stage, kind: type[Bridge]) -> Killed:
    """Kill one program again and again."""
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, fifty_topics(RATE * LONGEST_SECONDS, rate=RATE))
        with run.bridge(kind, 1, RATE * LONGEST_SECONDS) as bridge:
            run.warm_up(1, expected=WARM_UP_MESSAGES // 2)
            began, away_seconds = time.monotonic(), 0.0
            publisher.start()
            for _ in range(KILLS):
                time.sleep(WORKS_SECONDS)
                away_seconds += _kill(run, bridge)
            time.sleep(WORKS_SECONDS)
            published = publisher.stop()
            ended = run.arrivals.wait_until_quiet(QUIET_SECONDS)
            content = run.arrivals.content()
    lost = published - content.different
    rate = content.different / (ended - began)
    return Killed(kind.title, kind.promise, published, lost, content.twice, away_seconds / KILLS, rate)


def _kill(run: Run, bridge: Bridge) -> float:
    """Kill the program, start it again, and wait until it has connected; return how long that took, in seconds."""
    before, killed_at = run.connections(), time.monotonic()
    bridge.kill()
    bridge.start_again()
    while run.connections() == before:
        if time.monotonic() > killed_at + CONNECT_SECONDS:
            raise RuntimeError(f"{bridge.title} did not connect again within {CONNECT_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - killed_at


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    return [(f"{kind.title}, killed", functools.partial(measure, kind=kind)) for kind in BRIDGES]
