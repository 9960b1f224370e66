"""What is missing, repeated or out of order among numbered messages; reads and writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A number further ahead than this comes from something else than the publisher, and each number that
# is missing takes memory.
_LARGEST_JUMP = 10_000_000


@dataclass
class TopicSequence:
    """The numbers of one topic so far.

    Attributes:
        first: the number that must come first; none takes what comes, as after joining late.
        received: messages, repeated ones too.
        duplicates: messages whose number was there before.
        inversions: messages that came after one with a higher number, repeated ones not counted.
        missing: numbers below the highest that did not come.
    """

    first: int | None = None
    received: int = 0
    duplicates: int = 0
    inversions: int = 0
    missing: set[int] = field(default_factory=set)
    _lowest: int | None = None
    _highest: int = -1

    def add(self, sequence: int) -> None:
        """Take the number of the next message.

        Raises:
            ValueError: when it is negative or absurdly far ahead.
        """
        self._begin(sequence)
        assert self._lowest is not None
        if not 0 <= sequence <= self._highest + _LARGEST_JUMP:
            raise ValueError(f"sequence {sequence} cannot follow {self._highest}")
        self.received += 1
        if sequence > self._highest:
            self.missing.update(range(self._highest + 1, sequence))
            self._highest = sequence
        elif sequence < self._lowest:
            self.missing.update(range(sequence + 1, self._lowest))
            self._lowest = sequence
            self.inversions += 1
        elif sequence in self.missing:
            self.missing.remove(sequence)
            self.inversions += 1
        else:
            self.duplicates += 1

    @property
    def beginning(self) -> str:
        """Where the numbers begin, if not at 0: whoever reads from the beginning has lost those below, or Kafka has."""
        return f" from {self._lowest} on" if self._lowest else ""

    def _begin(self, sequence: int) -> None:
        if self._lowest is None:
            self._lowest = sequence if self.first is None else self.first
            self._highest = self._lowest - 1


class SequenceCheck:
    """The numbers of every topic.

    Attributes:
        topics: what came, for each topic.
    """

    def __init__(self, first: int | None = None) -> None:
        """Begin with nothing.

        Args:
            first: the number that each topic must begin with; none takes what comes.
        """
        self.topics: dict[str, TopicSequence] = {}
        self._first = first

    def add(self, topic: str, sequence: int) -> None:
        """Take the number of the next message of a topic.

        Raises:
            ValueError: when it is negative or absurdly far ahead.
        """
        self.topics.setdefault(topic, TopicSequence(self._first)).add(sequence)

    @property
    def received(self) -> int:
        """Messages of all topics."""
        return sum(topic.received for topic in self.topics.values())

    @property
    def gaps(self) -> int:
        """Missing numbers of all topics."""
        return sum(len(topic.missing) for topic in self.topics.values())

    @property
    def duplicates(self) -> int:
        """Messages of all topics whose number was there before."""
        return sum(topic.duplicates for topic in self.topics.values())

    @property
    def inversions(self) -> int:
        """Messages of all topics that came too late."""
        return sum(topic.inversions for topic in self.topics.values())


class RecordCheck:
    """What Kafka records say: their publisher's numbers and the bridge's identities.

    Attributes:
        records: records for each Kafka topic.
        sequences: the publisher's numbers, by MQTT topic and run of the publisher.
        unnumbered: records that do not come from the publisher.
        repeated_identities: records whose `connector-id` was there before.
    """

    def __init__(self, first: int | None = None) -> None:
        """Begin with nothing; `first` as in `SequenceCheck`."""
        self.records: dict[str, int] = {}
        self.sequences = SequenceCheck(first)
        self.unnumbered = 0
        self.repeated_identities = 0
        self._identities: set[bytes] = set()

    def add(self, kafka_topic: str, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> None:
        """Take the next record."""
        self.records[kafka_topic] = self.records.get(kafka_topic, 0) + 1
        named = dict(headers)
        self._add_identity(named.get("connector-id"))
        topic = (named.get("mqtt-topic") or kafka_topic.encode()).decode(errors="replace")
        try:
            run, sequence = _run_and_sequence(value)
            self.sequences.add(f"{topic} (run {run})" if run else topic, sequence)
        except ValueError:
            self.unnumbered += 1

    def _add_identity(self, identity: bytes | None) -> None:
        if identity is None:
            return
        if identity in self._identities:
            self.repeated_identities += 1
        self._identities.add(identity)

    @property
    def is_flawless(self) -> bool:
        """Whether something came, and nothing of it is missing, repeated or out of order."""
        found = self.sequences
        flaws = found.gaps + found.duplicates + found.inversions + self.repeated_identities
        return bool(self.records) and not flaws

    def lines(self) -> list[str]:
        """Return the result for people."""
        lines = [f"{topic}: {records} records" for topic, records in sorted(self.records.items())] or ["no records"]
        for name, topic in sorted(self.sequences.topics.items()):
            lines.append(
                f"  {name}: {topic.received} numbered{topic.beginning}, {len(topic.missing)} missing, "
                f"{topic.duplicates} duplicates, {topic.inversions} out of order"
            )
        lines.append(f"{self.repeated_identities} records with a connector-id that was there before")
        lines.append(f"{self.unnumbered} records without the publisher's number")
        return lines


def _run_and_sequence(value: bytes | None) -> tuple[str, int]:
    """Return the publisher's run, empty if it names none, and its number.

    Raises:
        ValueError: when the value does not have one.
    """
    content = json.loads(value or b"")
    sequence = content.get("sequence") if isinstance(content, dict) else None
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise ValueError("no sequence")  # noqa: TRY004 - for the caller it is one kind of unusable value
    return str(content.get("run", "")), sequence
