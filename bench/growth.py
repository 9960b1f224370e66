"""What a message costs with more MQTT topics, more wildcard mappings and larger payloads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import FILTER, Connector
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, Traffic
from bench.stage import Stage

MESSAGES = 200_000
TOPICS = ((1, MESSAGES), (1_000, MESSAGES), (100_000, 1_000_000))  # each topic several times: the first time costs more
MAPPINGS = (1, 1_000)
PAYLOADS_BYTES = ((10, 200_000), (1_000, 100_000), (16_000, 20_000), (256_000, 1_500))
ROUNDS_LIMIT = 2


@dataclass(frozen=True)
class Growth:
    """What one run came to.

    Attributes:
        case: What there is more of.
        cpu_us: Processor time per message, microseconds.
        cpu_ns_per_byte: Processor time per byte of payload, nanoseconds.
        rate: Messages a second.
        peak_mb: The most memory.
    """

    case: str
    cpu_us: float
    cpu_ns_per_byte: float
    rate: float
    peak_mb: float


def measure(stage: Stage, case: str, traffic: Traffic, mappings: int = 1) -> Growth:
    """Run Connector once, at QoS 1 and full rate."""
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, traffic)
        filters = [FILTER] if mappings == 1 else ["bench/warm-up", *(f"bench/{number}/#" for number in range(mappings))]
        mapped = ",".join(f"{name}:{run.topic}" for name in filters)
        with run.bridge(Connector, traffic.qos, traffic.messages, wildcard_topic_list=mapped) as bridge:
            run.warm_up(traffic.qos, expected=WARM_UP_MESSAGES)
            took = cross(run, publisher, traffic.messages, bridge)
    return Growth(case, took.cpu_us, took.cpu_us * 1000 / traffic.size_bytes, took.rate, took.usage.peak_bytes / 1e6)


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    cases = []
    for topics, messages in TOPICS:
        names = [f"bench/{number}/state" for number in range(topics)]
        cases.append((f"{topics:,} MQTT topics", Traffic(names, messages), 1))
    for mappings in MAPPINGS:
        names = [f"bench/{number}/state" for number in range(mappings)]
        cases.append((f"{mappings:,} wildcard mappings", Traffic(names, MESSAGES), mappings))
    for size_bytes, messages in PAYLOADS_BYTES:
        names = [f"bench/{number}/state" for number in range(50)]
        cases.append((f"payloads of {size_bytes:,} bytes", Traffic(names, messages, size_bytes), 1))
    return [
        (case, functools.partial(measure, case=case, traffic=traffic, mappings=mappings))
        for case, traffic, mappings in cases
    ]
