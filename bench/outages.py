"""Kafka goes away and comes back again and again under 4,000 messages a second, QoS 1: what stays in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from bench.bridges import Connector
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.stage import Run, Stage

RATE = 4_000
OUTAGES = 12
EARLY_OUTAGES = 4
AWAY_SECONDS = 6.0
DRAIN_LIMIT_SECONDS = 90.0
QUIET_SECONDS = 3.0
FEW_MESSAGES = 1_000  # stored ones, under traffic
ROUNDS_LIMIT = 1


@dataclass(frozen=True)
class Outages:
    """What they came to.

    Attributes:
        case: How many outages, and how long.
        start_mb: Memory before the first.
        early_mb: Memory after a few.
        last_mb: Memory after the last.
        lost: Messages that did not arrive.
        twice: Records too many.
        out_of_order: Records behind a later one of their MQTT topic.
    """

    case: str
    start_mb: float
    early_mb: float
    last_mb: float
    lost: int
    twice: int
    out_of_order: int


def measure(stage: Stage) -> Outages:
    """Have all outages, one after the other, each followed by a drain."""
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, fifty_topics(RATE * 3600, rate=RATE))
        with run.bridge(Connector, 1, 0) as bridge:
            run.warm_up(1, expected=WARM_UP_MESSAGES)
            publisher.start()
            time.sleep(QUIET_SECONDS)
            memory_mb = [_memory_mb(bridge)]
            for _ in range(OUTAGES):
                _have_outage(run, bridge)
                memory_mb.append(_memory_mb(bridge))
            published = publisher.stop()
            run.arrivals.wait_for(WARM_UP_MESSAGES + published)
            content = run.arrivals.content()
    case = f"{OUTAGES} outages of {AWAY_SECONDS:.0f} s"
    lost = published - content.different
    return Outages(
        case, memory_mb[0], memory_mb[EARLY_OUTAGES], memory_mb[-1], lost, content.twice, content.out_of_order
    )


def _have_outage(run: Run, bridge: Connector) -> None:
    """Have Kafka away for some seconds, and wait until what was stored meanwhile is delivered.

    Raises:
        RuntimeError: It is not.
    """
    run.kafka.stop()
    try:
        time.sleep(AWAY_SECONDS)
    finally:
        run.kafka.start()  # also for the runs after this one
    give_up_at = time.monotonic() + DRAIN_LIMIT_SECONDS
    while (stored := bridge.counted("connector_undelivered_messages")) > FEW_MESSAGES:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"{stored} messages are stored still, {DRAIN_LIMIT_SECONDS:.0f} s after an outage")
        time.sleep(0.5)
    time.sleep(QUIET_SECONDS)


def _memory_mb(bridge: Connector) -> float:
    return float(psutil.Process(bridge.worker.pid).memory_info().rss / 1e6)


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    return [(f"{OUTAGES} outages", measure)]
