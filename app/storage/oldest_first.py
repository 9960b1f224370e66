"""What may give way in the table: messages that are in the table alone, over many lanes, the oldest first.

A thousand lanes may be behind, and a hundred thousand messages may have to give way for one. So of each lane nothing
is known but the key of its first message, the walk has one message in memory, and each step costs one look into the
database. Who walks does so in parts of some milliseconds (`app.turns`), each with a write of its own. Between two parts
all may change, so each begins with the lanes as they are then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, NamedTuple

from app.core.lane_states import State
from tables import layout
from tables.entry import unpack_entry

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.core.message import Message
    from tables.undelivered import UndeliveredTable

PART_BYTES = 1024 * 1024  # of messages that are in memory for one part of the work, and one more


class Waiting(NamedTuple):
    """A message that is in the table alone, and its lane."""

    lane: Lane
    message: Message


class _Known(NamedTuple):
    """What was found in a lane from a place on.

    Attributes:
        place: The place.
        key: No entry from there on has a smaller key; empty: there was no entry.
        write_number: Of the first write that was not made yet then.
    """

    place: bytes
    key: bytes
    write_number: int


class OldestFirst:
    """Walks over what may give way, and removes it."""

    def __init__(self, table: UndeliveredTable, lanes: Collection[str]) -> None:
        """Take the table, and the Kafka topics that have lanes; nothing is read yet."""
        self._table = table
        self._lanes = lanes
        # From the first key to before the second, a lane has nothing but messages that are not to give way.
        self._passed: dict[str, tuple[bytes, bytes]] = {}
        self._known: dict[str, _Known] = {}

    def walk(self, lanes: Iterable[Lane]) -> Iterator[Waiting]:
        """Iterate over the messages of these lanes that are in the table alone, oldest first.

        It ends with the next write. A message that is neither removed nor passed by is met again by the next walk.
        """
        self._forget_ended()
        places: list[tuple[bytes, int, bytes]] = []
        behind = [lane for lane in lanes if lane.state is State.BEHIND]
        for number, lane in enumerate(behind):
            if key := self._first_key(lane):
                places.append((_sequence(lane, key), number, key))
        heapify(places)
        return self._walk(behind, places)

    def _walk(self, lanes: list[Lane], places: list[tuple[bytes, int, bytes]]) -> Iterator[Waiting]:
        """Iterate from these places on: a heap of the sequence of a key, the number of its lane, and the key."""
        entries = self._table.data.seeker()
        while places:
            oldest, number, place = places[0]
            lane = lanes[number]
            key = entries.first_from(place)
            if not key.startswith(lane.destination.prefix):
                self._known[lane.topic] = _Known(place, b"", self._table.figures.write_number)
                heappop(places)
            elif (found := _sequence(lane, key)) != oldest:  # removed messages lay between; another may be older
                self._known[lane.topic] = _Known(place, key, 0)
                heapreplace(places, (found, number, key))
            else:
                yield Waiting(lane, unpack_entry(key, entries.value))
                heapreplace(places, (oldest, number, key + layout.JUST_BEHIND))

    def _forget_ended(self) -> None:
        """Forget lanes that have ended, once they are more than those that there are."""
        if len(self._known) > 2 * len(self._lanes):
            self._known = {topic: known for topic, known in self._known.items() if topic in self._lanes}
            self._passed = {topic: passed for topic, passed in self._passed.items() if topic in self._lanes}

    def _first_key(self, lane: Lane) -> bytes:
        """Return a key that none of a lane's messages which may give way is before; empty: there is none."""
        place, known = self._place(lane), self._known.get(lane.topic)
        if known is None or known.place != place:
            return place
        if not known.key and self._table.figures.last_writes.get(lane.topic, 0) >= known.write_number:
            return place
        return known.key

    def _place(self, lane: Lane) -> bytes:
        """Return the key of a lane from which on to look for messages."""
        passed = self._passed.get(lane.topic)
        if passed is None or passed[0] > lane.cursor:  # the lane may have gone back meanwhile
            return lane.cursor
        return max(lane.cursor, passed[1])

    def pass_by(self, waiting: Waiting) -> None:
        """Note that up to this message, which the walk has met, a lane has nothing more that is to give way."""
        self._passed[waiting.lane.topic] = (waiting.lane.cursor, waiting.message.key + layout.JUST_BEHIND)

    def remove(self, given_up: Sequence[Waiting]) -> None:
        """Remove messages that the walk has met, in one write; their lanes go on behind them."""
        for waiting in {each.lane: each for each in given_up}.values():
            if self._place(waiting.lane) == waiting.lane.cursor:
                waiting.lane.skip_to(waiting.message.key + layout.JUST_BEHIND)
            else:
                self.pass_by(waiting)
        write = self._table.begin()
        write.remove([each.message for each in given_up])
        for lane in {each.lane for each in given_up}:
            if lane.first_in_table:
                write.move_head(lane.topic, lane.first_in_table)
        write.commit()


def _sequence(lane: Lane, key: bytes) -> bytes:
    """Return what orders all messages: the part of a key behind its lane."""
    first = len(lane.destination.prefix)
    return key[first : first + layout.SEQUENCE_BYTES]
