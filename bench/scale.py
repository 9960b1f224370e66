"""One, two and four workers in a shared subscription (MQTT_SHARED_GROUP) on one mosquitto, QoS 1."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Connector
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.stage import Stage

MESSAGES = 200_000
WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class Scale:
    """What one run came to.

    Attributes:
        case: How many workers.
        cpu_us: Processor time of all workers per message, microseconds.
        rate: Messages a second, of all.
        broker_share: Of one core, that mosquitto used meanwhile.
        stored: Messages that went to the disk, with those of the warm-up.
        lost: Messages that did not arrive.
        twice: Records too many.
        out_of_order: Records behind a later one of their MQTT topic.
    """

    case: str
    cpu_us: float
    rate: float
    broker_share: float
    stored: int
    lost: int
    twice: int
    out_of_order: int


def measure(stage: Stage, workers: int) -> Scale:
    """Run so many workers once at full rate."""
    with stage.run() as run, contextlib.ExitStack() as stack:
        publisher = Publisher(run.mosquitto.port, fifty_topics(MESSAGES))
        bridges = [
            run.bridge(
                Connector, 1, MESSAGES, f"bridge-{number}",
                mqtt_client_id=f"bench-connector-{number}", mqtt_shared_group="bench",
            )
            for number in range(workers)
        ]  # fmt: skip
        for bridge in bridges:
            stack.enter_context(bridge)
        run.warm_up(1, expected=WARM_UP_MESSAGES)
        took = cross(run, publisher, MESSAGES, *bridges)
        stored = sum(bridge.stored for bridge in bridges)
        content = run.arrivals.content()
    return Scale(
        f"{workers} workers" if workers > 1 else "1 worker",
        took.cpu_us,
        took.rate,
        took.broker_share,
        stored,
        MESSAGES - content.different,
        content.twice,
        content.out_of_order,
    )


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    return [(f"{workers} workers", functools.partial(measure, workers=workers)) for workers in WORKERS]
