"""From publish to a Kafka consumer at 1,000 messages a second."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Bridge, Connector, ConnectorWithoutLinger
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.peers import Kcat, MqBridge, Telegraf
from bench.stage import Stage, open_stage
from bench.usage import Meter

BRIDGES: tuple[type[Bridge], ...] = (Connector, ConnectorWithoutLinger, Telegraf, MqBridge, Kcat)
RATE = 1_000
MESSAGES = 12_000
SKIPPED_MESSAGES = 1_000  # until what is compiled while it runs has been


@dataclass(frozen=True)
class Latency:
    """How long messages took, in milliseconds, and what it cost.

    Attributes:
        title: The program.
        p50_ms: Half of the messages took no longer.
        p99_ms: One in a hundred took longer.
        share: Of one core.
    """

    title: str
    p50_ms: float
    p99_ms: float
    share: float


def measure(stage: Stage, kind: type[Bridge]) -> Latency:
    """Run one program once, beside a Kafka that is warm; the first messages do not count."""
    return _pace(stage, kind, kind.title, SKIPPED_MESSAGES)


def measure_cold(_stage: Stage) -> Latency:
    """Run Connector once, beside a Kafka of its own that has just started; only the warm-up does not count."""
    with open_stage(settle_seconds=0) as stage:
        return _pace(stage, Connector, f"{Connector.title}, Kafka has just started", 0)


def _pace(stage: Stage, kind: type[Bridge], title: str, skipped_messages: int) -> Latency:
    traffic = fifty_topics(MESSAGES, qos=1, rate=RATE)
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, traffic)
        with run.bridge(kind, 1, MESSAGES) as bridge:
            run.warm_up(1, expected=WARM_UP_MESSAGES // 2)
            meter, began = Meter(bridge.pids), time.monotonic()
            publisher.start()
            seconds = run.arrivals.latencies(MESSAGES + (0 if bridge.may_lose else WARM_UP_MESSAGES))
            usage, took = meter.read(), time.monotonic() - began
            publisher.wait()
    cuts = statistics.quantiles(seconds[WARM_UP_MESSAGES + skipped_messages :], n=100)
    return Latency(title, cuts[49] * 1000, cuts[98] * 1000, usage.cpu_seconds / took)


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    warm = [(kind.title, functools.partial(measure, kind=kind)) for kind in BRIDGES]
    return [*warm, ("Connector, beside a Kafka that has just started", measure_cold)]
