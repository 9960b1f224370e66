"""What a route may take of the table (`drop_oldest_above`): beyond, its own oldest messages are dropped.

The table writer asks for it after each of its writes, so a route may exceed its limit by one write for a moment; and
before one for which the table has no room, so that no other route has to wait for what this one has too much of.

What librdkafka has is neither dropped, as Kafka may have it already, nor does it count. The message written last always
stays, and so does what is not synced yet: the MQTT broker would send it once more after a crash, behind newer ones. A
lane may have messages of a route that is gone, stored by an earlier start: they stay where they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.application import app
from app.core.lane_states import State
from app.metrics import accounts
from app.storage.oldest_first import PART_BYTES, OldestFirst, Waiting
from app.throttle import Throttle
from app.turns import next_part
from tables import layout, pieces
from tables.figures import by_route

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.core.message import Message
    from app.kafka.dispatcher import Dispatcher
    from app.routes import Route, RouteTable
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)

ROUTE_FULL = "route_full"
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
        self._oldest = OldestFirst(table, dispatcher.lanes)

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

    def make_some(self, message: Message, size_bytes: int) -> bool:
        """Make some room in a full table for a message, if its route takes too much; return whether it did.

        Args:
            message: The message.
            size_bytes: What it takes.
        """
        if not self.routes.have_limits:
            return False
        above_bytes = self._above(message.route, more_bytes=size_bytes)
        return above_bytes > 0 and self._drop_some(message.route, above_bytes, _sequence(message.key)) > 0

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
        walk = self._oldest.walk(self._lanes(self.routes.by_name[name]))
        part = next_part(self._looked_at(walk, name, wanted_bytes, newest))
        chosen = [each for each in part if each.message.route == name]
        if chosen:
            self._drop(name, chosen)
        return sum([each.message.stored_bytes for each in part])

    def _looked_at(self, walk: Iterator[Waiting], name: str, wanted_bytes: int, newest: bytes) -> Iterator[Waiting]:
        """Iterate over what is to be dropped in one part, and over messages of other routes, which are passed by."""
        left_bytes, read_bytes, synced_before = wanted_bytes, 0, self._table.figures.synced_before
        for waiting in walk:
            message = waiting.message
            if message.route != name:
                self._oldest.pass_by(waiting)
            elif _sequence(message.key) >= newest or message.kept_since >= synced_before:
                return
            else:
                left_bytes -= message.stored_bytes
            yield waiting
            read_bytes += message.size_bytes
            if left_bytes <= 0 or read_bytes >= PART_BYTES:
                return

    def _drop(self, name: str, given_up: list[Waiting]) -> None:
        """Remove messages of a route, and count them as dropped."""
        self._oldest.remove(given_up)
        accounts[name].leave_table(sum([each.message.stored_bytes for each in given_up]), len(given_up))
        accounts[name].drop(ROUTE_FULL, len(given_up))
        self._throttle.warning(
            name,
            "route %s: it takes more of the table than %s bytes (drop_oldest_above): its oldest messages are dropped",
            name,
            self._limit_bytes(name),
        )


def _sequence(key: bytes) -> bytes:
    """Return what orders all messages: the part of a key behind its lane."""
    return key[key.index(b"\0") + 1 :][: layout.SEQUENCE_BYTES]
