"""The keeper: the only writer of the table.

It stores what the lanes ask for, in the order in which they ask (channel `undelivered`), and removes what Kafka
confirmed (channel `delivered`). What cannot go to Kafka it sets aside (`agents.dead_letters`).

A sync covers all writes before it; one is under way at a time, so that the next one covers everything that came
meanwhile. Messages are acknowledged after the sync that covers them.

When the table is full, what is to be stored waits (`block`), unacknowledged, until there is room; or the oldest
waiting messages give way (`drop_oldest`). On a full disk everything waits. What could never fit: `agents.oversize`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from agents.fullness import Fullness
from agents.shell import for_each
from app import channels
from app.application import app
from app.errors import ConnectorError
from app.messages import (
    DeadLettered,
    KeeperRequest,
    Message,
    Released,
    Remembered,
    Subscribed,
    Undelivered,
    has_large,
    stored_by_route,
)
from app.metrics import accounts, store_seconds
from app.pieces import PIECE_BYTES
from tables import layout, pieces
from tables.piece_keys import goes_in_pieces

if TYPE_CHECKING:
    from agents.dead_letters import DeadLetters
    from agents.oversize import Oversize
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from tables.undelivered import UndeliveredTable

SYNC_REMOVALS_SECONDS = 1.0  # a power cut repeats at most what was delivered in this time
RETRY_BYTES = 16 * 1024 * 1024  # of dead letters at once, as memory holds them until they are stored
LOOK_AGAIN_SECONDS = 0.5
LOT_BYTES = 4 * 1024 * 1024  # of a single write, so that the disk's room is looked at in between
TABLE_FULL = "table_full"


class Keeper:
    """Writes the table; on the event loop, but for the sync itself.

    Attributes:
        fullness: Says that the table or its disk is full, and why.
        is_full: Messages wait because the table is full.
    """

    def __init__(
        self,
        table: UndeliveredTable,
        lanes: Lanes,
        acknowledge: Callable[[Iterable[Message]], None],
        *,
        drop_oldest: bool,
        dead_letters: DeadLetters,
        oversize: Oversize,
    ) -> None:
        """Make the keeper of a table.

        Args:
            table: The table.
            lanes: The lanes, for what waits in the table alone.
            acknowledge: Marks messages safe and acknowledges them to MQTT.
            drop_oldest: What gives way when the table is full.
            dead_letters: Where messages go that cannot go to Kafka.
            oversize: Decides about messages that the table cannot keep.
        """
        self._table = table
        self._lanes = lanes
        self._acknowledge = acknowledge
        self._drop_oldest = drop_oldest
        self.fullness = Fullness(table, drop_oldest=drop_oldest)
        self._dead_letters = dead_letters
        self._oversize = oversize
        self._waiting: deque[Message] = deque()
        self._stopped_short = False
        self._unsynced: list[Message] = []
        self._unsynced_requests: list[Released | Subscribed] = []
        self._syncing: asyncio.Task[None] | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._more_to_sync = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """Whether messages wait because the table is full."""
        return self._stopped_short and any(not message.confirmed for message in self._waiting)

    # ---- storing

    async def take(self, request: KeeperRequest) -> None:
        """Do what another room asks for; one request at a time."""
        if app.first_error is not None:
            return  # what the disk holds is unknown: nothing more may become safe by it
        if isinstance(request, Undelivered):
            self._waiting.extend(request.messages)
            await self._store_waiting()
            return
        if isinstance(request, DeadLettered):
            await self._set_aside(request.messages)
        else:
            self._note(request)

    def _note(self, request: Released | Subscribed | Remembered) -> None:
        """Write what is no message."""
        write = self._table.begin()
        if isinstance(request, Remembered):
            if self._table.check_disk_full():
                return  # a write that fails would end the worker, for something that it can learn again
            write.set_meta(request.name, request.value)
        elif isinstance(request, Subscribed):
            write.set_meta("filters", request.filters)
            write.set_meta("generations", request.generations)
            write.set_meta("left", request.left)
            write.set_meta("granted_at", request.granted_at)
            write.set_meta("left_out", request.left_out)
            self._unsynced_requests.append(request)
        else:
            identifiers, kept = request.packet_identifiers, self._table.metadata
            write.forget_packet_identifiers(kept.packet_identifiers() if identifiers is None else identifiers)
            self._unsynced_requests.append(request)
        write.commit()
        self._sync_soon()

    async def _set_aside(self, messages: list[Message]) -> None:
        """Put messages among the dead letters; acknowledged after the sync like all others."""
        for message in filter(goes_in_pieces, messages):
            if not await self._put_pieces(message, lambda: False):
                return
        write = self._table.begin()
        for message in messages:
            was_stored = message.stored
            self._dead_letters.add(message, write)
            message.lane.removing_messages -= 1
            if message.is_in_pieces and not was_stored and not write.keeps(message.pieces):
                write.drop_begun(message.pieces.name)
        lanes = {message.lane for message in messages}
        self._forget_written(lanes)
        self._unsynced.extend(messages)
        write.commit()
        self._sync_soon()
        self._go_on(lanes)

    def _go_on(self, lanes: Iterable[Lane]) -> None:
        """Let lanes rewind and be fed that waited for entries to be removed."""
        for lane in lanes:
            lane.after_reports()
            self._lanes.look_at(lane)

    async def _store_waiting(self) -> None:
        """Store what waits, as far as it fits; in several writes with others' turns in between if it is much."""
        if self._oversize.holds:
            self._waiting.extendleft(reversed(self._oversize.release()))
        while fitting := self._take_fitting():
            if goes_in_pieces(fitting[0]):
                await self._store_large(fitting[0])
            else:
                self._store(fitting)
            if self._waiting:
                await pieces.others_turn(self._table.data)
            if app.first_error is not None:
                return
        self._stopped_short = bool(self._waiting)
        if self._oversize.holds:
            self._look_again()
        if not self._waiting and self.fullness.say_room():
            self._look_again()

    async def _store_large(self, message: Message) -> None:
        """Store a message in pieces; it waits as before if Kafka confirms it meanwhile, or the disk is full."""
        if await self._put_pieces(message, lambda: message.confirmed or self._table.check_disk_full()):
            self._store([message])
        elif app.first_error is None:
            self._waiting.appendleft(message)

    async def _put_pieces(self, message: Message, is_void: Callable[[], bool]) -> bool:
        """Write a large payload, for an entry that comes next; return whether all of it is there and wanted."""
        return await pieces.put(self._table, message, lambda: app.first_error is not None or is_void())

    def _store(self, messages: list[Message]) -> None:
        write = self._table.begin()
        write.append(messages)
        write.commit()
        for route, number, size_bytes in stored_by_route(messages):
            account = accounts[route]
            account.in_flight -= number
            account.stored += number
            account.enter_table(size_bytes, number)
        self._forget_written({message.lane for message in messages})
        self._unsynced.extend(messages)
        self._sync_soon()
        if messages[0].is_in_pieces:  # its lane could not catch up before, if its payload was not read
            self._lanes.look_at(messages[0].lane)

    def _take_fitting(self) -> list[Message]:
        """Return the messages from the head of those that wait that are still to be stored and fit.

        One that is stored in pieces is returned alone.
        """
        fitting: list[Message] = []
        size_bytes = 0
        waiting = self._waiting
        # After a failed write the next start could not even open; and others may have filled the disk, so that dropping
        # all there is might make no room.
        disk_is_full = self._table.check_disk_full()
        while self._skip_confirmed() and size_bytes < LOT_BYTES:
            expected_bytes = layout.expected_bytes(waiting[0])
            if self._oversize.hold(waiting[0], expected_bytes):
                waiting.popleft()
                continue
            if fitting and len(waiting[0].payload) > PIECE_BYTES:
                break
            size_bytes += expected_bytes
            # At the stop the limit may be passed, by no more than memory holds: nothing that was received may be lost.
            has_room = self._lanes.stopping or self._table.has_room_for(size_bytes)
            if disk_is_full or not (has_room or self._make_room(size_bytes)):
                self.fullness.say("nothing more is accepted until there is room", waiting[0])
                self._look_again()
                break
            fitting.append(waiting.popleft())
            if len(fitting[0].payload) > PIECE_BYTES:
                break
        return fitting

    def _skip_confirmed(self) -> bool:
        """Leave out what Kafka confirmed from the head of those that wait; return whether anything waits then."""
        waiting = self._waiting
        while waiting and waiting[0].confirmed:
            message = waiting.popleft()
            if message.dead_letter_key and not message.dead_reason:  # else the write ends it that sets it aside again
                self._end_dead_letter(message)
            self._forget_written([message.lane])
        return bool(waiting)

    def _look_again(self) -> None:
        """Try once more in a while: room on the disk may come without anything happening here."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        self._timer = None
        self._let_go_of_confirmed()
        self._asking = asyncio.get_running_loop().create_task(channels.undelivered.put(Undelivered([])))

    def _let_go_of_confirmed(self) -> None:
        """Hold nothing in memory that Kafka confirmed behind what waits for room, perhaps for days."""
        # A dead letter that was retried still has to end: it takes its turn.
        self._waiting = deque(
            [message for message in self._waiting if not message.confirmed or message.dead_letter_key]
        )
        for lane in self._lanes:
            lane.unwritten = deque([message for message in lane.unwritten if not message.confirmed])

    def _end_dead_letter(self, message: Message) -> None:
        """Remove the dead letter that a message was which Kafka confirmed before it was stored again."""
        write = self._table.begin()
        write.end_dead_letter(message)
        write.commit()

    def _forget_written(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            unwritten = lane.unwritten
            while unwritten and (unwritten[0].stored or unwritten[0].confirmed):
                unwritten.popleft()

    def _make_room(self, size_bytes: int) -> bool:
        """Drop the oldest messages that wait in the table alone, until so much fits."""
        if size_bytes > self._table.limit_bytes:
            return False  # a message that never fits: it waits for Kafka, and nothing is dropped for it
        while self._drop_oldest and not self._table.has_room_for(size_bytes):
            oldest = self._oldest_waiting()
            if not oldest:
                return False
            self.fullness.say("the oldest messages are dropped")
            lane = oldest[0].lane
            lane.cursor = layout.after(oldest[-1].key)
            write = self._table.begin()
            write.remove(oldest)
            if lane.head:
                write.move_head(lane.topic, lane.head)
            write.commit()
            for route, number, dropped_bytes in stored_by_route(oldest):
                accounts[route].leave_table(dropped_bytes, number)
                accounts[route].dropped[TABLE_FULL] += number
        return self._table.has_room_for(size_bytes)

    def _oldest_waiting(self) -> list[Message]:
        """Return some of the oldest entries that librdkafka does not have, all of one lane."""
        candidates: list[list[Message]] = []
        for lane in self._lanes.behind:
            if not lane.is_rewinding:
                messages = self._table.read(lane.prefix, lane.cursor, 100, 1024 * 1024)
                for message in messages:
                    message.lane = lane
                if messages:
                    candidates.append(messages)
        return min(candidates, key=lambda messages: messages[0].key[-layout.SEQUENCE_BYTES :], default=[])

    # ---- dead letters

    def retry_dead_letters(self, ids: Sequence[str]) -> int:
        """Put dead letters at the end of their lanes, the oldest if there are no ids; return how many.

        They go the way of all messages that are stored; each stays a dead letter until the write that stores it.

        Raises:
            ConnectorError: There is none with an id or a mapping, or the table is full.
        """
        if self.is_full:
            raise ConnectorError("the table is full; retry when Kafka has taken some of it")
        count = size_bytes = 0
        for letter in self._dead_letters.chosen(ids):  # with ids, all are there before the first is given
            self._dead_letters.revive(letter)
            count += 1
            size_bytes += letter.value_bytes
            if size_bytes >= RETRY_BYTES and not ids:
                break
        return count

    def delete_dead_letters(self, ids: Sequence[str]) -> int:
        """Delete dead letters for good, all of them if there are no ids; return how many.

        Raises:
            ConnectorError: There is none with an id, or one is on its way; nothing is deleted.
        """
        self._dead_letters.see_that_none_is_under_way(ids)
        count = self._table.letters.delete(ids, self._dead_letters.unread)
        self._sync_soon()
        return count

    # ---- removing

    def remove(self, messages: list[Message]) -> None:
        """Remove what Kafka confirmed; not synced at once."""
        if app.first_error is not None:
            return
        lanes = {message.lane for message in messages}
        write = self._table.begin()
        write.remove(messages)
        for message in messages:
            message.lane.removing_messages -= 1
        for lane in lanes:
            if lane.head:
                write.move_head(lane.topic, lane.head)
        write.commit()
        self._go_on(lanes)
        if self._waiting and self._stopped_short:
            self._lanes.ask_to_store([])  # there may be room now
        if self._sync_timer is None:
            self._sync_timer = asyncio.get_running_loop().call_later(SYNC_REMOVALS_SECONDS, self._sync_removals)

    # ---- syncing

    def _sync_removals(self) -> None:
        self._sync_timer = None
        self._sync_soon()

    def _sync_soon(self) -> None:
        if app.first_error is not None:
            return
        self._more_to_sync = True  # what is under way may have begun before the last write
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.get_running_loop().create_task(self._sync())

    async def _sync(self) -> None:
        """Sync until nothing that was written waits for it, and acknowledge what that made safe."""
        try:
            again = True
            while again:
                messages, self._unsynced = self._unsynced, []
                requests, self._unsynced_requests = self._unsynced_requests, []
                self._more_to_sync = False
                began = time.monotonic()
                await self._table.sync()
                if messages:
                    store_seconds.observe(time.monotonic() - began, len(messages))
                self._after_sync(messages, requests)
                again = self._more_to_sync
        except Exception as error:  # noqa: BLE001, a task that lets one out would end without anybody noticing
            # What the disk holds is unknown now: nothing of it may be acknowledged, and no sync tried again.
            await app.fail(error)

    def _after_sync(self, messages: list[Message], requests: list[Released | Subscribed]) -> None:
        """Acknowledge what the sync has made safe."""
        self._acknowledge(messages)
        if has_large(messages, sum([message.size_bytes for message in messages])):
            for message in messages:
                if not message.handed_at:  # it will be read from the table
                    message.let_go_of_payload()
        for request in requests:
            if isinstance(request, Subscribed):
                if request.on_synced is not None:
                    request.on_synced()
            elif request.packet_identifiers is None:
                request.window.forgotten()
            else:
                request.window.complete(request.packet_identifiers)


def register(keeper: Keeper, lanes: Lanes) -> None:
    """Start the agents that keep and remove."""

    async def take(request: KeeperRequest) -> None:
        await keeper.take(request)
        await lanes.flush()

    async def take_away(messages: list[Message]) -> None:
        keeper.remove(messages)
        await lanes.flush()

    @app.agent(channels.undelivered, name="keeper")
    async def keep(requests):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Store what Kafka did not confirm in time."""
        await for_each(requests, take)

    @app.agent(channels.delivered, name="remover")
    async def remove(lists):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Remove from the table what Kafka confirmed."""
        await for_each(lists, take_away)
