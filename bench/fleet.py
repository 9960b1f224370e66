"""Payloads of 1 KiB at QoS 1 from 100,000 MQTT topics, beside 50: messages a second, and for each core of the program.

That is the case in which EMQX has published figures of its own bridge to Kafka: 100,000 messages a second of one node
with 32 cores, which was the MQTT broker too. There each topic had a client; here one connection publishes to all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Bridge, Connector
from bench.crossing import flood
from bench.load import Traffic, random_letters
from bench.peers import Kcat, MqBridge, Telegraf
from bench.stage import Stage

BRIDGES: tuple[type[Bridge], ...] = (Connector, Telegraf, MqBridge, Kcat)
TOPICS = (50, 100_000)
MESSAGES = 200_000
SIZE_BYTES = 1024
QUIET_SECONDS = 5.0


@dataclass(frozen=True)
class Fleet:
    """What one run came to.

    Attributes:
        case: How many MQTT topics.
        title: The program.
        rate: Messages a second.
        per_core: Messages for each second of processor time that the program took.
        cpu_us: Processor time per message, microseconds.
        peak_mb: The most memory.
        stored: Messages that went to the disk; 0 for the other programs.
        lost: Messages that did not arrive.
        twice: Records too many.
    """

    case: str
    title: str
    rate: float
    per_core: float
    cpu_us: float
    peak_mb: float
    stored: int
    lost: int
    twice: int


def measure(stage: Stage, kind: type[Bridge], topics: int) -> Fleet:
    """Run one program once at full rate."""
    names = [f"bench/device-{number}/state" for number in range(topics)]
    traffic = Traffic(names, MESSAGES, SIZE_BYTES, fill=random_letters(1 << 20))
    with stage.run() as run:
        flooded = flood(run, kind, traffic, QUIET_SECONDS)
    took, content = flooded.took, flooded.content
    return Fleet(
        f"{topics:,} MQTT topics",
        kind.title,
        content.different / took.seconds,
        content.different / took.usage.cpu_seconds,
        took.cpu_us,
        took.usage.peak_bytes / 1e6,
        flooded.stored,
        MESSAGES - content.different,
        content.twice,
    )


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured; with as many topics the programs one after the other."""
    return [
        (f"{kind.title}, {topics:,} MQTT topics", functools.partial(measure, kind=kind, topics=topics))
        for topics in TOPICS
        for kind in BRIDGES
    ]
