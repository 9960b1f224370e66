"""What an operator does with dead letters: `dead-letters retry`, `delete` and `move`, in the worker that runs.

The worker does it on its event loop, between two writes of the table writer; all of them are retried in parts
(`app.storage.retry_all`).

Where Kafka refuses the first message of a lane again and again, for a reason that may pass, the lane waits without end.
Only an operator can take that message out (`move`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from app.application import app
from app.core.message import note_destination
from app.errors import ConnectorError
from app.kafka.outcomes import MOVED_BY_OPERATOR
from app.storage.retry_all import RetryAll
from tables import layout

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.core.message import Message
    from app.kafka.dispatcher import Dispatcher
    from app.storage.dead_letters import DeadLetters
    from app.storage.writer import TableWriter
    from tables.undelivered import UndeliveredTable


class MovedMessage(TypedDict):
    """What was taken out of a lane; `goes_to` is a topic for dead letters, empty where it stays in the table."""

    id: str
    mqtt_topic: str
    size_bytes: int
    goes_to: str


class DeadLetterCommands:
    """Carries the commands out; on the event loop."""

    def __init__(
        self, table: UndeliveredTable, dispatcher: Dispatcher, dead_letters: DeadLetters, writer: TableWriter
    ) -> None:
        """Take the table, the lanes, the dead letters, and what syncs the table and says that it is full."""
        self._table = table
        self._dispatcher = dispatcher
        self._dead_letters = dead_letters
        self._writer = writer
        self._retry_all = RetryAll(dead_letters, table, self._may_retry)

    async def retry(self, ids: Sequence[str]) -> int:
        """Put dead letters at the end of their lanes, all if there are no ids; return how many.

        They are stored like new messages; the write that stores one also removes it from the dead letters.

        Raises:
            ConnectorError: No dead letter has one of the ids, or no route matches it, or the table is full.
        """
        if self._writer.is_full:
            raise ConnectorError("the table is full; retry when Kafka has taken some of it")
        if not ids:
            return await self._retry_all.run()
        letters = list(self._dead_letters.named(ids))
        self._dead_letters.revive(letters)
        return len(letters)

    def _may_retry(self) -> bool:
        """Tell whether more dead letters may be sent once more."""
        return not (self._writer.is_full or self._dispatcher.is_stopping or app.first_error)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete dead letters for good, if there are no ids all that are not on their way again; return how many.

        Raises:
            ConnectorError: No dead letter has one of the ids, or one is being retried; nothing is deleted then.
        """
        self._dead_letters.see_that_none_is_under_way(ids)
        count = self._table.letters.delete(ids, self._dead_letters.under_way)
        self._writer.sync_soon()
        return count

    def move(self, names: Sequence[str]) -> MovedMessage | dict[str, Any]:
        """Take the first message of a lane that waits out of it, as a dead letter; the lane tries the next one then.

        Args:
            names: The Kafka topic of the lane, alone.

        Returns:
            What was moved; nothing while the message is being tried or stored: ask again.

        Raises:
            ConnectorError: The lane does not wait.
        """
        lane = self._waiting_lane(names)
        head = self._head_of(lane) if lane.has_idle_head else None
        if head is None:
            return {}
        self._dispatcher.set_head_aside(lane, head, head.key + layout.JUST_BEHIND, MOVED_BY_OPERATOR, "by hand")
        topic = head.topic_text
        return {
            "id": head.key[-layout.SEQUENCE_BYTES :].hex(),
            "mqtt_topic": topic,
            "size_bytes": len(head.payload),
            "goes_to": self._dead_letters.topic_for(head, lane.topic),
        }

    def _waiting_lane(self, names: Sequence[str]) -> Lane:
        not_shown = self._dispatcher.topics.not_shown  # librdkafka tries for seconds before it says so
        waiting = {
            lane.topic: lane
            for lane in self._dispatcher
            if lane.trouble or (lane.topic in not_shown and not lane.is_direct)
        }
        (topic,) = names
        if self._dispatcher.is_stopping:
            raise ConnectorError("the worker stops; what its table holds is tried again after its next start")
        if topic in waiting:
            return waiting[topic]
        busy = any(lane.topic == topic and lane.in_flight.messages for lane in self._dispatcher)
        why = (
            "its records are with the Kafka client, which tries them itself, and Kafka may have some of them already"
            if busy
            else "Kafka refuses nothing of it"
        )
        raise ConnectorError(
            f"nothing is moved: the lane {topic} does not wait for a refusal to end ({why}). "
            f"Lanes that wait: {', '.join(sorted(waiting)) or 'none'}"
        )

    def _head_of(self, lane: Lane) -> Message | None:
        """Return the first message that waits in a lane: in the table, or on its way there where that is full."""
        unwritten = next(iter(lane.tail()), None)
        stored = self._table.read(lane.destination.prefix, lane.cursor, 1, 1)
        if stored and (unwritten is None or stored[0].key < unwritten.key):
            return note_destination(stored, lane.destination)[0]
        return unwritten
