"""What a route may take of the table (`drop_oldest_above`): beyond, its own oldest messages are dropped.

The table writer asks for it after each of its writes, so a route may exceed its limit by one write for a moment; and
before one for which the table has no room, so that no other route has to wait for what this one has too much of.

What librdkafka has is neither dropped, as Kafka may have it already, nor does it count. The message written last always
stays, and so does what is not synced yet: the MQTT broker would send it once more after a crash, behind newer ones. A
lane may have messages of a route that is gone, stored by an earlier start: they stay where they are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from itertools import takewhile
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from app.application import app
from app.core.lane_states import State
from app.metrics import accounts
from app.throttle import Throttle
from tables import layout, pieces
from tables.entry import expected_bytes
from tables.figures import by_route

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.core.message import Message
    from app.kafka.dispatcher import Dispatcher
    from app.routes import Route, RouteTable
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

ROUTE_FULL = "route_full"
# Looked at in one go, as the event loop is held up by it.
READ_MESSAGES, READ_BYTES = 500, 1024 * 1024
# After a write, at least so much gives way if there is too much. A limit that was lowered is not reached at once, so
# that the messages of the other routes do not wait for it.
LEAST_BYTES = 1024 * 1024
HEAD_ROOM = 20  # a twentieth of the limit gives way besides, so that the next write finds some room


class RouteLimits:
    """Keeps routes below their limits; called by the table writer, between two of its writes.

    Attributes:
        routes: The routes; unless they `have_limits`, there is nothing to keep.
    """

    def __init__(self, table: UndeliveredTable, dispatcher: Dispatcher, routes: RouteTable) -> None:
        """Take the table, the lanes, and the routes with their limits, which a reload changes."""
        self._table = table
        self._dispatcher = dispatcher
        self.routes = routes
        self._throttle = Throttle(log)
        # From the first key to before the second, a lane has nothing but messages of other routes.
        self._passed: WeakKeyDictionary[Lane, tuple[bytes, bytes]] = WeakKeyDictionary()

    async def keep(self, written: Sequence[Message]) -> None:
        """Drop the oldest messages of the routes that take too much, if these messages, all or none, were written."""
        if not written[0].stored or self._dispatcher.is_stopping:
            return  # at a stop nothing is given up, as with a full table
        for name, _, size_bytes in by_route(written):
            if self._above(name) <= 0:
                continue
            newest = max([_sequence(message.key) for message in written if message.route == name])
            left_bytes = max(LEAST_BYTES, 2 * size_bytes)
            while (wanted := min(left_bytes, self._above(name, HEAD_ROOM))) > 0 and app.first_error is None:
                if not (seen_bytes := self._drop_some(name, wanted, newest)):
                    break
                left_bytes -= seen_bytes
                await pieces.others_turn(self._table.data)

    def make_room(self, message: Message, size_bytes: int) -> bool:
        """Make room in a full table for a write whose last message this is, if its route takes too much.

        Args:
            message: The message.
            size_bytes: What the write takes.
        """
        if not self.routes.have_limits or size_bytes > self._table.limit_bytes:
            return False  # a message that never fits waits for Kafka, and nothing is dropped for it
        while not self._table.has_room_for(size_bytes):
            above_bytes = self._above(message.route, more_bytes=expected_bytes(message))
            if above_bytes <= 0 or not self._drop_some(message.route, above_bytes, _sequence(message.key)):
                return False
        return True

    # ---- how much is too much

    def _above(self, name: str, head_room: int = 0, *, more_bytes: int = 0) -> int:
        """Return by how much a route exceeds its limit, with so much more; 0 or less: it does not.

        Args:
            name: The route.
            head_room: Which part of the limit is to stay free besides; 0: none.
            more_bytes: What is about to be written of it.
        """
        limit_bytes = self._limit_bytes(name)
        if limit_bytes is None:
            return 0
        taken_bytes = self._table.figures.bytes.get(name, 0) + more_bytes
        above_bytes = taken_bytes - limit_bytes + (limit_bytes // head_room if head_room else 0)
        return above_bytes - self._under_way_bytes(name) if above_bytes > 0 else above_bytes

    def _limit_bytes(self, name: str) -> int | None:
        route = self.routes.by_name.get(name)
        return None if route is None else route.drop_oldest_above_bytes

    def _under_way_bytes(self, name: str) -> int:
        """Return how much of a route librdkafka has, or Kafka and the table still; rather too much than too little."""
        figures = self._table.figures
        usual_bytes = figures.bytes.get(name, 0) // max(1, figures.messages.get(name, 0))
        lanes = [lane for lane in self._lanes(self.routes.by_name[name]) if lane.state is not State.DIRECT]
        return sum(
            lane.in_flight.size_bytes + (lane.removing_messages + lane.chunk_messages) * usual_bytes for lane in lanes
        )

    def _lanes(self, route: Route) -> list[Lane]:
        """Return the lanes of a route, which are its own: the settings see to that."""
        if route.kafka_topic is not None:
            return [self._dispatcher.lanes[route.kafka_topic]]
        beginning = route.to.literals[0]
        return [lane for lane in self._dispatcher if lane.topic.startswith(beginning)]

    # ---- what gives way

    def _drop_some(self, name: str, wanted_bytes: int, newest: bytes) -> int:
        """Drop some of the oldest messages of a route that are in the table alone.

        Args:
            name: The route.
            wanted_bytes: How much is to go at most, but for the last message.
            newest: The sequence from which on all stay.

        Returns:
            How much was looked at; 0: nothing more can be dropped.
        """
        lane = self._lane_with_oldest(self.routes.by_name[name])
        if lane is None:
            return 0
        place = self._place(lane)
        messages = self._table.read(lane.destination.prefix, place, READ_MESSAGES, READ_BYTES)
        others = list(takewhile(lambda message: message.route != name, messages))
        if others:
            self._pass_by(lane, others[-1].key + layout.JUST_BEHIND)
            return sum([message.stored_bytes for message in others])
        chosen, size_bytes, synced_before = [], 0, self._table.figures.synced_before
        for message in messages:
            if message.route != name or size_bytes >= wanted_bytes:
                break
            if _sequence(message.key) >= newest or message.kept_since >= synced_before:
                break
            chosen.append(message)
            size_bytes += message.stored_bytes
        if chosen:
            self._drop(lane, place, chosen, size_bytes)
        return size_bytes

    def _drop(self, lane: Lane, place: bytes, messages: list[Message], size_bytes: int) -> None:
        """Remove messages of one route, which follow each other from a place on; and count them as dropped."""
        name = messages[0].route
        behind = messages[-1].key + layout.JUST_BEHIND
        if place == lane.cursor:
            lane.skip_to(behind)
        else:
            self._pass_by(lane, behind)
        write = self._table.begin()
        write.remove(messages)
        if lane.first_in_table:
            write.move_head(lane.topic, lane.first_in_table)
        write.commit()
        accounts[name].leave_table(size_bytes, len(messages))
        accounts[name].drop(ROUTE_FULL, len(messages))
        self._throttle.warning(
            name,
            "route %s: it takes more of the table than %s bytes (drop_oldest_above): its oldest messages are dropped",
            name,
            self._limit_bytes(name),
        )

    def _lane_with_oldest(self, route: Route) -> Lane | None:
        """Return the lane of a route whose first message that is in the table alone is the oldest; None: none is."""
        lanes = [lane for lane in self._lanes(route) if lane.state is State.BEHIND]
        if len(lanes) <= 1:
            return lanes[0] if lanes else None
        # No message is older than the place from which on it is looked for; so few lanes have to be read.
        places = [(_sequence(self._place(lane)), lane.topic) for lane in lanes]
        heapify(places)
        while places:
            bound, topic = places[0]
            first = self._first(self._dispatcher.lanes[topic])
            if first is None:
                heappop(places)
            elif first == bound:
                return self._dispatcher.lanes[topic]
            else:
                heapreplace(places, (first, topic))
        return None

    def _first(self, lane: Lane) -> bytes | None:
        """Return the sequence of the first message that may give way, and look for it from there the next time."""
        place = self._place(lane)
        found = self._table.read(lane.destination.prefix, place, 1, 1)
        if not found:
            return None
        if place == lane.cursor:
            lane.skip_to(found[0].key)
        else:
            self._pass_by(lane, found[0].key)
        return _sequence(found[0].key)

    def _place(self, lane: Lane) -> bytes:
        """Return the key of a lane from which on to look for messages."""
        begin, end = self._passed.get(lane, (b"", b""))
        return max(lane.cursor, end) if begin <= lane.cursor else lane.cursor  # it may have gone back meanwhile

    def _pass_by(self, lane: Lane, key: bytes) -> None:
        """Note that before a key there is nothing of the route."""
        self._passed[lane] = (lane.cursor, key)


def _sequence(key: bytes) -> bytes:
    """Return what orders all messages: the part of a key behind its lane."""
    return key[key.index(b"\0") + 1 :][: layout.SEQUENCE_BYTES]
