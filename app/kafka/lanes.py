"""The lanes by Kafka topic: those of topics that routes name never end, the others do when they are idle.

A lane of another topic is there because its name is made from MQTT topics, or because the table has messages of a route
that is gone. Publishers choose names: what a lane takes, here and in what is known of its topic, must be given back.

A `Destination` may outlive its lane, as the route cache keeps it, and is the same object as long as anything refers to
it: messages are put together by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from app.core.destination import Destination
from app.core.in_flight import SharedBounds
from app.core.lane import Lane
from app.core.lane_states import Policy
from app.core.message import Message
from tables.layout import undelivered_prefix


class Lanes(dict[str, Lane]):
    """All lanes, by Kafka topic; on the event loop. One that is not there yet is made when it is first asked for."""

    def __init__(
        self,
        bounds: SharedBounds,
        policy: Policy,
        reports: list[Message],
        limits_ms: Callable[[str], tuple[float, float]],
    ) -> None:
        """Make none yet.

        Args:
            bounds: How much may be in flight.
            policy: The settings that hold for all lanes.
            reports: Where delivery reports put their messages.
            limits_ms: Returns how old a record may be that a topic takes, and how far ahead, as far as is known.
        """
        super().__init__()
        self._bounds = bounds
        self._policy = policy
        self._reports = reports
        self._limits_ms = limits_ms
        self._lasting: set[str] = set()
        self._made_at: dict[str, float] = {}  # of those that may end
        self._destinations: WeakValueDictionary[str, Destination] = WeakValueDictionary()
        self._nowhere = Lane(self.destination(""), SharedBounds(), policy)

    def __missing__(self, topic: str) -> Lane:
        """Make the lane of a Kafka topic; for "" there is one that never leads to Kafka, and is none of these."""
        if not topic:
            return self._nowhere
        lane = self[topic] = Lane(self.destination(topic), self._bounds, self._policy)
        lane.attempts.times.note_limit(*self._limits_ms(topic))
        self._bounds.add_lane()
        if topic not in self._lasting:
            self._made_at[topic] = time.monotonic()
        return lane

    def destination(self, topic: str) -> Destination:
        """Return the destination of messages to a Kafka topic; for "" that of messages that belong to none."""
        destination = self._destinations.get(topic)
        if destination is None:
            destination = Destination(topic, undelivered_prefix(topic), self._reports)
            self._destinations[topic] = destination
        return destination

    # ---- what was learned

    def note_learned(self, topics: Iterable[str], batches_fit: set[str]) -> None:
        """Tell the lanes of some topics what was learned of these: there may be thousands of others.

        Args:
            topics: The topics.
            batches_fit: Those of them that take batches, by what Kafka said.
        """
        for lane in [self[topic] for topic in topics if topic in self]:
            lane.attempts.times.note_limit(*self._limits_ms(lane.topic))
            if lane.is_direct and lane.topic in batches_fit:
                lane.attempts.note_learned(self._bounds.lane_limit_messages)

    def note_first_answer(self, seconds: float) -> None:
        """Tell the lanes how long Kafka took to answer the first question."""
        for lane in self.values():
            lane.lateness.note_first_answer(seconds)

    # ---- which of them last, and how many others there are

    def keep(self, topics: Iterable[str]) -> None:
        """Have the lanes of these topics, which never end."""
        for topic in topics:
            self._lasting.add(topic)
            self._made_at.pop(topic, None)
            self[topic]  # so that /status shows it

    def lasts(self, topic: str) -> bool:
        """Tell whether the lane of a topic never ends, as a route names it."""
        return topic in self._lasting

    @property
    def lasting(self) -> frozenset[str]:
        """The topics whose lanes never end."""
        return frozenset(self._lasting)

    def is_in_use(self, topic: str) -> bool:
        """Tell whether a topic has a lane, or a destination that something refers to."""
        return topic in self._destinations

    @property
    def passing(self) -> int:
        """How many topics are in use whose lanes may end."""
        return len(self._destinations) - len(self._lasting) - 1  # that of no topic

    @property
    def passing_lanes(self) -> int:
        """How many of them have a lane."""
        return len(self._made_at)

    def end_idle(self, now: float) -> list[str]:
        """End the lanes that may end and were idle for long; return their topics."""
        ended = [topic for topic, made_at in self._made_at.items() if self._may_end(self[topic], made_at, now)]
        for topic in ended:
            del self[topic], self._made_at[topic]
            self._bounds.remove_lane(topic)
        return ended

    def _may_end(self, lane: Lane, made_at: float, now: float) -> bool:
        """Tell whether nothing of a lane is anywhere, and nothing was for long."""
        idle_since = max(made_at, lane.lateness.confirmed_at, lane.attempts.given_up_at)
        return now - idle_since >= self._policy.idle_topic_seconds and is_empty(lane)


def is_empty(lane: Lane) -> bool:
    """Tell whether nothing of a lane is with librdkafka, in the table, or on its way there.

    Only what waits has a trouble, but for a topic whose messages become dead letters.
    """
    under_way = lane.in_flight.messages or lane.unwritten or lane.chunk_messages or lane.removing_messages
    return lane.is_direct and not under_way and not (lane.trouble and not lane.attempts.given_up_at)
