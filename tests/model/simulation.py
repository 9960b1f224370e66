"""A seeded simulation of the bridge's inside: real lanes, dispatcher, table writer, replay reader, window and table.

Around them are two models. One is a Kafka (partitions, outages of one or all, late answers, refusals, records too
large), the other an MQTT broker (a window, redelivery after a crash). What acts next is drawn by chance, so messages
meet each other in every order that the event loop could produce. At every step the accounts must balance, and lanes
hold little that Kafka confirmed; at the end nothing may be lost, reordered or stranded in the table. Each repetition
wants its reason: a crash at which that very message was with librdkafka, its report not heard, its removal not written
or its acknowledgement not sent.
Dead letters are retried and deleted, and heads of waiting lanes moved, by chance: these come when somebody sends them,
and what was deleted must not come. In a run with limits the oldest messages of a route give way in the table, in a run
with a small table those of all routes: these must not be in flight, and must not come either.

Not modelled: a batch that is refused for one of its records while later ones are accepted, as Kafka does for records
that it finds invalid; good records of that batch may then be passed by those that were in flight behind it. Nor a right
that is taken away and given back between two polls: what is handed over then, before the refusal is heard of, is taken.

It runs in a process of its own, as settings are read at import.

    python -m tests.model.simulation DIRECTORY SEED [SEED ...]    limited-SEED: with limits; small-SEED
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
from collections import Counter, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace

from confluent_kafka import KafkaError, KafkaException

import app.kafka.dispatcher as dispatcher_module
import app.kafka.refused as refused_module
import app.kafka.reports as reports_module
import app.pieces as sizes
import app.storage.writer as writing
from app import turns
from app.application import app
from app.core.lane_states import Policy, State
from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.core.reception import Reception
from app.errors import ConnectorError
from app.kafka.dispatcher import Dispatcher
from app.kafka.outcomes import MOVED_BY_OPERATOR
from app.kafka.reports import Reports
from app.metrics import accounts
from app.mqtt.window import Acknowledger, Window
from app.routes import Route, RouteTable, parse_kafka_topic
from app.storage import dead_letters as dead_letters_module
from app.storage import retry_all, route_limits
from app.storage.dead_letter_commands import DeadLetterCommands
from app.storage.dead_letters import DeadLetters
from app.storage.oldest_first import OldestFirst, Waiting
from app.storage.oversize import Oversize
from app.storage.replay_reader import ReplayReader
from app.storage.writer import TableWriter
from tables import entry, layout, piece_keys, pieces, shapes, write
from tables.dead_letter import DeadLetter
from tables.undelivered import DEAD_LETTER_SHARE, UndeliveredTable

LANES = ("one", "two")
ONE_IN = 8  # messages go to the first of the two partitions, which stands still at times
WINDOW_MESSAGES = 60
TABLE_BYTES, SMALL_TABLE_BYTES = 200_000, 5_000
LIMIT_BYTES = 3_000  # of what a route may take of the table in a run that has limits
LIMITED, SMALL = "limited", "small"  # such a run; and one in which the table is small, and the oldest give way
STORE_AFTER_SECONDS = 1.0
LATE_SECONDS = 2.5  # after which Kafka answers while it is slow
# Above it a payload is stored in pieces: some good ones, and all that Kafka finds too large.
PIECE_BYTES = 100


class KilledError(Exception):
    """The bridge dies while it does something."""


class Clock:
    """The time of the simulation."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class ModelKafka:
    """Partitions that take, refuse or ignore what is in flight, in order."""

    def __init__(self, chance: random.Random, clock: Clock) -> None:
        self.chance = chance
        self.clock = clock
        self.log: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        self.mode = dict.fromkeys(LANES, "up")
        self.pending: dict[tuple[str, int], deque[Message]] = defaultdict(deque)
        self.reports_sink: list[Message] = []
        self.batch_size_bytes = 300
        self.connected = True

    def produce(
        self, topic: str, messages: list[Message], _now_ms: int, **_options: bool
    ) -> tuple[int, Exception | None]:
        for count, message in enumerate(messages):
            assert message.destination.topic == topic
            if self.chance.random() < 0.002:
                return count, BufferError()
            if message.payload.startswith(b"huge"):
                return count, KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            self.pending[self._partition(message)].append(message)
        return len(messages), None

    @staticmethod
    def _partition(message: Message) -> tuple[str, int]:
        return message.destination.topic, int(message.payload[-1] % ONE_IN > 0)

    def step(self) -> None:
        """Let one partition work on the head of what is in flight."""
        busy = [place for place, messages in self.pending.items() if messages]
        if not busy:
            return
        place = self.chance.choice(busy)
        mode = self.mode[place[0]]
        for _ in range(min(len(self.pending[place]), self.chance.randint(1, 8))):
            if not self.pending[place]:
                return
            if mode == "up" or (mode == "stuck" and place[1]) or (mode == "late" and self._is_due(place)):
                self._take(place)
            elif mode == "refusing":
                self._report(self.pending[place].popleft(), KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    def _is_due(self, place: tuple[str, int]) -> bool:
        """Tell whether the answer for a partition's oldest record has been on its way for long enough."""
        return self.clock.now - self.pending[place][0].handed_at >= LATE_SECONDS

    def _take(self, place: tuple[str, int]) -> None:
        message = self.pending[place].popleft()
        if message.payload.startswith(b"poison"):  # larger than batch.size, so it went alone
            self._report(message, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            return
        self.log[place].append(message.payload)
        self._report(message, None)

    def _report(self, message: Message, error: KafkaError | None) -> None:
        message.on_delivery(error, None)

    def set_mode(self, topic: str, mode: str) -> None:
        """Change how a topic behaves; rights change for all that is in flight at once."""
        if self.mode[topic] == "refusing":
            for place in [each for each in self.pending if each[0] == topic]:
                while self.pending[place]:
                    self._report(self.pending[place].popleft(), KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        self.mode[topic] = mode

    def crash(self) -> list[bytes]:
        """The bridge dies: Kafka may have taken some of what was in flight; return what was, reports too."""
        in_flight = [message.payload for message in self.reports_sink]
        for place, messages in self.pending.items():
            in_flight += [message.payload for message in messages]
            if self.mode[place[0]] == "up":
                for message in list(messages)[: self.chance.randint(0, len(messages))]:
                    if message.payload.startswith(b"poison"):
                        break
                    self.log[place].append(message.payload)
        self.pending.clear()
        self.reports_sink = []
        return in_flight

    def poll(self) -> list[Message]:
        reports = self.reports_sink.copy()
        self.reports_sink.clear()
        return reports


class Queues:
    """What was asked of the agents, in order."""

    def __init__(self) -> None:
        self.table: deque = deque()
        self.removals: deque = deque()
        self.chunks: deque = deque()
        self.ask_table, self.remove, self.replay = self.table.append, self.removals.append, self.chunks.append

    @property
    def are_waiting(self) -> bool:
        return bool(self.table or self.removals or self.chunks)


class Simulation:
    """One run."""

    def __init__(self, seed: int, directory: Path, *, are_limited: bool = False, is_small: bool = False) -> None:
        self.chance = random.Random(seed)
        self.routes = RouteTable([
            Route(topic, topic, parse_kafka_topic(topic), drop_oldest_above_bytes=LIMIT_BYTES if are_limited else None)
            for topic in LANES
        ])  # fmt: skip
        self.limit_bytes = SMALL_TABLE_BYTES if is_small else TABLE_BYTES
        dead_letters_module.DEAD_LETTER_SHARE = DEAD_LETTER_SHARE * TABLE_BYTES / self.limit_bytes
        self.directory = directory
        self.clock = Clock()
        dispatcher_module.time = refused_module.time = reports_module.time = self.clock
        self.kafka = ModelKafka(self.chance, self.clock)
        self.published: deque[bytes] = deque()
        self.numbers: Counter[str] = Counter()
        self.unacknowledged: deque[bytes] = deque()
        self.repeatable: Counter[bytes] = Counter()  # how often each message may come again
        self.out_of_turn: set[bytes] = set()  # what somebody moved or retried by hand
        self.deleted: dict[bytes, int] = {}  # and how often Kafka had it then
        self.dropped: dict[bytes, int] = {}  # what gave way to newer ones, and how often Kafka had it then
        self.store_after = self.chance.choice([0.0, STORE_AFTER_SECONDS])
        for module in (sizes, piece_keys, shapes, write, writing):
            module.PIECE_BYTES = PIECE_BYTES
        entry.LARGE_PAYLOAD_BYTES = PIECE_BYTES
        pieces.others_turn = self.others_turn
        retry_all.PART_SECONDS = turns.PART_SECONDS = 0.0
        route_limits.LEAST_BYTES = 500
        self.may_be_killed = True
        self.begin()

    def begin(self) -> None:
        """Start the bridge's inside on the directory."""
        accounts.clear()
        app.tables.clear()
        self.table = UndeliveredTable(app, name="undelivered", directory=self.directory, limit_bytes=self.limit_bytes)
        self.table.open()
        self.table.begin_epoch()
        self.budget = MemoryBudget()
        acknowledge = Acknowledger(self.budget).acknowledge
        self.window = Window(lambda: None)
        self.reception = Reception(self.budget, WINDOW_MESSAGES, lambda: len(self.window.pending))
        self.requests = Queues()
        policy = Policy(
            store_after_seconds=self.store_after,
            replay_limit_messages=20,
            refill_below_messages=10,
            longest_retry_seconds=5,
            few_messages=self.reception.few_messages,
        )  # fmt: skip
        self.dispatcher = Dispatcher(self.kafka, self.requests, policy)
        self.reports = Reports(self.dispatcher, self.requests, acknowledge)
        self.dispatcher.bounds.lane_limit_messages = 30
        self.dispatcher.topics.learned = set(LANES)
        self.later: list[tuple[float, object]] = []
        self.dispatcher.replay.look_later = lambda lane, seconds: self.later.append((self.clock.now + seconds, lane))
        self.counter = 0
        self.dead_letters = DeadLetters(self.table, self.dispatcher, None, self.next_key, RouteTable([]))
        self.writer = TableWriter(
            self.table,
            self.dispatcher,
            acknowledge,
            drop_oldest=self.limit_bytes == SMALL_TABLE_BYTES,
            dead_letters=self.dead_letters,
            oversize=Oversize(self.table, self.dispatcher, acknowledge),
            routes=self.routes,
        )
        for oldest in (self.writer._route_limits._oldest, self.writer._room._oldest):
            oldest.remove = functools.partial(self.drop, oldest)
        self.by_hand = DeadLetterCommands(self.table, self.dispatcher, self.dead_letters, self.writer)
        self.dead_letters.revive = self.revive
        self.is_restoring = self.is_writing = self.sync_wanted = False
        self.writer._syncs.soon = self.want_sync
        self.writer._syncs.removals_soon = lambda: None
        self.reader = ReplayReader(self.dispatcher, self.table, self.requests, 0)
        for route, messages in self.table.figures.messages.items():
            accounts[route].recover(messages, self.table.figures.bytes[route])
        for topic, first in self.table.lanes():
            self.dispatcher.resume(topic, first)
        for topic in LANES:
            self.dispatcher.lanes[topic].lateness.note_first_answer(self.chance.random())
        if self.chance.random() < 0.5:
            self.dispatcher.lanes.note_learned(LANES, set(LANES))

    def next_key(self, prefix: bytes) -> bytes:
        self.counter += 1
        return prefix + layout.pack_sequence(self.table.epoch, self.counter)

    def want_sync(self) -> None:
        self.sync_wanted = True

    # ---- what may happen next

    def publish(self) -> None:
        for _ in range(self.chance.randint(1, 20)):
            topic = self.chance.choice(LANES)
            number = self.numbers[topic]
            self.numbers[topic] += 1
            kind = b"poison" if self.chance.random() < 0.004 else b"huge" if self.chance.random() < 0.002 else b"fine"
            in_pieces = self.chance.random() < 0.05
            padding = b"." * (400 if kind == b"poison" else self.chance.randint(80, 260) if in_pieces else 0)
            self.published.append(b"%s %s %d " % (kind, topic.encode(), number) + padding + bytes([number % 251]))

    def receive(self) -> None:
        room = WINDOW_MESSAGES - len(self.window.pending)
        lots: dict[str, list[Message]] = defaultdict(list)
        for _ in range(min(room, len(self.published), self.chance.randint(1, 30))):
            payload = self.published.popleft()
            self.unacknowledged.append(payload)
            message = Message(payload.split(b" ")[1], payload, 1, 2, 1, b"", int(self.clock.now * 1000), self.window)
            self.window.add(message)
            self.budget.add(1, message.size_bytes)
            self.counter += 1
            topic = message.topic.decode()
            message.destination = self.dispatcher.destination(topic)
            message.route, message.record_key, message.headers = topic, None, []
            message.key = message.destination.prefix + layout.pack_sequence(self.table.epoch, self.counter)
            accounts[topic].receive(1)
            lots[topic].append(message)
        for topic, messages in lots.items():
            self.dispatcher.accept(topic, messages)

    def acknowledge(self) -> None:
        while self.window.outgoing:
            for _ in range(len(self.window.outgoing.popleft()) // 4):
                self.unacknowledged.popleft()

    def poll(self) -> None:
        self.reports.on_reports(self.kafka.poll())
        self.dispatcher.store_late(is_held_up=self.reception.is_held_up(self.clock.now))

    async def others_turn(self, _store: object) -> None:
        """Between two parts of a retry anything may happen; between two pieces or writes, all but the next write."""
        if self.may_be_killed and self.chance.random() < 0.03:
            raise KilledError
        for _ in range(self.chance.randint(0, 3)):
            act = self.chance.choice([self.receive, self.kafka.step, self.poll, self.look, self.tick, self.remove])
            await self.act(act)
        if self.chance.random() < 0.3:
            await self.act(self.restore)
        if self.chance.random() < 0.05:
            await self.retry()  # not by `act`: a kill within it is one of what goes on here, too
        if self.chance.random() < 0.05:
            self.delete()
        if not self.is_writing and self.chance.random() < 0.5:
            await self.write()

    def look(self) -> None:
        due = [lane for at, lane in self.later if at <= self.clock.now]
        self.later = [(at, lane) for at, lane in self.later if at > self.clock.now]
        for lane in [*due, *self.dispatcher.replay.pop_all()]:
            self.reader.refill(lane)
        if self.chance.random() < 0.05:
            self.dispatcher.look_at_all()

    def change_mode(self) -> None:
        modes = ["up", "up", "down", "refusing", "stuck", "late", "late"]
        self.set_mode(self.chance.choice(LANES), self.chance.choice(modes))

    def set_mode(self, topic: str, mode: str) -> None:
        """Change how a topic behaves, and let the bridge hear what was refused until then."""
        self.kafka.set_mode(topic, mode)
        self.poll()

    def crash(self) -> None:
        """Kill the bridge: the table keeps what was written, the broker sends the unacknowledged once more."""
        self.acknowledge()
        self.repeatable.update(self.kafka.crash())
        self.repeatable.update(self.unacknowledged)
        for messages in self.requests.removals:  # Kafka has them, and the table still has, too
            self.repeatable.update([message.payload for message in messages])
        self.table.close()
        self.published.extendleft(reversed(self.unacknowledged))
        self.unacknowledged.clear()
        self.begin()

    def move(self) -> None:
        """Take the head of a lane out by hand, if the lane waits."""
        with contextlib.suppress(ConnectorError):
            lane = self.dispatcher.lanes[self.chance.choice(LANES)]
            head = self.by_hand._head_of(lane)
            if self.by_hand.move([lane.topic]):
                self.out_of_turn.add(self.payload_of(head))

    def delete(self) -> None:
        """Delete all dead letters; those that are on their way must stay, or a kill would lose them."""
        before = {letter.key: self.payload_of(letter.message) for letter in self.table.dead_letters()}
        count = self.by_hand.delete([])
        gone = [payload for key, payload in before.items() if self.table.data.value(key) is None]
        assert len(gone) == count
        for payload in gone:
            self.deleted[payload] = sum(log.count(payload) for log in self.kafka.log.values())

    def drop(self, oldest: OldestFirst, given_up: list[Waiting]) -> None:
        """Note what gives way in the table to newer messages; none of it may be in flight."""
        for lane, message in given_up:
            assert message.key not in {each.key for each in lane.in_flight.queue}
            payload = self.payload_of(message)
            self.dropped[payload] = sum(log.count(payload) for log in self.kafka.log.values())
        OldestFirst.remove(oldest, given_up)

    async def retry(self) -> None:
        """Send all dead letters once more, asked for twice, in parts of one, between which anything may happen."""
        for _ in range(2):
            with contextlib.suppress(ConnectorError):
                await self.by_hand.retry([])

    def revive(self, letters: list[DeadLetter]) -> None:
        """Hand over a part of them."""
        self.out_of_turn.update(self.payload_of(letter.message) for letter in letters)
        DeadLetters.revive(self.dead_letters, letters)

    # ---- running

    async def run(self, steps: int) -> None:
        """Act at random for three quarters of the steps, then heal and drain."""
        trouble = {
            self.publish: 6, self.change_mode: 0.3, self.crash: 0.15, self.move: 0.3, self.retry: 0.1,
            self.delete: 0.05,
        }  # fmt: skip
        work = {
            self.receive: 10, self.acknowledge: 5, self.kafka.step: 16, self.poll: 10, self.look: 8, self.tick: 8,
            self.write: 10, self.remove: 8, self.restore: 8, self.sync: 4,
        }  # fmt: skip
        both = {**trouble, **work}
        for _ in range(steps * 3 // 4):
            await self.act(self.chance.choices(list(both), list(both.values()))[0])
        self.may_be_killed = False
        for topic in LANES:
            self.set_mode(topic, "up")
        for _ in range(steps * 100):
            if self.is_idle():
                return
            await self.act(self.chance.choices(list(work), list(work.values()))[0])
        raise AssertionError(f"it does not drain: {self.describe()}")

    async def act(self, action: object) -> None:
        """Do one thing; then the accounts must balance."""
        result = action()
        try:
            if result is not None:
                await result
        except KilledError:
            self.crash()
        self.check_balance()
        self.check_memory()
        self.check_states()

    def tick(self) -> None:
        self.clock.now += self.chance.random()

    async def write(self) -> None:
        if self.requests.table:
            self.is_writing = True
            await self.writer.do(self.requests.table.popleft())
            self.is_writing = False

    async def remove(self) -> None:
        if self.requests.removals:
            await self.writer.remove(self.requests.removals.popleft())

    async def restore(self) -> None:
        """Hand over what was read, unless that is under way already."""
        if self.requests.chunks and not self.is_restoring:
            self.is_restoring = True
            await self.reader.hand_over(self.requests.chunks.popleft())
            self.is_restoring = False

    async def sync(self) -> None:
        if self.sync_wanted:
            self.sync_wanted = False
            await self.writer._syncs.run()

    def is_idle(self) -> bool:
        return not (
            self.published or self.unacknowledged or self.table.total_messages or self.requests.are_waiting
        )  # fmt: skip

    def describe(self) -> str:
        left = [key.hex() for key in self.table.data]
        lanes = [
            (lane.topic, lane.state, lane.first_in_table.hex(), lane.trouble) for lane in self.dispatcher
        ]  # fmt: skip
        return (
            f"{len(self.published)} not received, {len(self.unacknowledged)} not acknowledged, in the table {left[:5]}"
            f", lanes {lanes}"
        )

    def check_balance(self) -> None:
        for route, account in accounts.items():
            assert account.imbalance == 0, (route, account)
            assert account.in_flight >= 0 <= account.undelivered, (route, account)

    def check_memory(self) -> None:
        for lane in self.dispatcher:
            queue = lane.in_flight.queue
            finished = sum(message.finished for message in queue)
            assert finished <= len(queue) / 2, (lane.topic, finished, len(queue))

    def check_states(self) -> None:
        """See that lanes and messages are in none of the states that there cannot be."""
        for key in self.dead_letters.under_way:
            assert self.table.data.value(key) is not None, "a kill would lose it"
        in_flight = sum(lane.in_flight.messages for lane in self.dispatcher)
        assert in_flight == self.dispatcher.bounds.messages
        for lane in self.dispatcher:
            assert lane.removing_messages >= 0 <= lane.chunk_messages
            if lane.state is State.BEHIND or lane.state is State.REWINDING:
                assert not any(not message.to_be_stored for message in lane.in_flight.queue if not message.finished)
            for message in lane.in_flight.queue:
                assert not message.stored or message.to_be_stored
                assert not message.safe or message.finished or message.stored or message.dead_letter_key

    def payload_of(self, message: Message) -> bytes:
        """Return a payload, wherever it is."""
        if isinstance(message.payload, bytes):
            return message.payload
        return b"".join([self.table.data.value(key) for key in piece_keys.piece_keys(message.payload)])

    def check_pieces(self) -> None:
        """See that the table has the pieces of its dead letters, and no others."""
        wanted = [key for each in self.table.figures.letters.pieces.values() for key in piece_keys.piece_keys(each)]
        assert sorted(wanted) == [key for key, _ in self.table.data.with_prefix(piece_keys.PIECE)]
        assert not list(self.table.data.with_prefix(layout.BEGUN))

    def check_end(self) -> SimpleNamespace:
        """Compare what Kafka and the dead letters hold with what was published."""
        arrived: dict[str, set[int]] = defaultdict(set)
        times: Counter[bytes] = Counter()
        self.inverted: list[tuple[str, int, int]] = []
        self.out_of_turn.update(self.dropped.keys() & self.repeatable)  # the first copy gave way, the second came
        for (topic, _), payloads in self.kafka.log.items():
            highest = -1
            for payload in payloads:
                times[payload] += 1
                number = int(payload.split(b" ")[2])
                arrived[topic].add(number)
                if payload in self.out_of_turn:
                    continue
                if times[payload] == 1 and number < highest:
                    self.inverted.append((topic, number, highest))
                highest = max(highest, number)
        self.repeated = [payload for payload, number in times.items() if number - 1 > self.repeatable[payload]]
        dead = 0
        for _, _, topic, message in self.table.dead_letters():
            payload = self.payload_of(message)
            good = payload.startswith(b"fine") and message.dead_reason != MOVED_BY_OPERATOR
            assert not good, f"a good record became a dead letter: {payload!r}"
            arrived[topic].add(int(payload.split(b" ")[2]))
            dead += 1
        self.check_pieces()
        for payload, had in (self.deleted | self.dropped).items():
            assert times[payload] - had <= self.repeatable[payload], f"it was given up, and came: {payload!r}"
            arrived[payload.split(b" ")[1].decode()].add(int(payload.split(b" ")[2]))
        lost = sum(len(set(range(self.numbers[topic])) - arrived[topic]) for topic in LANES)
        return SimpleNamespace(
            messages=sum(self.numbers.values()), lost=lost, repeated=len(self.repeated), inversions=len(self.inverted),
            dead=dead, deleted=len(self.deleted), dropped=len(self.dropped),
            repetitions=sum(times.values()) - len(times),
        )  # fmt: skip


async def main(seed: int, directory: Path, *, are_limited: bool, is_small: bool) -> None:
    simulation = Simulation(seed, directory, are_limited=are_limited, is_small=is_small)
    await simulation.run(3000)
    result = simulation.check_end()
    simulation.table.close()
    assert bool(result.dropped) == (are_limited or is_small)
    print(seed, vars(result), *simulation.inverted[:5], *simulation.repeated[:5])
    assert result.lost == 0
    assert result.inversions == 0
    assert result.repeated == 0


if __name__ == "__main__":
    for name in sys.argv[2:]:
        place = Path(sys.argv[1]) / name
        place.mkdir()
        kind, _, seed = name.rpartition("-")
        asyncio.run(main(int(seed), place, are_limited=kind == LIMITED, is_small=kind == SMALL))
