"""Dead letters: messages that cannot go to Kafka as they are, set aside so that their lane goes on.

With DEAD_LETTER_TOPIC set, or a topic of their route for them, they go there, through the table and the lane of that
topic, like any other message. Without it, and when the table is full, they stay in the table until somebody retries or
deletes them. When they take more than a tenth of UNDELIVERED_MAX_BYTES, the oldest ones are dropped, many of them in
several writes. All of this is part of writes of the table writer.

The entry of a dead letter that is retried goes with the write that stores its message elsewhere, or when Kafka has it.
Until then nothing else removes it: no command, and no newer dead letter.

Messages that the broker sends by mistake may take half of that space (`app.storage.mistakes`).

A message that no route matches has no Kafka topic. It can be retried once a route matches it. What an operator does
with dead letters is in `app.storage.dead_letter_commands`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from app.core.destination import Destination
from app.core.message import DEAD_LETTER_TOPIC, Message, note_destination
from app.errors import ConnectorError
from app.metrics import accounts
from app.storage.mistakes import Mistakes
from app.throttle import Throttle
from app.turns import PART_SECONDS
from tables import layout
from tables.dead_letter import DeadLetter, mapped, with_topic
from tables.entry import expected_bytes
from tables.undelivered import DEAD_LETTER_SHARE

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.routes import RouteTable
    from tables.undelivered import UndeliveredTable
    from tables.write import TableWrite

log = logging.getLogger(__name__)

DROPPED_AT_ONCE = 2_000  # of the oldest, in one write: 10 ms


class _UnderWay(NamedTuple):
    """One that was revived: the message that it is now, and what its entry takes."""

    message: Message
    entry_bytes: int


class DeadLetters:
    """Adds and revives dead letters.

    Attributes:
        dropped: How many gave way to newer ones.
    """

    def __init__(
        self,
        table: UndeliveredTable,
        dispatcher: Dispatcher,
        topic: str | None,
        next_key: Callable[[bytes], bytes],
        routes: RouteTable,
        admits: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Take what they are made from.

        Args:
            table: Where they stay.
            dispatcher: The lanes.
            topic: DEAD_LETTER_TOPIC; None: they stay in the table.
            next_key: Makes a new key, given a lane's prefix.
            routes: All routes: some have a topic of their own for dead letters, and a letter may belong to none yet.
            admits: Tells whether a Kafka topic may come into use, and makes its lane.
        """
        self.dropped = 0
        self._dropped_to = layout.DEAD_LETTER
        self._throttle = Throttle(log)
        self._table = table
        self._mistakes = Mistakes(table)
        self._dispatcher = dispatcher
        self._topic = topic
        self._next_key = next_key
        self._routes = routes
        self._admits = admits
        # By the key of its entry: the message that was made of it, and what the entry takes.
        self._under_way: dict[bytes, _UnderWay] = {}

    def add(self, message: Message, write: TableWrite) -> None:
        """Set a message aside, out of the table's lane if it is in it; the dead letter that it was ends with that."""
        account = accounts[message.route]
        if message.dead_letter_key:
            write.end_dead_letter(message)
        if message.stored:
            account.leave_table(message.stored_bytes)
        else:
            account.leave_memory(1)
        topic = message.destination.topic
        goes_to = self.topic_for(message, topic)
        if goes_to and self._has_room_for(message, goes_to):
            self._send(message, self._dispatcher.destination(goes_to), write)
        elif expected_bytes(message) > self._limit_bytes:
            self._give_up(message, write)
        elif self._mistakes.has_no_room_for(message, self._limit_bytes):
            account.dead_letter(message.dead_reason)
            self.dropped += 1
        else:
            write.add_dead_letter(message, topic)
            account.dead_letter(message.dead_reason)

    def topic_for(self, message: Message, topic: str) -> str:
        """Return where a dead letter goes that a Kafka topic did not take; empty if it stays in the table.

        What a topic for dead letters did not take either stays, also where its route names another one now.
        """
        route = self._routes.by_name.get(message.route)
        goes_to = (route.dead_letter_topic if route is not None else None) or self._topic or ""
        was_sent = any(name == DEAD_LETTER_TOPIC for name, _ in message.headers)
        return "" if was_sent or topic == goes_to else goes_to

    def _give_up(self, message: Message, write: TableWrite) -> None:
        """Drop a dead letter that is larger than all may be together: no other one gives way for it."""
        if message.stored:
            write.remove([message])
        accounts[message.route].dead_letter(message.dead_reason)
        self.dropped += 1
        self._throttle.error(
            ("too large", message.route),
            "a dead letter of %d bytes for %s is dropped: it is larger than a tenth of the table, and dead letters may "
            "take no more; raise UNDELIVERED_MAX_BYTES or set DEAD_LETTER_TOPIC",
            len(message.payload),
            message.route,
        )

    @property
    def _limit_bytes(self) -> float:
        return self._table.limit_bytes * DEAD_LETTER_SHARE

    def _has_room_for(self, message: Message, topic: str) -> bool:
        """Tell whether a message may go to a topic of dead letters: its lane and the table have room; else it stays."""
        table, lane = self._table, self._dispatcher.lanes[topic]
        return not lane.unwritten and table.has_room_for(message.size_bytes) and not table.check_disk_full()

    def _send(self, message: Message, destination: Destination, write: TableWrite) -> None:
        """Move a message to the end of the dead letters' lane; counted as dead-lettered when Kafka has it there."""
        letter = Message.restored(
            self._next_key(destination.prefix),
            message.route,
            message.timestamp_ms,
            message.record_key,
            message.dead_letter_headers(),
            message.payload,
            message.dead_reason,
            expected_bytes(message),  # what it counts for in memory, until it is written
        )
        letter.kept_since = message.kept_since
        letter.share_pieces_of(message)
        letter.share_time_of(message)
        if message.stored:
            write.remove([message], keep_pieces=True)
        write.append([letter])
        note_destination([letter], destination)
        accounts[letter.route].enter_table(letter.stored_bytes)
        self._dispatcher.send_appended(letter)

    def named(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        """Iterate over those with these ids; all of them can be retried, or there is an error before the first.

        Raises:
            ConnectorError: There is none with an id, or one is on its way already, or no route matches it.
        """
        self.see_that_none_is_under_way(ids)
        return mapped(self._table.letters.chosen(ids), self._routes, all_of_them=True)

    @property
    def end(self) -> bytes:
        """A key behind those of all that there are, and before those of all that come; retried ones are such, too."""
        return layout.DEAD_LETTER + self._next_key(b"")[-layout.SEQUENCE_BYTES :]

    def idle(self, first: bytes, end: bytes) -> Iterator[tuple[DeadLetter, DeadLetter | None]]:
        """Iterate over those from one key to another, as they are now, and over the same with a Kafka topic to go to.

        Those that were revived and are not stored yet are left out: asked for twice, they would be sent twice.
        """
        for key, value in self._table.data.entries(first):
            if key >= end:
                return
            if key not in self._under_way:
                letter = DeadLetter.unpack(key, value)
                sent = with_topic(letter, self._routes)
                yield letter, sent if sent is not None and self._admits(sent.topic) else None

    @property
    def are_under_way(self) -> bool:
        """Whether some were revived and are not stored yet."""
        self.see_that_none_is_under_way(())
        return bool(self._under_way)

    @property
    def under_way(self) -> dict[bytes, int]:
        """The keys of those that were revived and are not stored yet, and what they take: nothing else removes them.

        Until then the message is in memory alone, and perhaps with Kafka; after a kill it would be nowhere.
        """
        return {key: each.entry_bytes for key, each in self._under_way.items() if each.message.dead_letter_key}

    def see_that_none_is_under_way(self, ids: Sequence[str]) -> None:
        """Refuse a command that names a dead letter which was revived and is not stored yet.

        Raises:
            ConnectorError: One of them is.
        """
        self._under_way = {key: self._under_way[key] for key in self.under_way}
        busy = {key[1:].hex() for key in self._under_way}.intersection(ids)
        if busy:
            raise ConnectorError(
                f"nothing was changed: {', '.join(sorted(busy)[:3])} is on its way to Kafka already, as somebody has "
                "retried it"
            )

    def revive(self, letters: Iterable[DeadLetter]) -> None:
        """Have dead letters stored at the end of their lanes once more, behind all that waits to be stored."""
        by_topic: dict[str, list[Message]] = {}
        for letter in letters:
            destination = self._dispatcher.destination(letter.topic)
            message = letter.revived(self._next_key(destination.prefix))
            note_destination([message], destination)
            self._under_way[letter.key] = _UnderWay(message, letter.entry_bytes)
            accounts[message.route].revive()
            by_topic.setdefault(letter.topic, []).append(message)
        for messages in by_topic.values():
            self._dispatcher.accept_revived(messages)

    def drop_oldest(self, write: TableWrite) -> bool:
        """Have the oldest give way until the rest fits, so many at once; return whether more have to, after this write.

        A large one may push out a hundred thousand small ones, or a hundred of a megabyte, which take as long to read.
        What is on its way again stays, and makes no other give way: its room is free in a moment.
        """
        if self._table.dead_bytes <= self._limit_bytes or not self._table.letters.are_counted:
            return False
        spared, most, ends = self.under_way, self.dropped + DROPPED_AT_ONCE, time.monotonic() + PART_SECONDS
        limit_bytes = self._limit_bytes + sum(spared.values())
        entries = self._from_the_oldest() if self._table.dead_bytes > limit_bytes else iter(())
        for key, value in entries:
            self._dropped_to = key
            if key in spared or write.ends(key):
                continue
            write.remove_dead_letter(key, len(value))
            self.dropped += 1
            self._throttle.warning("full", "the dead letters are full: the oldest one is dropped")
            if self._table.dead_bytes <= limit_bytes:
                return False
            if self.dropped >= most or time.monotonic() >= ends:
                return True
        return False

    def _from_the_oldest(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries of dead letters, from where the last one was dropped; then over older late-comers.

        In a flood, to begin with the first each time would pass thousands that are deleted.
        """
        for key, value in self._table.data.entries(self._dropped_to + b"\0"):
            if not key.startswith(layout.DEAD_LETTER):
                break
            yield key, value
        yield from self._table.data.with_prefix(layout.DEAD_LETTER)
