"""Kafka confirms steadily, but each answer comes late, as from far away: what that costs, and how much is stored.

At 1,000 messages a second, QoS 1. With answers that are 300 ms late some 500 messages are on their way, as five
requests at once serve four partitions; the window is 1,000.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.bridges import Connector
from bench.crossing import cross
from bench.late_proxy import LateProxy
from bench.load import Publisher, fifty_topics
from bench.stage import KAFKA_JAVA_OPTIONS, Stage
from tools.brokers import Kafka, ProxiedListener, free_port

# How late, and `linger.ms`; None: as Connector sets it.
CASES_MILLISECONDS: tuple[tuple[int, int | None], ...] = ((0, None), (50, None), (50, 1), (300, None), (500, None))
RATE = 1_000
WARM_UP_MESSAGES = 5_000
MESSAGES = 20_000


@dataclass(frozen=True)
class Late:
    """What one run came to.

    Attributes:
        case: How late the answers are, and `linger.ms` if it is set.
        cpu_us: Processor time per message, microseconds.
        rate: Messages a second.
        stored: Messages that went to the disk.
        lost: Messages that did not arrive.
        twice: Records too many.
    """

    case: str
    cpu_us: float
    rate: float
    stored: int
    lost: int
    twice: int


def measure(_stage: Stage, late_milliseconds: int, linger_milliseconds: int | None) -> Late:
    """Run Connector once at a steady rate, behind a proxy."""
    server_port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="connector-late-") as name,
        LateProxy(server_port, late_milliseconds / 1000) as proxy,
        Kafka(
            Path(name) / "kafka", proxied=ProxiedListener(server_port, proxy.port), java_options=KAFKA_JAVA_OPTIONS
        ) as kafka,
    ):
        settings = {"kafka_broker": f"127.0.0.1:{proxy.port}"}
        if linger_milliseconds is not None:
            settings["kafka_producer_config"] = json.dumps({"linger.ms": linger_milliseconds})
        return _cross(Stage(kafka, Path(name)), _case(late_milliseconds, linger_milliseconds), **settings)


def _case(late_milliseconds: int, linger_milliseconds: int | None) -> str:
    return f"{late_milliseconds} ms late" + (
        "" if linger_milliseconds is None else f", linger.ms {linger_milliseconds}"
    )


def _cross(stage: Stage, case: str, **settings: str) -> Late:
    with stage.run() as run:
        warm_up = Publisher(run.mosquitto.port, fifty_topics(WARM_UP_MESSAGES, rate=RATE, first=MESSAGES))
        publisher = Publisher(run.mosquitto.port, fifty_topics(MESSAGES, rate=RATE))
        with run.bridge(Connector, 1, MESSAGES, **settings) as bridge:
            warm_up.start()
            warm_up.wait()
            run.arrivals.wait_for(WARM_UP_MESSAGES)
            time.sleep(1.0)
            before = bridge.stored
            took = cross(run, publisher, MESSAGES, bridge)
            stored = bridge.stored - before
            content = run.arrivals.content()
    lost = MESSAGES + WARM_UP_MESSAGES - content.different
    return Late(case, took.cpu_us, took.rate, stored, lost, content.twice)


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    return [
        (
            f"answers {_case(late, linger)}",
            functools.partial(measure, late_milliseconds=late, linger_milliseconds=linger),
        )
        for late, linger in CASES_MILLISECONDS
    ]
