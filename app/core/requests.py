"""What modules ask of each other: the items of the channels (`app.channels`), and what puts them there.

| Channel       | Items                                      | From                                  | To the agent |
|---------------|--------------------------------------------|---------------------------------------|--------------|
| `inbound`     | `Batch`                                    | the MQTT source                       | `router`     |
| `undelivered` | `TableRequest`, most often `StoreMessages` | `app.kafka`: dispatcher, reports and  | `writer`     |
|               |                                            | refused; the MQTT source; the table   |              |
|               |                                            | writer, to try again                  |              |
| `delivered`   | lists of stored messages that Kafka has    | `app.kafka.reports`                   | `remover`    |
| `restored`    | `ReplayChunk`                              | the replay reader                     | `replayer`   |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.core.acknowledging import AcknowledgementWindow
from app.core.message import Message


@dataclass(slots=True)
class Batch:
    """What one read of the MQTT socket brought, in the order of receipt; not a batch of Kafka's.

    Attributes:
        messages: The messages.
        window: The unacknowledged messages of their connection.
        size_bytes: The sum of the messages' `size_bytes`.
        too_large_bytes: The length of a PUBLISH packet that was too large; the one message has no payload. Else 0.
        came_again: A QoS 2 message of an earlier connection came again, which may be safe already.
    """

    messages: list[Message]
    window: AcknowledgementWindow
    size_bytes: int = 0
    too_large_bytes: int = 0
    came_again: bool = False


@dataclass(slots=True)
class ReplayChunk:
    """Entries read from the table for one lane, in order.

    Attributes:
        topic: The lane's Kafka topic.
        messages: The entries.
        generation: The lane's `generation` when they were read; the chunk is not used if that has changed by now.
    """

    topic: str
    messages: list[Message]
    generation: int


@dataclass(slots=True)
class StoreMessages:
    """Write messages to the table, in this order."""

    messages: list[Message]


@dataclass(slots=True)
class SetAside:
    """Make dead letters of messages that cannot go to Kafka; each has its `dead_reason`."""

    messages: list[Message]


@dataclass(slots=True)
class RememberSubscriptions:
    """Remember the subscriptions that the broker's session has.

    Attributes:
        filters: The filters.
        generations: In which order they were subscribed to, by filter; also of removed ones.
        on_synced: Called when it is durable (event loop).
        left: Filters that a running drain unsubscribes from; the session has them until UNSUBACK.
        granted_at: When each was granted first (Unix seconds).
        asked_qos: With which QoS each was asked for.
        left_out: Filters that are not subscribed to, as the broker closes the connection when they are.
    """

    filters: list[str]
    generations: dict[str, int]
    on_synced: Callable[[], None] | None = None
    left: list[str] = field(default_factory=list)
    granted_at: dict[str, float] = field(default_factory=dict)
    asked_qos: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ForgetIdentifiers:
    """Forget stored packet identifiers of QoS 2, and then acknowledge with PUBCOMP.

    Attributes:
        packet_identifiers: Those that PUBREL named; None for all, when the broker lost the session.
        window: What the PUBCOMPs are sent through.
    """

    packet_identifiers: list[int] | None
    window: AcknowledgementWindow


@dataclass(slots=True)
class Remember:
    """Remember a single value of the table's metadata."""

    name: str
    value: Any


@dataclass(slots=True)
class ForgetLanes:
    """Forget lanes of which the table has nothing.

    Attributes:
        topics: Their Kafka topics.
    """

    topics: list[str]


TableRequest = StoreMessages | SetAside | ForgetLanes | RememberSubscriptions | ForgetIdentifiers | Remember


class Requests(Protocol):
    """What carries decisions to the agents: each call puts one item into a channel, in the order of the calls."""

    def ask_table(self, request: TableRequest) -> None:
        """Have the table writer do something."""

    def remove(self, messages: list[Message]) -> None:
        """Have stored messages removed from the table, as Kafka has them."""

    def replay(self, chunk: ReplayChunk) -> None:
        """Have what was read from the table handed to librdkafka."""
