"""Mosquitto with its default window of 20 messages in flight, QoS 1; MQTT 5 clients may ask for more, others not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Connector
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.stage import Stage

MESSAGES = 40_000


@dataclass(frozen=True)
class Window:
    """What one run came to.

    Attributes:
        case: How many messages the broker sends ahead of their acknowledgements.
        rate: Messages a second.
        cpu_us: Processor time per message, microseconds.
    """

    case: str
    rate: float
    cpu_us: float


def measure(stage: Stage, window_messages: int, version: str) -> Window:
    """Run Connector once at full rate."""
    with stage.run(max_inflight_messages=window_messages) as run:
        publisher = Publisher(run.mosquitto.port, fifty_topics(MESSAGES))
        with run.bridge(Connector, 1, MESSAGES, mqtt_version=version) as bridge:
            run.warm_up(1, expected=WARM_UP_MESSAGES)
            took = cross(run, publisher, MESSAGES, bridge)
    return Window(f"{window_messages} in flight, MQTT {version}", took.rate, took.cpu_us)


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    return [
        (f"window of 20, MQTT {version}", functools.partial(measure, window_messages=20, version=version))
        for version in ("3.1.1", "5")
    ]
