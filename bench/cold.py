"""A flood right after the start, beside a Kafka that has just started and beside one that is warm, with one partition.

Of each pair of runs the first has a Kafka of its own that was started a moment ago; the second, with a new process of
the program, the same Kafka, which has by then taken the records of the first. Nothing warms the program up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Bridge, Connector, ConnectorWithSmallReplay
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.peers import Kcat, MosquittoSub, MqBridge, Telegraf
from bench.stage import Run, Stage, open_stage

BRIDGES: tuple[type[Bridge], ...] = (Connector, ConnectorWithSmallReplay, Telegraf, MqBridge, Kcat, MosquittoSub)
QOS = (0, 1)
MESSAGES = 150_000
PARTITIONS = 1


@dataclass(frozen=True)
class Cold:
    """What one run came to.

    Attributes:
        title: The program.
        qos: Of publisher and subscription.
        kafka: Whether Kafka has just started.
        cpu_us: Processor time per message, microseconds.
        rate: Messages a second.
        stored: Messages that went to the disk; 0 for the other programs.
        lost: Messages that did not arrive.
        twice: Records too many.
    """

    title: str
    qos: str
    kafka: str
    cpu_us: float
    rate: float
    stored: int
    lost: int
    twice: int


def measure(_stage: Stage, kind: type[Bridge], qos: int) -> list[Cold]:
    """Run one program twice, beside a Kafka of its own."""
    with open_stage(settle_seconds=0) as stage:
        return [_flood(stage, kind, qos, kafka) for kafka in ("has just started", "warm")]


def _flood(stage: Stage, kind: type[Bridge], qos: int, kafka: str) -> Cold:
    """Start the program, and publish everything at once."""
    with stage.run(partitions=PARTITIONS) as run:
        publisher = Publisher(run.mosquitto.port, fifty_topics(MESSAGES, qos))
        # The floor ends by itself after what it is told and a warm-up, of which there is none here.
        expected = MESSAGES - WARM_UP_MESSAGES if kind is MosquittoSub else MESSAGES
        with run.bridge(kind, qos, expected) as bridge:
            took = cross(run, publisher, MESSAGES, bridge)
            stored = bridge.stored
            lost, twice = _missing_and_twice(run, bridge)
    return Cold(kind.title, f"QoS {qos}", kafka, took.cpu_us, took.rate, stored, lost, twice)


def _missing_and_twice(run: Run, bridge: Bridge) -> tuple[int, int]:
    if not bridge.writes_to_kafka:
        return 0, 0
    content = run.arrivals.content()
    return MESSAGES - content.different, content.twice


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured; at each QoS the programs one after the other."""
    return [
        (f"{kind.title} at QoS {qos}, cold", functools.partial(measure, kind=kind, qos=qos))
        for qos in QOS
        for kind in BRIDGES
    ]
