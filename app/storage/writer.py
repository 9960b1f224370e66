"""The table writer: the only writer of the table of undelivered messages.

It deals with requests one by one, in the order in which they were made. It stores messages, makes dead letters of those
that cannot go to Kafka (`app.storage.dead_letters`), and removes from the table what Kafka has.

A write is not synced by itself. What was written is safe after the next sync, and is acknowledged then
(`app.storage.syncs`).

When the table is full, the messages that are to be stored wait in memory, unacknowledged, until there is room
(`block`); or the oldest entries that librdkafka does not have are dropped for them (`drop_oldest`, see
`app.storage.room`). When the disk is full, they wait in both cases. A route may have a limit of its own, beyond which
its oldest entries are dropped (`app.storage.route_limits`). `app.storage.oversize` decides about messages that are
larger than the table may ever be.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from app.application import app
from app.channels import undelivered
from app.core.message import Message
from app.core.requests import SetAside, StoreMessages, TableRequest
from app.metrics import accounts
from app.pieces import PIECE_BYTES
from app.storage.fullness import Fullness
from app.storage.metadata import write_metadata
from app.storage.room import Room
from app.storage.route_limits import RouteLimits
from app.storage.syncs import Syncs
from tables import pieces
from tables.entry import expected_bytes

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.routes import RouteTable
    from app.storage.dead_letters import DeadLetters
    from app.storage.oversize import Oversize
    from tables.undelivered import UndeliveredTable

LOOK_AGAIN_SECONDS = 0.5
# Of a single write: the free space of the disk is looked at before each, and it takes some 20 ms.
WRITE_BYTES, WRITE_MESSAGES = 4 * 1024 * 1024, 5_000
MUCH_BYTES = 64 * 1024 * 1024  # more than what the messages of one write become: topics come several times in an entry


class TableWriter:
    """Writes the table; on the event loop, except for the sync itself.

    Attributes:
        fullness: Why the table or its disk is full, and the log of it.
        is_full: Whether messages wait because the table is full.
    """

    def __init__(
        self,
        table: UndeliveredTable,
        dispatcher: Dispatcher,
        acknowledge: Callable[[Iterable[Message]], None],
        *,
        drop_oldest: bool,
        dead_letters: DeadLetters,
        oversize: Oversize,
        routes: RouteTable,
    ) -> None:
        """Make the writer of a table.

        Args:
            table: The table.
            dispatcher: The lanes, to be told what is written and removed.
            acknowledge: Marks messages safe and acknowledges them to MQTT.
            drop_oldest: Whether the oldest entries are dropped when the table is full.
            dead_letters: Where messages go that cannot go to Kafka.
            oversize: Decides about messages that are larger than the table.
            routes: The routes, with the limits of some.
        """
        self._table = table
        self._dispatcher = dispatcher
        self.fullness = Fullness(table, drop_oldest=drop_oldest)
        self._route_limits = RouteLimits(table, dispatcher, routes)
        self._room = Room(table, dispatcher, self.fullness, self._route_limits, drop_oldest=drop_oldest)
        self._dead_letters = dead_letters
        self._oversize = oversize
        self._waiting: deque[Message] = deque()
        self._stopped_short = False
        self._syncs = Syncs(table, acknowledge)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """Whether messages wait because the table is full."""
        return self._stopped_short and any(not message.finished for message in self._waiting)

    # ---- storing

    async def do(self, request: TableRequest) -> None:
        """Do what a request asks for."""
        if app.first_error is not None:
            return  # a write failed, so what is on disk is unknown: nothing more may be acknowledged because of it
        if isinstance(request, StoreMessages):
            self._waiting.extend(request.messages)
            await self._store_waiting()
        elif isinstance(request, SetAside):
            await self._set_aside(request.messages)
        else:
            write_metadata(self._table, self._syncs, request)

    async def _set_aside(self, messages: list[Message]) -> None:
        """Make dead letters of messages; they are acknowledged after the sync, like all others."""
        for message in messages:
            if len(message.payload) > PIECE_BYTES and not await self._put_pieces(message, lambda: False):
                return
        write = self._table.begin()
        for message in messages:
            was_stored = message.stored
            self._dead_letters.add(message, write)
            if message.is_in_pieces and not was_stored and not write.keeps(message.pieces):
                write.drop_begun(message.pieces.name)
        topics = self._note_removed(messages)
        self._note_written(messages)
        self._syncs.add(messages)
        is_crowded = self._dead_letters.drop_oldest(write)
        write.commit()
        self._syncs.soon()
        self._dispatcher.go_on(topics)
        while is_crowded and app.first_error is None:
            await pieces.others_turn(self._table.data)
            is_crowded = self._drop_more()

    def _drop_more(self) -> bool:
        """Have more of the oldest dead letters give way; return whether that is not enough yet."""
        write = self._table.begin()
        is_crowded = self._dead_letters.drop_oldest(write)
        write.commit()
        return is_crowded

    def _note_written(self, messages: Iterable[Message]) -> None:
        """Tell the lanes that messages are written, or need not be written any more."""
        for topic in {message.destination.topic for message in messages}:
            self._dispatcher.lanes[topic].unwritten.drop_written()

    def _note_removed(self, messages: Iterable[Message]) -> set[str]:
        """Tell the lanes that messages are removed; return the Kafka topics of these."""
        removed = Counter([message.destination.topic for message in messages])
        for topic, number in removed.items():
            self._dispatcher.lanes[topic].note_removed(number)
        return set(removed)

    async def _store_waiting(self) -> None:
        """Store what waits, as far as it fits or has older messages give way; between two writes others have a turn."""
        if self._oversize.held:
            self._waiting.extendleft(reversed(self._oversize.release()))
        while self._waiting:
            if fitting := self._pop_small() or self._pop_fitting():
                await self._store_fitting(fitting)
            elif not self._waiting or not self._room.make_some(self._waiting[0]):
                break
            if self._waiting:
                await pieces.others_turn(self._table.data)
            if app.first_error is not None:
                return
        self._stopped_short = bool(self._waiting)
        if self._stopped_short:
            self.fullness.log_full("nothing more is accepted until there is room", self._waiting[0])
        is_still_full = self._stopped_short or (self.fullness.is_logged and self.fullness.log_room())
        if is_still_full or self._oversize.held:
            self._look_again()

    async def _store_fitting(self, fitting: list[Message]) -> None:
        if len(fitting[0].payload) > PIECE_BYTES:
            await self._store_large(fitting[0])
        else:
            self._store(fitting)
        if self._route_limits.routes.have_limits:
            await self._route_limits.keep(fitting)

    async def _store_large(self, message: Message) -> None:
        """Store a message in pieces; if Kafka confirms it meanwhile, or the disk is full, it waits as before."""
        if await self._put_pieces(message, lambda: message.finished or self._table.check_disk_full()):
            self._store([message])
            self._dispatcher.go_on([message.destination.topic])  # until now the lane could read it nowhere
        elif app.first_error is None:
            self._waiting.appendleft(message)

    async def _put_pieces(self, message: Message, is_void: Callable[[], bool]) -> bool:
        """Write a large payload, before its entry; return whether all of it is written and still needed."""
        if message.is_in_pieces:
            return True
        return await pieces.put(self._table, message, lambda: app.first_error is not None or is_void())

    def _store(self, messages: list[Message]) -> None:
        write = self._table.begin()
        stored = write.append(messages)
        write.commit()
        for route, number, size_bytes in stored:
            accounts[route].store(number, size_bytes)
        self._note_written(messages)
        self._syncs.add(messages)
        self._syncs.soon()

    def _pop_small(self) -> list[Message]:
        """Do what `_pop_fitting` does for small messages while the table has much room, without looking at each."""
        small: list[Message] = []
        if self._oversize.held or not self._table.has_room_for(MUCH_BYTES) or self._table.check_disk_full():
            return small
        size_bytes, waiting = 0, self._waiting
        while waiting and size_bytes < WRITE_BYTES and len(small) < WRITE_MESSAGES:
            message = waiting[0]
            if message.finished:
                self._skip_finished()
                continue
            if len(message.payload) > PIECE_BYTES:
                break
            size_bytes += message.size_bytes
            small.append(waiting.popleft())
        return small

    def _pop_fitting(self) -> list[Message]:
        """Take from the head of the queue the messages that are still to be stored and fit; return them.

        A message that is stored in pieces is returned alone.
        """
        fitting: list[Message] = []
        size_bytes, waiting = 0, self._waiting
        # On a full disk nothing is written: after a failed write the next start could not even open the table.
        disk_is_full = self._table.check_disk_full()
        while self._skip_finished() and size_bytes < WRITE_BYTES and len(fitting) < WRITE_MESSAGES:
            message_bytes = expected_bytes(waiting[0])
            may_be_held = self._oversize.held or message_bytes > self._table.limit_bytes
            if may_be_held and self._oversize.hold(waiting[0], message_bytes):
                waiting.popleft()
                continue
            if fitting and len(waiting[0].payload) > PIECE_BYTES:
                break
            size_bytes += message_bytes
            # At a stop the table may exceed its limit, by what memory holds at most: nothing received may be lost.
            if disk_is_full or not (self._dispatcher.is_stopping or self._table.has_room_for(size_bytes)):
                break
            fitting.append(waiting.popleft())
            if len(fitting[0].payload) > PIECE_BYTES:
                break
        return fitting

    def _skip_finished(self) -> bool:
        """Drop from the head of the queue what is finished; return whether anything waits then."""
        waiting = self._waiting
        while waiting and waiting[0].finished:
            message = waiting.popleft()
            if message.dead_letter_key and not message.dead_reason:  # with a reason it becomes one again: `_set_aside`
                self._end_dead_letter(message)
            self._note_written([message])
        return bool(waiting)

    def _look_again(self) -> None:
        """Try again in a while: the disk may get free space without any event here."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        self._timer = None
        self._let_go_of_finished()
        undelivered.put_now(StoreMessages([]))

    def _let_go_of_finished(self) -> None:
        """Drop what is finished from the whole queue, as its head may wait for room for days."""
        # A dead letter that was retried stays: its entry is removed when it is at the head.
        self._waiting = deque([message for message in self._waiting if not message.finished or message.dead_letter_key])
        for lane in self._dispatcher:
            lane.unwritten.drop_finished()

    def _end_dead_letter(self, message: Message) -> None:
        """Remove the entry of a dead letter that was retried, and that Kafka confirmed before it was stored again."""
        write = self._table.begin()
        write.end_dead_letter(message)
        write.commit()

    # ---- removing

    async def remove(self, messages: list[Message]) -> None:
        """Remove what Kafka has; not synced at once."""
        if app.first_error is not None:
            return
        write = self._table.begin()
        write.remove(messages)
        topics = self._note_removed(messages)
        for topic in topics:
            if first := self._dispatcher.lanes[topic].first_in_table:
                write.move_head(topic, first)
        write.commit()
        self._dispatcher.go_on(topics)
        if self._waiting and self._stopped_short:
            undelivered.put_now(StoreMessages([]))  # there may be room now
        self._syncs.removals_soon()

    def sync_soon(self) -> None:
        """Have the disk get what somebody else changed in the table, as a command did."""
        self._syncs.soon()
