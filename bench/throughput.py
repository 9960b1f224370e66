"""As fast as it goes, at each QoS: processor time per message, messages a second, memory; and what arrived."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Bridge, Connector, Kcat, MosquittoSub, Telegraf
from bench.load import WARM_UP_MESSAGES, Publisher, Traffic, fifty_topics
from bench.stage import Run, Stage
from bench.usage import Meter

BRIDGES: tuple[type[Bridge], ...] = (Connector, Telegraf, Kcat, MosquittoSub)
MESSAGES = {0: 300_000, 1: 200_000, 2: 60_000}


@dataclass(frozen=True)
class Throughput:
    """What one run came to.

    Attributes:
        title: The program.
        qos: Of publisher and subscription.
        messages: How many were published.
        cpu_us: Processor time per message, microseconds.
        rate: Messages a second, from the first published to the last arrived.
        share: Of one core, that the program used meanwhile.
        broker_share: The same of mosquitto.
        peak_bytes: Of memory.
        arrived: Different messages in Kafka.
        twice: Records too many.
    """

    title: str
    qos: int
    messages: int
    cpu_us: float
    rate: float
    share: float
    broker_share: float
    peak_bytes: int
    arrived: int
    twice: int


def measure(stage: Stage, kind: type[Bridge], qos: int, messages: int = 0) -> Throughput:
    """Run one program once at full rate."""
    traffic = fifty_topics(messages or MESSAGES[qos], qos)
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, traffic)
        bridge = kind(
            run.directory / "bridge", run.mosquitto.port, run.kafka.bootstrap, run.topic, qos, traffic.messages
        )
        with bridge:
            run.warm_up(qos, expected=0 if isinstance(bridge, MosquittoSub) else WARM_UP_MESSAGES // 2)
            return _measure(run, bridge, publisher, traffic)


def _measure(run: Run, bridge: Bridge, publisher: Publisher, traffic: Traffic) -> Throughput:
    before = run.arrivals.count
    meter, broker_meter = Meter(bridge.pids), Meter([run.mosquitto.pid])
    began = time.monotonic()
    publisher.start()
    if isinstance(bridge, MosquittoSub):
        usage, ended = bridge.wait(), time.monotonic()
    else:
        ended = run.arrivals.wait_for(before + traffic.messages, may_lose=bridge.may_lose)
        usage = meter.read()
    broker, seconds = broker_meter.read(), ended - began
    publisher.wait()
    content = run.arrivals.content() if bridge.writes_to_kafka else None
    return Throughput(
        bridge.title,
        traffic.qos,
        traffic.messages,
        usage.cpu_seconds / traffic.messages * 1e6,
        traffic.messages / seconds,
        usage.cpu_seconds / seconds,
        broker.cpu_seconds / seconds,
        usage.peak_bytes,
        content.different if content else 0,
        content.records - content.different if content else 0,
    )


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured; at each QoS the programs one after the other."""
    return [
        (f"{kind.title} at QoS {qos}", functools.partial(measure, kind=kind, qos=qos))
        for qos in MESSAGES
        for kind in BRIDGES
    ]
