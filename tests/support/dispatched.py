"""Lanes and what carries out their decisions, without Kafka, agents and table: for tests that need no brokers.

A lane by itself (`make_lane`) is told what happens. Behind a dispatcher (`make_dispatcher`) it has a producer that
takes everything and reports what it is told to, and queues in place of the agents.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from app.core.destination import Destination
from app.core.in_flight import SharedBounds
from app.core.lane import Lane
from app.core.lane_states import Policy
from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.core.reception import Reception
from app.core.requests import SetAside, StoreMessages
from app.kafka.dispatcher import Dispatcher
from app.kafka.reports import Reports
from tables import layout

if TYPE_CHECKING:
    from app.storage.replay_reader import ReplayReader
    from app.storage.writer import TableWriter

ROUNDS = 10_000
POLICY = Policy(
    store_after_seconds=1.0,
    replay_limit_messages=1000,
    refill_below_messages=500,
    longest_retry_seconds=1.0,
    few_messages=0,
)


def make_message(
    destination: Destination, number: int, size_bytes: int = 1, qos: int = 1, timestamp_ms: int = 0
) -> Message:
    """Make a message that was routed; its number is its place in its lane."""
    message = Message(b"a/b", bytes(size_bytes), qos, qos << 1, number, b"", timestamp_ms, None)
    message.destination, message.route = destination, f"a/b:{destination.topic}"
    message.headers, message.record_key = [], None
    message.key = destination.prefix + layout.pack_sequence(1, number)
    return message


def make_lane(topic: str = "alpha", bounds: SharedBounds | None = None, **policy: Any) -> Lane:
    """Make a lane with nothing in it; `policy` is what differs from POLICY."""
    bounds = bounds or SharedBounds()
    lane = Lane(Destination(topic, layout.undelivered_prefix(topic), []), bounds, POLICY._replace(**policy))
    bounds.add_lane()
    return lane


async def do_what_is_asked(dispatcher: Dispatched, writer: TableWriter, reader: ReplayReader) -> None:
    """Do what is asked of the agents and the replay reader, until nothing is left to do; raise if there is no end."""
    requests = dispatcher.requests
    for _ in range(ROUNDS):
        while requests.table:
            await writer.do(requests.table.pop(0))
        while requests.removals:
            await writer.remove(requests.removals.pop(0))
        while requests.chunks:
            await reader.hand_over(requests.chunks.pop(0))
        for lane in dispatcher.replay.pop_all():
            reader.refill(lane)
        if not (requests.table or requests.removals or requests.chunks):
            return
    raise AssertionError("there is always something to do")


class Taking:
    """A producer that takes everything, and reports when it is told to.

    Attributes:
        taken: What it has, in order.
        refuses: Its answer instead, an exception; None: it takes everything.
        given_up: The errors for which it is to be replaced.
    """

    batch_size_bytes = largest_batch_bytes = 65_536
    connected = True

    def __init__(self) -> None:
        self.reports_sink: list[Message] = []
        self.taken: list[Message] = []
        self.refuses: Exception | None = None
        self.given_up: list[Any] = []
        self.give_up = self.given_up.append

    def produce(
        self, _topic: str, messages: Sequence[Message], _now_ms: int, **_options: Any
    ) -> tuple[int, Exception | None]:
        """Take messages."""
        if self.refuses is not None:
            return 0, self.refuses
        self.taken += messages
        return len(messages), None

    def would_linger(self, _linger_ms: int) -> bool:
        """Be near."""
        return False

    def report(self, dispatcher: Dispatched, messages: Iterable[Message] | None = None, error: Any = None) -> None:
        """Report messages, or all that it has: confirmed, or refused with an error."""
        reported = self.taken.copy() if messages is None else list(messages)
        for message in reported:
            self.taken.remove(message)
            message.error = error
        dispatcher.reports.on_reports(reported)


class Queues:
    """What was asked of the agents, in order."""

    def __init__(self) -> None:
        self.table: list[Any] = []
        self.removals: list[list[Message]] = []
        self.chunks: list[Any] = []
        self.ask_table, self.remove, self.replay = self.table.append, self.removals.append, self.chunks.append

    @property
    def to_be_stored(self) -> list[Message]:
        """All messages that the table writer was asked to store."""
        return [one for request in self.table if isinstance(request, StoreMessages) for one in request.messages]

    @property
    def set_aside(self) -> list[Message]:
        """All messages that it was asked to make dead letters of."""
        return [one for request in self.table if isinstance(request, SetAside) for one in request.messages]


class Dispatched(Dispatcher):
    """A dispatcher between such stand-ins.

    Attributes:
        requests: What it asked of the agents.
        reports: What deals with what its producer reports.
        later: The lanes that are to be looked at later, and after how many seconds.
    """

    producer: Taking

    def __init__(self, **options: Any) -> None:
        policy = POLICY._replace(**{name: options.pop(name) for name in POLICY._fields if name in options})
        self.requests = Queues()
        super().__init__(Taking(), self.requests, policy, **options)
        self.reports = Reports(self, self.requests, lambda _: None)
        self.later: list[tuple[Lane, float]] = []
        self.replay.look_later = lambda lane, seconds: self.later.append((lane, seconds))

    def message(self, topic: str, number: int, *arguments: Any, **options: Any) -> Message:
        """Make a message that was routed to a lane."""
        return make_message(self.destination(topic), number, *arguments, **options)

    def send(self, message: Message) -> Message:
        """Deal with one message as with a new one."""
        self.accept(message.destination.topic, [message])
        return message

    def open_up(self, *topics: str, limit_messages: int = 1000) -> None:
        """Have lanes that are past their first record, whose topics take batches."""
        self.topics.learned |= set(topics)
        for topic in topics:
            self.lanes[topic].attempts.limit_messages = limit_messages

    @property
    def named_for_replay(self) -> set[str]:
        """The topics of the lanes that the replay reader is to look at; they are not named again."""
        return {lane.topic for lane in self.replay.pop_all()}


def never_held_up() -> Reception:
    """Return a reception without messages."""
    return Reception(MemoryBudget(), 1000, lambda: 0)


def seconds_ago(seconds: float) -> float:
    """Return a time of the monotonic clock."""
    return time.monotonic() - seconds
