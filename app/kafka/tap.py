"""What passes right now, for `connector tap`: messages that Kafka confirms, of the MQTT topics that match a filter.

A tap is asked for again and again, and each answer has what came since the last one. Nothing is sent by itself, so a
client that reads slowly, or not at all, holds up nothing: what does not fit is counted and left out, and a tap that
nobody asks for is forgotten. Without a tap nothing is done for a message. With one, messages are chosen when librdkafka
gets them; only of those that are chosen is the delivery report looked at, which has partition and offset. They are few
in a second, however many pass.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from app.errors import ConnectorError
from app.routes import Route, RouteTable, Template, has_wildcard, validate_topic_filter

if TYPE_CHECKING:
    from app.core.message import Message

MOST_TAPS = 8
MOST_PER_SECOND = 200  # messages that a tap shows
KEPT_MESSAGES = 400  # until the next answer
FORGOTTEN_AFTER_SECONDS = 5.0
KEPT_TOPICS = 10_000  # of which it is known whether the filter matches, no longer than the next
KEPT_TOPIC_BYTES = 256
MOST_LEVELS = 64  # of a filter with wildcards: a topic that is not kept is compared with each of them
LONGEST_TOPIC_CHARACTERS = 500
LONGEST_ID_CHARACTERS = 64

Report = Callable[[Any, Any], None]


class _Tap:
    """Who asks, for which messages, and what there is for the next answer."""

    def __init__(self, mqtt_filter: str) -> None:
        """Begin with nothing.

        Raises:
            ConnectorError: It is no MQTT filter, or has too many levels.
        """
        try:
            validate_topic_filter(mqtt_filter)
        except ValueError as error:
            raise ConnectorError(str(error)) from error
        if has_wildcard(mqtt_filter) and mqtt_filter.count("/") >= MOST_LEVELS:
            raise ConnectorError(f"the filter of a tap may have {MOST_LEVELS} levels at most, as messages wait for it")
        self.asked_at = self._second_began = time.monotonic()
        self._filter = RouteTable([Route("", mqtt_filter, Template(""))])
        self._is_wanted: dict[bytes, bool] = {}
        self._in_this_second = 0
        self._left_out = 0
        self._shown: deque[dict[str, Any]] = deque()

    def chooses(self, message: Message) -> bool:
        """Tell whether to look at a message's delivery report."""
        if not self._matches(message):
            return False
        now = time.monotonic()
        if now - self._second_began >= 1.0:
            self._second_began, self._in_this_second = now, 0
        self._in_this_second += 1
        if self._in_this_second > MOST_PER_SECOND:
            self._left_out += 1
            return False
        return True

    def _matches(self, message: Message) -> bool:
        topic = message.topic
        known = self._is_wanted.get(topic)
        if known is not None:
            return known
        matches = bool(self._filter.matches(message.topic_text))
        if len(topic) <= KEPT_TOPIC_BYTES:
            if len(self._is_wanted) >= KEPT_TOPICS:
                self._is_wanted.clear()
            self._is_wanted[topic] = matches
        return matches

    def show(self, told: dict[str, Any]) -> None:
        """Have it in the next answer, if there is room."""
        if len(self._shown) >= KEPT_MESSAGES:
            self._left_out += 1
        else:
            self._shown.append(told)

    def answer(self) -> dict[str, Any]:
        """Return what came since the last answer."""
        self.asked_at = time.monotonic()
        answer = {"messages": list(self._shown), "left_out": self._left_out}
        self._shown.clear()
        self._left_out = 0
        return answer


class Taps:
    """The taps that somebody asks for; on the event loop.

    Attributes:
        open: Those that there are; empty: there is nothing to be done for a message.
    """

    def __init__(self) -> None:
        """Begin without one."""
        self.open: dict[str, _Tap] = {}

    def ask(self, ids: tuple[str, ...]) -> dict[str, Any]:
        """Return what passed since the same tap was asked for last; the first time it begins.

        Args:
            ids: A name that nobody else uses, and an MQTT filter.

        Raises:
            ConnectorError: The filter is none, or there are too many taps.
        """
        if len(ids) != 2 or len(ids[0]) > LONGEST_ID_CHARACTERS:
            raise ConnectorError("a tap wants a short name and an MQTT filter")
        name, mqtt_filter = ids
        self._forget_unasked()
        if name not in self.open:
            if len(self.open) >= MOST_TAPS:
                raise ConnectorError(f"there are {MOST_TAPS} taps already, which is as many as can be")
            self.open[name] = _Tap(mqtt_filter)
        return self.open[name].answer()

    def _forget_unasked(self) -> None:
        oldest = time.monotonic() - FORGOTTEN_AFTER_SECONDS
        self.open = {name: tap for name, tap in self.open.items() if tap.asked_at >= oldest}

    def watch(self) -> Callable[[Message], Report] | None:
        """Return what makes the callback of each message that librdkafka gets; None if nobody asks any more."""
        self._forget_unasked()
        return self._callback if self.open else None

    def _callback(self, message: Message) -> Report:
        chosen_by = [tap for tap in self.open.values() if tap.chooses(message)]
        return partial(_report, message, chosen_by) if chosen_by else message.on_delivery


def _report(message: Message, taps: list[_Tap], error: Any, record: Any) -> None:
    """Show a message whose record Kafka has, and note the delivery report as without a tap."""
    if error is None:
        told = {
            "mqtt_topic": message.topic_text[:LONGEST_TOPIC_CHARACTERS],
            "route": message.route[:LONGEST_TOPIC_CHARACTERS],
            "kafka_topic": message.destination.topic,
            "partition": record.partition(),
            "offset": record.offset(),
            "milliseconds": max(0, int(time.time() * 1000) - message.timestamp_ms),
        }
        for tap in taps:
            tap.show(told)
    message.on_delivery(error, record)
