"""Messages that are older than what their Kafka topic keeps: Kafka deletes them soon after it has confirmed them.

A record has the time of its receipt, and a topic deletes by that time (`retention.ms`), unless it counts from the
arrival (`LogAppendTime`) or keeps everything. What topics keep is remembered on disk: it matters while Kafka is away.
A clock that is wrong by years has the same effect on messages that do not even wait.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from app.throttle import Throttle
from tables import layout

if TYPE_CHECKING:
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
READ_MESSAGES, READ_BYTES = 100, 256 * 1024  # of a lane, to count; of what is behind it the share is guessed
LANES_AT_ONCE = 2_000  # of which the first entry is looked up: 20 ms
COUNTED_LANES = 20  # at a time; to read from more would hold up the event loop
PLAUSIBLE_SECONDS = 1_735_689_600.0  # 1 January 2025: no clock that is right shows less
UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


class Outlived(NamedTuple):
    """Messages of a topic that wait and are older than what it keeps.

    Attributes:
        age_seconds: Age of the oldest.
        keeps_seconds: How long the topic keeps a record.
        messages: How many they are, about.
    """

    age_seconds: float
    keeps_seconds: float
    messages: int

    def sentence(self, topic: str) -> str:
        """Return what is to be said of it."""
        age, keeps = in_words(self.age_seconds), in_words(self.keeps_seconds)
        return f"the oldest message that waits for {topic} is {age} old, and that topic keeps records for {keeps}"


class Retention:
    """Looks for messages that outlived what their topic keeps.

    Attributes:
        outlived: What was found, by Kafka topic.
    """

    def __init__(self, table: UndeliveredTable, keeps_ms: Mapping[str, int]) -> None:
        """Take the table, and how long topics keep records; the route may change."""
        self._table = table
        self._keeps_ms = keeps_ms
        self._throttle = Throttle(log)
        self._look_at = 0.0
        self.outlived: dict[str, Outlived] = {}

    @property
    def messages(self) -> int:
        """How many messages wait that are older than what their topic keeps, about."""
        return sum(found.messages for found in self.outlived.values())

    @property
    def clock_is_wrong(self) -> bool:
        """Whether this machine's clock shows a time that has passed for certain."""
        return time.time() < PLAUSIBLE_SECONDS

    def look(self, waiting: Mapping[str, int]) -> None:
        """Look for them, every few seconds, and log what changed; `waiting` has the messages by topic."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        before, self.outlived = self.outlived, self._found(waiting)
        for topic, found in self.outlived.items():
            self._throttle.warning(
                topic,
                "%s: Kafka will delete about %d messages soon after it has them; raise its retention.ms before",
                found.sentence(topic),
                found.messages,
            )
        for topic in before.keys() - self.outlived.keys():
            self._throttle.end(topic, "no message that waits for %s is older than what it keeps now", topic)
        if self.clock_is_wrong:
            self._throttle.warning("clock", "the clock of this machine shows %s", time.strftime("%d %B %Y"))

    def _found(self, waiting: Mapping[str, int]) -> dict[str, Outlived]:
        found: dict[str, Outlived] = {}
        now_ms = time.time() * 1000
        for topic, first in itertools.islice(self._table.lanes(), LANES_AT_ONCE):
            keeps_ms = self._keeps_ms.get(topic)
            if keeps_ms is None:
                continue
            limit = READ_MESSAGES if len(found) < COUNTED_LANES else 1
            read = self._table.read(layout.undelivered_prefix(topic), first, limit, READ_BYTES)
            ages_ms = [now_ms - message.timestamp_ms for message in read]
            if ages_ms and ages_ms[0] > keeps_ms:
                number = outlived_messages(ages_ms, keeps_ms, waiting.get(topic, 0))
                found[topic] = Outlived(ages_ms[0] / 1000, keeps_ms / 1000, number)
        return found


def outlived_messages(ages_ms: list[float], keeps_ms: float, waiting: int) -> int:
    """Return how many messages outlived what is kept: those that were read, and a share of what is behind them.

    Args:
        ages_ms: The ages of the first ones of the lane.
        keeps_ms: What the topic keeps.
        waiting: How many wait in all; they are taken to have come evenly from the last one read until now.
    """
    counted = sum(age > keeps_ms for age in ages_ms)
    if counted < len(ages_ms):
        return counted
    rest = max(0, waiting - counted)
    return counted + round(rest * (ages_ms[-1] - keeps_ms) / ages_ms[-1])


def in_words(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two."""
    unit_seconds, name = next((unit for unit in UNITS if seconds >= 2 * unit[0]), UNITS[-1])
    return f"{seconds / unit_seconds:.0f} {name}"
