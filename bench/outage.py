"""Kafka is away: what storing costs, how fast a start with a full table is, and how fast it drains."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Connector, ConnectorWithSmallReplay
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.stage import Run, Stage
from bench.usage import Meter

CASES_MESSAGES = (100_000, 1_000_000)
LIVE_RATE = 1_000
LOOK_SECONDS = 0.1
ROUNDS_LIMIT = 2
STORE_LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class Outage:
    """What one outage came to.

    Attributes:
        case: How many messages were stored.
        store_rate: Messages a second that were received, written and synced.
        store_cpu_us: Processor time for it per message, microseconds.
        start_seconds: From the start of the worker with the full table until it is ready.
        first_record_seconds: From Kafka's return until the first record.
        drain_rate: Messages a second from the first record to the last of the stored ones.
        drain_cpu_us: Processor time for it per message, microseconds.
        peak_mb: The most memory of both processes, before and after the restart.
        lost: Messages that did not arrive.
        twice: Records too many.
        out_of_order: Records behind a later one of their MQTT topic.
    """

    case: str
    store_rate: float
    store_cpu_us: float
    start_seconds: float
    first_record_seconds: float
    drain_rate: float
    drain_cpu_us: float
    peak_mb: float
    lost: int
    twice: int
    out_of_order: int


def measure(stage: Stage, messages: int, kind: type[Connector] = Connector) -> Outage:
    """Store so many messages while Kafka is away, start the worker anew, and let Kafka come back under live traffic."""
    title = f"{messages:,} messages" + kind.title.removeprefix(Connector.title)
    with stage.run() as run:
        stored = Publisher(run.mosquitto.port, fifty_topics(messages))
        with run.bridge(kind, 1, messages) as bridge:
            run.warm_up(1, expected=WARM_UP_MESSAGES)
            run.kafka.stop()
            try:
                rate, cpu_us, first_peak_bytes = _store(bridge, stored, messages)
                bridge.worker.stop()
                began = time.monotonic()
                bridge.worker.start()
                start_seconds = time.monotonic() - began
                meter = Meter(bridge.pids)
            finally:
                run.kafka.start()  # also for the runs after this one
            return _drain(run, meter, title, messages, (rate, cpu_us, start_seconds), first_peak_bytes)


def _store(bridge: Connector, publisher: Publisher, messages: int) -> tuple[float, float, int]:
    """Publish everything; return rate, processor time per message, and peak memory, once all of it is stored."""
    meter, began = Meter(bridge.pids), time.monotonic()
    publisher.start()
    while (stored := bridge.counted("connector_undelivered_messages")) < messages:
        time.sleep(LOOK_SECONDS)
        if time.monotonic() > began + STORE_LIMIT_SECONDS:
            raise RuntimeError(f"not everything was stored: {stored} of {messages} messages")
    seconds, usage = time.monotonic() - began, meter.read()
    publisher.wait()
    return messages / seconds, usage.cpu_seconds / messages * 1e6, usage.peak_bytes


def _drain(
    run: Run, meter: Meter, title: str, messages: int, before: tuple[float, float, float], first_peak_bytes: int
) -> Outage:
    """Wait until the stored messages have arrived, while live ones are published behind them."""
    came_back = time.monotonic()
    live = Publisher(run.mosquitto.port, fifty_topics(LIVE_RATE * 600, rate=LIVE_RATE, first=messages))
    live.start()
    first = run.arrivals.wait_for(WARM_UP_MESSAGES + 1)
    last = run.arrivals.wait_for(WARM_UP_MESSAGES + messages)
    usage = meter.read()
    published = messages + live.stop()
    run.arrivals.wait_for(WARM_UP_MESSAGES + published, limit_seconds=60)
    content = run.arrivals.content()
    return Outage(
        title,
        *before,
        max(0.0, first - came_back),
        messages / max(last - first, 1e-3),
        usage.cpu_seconds / messages * 1e6,
        max(first_peak_bytes, usage.peak_bytes) / 1e6,
        published - content.different,
        content.twice,
        content.out_of_order,
    )


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    cases = [(f"{messages:,} stored", functools.partial(measure, messages=messages)) for messages in CASES_MESSAGES]
    small = functools.partial(measure, messages=max(CASES_MESSAGES), kind=ConnectorWithSmallReplay)
    return [*cases, (ConnectorWithSmallReplay.title, small)]
