"""Which topics Kafka is asked for next: those that routes name each time, the others in small parts.

There may be thousands of others, as their names are made from MQTT topics, and each is a question of its own. One that
is new is asked for at once; one that lacks something every few seconds at most; the rest now and then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.kafka.topics import Topics

ASKED_AT_ONCE = 100
LACKING_SECONDS = 5.0
LEARN_SECONDS = 300.0  # how soon a changed max.message.bytes is seen without a refusal


class AskedTopics:
    """What was asked when.

    Attributes:
        named: The topics that routes name, and DEAD_LETTER_TOPIC.
        are_more: There are others that should be asked for at once.
    """

    def __init__(self, named: Iterable[str]) -> None:
        """Have asked for nothing yet."""
        self.named = frozenset(named)
        self.are_more = False
        self._asked_at: dict[str, float] = {}

    def add_named(self, topics: Iterable[str]) -> None:
        """Note topics that routes name, some of them perhaps since the routes have changed."""
        self.named = self.named.union(topics)

    def choose(self, lanes: Iterable[str], topics: Topics, now: float) -> set[str]:
        """Return the topics to ask for now, and note that they are asked for.

        Args:
            lanes: The topics of all lanes.
            topics: What is known of them.
            now: The monotonic clock.
        """
        others = {topic: self._asked_at.get(topic, 0.0) for topic in lanes if topic not in self.named}
        due = [topic for topic, asked_at in others.items() if asked_at + _pause_seconds(topic, topics) <= now]
        chosen = sorted(due, key=others.__getitem__)[:ASKED_AT_ONCE]
        self.are_more = len(due) > len(chosen)
        self._asked_at = {topic: at for topic, at in others.items() if at} | dict.fromkeys(chosen, now)
        return {*self.named, *chosen}


def _pause_seconds(topic: str, topics: Topics) -> float:
    lacks = topic in topics.not_shown or topic in topics.singles or topic not in topics.learned
    return LACKING_SECONDS if lacks or topic in topics.refused_batches else LEARN_SECONDS
