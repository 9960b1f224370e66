"""What is known of the Kafka topics: which exist, their limits and retention, and what could not be learned.

`app.kafka.learning` and `app.kafka.watch` write it, the lanes and the pages read it; all on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError

from app.kafka.codes import TOO_LARGE, Outcome
from app.kafka.outcomes import meaning_of
from app.kafka.topic_limits import NO_RECORD_FITS_BYTES, TopicConfiguration

if TYPE_CHECKING:
    from app.core.message import Message
    from app.kafka.codes import Meaning

# One record at a time goes meanwhile: some attempts to ask fit in, and a slow network is not taken for a refusal.
PATIENCE_SECONDS = 10.0
ASK_AGAIN_SECONDS = 5.0
# A leader that changes takes a few seconds, which is no news; a record takes milliseconds otherwise.
STALLED_SECONDS = 10.0
EXPLAINED_LANES = 20  # to look up more each second would hold up the event loop
TAKES_NOTHING = "The topic takes no record at all: raise its max.message.bytes, or its segment.bytes."
BATCH_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})


class Topics:
    """What is known of the topics.

    Attributes:
        learned: Topics that may get batches, as these fit or as Kafka will not say whether they do.
        singles: Topics that take less than a batch, by what Kafka said: each of their records goes alone.
        alone: Those among them that refused a batch, and that no route names: no other topic's batches shrink for them.
        not_shown: Topics that Kafka did not show when it was asked.
        unknown: Topics that get batches although Kafka does not say what they take, with the reasons.
        known: What Kafka said last, by topic; an earlier answer counts until there is another.
        refused_batches: Topics that refused a batch as too large since it was asked last.
        keeps_ms: How long topics keep a record, from its own time on; without those that keep it for ever or from its
            arrival. Kept in the table: what an earlier start learned counts until Kafka says otherwise.
        stalled: Topics of which Kafka has not answered the oldest record for long, with why, as far as is known.
        ask: Set when Kafka should be asked (again).
        is_asked: Set when Kafka answered the first question, or did not answer it in time.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self.learned: set[str] = set()
        self.singles: set[str] = set()
        self.alone: set[str] = set()
        self.not_shown: set[str] = set()
        self.unknown: dict[str, str] = {}
        self.known: Mapping[str, TopicConfiguration] = {}
        self.refused_batches: set[str] = set()
        self.keeps_ms: dict[str, int] = {}
        self.stalled: dict[str, str] = {}
        self.ask = asyncio.Event()
        self.is_asked = asyncio.Event()
        self._unlearned_since: dict[str, float] = {}
        self._ask_again_at = 0.0

    # ---- what was learned

    def note_answer(self, known: Mapping[str, TopicConfiguration]) -> bool:
        """Note what Kafka said of topics; return whether it is news how long they keep records."""
        self.known = {**self.known, **known}
        before = dict(self.keeps_ms)
        for topic, configuration in known.items():
            self.keeps_ms.pop(topic, None)
            if configuration.keeps_ms is not None:
                self.keeps_ms[topic] = configuration.keeps_ms
        return self.keeps_ms != before

    def note_not_shown(self, not_shown: set[str], asked: set[str]) -> set[str]:
        """Note which of the topics that were asked for Kafka does not show; return all that it did not show before."""
        before, self.not_shown = self.not_shown, (self.not_shown - asked) | not_shown
        return before

    def note_unknown(self, unknown: dict[str, str], answered: set[str]) -> None:
        """Note which topics get batches although Kafka does not say what they take, with the reasons.

        Args:
            unknown: Those, with the reasons.
            answered: Those that Kafka said something of, or refused to.
        """
        self.unknown = {topic: why for topic, why in self.unknown.items() if topic not in answered} | unknown

    def note_alone(self, topics: Iterable[str]) -> None:
        """Note topics that refused a batch, each record of which goes alone."""
        self.alone.update(topics)

    def note_singles(self, batch_bytes: int) -> dict[str, int]:
        """Note which topics take less than a batch; return those that did not before, with what they take."""
        limits = {topic: known.limit_bytes for topic, known in self.known.items() if known.limit_bytes is not None}
        small = {topic for topic, limit in limits.items() if limit < batch_bytes}
        before, self.singles = self.singles, small | self.alone
        return {topic: limits[topic] for topic in sorted(small - before)}

    def allow_batches(self, topics: Iterable[str]) -> None:
        """Let topics have batches from now on."""
        self.learned.update(topics)

    def pop_refused_batches(self) -> set[str]:
        """Return the topics that refused a batch as too large since this was asked last."""
        refused, self.refused_batches = self.refused_batches, set()
        return refused

    def note_oldest(self, ages_seconds: Mapping[str, float], why: Callable[[str], str]) -> None:
        """Note how long Kafka has not answered the oldest record of each topic.

        Args:
            ages_seconds: By topic.
            why: Says why a topic stands still, as far as is known; it is asked for a few topics only.
        """
        stalled = sorted(topic for topic, age in ages_seconds.items() if age >= STALLED_SECONDS)
        reasons = {topic: why(topic) for topic in stalled[:EXPLAINED_LANES]}
        self.stalled = {topic: _unanswered(ages_seconds[topic], reasons.get(topic, "")) for topic in stalled}

    def forget(self, topics: Iterable[str]) -> None:
        """Forget all of topics whose lanes have ended."""
        gone = set(topics)
        for names in (self.learned, self.singles, self.not_shown, self.refused_batches, self.alone):
            names.difference_update(gone)
        for known in (self.unknown, self.keeps_ms, self.stalled, self._unlearned_since):
            for topic in gone & known.keys():
                del known[topic]
        self.known = {topic: known for topic, known in self.known.items() if topic not in gone}

    # ---- what the lanes want to know

    def takes_batches(self, topic: str) -> bool:
        """Whether a topic may get batches that took a record; if not, have it learned.

        A refused batch would be passed by the next ones, so more than one record goes only where `batch.size` is known
        to be below what the topic takes, or where that could not be learned for a while.
        """
        if topic in self.singles:
            if self._takes_nothing(topic):
                self._ask_again()  # it took a record
            return False
        if topic in self.learned or self.is_overdue(topic):
            return True
        self._unlearned_since.setdefault(topic, time.monotonic())
        self.ask.set()
        return False

    def is_overdue(self, topic: str) -> bool:
        """Whether a topic took a record, and its limits were not learned for so long that it gets batches anyway."""
        waits_since = self._unlearned_since.get(topic, float("inf"))
        return topic not in self.learned and time.monotonic() >= waits_since + PATIENCE_SECONDS

    def time_limits_ms(self, topic: str) -> tuple[float, float]:
        """Return how old a record may be that the topic takes, and how far ahead; infinite if Kafka does not say."""
        known = self.known.get(topic)
        limits = (None, None) if known is None else (known.takes_age_ms, known.takes_ahead_ms)
        age_ms, ahead_ms = [math.inf if limit is None else limit for limit in limits]
        return age_ms, ahead_ms

    def meaning_of(self, message: Message, error: Any) -> Meaning:
        """Return what an error that Kafka refused a record with means for its topic.

        A topic that takes not even an empty record refuses each as too large. That is a fault of the topic, and no
        reason to set all its messages aside: they wait until it is put right.
        """
        meaning = meaning_of(error)
        if meaning.dead_reason != TOO_LARGE or message.dead_reason:
            return meaning
        limit_bytes = self._limit_bytes(message.destination.topic)
        takes_nothing = self._takes_nothing(message.destination.topic)
        if takes_nothing or (limit_bytes is not None and len(message.payload) < limit_bytes):
            self._ask_again()  # it takes less than was known, or more meanwhile
        if takes_nothing:
            return meaning._replace(outcome=Outcome.OPERATOR, dead_reason="", of_batch=False, advice=TAKES_NOTHING)
        return meaning

    def _limit_bytes(self, topic: str) -> int | None:
        known = self.known.get(topic)
        return None if known is None else known.limit_bytes

    def _takes_nothing(self, topic: str) -> bool:
        """Whether not even an empty record fits, by what Kafka said."""
        limit_bytes = self._limit_bytes(topic)
        return limit_bytes is not None and limit_bytes < NO_RECORD_FITS_BYTES

    def _ask_again(self) -> None:
        """Have Kafka asked, every few seconds at most."""
        if time.monotonic() >= self._ask_again_at:
            self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
            self.ask.set()

    def note_batch_refused(self, topic: str, error: Any) -> None:
        """Have it asked again what a topic takes that refused a batch."""
        if error.code() in BATCH_TOO_LARGE:
            self.refused_batches.add(topic)
        self.ask.set()


def _unanswered(age_seconds: float, why: str) -> str:
    return f"Kafka has not answered its oldest record for {age_seconds:.0f} s" + (f"; {why}" if why else "")
