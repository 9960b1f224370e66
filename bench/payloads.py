"""Payloads from 1 KiB to 10 MiB, at QoS 1 and full rate: megabytes a second, and processor time for each.

They are random letters and digits, of which lz4 saves nothing. Kafka's topic takes them, and each program is told so;
but mq-bridge tells the broker that it takes no packet above 10 MiB, which is one of 10 MiB with its topic. What has not
arrived when nothing has come for ten seconds counts as lost.
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
KIB, MIB, MEGABYTE = 1 << 10, 1 << 20, 1e6
# Fewer of the large ones: each case is 100 to 300 MB.
CASES = {
    "1 KiB": (KIB, 100_000),
    "16 KiB": (16 * KIB, 12_000),
    "256 KiB": (256 * KIB, 1_000),
    "1 MiB": (MIB, 250),
    "10 MiB": (10 * MIB, 30),
}
LARGEST_BYTES = 11 * MIB  # with key and headers
TOPICS = [f"bench/device-{number}/state" for number in range(50)]
QUIET_SECONDS = 10.0


@dataclass(frozen=True)
class Payloads:
    """What one run came to.

    Attributes:
        case: Size of a payload.
        title: The program.
        mb_per_second: Million bytes of payload a second, of what arrived.
        cpu_ms_per_mb: Processor time for each, milliseconds; of what was published.
        peak_mb: The most memory.
        stored: Messages that went to the disk; 0 for the other programs.
        lost: Messages that did not arrive.
        twice: Records too many.
    """

    case: str
    title: str
    mb_per_second: float
    cpu_ms_per_mb: float
    peak_mb: float
    stored: int
    lost: int
    twice: int


def measure(stage: Stage, kind: type[Bridge], case: str) -> Payloads:
    """Run one program once with payloads of one size."""
    size_bytes, messages = CASES[case]
    traffic = Traffic(TOPICS, messages, size_bytes, fill=random_letters(2 * max(size_bytes, MIB)))
    with stage.run(largest_bytes=LARGEST_BYTES) as run:
        flooded = flood(run, kind, traffic, QUIET_SECONDS)
    took, content = flooded.took, flooded.content
    megabytes = size_bytes / MEGABYTE
    return Payloads(
        case,
        kind.title,
        content.different * megabytes / took.seconds,
        took.usage.cpu_seconds * 1000 / (messages * megabytes),
        took.usage.peak_bytes / MEGABYTE,
        flooded.stored,
        messages - content.different,
        content.twice,
    )


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured; of each size the programs one after the other."""
    return [
        (f"{kind.title}, {case}", functools.partial(measure, kind=kind, case=case))
        for case in CASES
        for kind in BRIDGES
    ]
