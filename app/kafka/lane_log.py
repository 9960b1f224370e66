"""What is logged of lanes: once a minute at most for the same trouble, and once when it is over."""

from __future__ import annotations

import logging

from app.core.lane import Lane
from app.core.message import Message
from app.logged_text import LoggedText
from app.throttle import Throttle


class LaneLog:
    """Logs what an operator should know of lanes."""

    def __init__(self) -> None:
        self._throttle = Throttle(logging.getLogger(__name__))

    def trouble(self, lane: Lane) -> None:
        """Log why a lane waits."""
        trouble = lane.trouble
        self._throttle.warning((lane.topic, trouble), "the lane %s waits: %s", lane.topic, trouble)

    def end_of_trouble(self, lane: Lane, trouble: str) -> None:
        """Log that a lane flows again, if its trouble was logged."""
        self._throttle.end((lane.topic, trouble), "the lane %s flows again", lane.topic)

    def given_up(self, lane: Lane) -> None:
        """Log that the messages of a lane become dead letters from now on, as there is no topic for them."""
        self._throttle.warning(("gone", lane.topic), "the lane %s waits no more: %s", lane.topic, lane.trouble)

    def end_of_giving_up(self, lane: Lane) -> None:
        """Log that Kafka has the topic of such a lane now."""
        self._throttle.end(
            ("gone", lane.topic), "Kafka has the topic %s now: the lane %s flows", lane.topic, lane.topic
        )

    def current_time(self, lane: Lane) -> None:
        """Log that a lane's records were received too long ago for their topic, or by a clock that was ahead."""
        self._throttle.warning(
            ("time", lane.topic),
            "Kafka does not take the time of receipt of records for %s (message.timestamp.before.max.ms, "
            "message.timestamp.after.max.ms): they are sent with the current time, and the header connector-received "
            "has the time of receipt",
            lane.topic,
        )

    def device_time(self, lane: Lane) -> None:
        """Log that a lane's records have times of their devices that the topic does not take."""
        self._throttle.warning(
            ("device time", lane.topic),
            "Kafka does not take a time that a device says for %s (message.timestamp.before.max.ms, "
            "message.timestamp.after.max.ms): records of such times are sent with the time of receipt",
            lane.topic,
        )

    def dead_letter(self, message: Message, reason: str, explanation: str) -> None:
        """Log that a message becomes a dead letter."""
        topic = message.destination.topic
        self._throttle.warning(
            ("dead", topic, reason),
            "a message for %s becomes a dead letter: %s, MQTT topic %r (%s)",
            topic or "no Kafka topic",
            reason,
            LoggedText(message.topic_text),
            explanation,
        )
