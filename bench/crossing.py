"""A traffic that crosses at full rate, and what that took: the measurement that most scenarios share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.arrivals import Content
from bench.bridges import Bridge
from bench.load import WARM_UP_MESSAGES, Publisher, Traffic
from bench.peers import MosquittoSub
from bench.stage import Run
from bench.usage import Meter, Usage


@dataclass(frozen=True)
class Crossing:
    """What it came to.

    Attributes:
        messages: How many were published.
        seconds: From the first published to the last arrived.
        usage: What the programs took.
        broker: What mosquitto took.
    """

    messages: int
    seconds: float
    usage: Usage
    broker: Usage

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time of the programs per message, microseconds."""
        return self.usage.cpu_seconds / self.messages * 1e6

    @property
    def share(self) -> float:
        """Of one core, that the programs used meanwhile."""
        return self.usage.cpu_seconds / self.seconds

    @property
    def broker_share(self) -> float:
        """Of one core, that mosquitto used meanwhile."""
        return self.broker.cpu_seconds / self.seconds


@dataclass(frozen=True)
class Flood:
    """What became of a traffic that one program carried.

    Attributes:
        took: What it came to.
        stored: Messages that went by way of the disk.
        content: What arrived.
    """

    took: Crossing
    stored: int
    content: Content


def flood(run: Run, kind: type[Bridge], traffic: Traffic, quiet_seconds: float) -> Flood:
    """Start a program, warm it up, and have it carry a traffic; see `cross` for `quiet_seconds`."""
    publisher = Publisher(run.mosquitto.port, traffic)
    with run.bridge(kind, traffic.qos, traffic.messages) as bridge:
        run.warm_up(traffic.qos, expected=WARM_UP_MESSAGES // 2)
        took = cross(run, publisher, traffic.messages, bridge, quiet_seconds=quiet_seconds)
        return Flood(took, bridge.stored, run.arrivals.content())


def cross(
    run: Run, publisher: Publisher, messages: int, *bridges: Bridge, quiet_seconds: float | None = None
) -> Crossing:
    """Publish everything, and wait until it has arrived.

    Args:
        run: Its brokers; they are warm.
        publisher: Has made its packets.
        messages: How many it publishes.
        *bridges: Programs of one kind, that run; the floor, which writes nowhere, is waited for instead.
        quiet_seconds: Put up with fewer messages when nothing has come for so long; None: only if the program may lose.
    """
    before, floor = run.arrivals.count, bridges[0] if isinstance(bridges[0], MosquittoSub) else None
    meter = Meter(pid for bridge in bridges for pid in bridge.pids)
    broker_meter, began = Meter([run.mosquitto.pid]), time.monotonic()
    publisher.start()
    if floor is not None:
        usage, ended = floor.wait(), time.monotonic()
    elif quiet_seconds is not None:
        ended = run.arrivals.wait_until_quiet(quiet_seconds, enough=before + messages)
        usage = meter.read()
    else:
        ended = run.arrivals.wait_for(before + messages, may_lose=bridges[0].may_lose)
        usage = meter.read()
    broker = broker_meter.read()
    publisher.wait()
    return Crossing(messages, ended - began, usage, broker)
