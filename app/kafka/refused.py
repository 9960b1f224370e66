"""What is done with records that librdkafka or Kafka refused: they are tried again, or become dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from app.core.attempts import Refusal, Verdict
from app.core.lane import Lane
from app.core.message import Message
from app.core.moment import Moment
from app.core.requests import Requests, SetAside
from app.kafka.codes import Meaning, Outcome
from app.kafka.lane_log import LaneLog
from app.kafka.lanes_to_replay import LanesToReplay
from app.kafka.missing_topics import MissingTopics
from app.kafka.outcomes import NO_KAFKA_TOPIC, Refusals, meaning_of, sentence
from app.kafka.producer import KafkaProducer
from app.kafka.topics import Topics

CREATE = "Create the topic and retry the dead letter, or repair its publisher."


class Refused:
    """Carries out what lanes decide about refused records.

    Attributes:
        counts: How many records were refused with each code, by its name.
        log: What is logged of lanes.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        topics: Topics,
        missing: MissingTopics,
        requests: Requests,
        replay: LanesToReplay,
    ) -> None:
        """Take the parts that act after a refusal.

        Args:
            producer: It is replaced after some refusals.
            topics: The limits of topics are asked for again after some refusals.
            missing: Derived topics that Kafka does not have.
            requests: Has dead letters written.
            replay: Has a lane looked at when its interval is over.
        """
        self.counts = Refusals()
        self.log = LaneLog()
        self._is_stopping = False
        self._producer = producer
        self._topics = topics
        self._missing = missing
        self._requests = requests
        self._replay = replay

    def at_once(self, lane: Lane, message: Message, error: Any) -> bool:
        """Deal with a record that librdkafka refused at once; return whether it becomes a dead letter."""
        meaning = self._unless_given_up(lane, error, meaning_of(error), time.monotonic())
        self.counts.note(meaning)
        if meaning.outcome is not Outcome.NEVER:
            self._wait(lane, error, meaning)
            return False
        lane.note_refused_at_once(message)
        self.set_aside(lane, message, meaning.dead_reason, sentence(error, meaning))
        return True

    def _unless_given_up(self, lane: Lane, error: Any, meaning: Meaning, now: float) -> Meaning:
        """Return what an error means; for a derived topic that Kafka does not have for too long: a dead letter."""
        if not self._missing.note_refused(lane.topic, error.code(), now):
            return meaning
        lane.attempts.give_up(self._missing.sentence(lane.topic), lane.in_flight.bounds.lane_limit_messages, now)
        self.log.given_up(lane)
        self._topics.ask.set()  # Kafka is asked for it again and again from now on
        return meaning._replace(outcome=Outcome.NEVER, advice=CREATE, dead_reason=NO_KAFKA_TOPIC, of_batch=False)

    def set_all_aside(self, lane: Lane, messages: Sequence[Message]) -> None:
        """Have messages put among the dead letters, as Kafka does not have the derived topic of their lane."""
        explanation = self._missing.sentence(lane.topic)
        lane.attempts.note_given_up(time.monotonic())
        for message in messages:
            lane.note_refused_at_once(message)
            message.name_dead(NO_KAFKA_TOPIC)
            lane.note_set_aside(message)
        self.log.dead_letter(messages[0], NO_KAFKA_TOPIC, explanation)
        self._requests.ask_table(SetAside(list(messages)))

    def resume(self, lane: Lane) -> None:
        """Have a lane tried again, as Kafka has its topic now."""
        lane.attempts.resume()
        self.log.end_of_giving_up(lane)

    def by_kafka(self, lane: Lane, message: Message, error: Any, at: Moment) -> None:
        """Deal with a record whose delivery report has an error."""
        meaning = self._unless_given_up(lane, error, self._topics.meaning_of(message, error), at.seconds)
        self.counts.note(meaning)
        went_alone = message.alone or len(message.payload) > self._producer.batch_size_bytes
        refusal = Refusal(
            is_final=meaning.outcome is Outcome.NEVER,
            is_of_batch=meaning.of_batch,
            is_of_time=meaning.outcome is Outcome.CURRENT_TIME,
            went_alone=went_alone,
        )
        verdict = lane.note_refused(message, refusal, at)
        if verdict is Verdict.DEAD_LETTER:
            self.set_aside(lane, message, meaning.dead_reason, sentence(error, meaning))
        elif verdict is Verdict.AGAIN_WITH_CURRENT_TIME:
            self.log.current_time(lane)
        elif verdict is Verdict.AGAIN_WITH_TIME_OF_RECEIPT:
            self.log.device_time(lane)
        else:
            if verdict is Verdict.AGAIN_ALONE:
                self._topics.note_batch_refused(lane.topic, error)
            elif meaning.outcome is Outcome.REPLACE_CLIENT and went_alone:
                self._producer.mark_failed(error)
            self._wait(lane, error, meaning)

    def _wait(self, lane: Lane, error: Any, meaning: Meaning) -> None:
        """Have a lane wait for its next try, and have it looked at then."""
        seconds = lane.attempts.wait(sentence(error, meaning), time.monotonic())
        if not self._is_stopping:  # at a stop librdkafka reports all that it held as refused: that is no trouble
            self.log.trouble(lane)
        if seconds:
            self._replay.look_later(lane, seconds)

    def note_stopping(self) -> None:
        """Log no trouble any more, as the worker stops."""
        self._is_stopping = True

    def set_aside(self, lane: Lane, message: Message, reason: str, explanation: str) -> None:
        """Have a message put among the dead letters."""
        message.name_dead(reason)
        lane.note_set_aside(message)
        self.log.dead_letter(message, reason, explanation)
        self._requests.ask_table(SetAside([message]))
