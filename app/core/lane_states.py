"""The states of a lane, what changes them, and what a lane answers.

| State       | New messages go to              | The table has of the lane                                            |
|-------------|---------------------------------|----------------------------------------------------------------------|
| `DIRECT`    | librdkafka                      | nothing, or what librdkafka has as well                              |
| `STORING`   | librdkafka and the table        | everything that Kafka has not confirmed                              |
| `BEHIND`    | the table                       | everything; from `cursor` on, librdkafka does not have it            |
| `REWINDING` | the table                       | everything that Kafka has not confirmed, to be sent again from the   |
|             |                                 | first refused message on                                             |

| From                  | To          | When                                                                         |
|-----------------------|-------------|------------------------------------------------------------------------------|
| `DIRECT`              | `STORING`   | a message is late, and Kafka is silent, or receiving held up, or the message |
|                       |             | ten times as old as a late one (`look_late`; `app.core.lateness`)            |
| `STORING`             | `DIRECT`    | messages are confirmed in time again, or late while few are in flight        |
|                       |             | (`note_reports`)                                                             |
| `DIRECT`, `STORING`   | `BEHIND`    | librdkafka may not get more for now (`accept`), or did not take it           |
|                       |             | (`note_not_taken`); or the table has an entry of an earlier start or for     |
|                       |             | DEAD_LETTER_TOPIC (`resume`), or gets one that was a dead letter             |
|                       |             | (`accept_revived`)                                                           |
| `DIRECT`, `STORING`   | `REWINDING` | Kafka refused a message for now (`note_refused`)                             |
| `BEHIND`              | `REWINDING` | the same                                                                     |
| `REWINDING`           | `BEHIND`    | every record is reported, and every removal done (`finish_rewind`)           |
| `BEHIND`              | `DIRECT`    | librdkafka has all that the table has (`catch_up`)                           |

With STORE_AFTER_MS=0 a lane is never `DIRECT`: it begins as `STORING`, and returns to it from `BEHIND`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from app.core.message import Message


class State(Enum):
    """What a lane does with new messages; see the module's header."""

    DIRECT = "direct"
    STORING = "storing"
    BEHIND = "behind"
    REWINDING = "rewinding"


NEXT_STATES = {
    State.DIRECT: {State.STORING, State.BEHIND, State.REWINDING},
    State.STORING: {State.DIRECT, State.BEHIND, State.REWINDING},
    State.BEHIND: {State.DIRECT, State.STORING, State.REWINDING},
    State.REWINDING: {State.BEHIND},
}


class Policy(NamedTuple):
    """The settings that hold for all lanes.

    Attributes:
        store_after_seconds: When a message that is in memory alone is late, STORE_AFTER_MS.
        replay_limit_messages: How many may be in flight where replayed ones are added, INVOKE_MAX_GOROUTINE.
        refill_below_messages: More is read from the table while fewer are in flight, INVOKE_MIN_GOROUTINE.
        longest_retry_seconds: Where the interval between two tries stops growing, INVOKE_LATENCY_SEC.
        idle_topic_seconds: After how long without messages a lane ends whose topic no route names.
        missing_topic_seconds: How long messages wait for a derived topic that Kafka does not have.
        few_messages: While Kafka answers late, a lane returns to `DIRECT` if all lanes have fewer in flight than this.
    """

    store_after_seconds: float
    replay_limit_messages: int
    refill_below_messages: int
    longest_retry_seconds: float
    few_messages: int
    idle_topic_seconds: float = 3600.0
    missing_topic_seconds: float = 3600.0


class Lot(NamedTuple):
    """Messages to hand to librdkafka, in order; their records get the current time, or their own time of receipt."""

    messages: Sequence[Message]
    with_current_time: bool


class Decision(NamedTuple):
    """What a lane wants done.

    Attributes:
        lots: What is to be handed to librdkafka; it counts as in flight already.
        store: What the table writer is to store, in order.
    """

    lots: Sequence[Lot]
    store: list[Message]
