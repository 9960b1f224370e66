"""How a lane sends what Kafka may refuse: how many records at once, when again, and with which time.

A lane of which a record was refused has one record in flight at a time, until one is confirmed. So has a new lane,
until the topic's limits are known and a record was confirmed; the limits alone are enough if nothing of the lane waits
in the table. So nothing that is handed over later passes a refused record.

Kafka refuses a batch as a whole, and for some reasons does not say which of its records is at fault. Then all of them
are *suspected*: they go one by one, up to the youngest, and the one that is refused when it went alone is at fault.

What becomes of a record that Kafka refuses, by the first line that is true of it:

| The refusal                                            | The record                                            |
|--------------------------------------------------------|-------------------------------------------------------|
| of its batch, and it is too old for its topic by now   | is sent again with the current time, without waiting  |
| of its batch, and it did not go alone                  | is sent again after an interval, by itself            |
| for good                                               | becomes a dead letter                                 |
| of its time, and it had the one that its device says   | is sent again with its time of receipt, at once       |
| of its time, and it had its time of receipt            | is sent again with the current time, without waiting  |
| any other                                              | is sent again after an interval                       |

The intervals are those of `app.core.retry`; which records get the current time is decided by `app.core.receipt_times`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from app.core.message import Message
from app.core.moment import Moment
from app.core.receipt_times import ReceiptTimes
from app.core.retry import Retry


class Refusal(NamedTuple):
    """Why Kafka or librdkafka did not accept a record.

    Attributes:
        is_final: Kafka will never accept it, so it is not tried again.
        is_of_batch: The whole batch was refused, perhaps because of another record in it.
        is_of_time: Its timestamp is the reason.
        went_alone: It was the only record of its batch.
    """

    is_final: bool
    is_of_batch: bool
    is_of_time: bool
    went_alone: bool


class Verdict(Enum):
    """What becomes of a refused message."""

    DEAD_LETTER = "a dead letter"
    AGAIN = "tried again"
    AGAIN_ALONE = "tried again, each record by itself"
    AGAIN_WITH_CURRENT_TIME = "tried again, with the current time"
    AGAIN_WITH_TIME_OF_RECEIPT = "tried again, with the time of receipt"


class Attempts:
    """What one lane knows of refused records; see the module's header.

    Attributes:
        limit_messages: How many may be in flight: 1 until a record was confirmed and the topic's limits are known.
        suspect_until: Up to this key records go one by one, as Kafka refused a batch because of one of them.
        are_troubled: A record was refused, and the lane does not send as usual yet.
        retry: Why the lane waits, and until when.
        times: Decides which records get the current time instead of their time of receipt.
        given_up_at: When a message became a dead letter last as nothing is tried (monotonic clock); 0: all is tried.
    """

    def __init__(self, longest_retry_seconds: float) -> None:
        """Begin with one record, as nothing is known yet."""
        self.limit_messages = 1
        self.suspect_until = b""
        self.are_troubled = False
        self.retry = Retry(longest_retry_seconds)
        self.times = ReceiptTimes()
        self.given_up_at = 0.0

    def note_learned(self, limit_messages: int) -> None:
        """Allow more than one record in flight, as the topic's limits are known."""
        if not self.are_troubled:
            self.limit_messages = limit_messages

    def judge(self, message: Message, refusal: Refusal, at: Moment) -> Verdict:
        """Decide what becomes of a message that Kafka refused."""
        if refusal.is_of_batch and self.times.grew_too_old(message, at) and self._goes_with_current_time(message, at):
            return Verdict.AGAIN_WITH_CURRENT_TIME
        if refusal.is_of_batch and not refusal.went_alone:
            self.suspect_until = max(self.suspect_until, message.key)
            self.are_troubled = True
            return Verdict.AGAIN_ALONE
        if refusal.is_final:
            self.end_suspicion(message)
            return Verdict.DEAD_LETTER
        if refusal.is_of_time and self.times.note_device_time_refused(message, at):
            self._begin_with_one()
            return Verdict.AGAIN_WITH_TIME_OF_RECEIPT
        if refusal.is_of_time and self._goes_with_current_time(message, at):
            return Verdict.AGAIN_WITH_CURRENT_TIME
        return Verdict.AGAIN

    def _goes_with_current_time(self, message: Message, at: Moment) -> bool:
        """Have a message, and what was refused with it, sent with the current time; False if it had that already."""
        if not self.times.note_refused(message, self.suspect_until, at):
            return False
        self._begin_with_one()
        return True

    def _begin_with_one(self) -> None:
        """Suspect nothing, and send one record first, as records go with other times now."""
        self.suspect_until = b""
        self.limit_messages = 1
        self.are_troubled = True

    def wait(self, trouble: str, now: float) -> float:
        """Wait before the next try, with one record; return the seconds, 0 if that is planned already."""
        self.limit_messages = 1
        self.are_troubled = True
        return self.retry.wait(trouble, now)

    def note_confirmed(self, confirmed: Sequence[Message], limit_messages: int, *, is_direct: bool) -> None:
        """End the waiting, and allow more than one record in flight, as Kafka confirmed some of the lane.

        Args:
            confirmed: The messages that Kafka confirmed.
            limit_messages: How many may be in flight from now on, unless one of them is suspected still.
            is_direct: New messages go to librdkafka: nothing that was refused for its time is in the table alone.
        """
        if self.retry.is_waiting:
            self.retry.succeed()
        if self.times.has_refused and is_direct:
            self.times.forget()
        if not self.suspect_until or any(message.key >= self.suspect_until for message in confirmed):
            self.suspect_until = b""
            self.limit_messages = limit_messages
        self.are_troubled = bool(self.suspect_until) or self.times.has_refused

    def end_suspicion(self, message: Message) -> None:
        """Allow batches again, as the record that spoiled its batch is found; unless younger ones are suspected."""
        if message.key >= self.suspect_until:
            self.suspect_until = b""

    def give_up(self, trouble: str, limit_messages: int, now: float) -> None:
        """Wait no more before a try, as what is tried becomes dead letters, with this trouble for people."""
        self.note_given_up(now)
        self.suspect_until = b""
        self.limit_messages = limit_messages
        self.retry.give_up(trouble)

    def note_given_up(self, now: float) -> None:
        """Note that messages become dead letters as nothing is tried."""
        self.given_up_at = max(self.given_up_at, now)

    def resume(self) -> None:
        """Begin with one record again, as they go to Kafka again."""
        self.given_up_at = 0.0
        self.limit_messages = 1
        self.retry.reset()

    def skip(self, message: Message) -> None:
        """Have the next message tried at once, as this one was taken out by hand."""
        self.retry.reset()
        self.end_suspicion(message)
