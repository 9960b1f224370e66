"""A route with a limit for the table: which of its messages are dropped, and that nothing else is; without brokers."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import pairwise

import pytest
from confluent_kafka import KafkaError

from app.core.lane_states import State
from app.core.requests import StoreMessages
from app.metrics import accounts
from app.pieces import PIECE_BYTES
from app.routes import Route, RouteTable, parse_kafka_topic, parse_pattern
from tables import layout
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched, do_what_is_asked
from tests.support.stored_messages import Maker, copy_of_open, opened

with app_settings():
    from app.storage.dead_letters import DeadLetters
    from app.storage.oversize import Oversize
    from app.storage.replay_reader import ReplayReader
    from app.storage.route_limits import ROUTE_FULL
    from app.storage.writer import TableWriter

MIB = 1024 * 1024
TABLE_BYTES = 40 * MIB
PAYLOAD_BYTES = 10_000
ENTRY_BYTES = 10_200  # and some bytes less
SITES = ("site.a", "site.b", "site.c")


def routes(limit_bytes=MIB, to="limited"):
    """Return a route with a limit and one without."""
    mqtt_filter, captures = parse_pattern("a/{site}")
    limited = Route("limited", mqtt_filter, parse_kafka_topic(to, captures), drop_oldest_above_bytes=limit_bytes)
    return RouteTable([limited, Route("other", "b/#", parse_kafka_topic("other"))])


class Storage:
    """Lanes, table writer and replay reader around a table; Kafka is away until `let_kafka_answer`."""

    def __init__(self, table, table_of_routes, *, drop_oldest=False):
        self.table, self.routes, self.make = table, table_of_routes, Maker(table)
        self.acknowledged, self.delivered = [], []
        self.syncs = True
        self.dispatcher = Dispatched(store_after_seconds=0)
        self.dispatcher.open_up("limited", "other", "gone", *SITES)
        self.dispatcher.bounds.close()
        acknowledge = self.acknowledged.extend
        letters = DeadLetters(table, self.dispatcher, None, lambda _: self.make().key, self.routes)
        self.writer = TableWriter(
            table, self.dispatcher, acknowledge, drop_oldest=drop_oldest, dead_letters=letters,
            oversize=Oversize(table, self.dispatcher, acknowledge), routes=self.routes,
        )  # fmt: skip
        self.writer._syncs.soon = self.writer._syncs.removals_soon = lambda: None
        self.reader = ReplayReader(self.dispatcher, table, self.dispatcher.requests, 0)
        for route, messages in table.figures.messages.items():
            accounts[route].recover(messages, table.figures.bytes[route])
        for topic, first in table.lanes():
            self.dispatcher.resume(topic, first)

    def take(self, topic, number, route=None, payload_bytes=PAYLOAD_BYTES, batch=1):
        """Receive messages, written in batches; return their keys."""
        keys = []
        for _ in range(0, number, batch):
            messages = [self.make(topic, route or topic, bytes(payload_bytes)) for _ in range(batch)]
            for message in messages:
                message.destination = self.dispatcher.destination(topic)
            accounts[messages[0].route].receive(batch)
            self.dispatcher.accept(topic, messages)
            self.work()
            if self.syncs:
                asyncio.run(self.writer._syncs.run())
            keys += [message.key for message in messages]
        return keys

    def work(self):
        """Do what is asked of the agents, until nothing is left to do."""
        asyncio.run(self._work())

    async def _work(self):
        await do_what_is_asked(self.dispatcher, self.writer, self.reader)

    async def _deliver(self):
        self.dispatcher.bounds.open()
        for _ in range(50):
            self.dispatcher.look_at_all()
            for lane in self.dispatcher.replay.pop_all():
                self.reader.refill(lane)
            await self._work()
            self.delivered += [message.key for message in self.dispatcher.producer.taken]
            self.dispatcher.producer.report(self.dispatcher)
            await self._work()

    def let_kafka_answer(self):
        """Let Kafka have everything; return the keys of what it has got, in order."""
        asyncio.run(self._deliver())
        return self.delivered

    def kept(self, topic):
        """Return the keys of a lane that the table has."""
        prefix = layout.undelivered_prefix(topic)
        return [message.key for message in self.table.read(prefix, prefix, 10**6, 10**10)]

    def assert_balanced(self):
        """Check that every message is accounted for, and that the figures are those of the entries."""
        for name, account in accounts.items():
            assert account.imbalance == 0, name
            assert account.undelivered == self.table.figures.messages.get(name, 0)
            assert account.undelivered_bytes == self.table.figures.bytes.get(name, 0)
        found = [message for topic in ("limited", "other", "gone", *SITES) for message in self.read(topic)]
        assert self.table.total_messages == len(found)
        assert self.table.total_bytes == sum(message.stored_bytes for message in found)

    def read(self, topic):
        """Return the messages of a lane that the table has."""
        prefix = layout.undelivered_prefix(topic)
        return self.table.read(prefix, prefix, 10**6, 10**10)


@contextmanager
def storage(directory, table_of_routes=None, *, limit_bytes=TABLE_BYTES, **options):
    """Open all that around a table; what is counted begins anew, as at a start."""
    accounts.clear()
    with opened(directory, limit_bytes) as table:
        yield Storage(table, table_of_routes or routes(), **options)


def dropped(name="limited"):
    return accounts[name].dropped[ROUTE_FULL]


@pytest.mark.parametrize("batch", [1, 20])
def test_the_oldest_of_the_route_are_dropped_and_counted_and_all_else_stays_in_order(batch, tmp_path, caplog):
    with storage(tmp_path) as there:
        others = there.take("other", 200)
        keys = there.take("limited", 500, batch=batch)
        kept = there.kept("limited")
        assert kept == keys[-len(kept) :], "the newest, without a gap"
        assert len(kept) + dropped() == 500
        assert 0.9 * MIB < there.table.figures.bytes["limited"] <= MIB
        assert there.kept("other") == others and dropped("other") == 0
        there.assert_balanced()
        assert caplog.text.count("route limited: it takes more of the table than 1048576 bytes") == 1
        delivered = there.let_kafka_answer()
        assert [key for key in delivered if key in set(others)] == others
        assert [key for key in delivered if key not in set(others)] == kept
        assert there.table.total_messages == 0
        there.assert_balanced()


def test_what_is_dropped_at_once_leaves_some_head_room(tmp_path):
    with storage(tmp_path, routes(10 * MIB)) as there:
        there.take("limited", 2_000, batch=10)
        drops = [dropped()]
        for _ in range(200):
            there.take("limited", 1)
            drops.append(dropped())
        assert sum(after > before for before, after in pairwise(drops)) <= 5


def test_what_librdkafka_has_stays_and_does_not_count(tmp_path):
    with storage(tmp_path) as there:
        there.dispatcher.bounds.open()
        in_flight = there.take("limited", 300)
        assert len(there.dispatcher.producer.taken) == 300
        assert there.kept("limited") == in_flight and not dropped(), "it exceeds the limit meanwhile"
        there.dispatcher.bounds.close()
        keys = there.take("limited", 500)
        kept = there.kept("limited")
        assert kept[:300] == in_flight
        assert kept[300:] == keys[-(len(kept) - 300) :]
        assert 0.8 * MIB < (len(kept) - 300) * ENTRY_BYTES < 1.4 * MIB
        assert there.let_kafka_answer() == kept
        there.assert_balanced()


def test_a_lane_that_goes_back_for_refused_messages_loses_none_meanwhile(tmp_path):
    with storage(tmp_path) as there:
        first = there.take("limited", 1)
        assert there.let_kafka_answer() == first
        keys = there.take("limited", 200)
        refused = there.dispatcher.producer.taken[:50]
        there.dispatcher.producer.report(
            there.dispatcher, refused, KafkaError(KafkaError.NOT_ENOUGH_REPLICAS, "not enough replicas")
        )
        lane = there.dispatcher.lanes["limited"]
        assert lane.state is State.REWINDING
        keys += there.take("limited", 200)
        assert there.kept("limited") == keys and not dropped()
        there.dispatcher.bounds.close()
        confirmed = [message.key for message in there.dispatcher.producer.taken]
        there.dispatcher.producer.report(there.dispatcher)
        there.work()
        assert lane.state is State.BEHIND
        keys += there.take("limited", 5)
        left = [key for key in keys if key not in set(confirmed)]
        kept = there.kept("limited")
        assert kept == left[-len(kept) :] and len(kept) + dropped() == len(left)
        assert 0.8 * MIB < there.table.figures.bytes["limited"] < 1.1 * MIB
        lane.attempts.retry.due_at = 0.0
        assert there.let_kafka_answer() == [*first, *kept]
        there.assert_balanced()


def test_a_kill_in_the_middle_loses_nothing_else_and_the_next_start_goes_on(tmp_path):
    with storage(tmp_path / "first") as there:
        others = there.take("other", 50)
        before = there.take("limited", 500)
        kept = there.kept("limited")
        copy_of_open(tmp_path / "first", tmp_path / "second")
    with storage(tmp_path / "second") as there:
        assert there.kept("limited") == kept and there.kept("other") == others
        there.assert_balanced()
        keys = before + there.take("limited", 60)
        kept = there.kept("limited")
        assert kept == keys[-len(kept) :] and 60 < len(kept) <= MIB // 10_000
        there.assert_balanced()
        assert set(there.let_kafka_answer()) == {*kept, *others}


def test_a_reload_changes_the_limit_and_a_lower_one_is_reached_step_by_step(tmp_path):
    with storage(tmp_path, routes(30 * MIB)) as there:
        there.take("limited", 2_000, batch=20)
        assert not dropped()
        there.routes.become(routes(5 * MIB))
        there.take("limited", 1)
        assert 0 < dropped() < 300, "the others do not wait until it is all gone"
        there.take("limited", 20)
        assert there.table.figures.bytes["limited"] <= 5 * MIB
        given_up = dropped()
        there.routes.become(routes(None))
        there.take("limited", 2_000, batch=20)
        assert dropped() == given_up and not there.routes.have_limits
        there.assert_balanced()


@pytest.mark.parametrize("drop_oldest", [False, True])
def test_in_a_full_table_the_route_makes_room_for_itself_and_no_other_loses_or_waits(drop_oldest, tmp_path):
    """A large message, for which the table has no room beside what the limit leaves there."""
    with storage(tmp_path, routes(8 * MIB), limit_bytes=10 * MIB, drop_oldest=drop_oldest) as there:
        others = there.take("other", 20)
        there.take("limited", 1_000, batch=20)
        (large,) = there.take("limited", 1, payload_bytes=5 * MIB)
        others += there.take("other", 20)
        assert there.kept("limited")[-1] == large and there.kept("other") == others
        assert there.table.total_bytes <= 10 * MIB and not there.writer.is_full
        there.assert_balanced()


def test_what_is_not_synced_yet_stays_as_the_broker_would_repeat_it_after_a_crash(tmp_path):
    with storage(tmp_path) as there:
        there.syncs = False
        keys = there.take("limited", 300, batch=20)
        assert there.kept("limited") == keys and not dropped() and not there.acknowledged
        there.syncs = True
        there.take("limited", 1)
        assert not dropped()
        there.take("limited", 3)
        assert 0 < dropped() <= 300
        there.assert_balanced()


@pytest.mark.parametrize("is_synced_at_once", [False, True])
def test_the_newest_message_stays_even_if_it_is_larger_than_the_limit(is_synced_at_once, tmp_path):
    with storage(tmp_path) as there:
        if is_synced_at_once:
            there.writer._syncs.soon = there.table.sync_now
        there.take("limited", 20)
        large = there.take("limited", 1, payload_bytes=3 * PIECE_BYTES)
        assert there.kept("limited") == large and dropped() == 20
        small = there.take("limited", 1)
        assert there.kept("limited") == small and dropped() == 21
        assert not list(there.table.data.with_prefix(b"P")), "its pieces are gone"
        there.assert_balanced()


def test_messages_of_a_route_that_is_gone_stay_at_the_head_of_the_lane(tmp_path):
    with storage(tmp_path) as there:
        gone = there.take("limited", 1_200, route="gone", batch=20)
        there.take("limited", 10)
        gone += there.take("limited", 1, route="gone")
        keys = there.take("limited", 500)
        kept = [message.key for message in there.read("limited") if message.route == "limited"]
        assert kept == keys[-len(kept) :] and len(kept) + dropped() == 510
        assert there.table.figures.bytes["limited"] <= MIB
        assert [message.key for message in there.read("limited") if message.route == "gone"] == gone
        there.assert_balanced()
        assert there.let_kafka_answer() == [*gone, *kept]


def test_of_a_template_the_kafka_topic_with_the_oldest_messages_gives_way_first(tmp_path):
    with storage(tmp_path, routes(to="site.{site}")) as there:
        others = there.take("other", 10)
        keys = {topic: [] for topic in SITES}
        for turn in range(400):
            topic = SITES[0] if turn < 20 else SITES[1 + turn % 2]
            keys[topic] += there.take(topic, 1, route="limited")
        assert there.kept(SITES[0]) == [], "what came first is gone first, though nothing new comes there"
        kept = {topic: there.kept(topic) for topic in SITES[1:]}
        for topic, of_topic in kept.items():
            assert of_topic == keys[topic][-len(of_topic) :]
            assert len(of_topic) > 40, "what both have is equally old"
        assert sum(map(len, kept.values())) + dropped() == 400
        assert 0.9 * MIB < there.table.figures.bytes["limited"] <= MIB
        (quiet,) = there.take(SITES[0], 1, route="limited")
        there.assert_balanced()
        kept = [key for topic in SITES for key in there.kept(topic)]
        delivered = there.let_kafka_answer()
        assert quiet in kept and set(delivered) == {*kept, *others} and len(delivered) == len(kept) + 10
        there.assert_balanced()


def test_nothing_is_dropped_at_a_stop(tmp_path):
    with storage(tmp_path) as there:
        there.dispatcher.stop_replaying()
        assert there.kept("limited") == there.take("limited", 0)
        keys = there.take("limited", 300)
        assert there.kept("limited") == keys and not dropped()
        there.dispatcher.requests.table.append(StoreMessages([]))
        there.work()
        there.assert_balanced()


def test_others_have_a_turn_while_many_lanes_go_on_at_once(tmp_path, monkeypatch):
    """P5: once Kafka was back, a thousand lanes were read in one go, for a tenth of a second."""
    monkeypatch.setattr("app.storage.replay_reader.PART_SECONDS", 0.0)
    with storage(tmp_path, routes(to="site.{site}")) as there:
        keys = [key for topic in SITES for key in there.take(topic, 2, route="limited")]
        there.dispatcher.bounds.open()
        there.dispatcher.look_at_all()
        lanes = there.dispatcher.replay.pop_all()
        read_after = []

        async def count():
            for _ in range(2 * len(lanes)):
                read_after.append(len(there.dispatcher.requests.chunks))
                await asyncio.sleep(0)

        async def both():
            await asyncio.gather(count(), there.reader._refill_all(lanes))

        asyncio.run(both())
        assert read_after[-1] == len(SITES)
        assert all(later - earlier <= 1 for earlier, later in pairwise(read_after))
        assert sorted(there.let_kafka_answer()) == sorted(keys)
