"""Kafka is away for long: ten million stored messages, a start with them, and their drain under live traffic."""

from __future__ import annotations

import functools
from collections.abc import Callable

from bench.outage import measure
from bench.stage import Stage

MESSAGES = 10_000_000
ROUNDS_LIMIT = 1


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    return [(f"{MESSAGES:,} stored", functools.partial(measure, messages=MESSAGES))]
