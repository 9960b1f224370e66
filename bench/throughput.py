"""As fast as it goes, at each QoS: processor time per message, messages a second, memory; and what arrived."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.arrivals import Content
from bench.bridges import Bridge, Connector
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.peers import Kcat, MosquittoSub, MqBridge, Telegraf
from bench.stage import Stage

BRIDGES: tuple[type[Bridge], ...] = (Connector, Telegraf, MqBridge, Kcat, MosquittoSub)
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


def measure(stage: Stage, kind: type[Bridge], qos: int) -> Throughput:
    """Run one program once at full rate."""
    traffic = fifty_topics(MESSAGES[qos], qos)
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, traffic)
        with run.bridge(kind, qos, traffic.messages) as bridge:
            run.warm_up(qos, expected=0 if isinstance(bridge, MosquittoSub) else WARM_UP_MESSAGES // 2)
            took = cross(run, publisher, traffic.messages, bridge)
            content = run.arrivals.content() if bridge.writes_to_kafka else Content()
    return Throughput(
        bridge.title,
        qos,
        took.messages,
        took.cpu_us,
        took.rate,
        took.share,
        took.broker_share,
        took.usage.peak_bytes,
        content.different,
        content.twice,
    )


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured; at each QoS the programs one after the other."""
    return [
        (f"{kind.title} at QoS {qos}", functools.partial(measure, kind=kind, qos=qos))
        for qos in MESSAGES
        for kind in BRIDGES
    ]
