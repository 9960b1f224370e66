"""Large payloads in pieces: no brokers, real lanes, table writer and replay reader around a real table.

Which turns of the event loop come between two pieces, and that no order of events loses or doubles a message, is what
`simulation.py` tries by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import contextmanager

import pytest

from app.core.requests import SetAside, StoreMessages
from app.errors import ConnectorError, StoreError
from app.metrics import accounts
from app.pieces import PIECE_BYTES, Pieces
from app.routes import RouteTable
from app.throttle import Progress
from tables import layout, piece_keys, pieces
from tables.engine.store import Store
from tables.entry import expected_bytes, pack_entry
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched, do_what_is_asked
from tests.support.stored_messages import LIMIT_BYTES, Maker, append, database, make_table, opened

with app_settings():
    from app.storage.dead_letter_commands import DeadLetterCommands
    from app.storage.dead_letters import DeadLetters
    from app.storage.oversize import Oversize
    from app.storage.replay_reader import ReplayReader
    from app.storage.writer import TableWriter

ROUTE = "a/#:alpha"
FULL = 10 * LIMIT_BYTES + 500_000_000
LARGE = bytes(range(256)) * (3 * PIECE_BYTES // 256) + b"the end"  # four pieces


class Storage:
    """Lanes, table writer, dead letters and replay reader of one table; what is asked of the agents waits until `work`.

    Attributes:
        first: A key before all those of the lane.
    """

    def __init__(self, table):
        self.table, self.make = table, Maker(table)
        self.acknowledged = []
        self.dispatcher = Dispatched(store_after_seconds=0, replay_limit_messages=100, refill_below_messages=50)
        self.dispatcher.topics.learned = {"alpha"}
        self.lane = self.dispatcher.lanes["alpha"]
        self.first = self.lane.destination.prefix
        self.letters = DeadLetters(table, self.dispatcher, None, lambda _: self.make().key, RouteTable([]))
        self.writer = TableWriter(
            table, self.dispatcher, self.acknowledged.extend, drop_oldest=False, dead_letters=self.letters,
            oversize=Oversize(table, self.dispatcher, self.acknowledged.extend), routes=RouteTable([]),
        )  # fmt: skip
        self.by_hand = DeadLetterCommands(table, self.dispatcher, self.letters, self.writer)
        self.reader = ReplayReader(self.dispatcher, table, self.dispatcher.requests, 0)

    def message(self, payload=b"small", **options):
        """Return a message as the router makes it."""
        message = self.make(payload=payload, **options)
        message.destination = self.lane.destination
        accounts[ROUTE].in_flight += 1
        return message

    async def store(self, *messages):
        await self.writer.do(StoreMessages(list(messages)))

    async def work(self):
        """Do what is asked of the agents, until nothing is left to do."""
        await do_what_is_asked(self.dispatcher, self.writer, self.reader)

    async def deliver(self):
        """Let Kafka confirm everything, and all of it leave the table; return the payloads in their order."""
        payloads = []
        for _ in range(20):
            self.dispatcher.look_at_all()
            await self.work()
            payloads += [message.payload for message in self.dispatcher.producer.taken]
            self.dispatcher.producer.report(self.dispatcher)
            await self.work()
        return payloads


@contextmanager
def storage(directory, limit_bytes=FULL):
    """Open the storage around a table for the time of a test."""
    accounts.clear()
    with opened(directory, limit_bytes) as table:
        yield Storage(table)


def kept_pieces(table):
    """Return the keys of all pieces in a table, and of the notes that some were begun."""
    return [key for letter in (piece_keys.PIECE, layout.BEGUN) for key, _ in table.data.with_prefix(letter)]


def read_all(table):
    """Return the payloads of a lane, those in pieces too."""
    prefix = layout.undelivered_prefix("alpha")
    messages = table.read(prefix, prefix, 1000, 1_000_000_000)
    asyncio.run(pieces.read(table.data, messages, lambda: False))
    return [message.payload for message in messages]


def watch_values(monkeypatch):
    """Return the lists of what RocksDB is asked to write, and of what it is asked for, in one call each."""
    written, found = [], []
    write, value = Store.write, Store.value
    monkeypatch.setattr(Store, "write", lambda self, batch: (written.append(batch.size_in_bytes()), write(self, batch)))

    def watched(self, key):
        result = value(self, key)
        found.append(len(result or b""))
        return result

    monkeypatch.setattr(Store, "value", watched)
    return written, found


async def turns_during(work):
    """Return how many turns something else has while some work is done, and what came of that."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    result = await work
    other.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await other
    return turns, result


# ---- nothing holds up the event loop


def test_forty_megabytes_are_stored_and_read_with_turns_for_others_and_no_value_is_larger_than_a_piece(
    tmp_path, monkeypatch
):
    """RocksDB has the interpreter's lock while it writes a value: 100 MB in one stopped everything for 0.3 s."""
    written, found = watch_values(monkeypatch)
    payload = bytes(40_000_000)

    async def there_and_back():
        with storage(tmp_path) as there:
            there.lane.resume(there.first)
            turns_of_storing, _ = await turns_during(there.store(there.message(payload)))
            (message,) = there.table.read(there.first, there.first, 10, 10)
            restored = [message]
            turns_of_reading, _ = await turns_during(pieces.read(there.table.data, restored, lambda: False))
            assert restored[0].payload == payload
            return turns_of_storing, turns_of_reading

    assert min(asyncio.run(there_and_back())) >= 40_000_000 // PIECE_BYTES
    assert max(written) < PIECE_BYTES + 1000
    assert max(found) <= PIECE_BYTES


def test_many_messages_that_are_stored_at_once_leave_turns_for_others(tmp_path, monkeypatch):
    written, _ = watch_values(monkeypatch)

    async def store():
        with storage(tmp_path) as there:
            messages = [there.message(bytes(PIECE_BYTES)) for _ in range(20)]
            return (await turns_during(there.store(*messages)))[0]

    assert asyncio.run(store()) >= 4
    assert max(written) < 6 * PIECE_BYTES


# ---- nothing is lost, doubled or reordered


def test_large_and_small_messages_are_delivered_in_their_order_and_nothing_of_them_stays(tmp_path):
    async def outage():
        with storage(tmp_path) as there:
            there.lane.resume(there.first)
            payloads = [b"1", LARGE, b"2", LARGE + b"again", bytes(PIECE_BYTES), bytes(PIECE_BYTES + 1), b"3"]
            await there.store(*map(there.message, payloads))
            assert there.table.total_bytes > sum(map(len, payloads))
            assert there.table.total_bytes == accounts[ROUTE].undelivered_bytes
            assert await there.deliver() == payloads
            assert (there.table.total_messages, there.table.total_bytes, kept_pieces(there.table)) == (0, 0, [])
            assert accounts[ROUTE].imbalance == -len(payloads), "received is counted elsewhere"

    asyncio.run(outage())


def test_what_a_start_finds_is_counted_with_its_pieces(tmp_path):
    async def store():
        with storage(tmp_path) as there:
            await there.store(there.message(LARGE), there.message())
            return there.table.total_bytes

    size_bytes = asyncio.run(store())
    with opened(tmp_path, FULL) as table:
        assert (table.total_messages, table.total_bytes) == (2, size_bytes)
        assert read_all(table) == [LARGE, b"small"]
        entries = table.read(b"Ualpha\0", b"Ualpha\0", 10, 10**9)
        assert sum(entry.stored_bytes for entry in entries) == size_bytes
        for message, payload in zip(entries, (LARGE, b"small"), strict=True):
            message.payload = payload
            assert message.stored_bytes <= expected_bytes(message) + message.kept_since


def test_a_message_that_kafka_confirms_while_its_pieces_are_written_is_not_stored(tmp_path, monkeypatch):
    """It would be sent once more."""

    async def confirm():
        with storage(tmp_path) as there:
            message, later = there.message(LARGE), there.message(b"later")
            turn = pieces.others_turn

            async def others_turn(store):
                message.finished = message.finished or there.table.figures.write_number > 3
                await turn(store)

            monkeypatch.setattr(pieces, "others_turn", others_turn)
            await there.store(message, later)
            assert (message.stored, later.stored, there.table.total_messages) == (False, True, 1)
            assert kept_pieces(there.table) == []

    asyncio.run(confirm())


def test_a_disk_that_is_full_half_way_through_a_payload_keeps_it_waiting(tmp_path, monkeypatch):
    """Written to the end it would fail, and end the worker."""

    async def fill():
        with storage(tmp_path) as there:
            message = there.message(LARGE)
            monkeypatch.setattr(there.table, "check_disk_full", lambda: there.table.figures.write_number > 3)
            await there.store(message)
            assert (message.stored, there.writer.is_full, kept_pieces(there.table)) == (False, True, [])
            monkeypatch.setattr(there.table, "check_disk_full", lambda: False)
            await there.store()
            assert (message.stored, there.writer.is_full, read_all_now(there)) == (True, False, [LARGE])
            there.writer._timer.cancel()

    def read_all_now(there):
        messages = there.table.read(there.first, there.first, 10, 10**9)
        return [b"".join(map(there.table.data.value, piece_keys.piece_keys(each.pieces))) for each in messages]

    asyncio.run(fill())


def test_what_a_crash_left_of_a_payload_is_gone_after_the_start_and_nothing_else_is(tmp_path):
    with opened(tmp_path, FULL) as table:
        make = Maker(table)
        whole, half = make(payload=LARGE), make(payload=LARGE)
        assert asyncio.run(pieces.put(table, whole, lambda: False))
        append(table, [whole])
        assert asyncio.run(pieces.put(table, half, lambda: False))
        assert len(kept_pieces(table)) == 4 + 4 + 1
    with opened(tmp_path, FULL) as table:
        assert len(kept_pieces(table)) == 4
        assert read_all(table) == [LARGE]
        assert table.lost_messages == 0


def test_a_chunk_that_is_void_by_now_is_not_read_as_its_pieces_may_be_gone(tmp_path):
    async def rewind():
        with storage(tmp_path) as there:
            await there.store(there.message(LARGE))
            messages = there.table.read(there.first, there.first, 10, 10)
            write = there.table.begin()
            write.remove(messages)
            write.commit()
            await pieces.read(there.table.data, messages, lambda: True)
            with pytest.raises(StoreError, match="missing"):
                await pieces.read(there.table.data, messages, lambda: False)

    asyncio.run(rewind())


# ---- damage


def test_a_payload_of_which_a_piece_is_missing_is_counted_as_lost_and_costs_no_other_one(tmp_path, caplog):
    async def fill():
        with storage(tmp_path) as there:
            first, second, dead = (there.message(payload) for payload in (LARGE, LARGE + b"2", LARGE + b"3"))
            await there.store(first, there.message(), second)
            dead.dead_reason = "too_large"
            await there.writer.do(SetAside([dead]))
            return [first.pieces, dead.pieces]

    missing = asyncio.run(fill())
    with database(tmp_path) as files:
        for each in missing:
            del files[piece_keys.piece_key(each.name, 2)]
    table = make_table(tmp_path, FULL)
    table.open_to_write()
    with pytest.raises(StoreError, match="missing"):
        read_all(table)
    table.close()
    with opened(tmp_path, FULL) as table:
        assert table.lost_messages == 2
        assert "2 large messages are lost" in caplog.text
        assert read_all(table) == [LARGE + b"2", b"small"]
        assert (table.total_messages, table.dead_messages, table.dead_bytes) == (2, 0, 0)
        assert len(kept_pieces(table)) == 4
    with opened(tmp_path, FULL) as table:
        assert table.lost_messages == 0


@pytest.mark.parametrize("gone", ["MANIFEST-*", "*.blob"])
def test_damage_to_the_files_costs_no_more_payloads_than_it_hits(gone, tmp_path):
    async def fill():
        with storage(tmp_path) as there:
            await there.store(*[there.message(LARGE) for _ in range(3)], there.message())
            there.table.data.database.flush()

    asyncio.run(fill())
    for path in (tmp_path / "undelivered").glob(gone):
        path.unlink()
    for _ in range(2):  # the first start finds the damage, perhaps when it reads
        with contextlib.suppress(StoreError), opened(tmp_path, FULL) as table:
            found = read_all(table)
            assert found == ([b"small"] if gone == "*.blob" else [LARGE, LARGE, LARGE, b"small"])
            break
    else:
        raise AssertionError("the second start cannot read either")
    with opened(tmp_path, FULL) as table:
        assert len(kept_pieces(table)) == 4 * (table.total_messages - 1)


# ---- dead letters


async def dead_letter(there, payload=LARGE):
    """Set a message aside; return its id."""
    message = there.message(payload)
    message.dead_reason, message.finished = "too_large", True
    await there.writer.do(SetAside([message]))
    return message.key[-layout.SEQUENCE_BYTES :].hex()


def test_a_large_dead_letter_is_listed_without_reading_it_and_goes_where_others_go(tmp_path, monkeypatch):
    async def retry():
        with storage(tmp_path) as there:
            name = await dead_letter(there)
            written, found = watch_values(monkeypatch)
            (letter,) = there.table.dead_letters()
            assert (letter.id, len(letter.message.payload), letter.beginning) == (name, len(LARGE), shown(LARGE))
            assert there.table.dead_bytes == letter.entry_bytes > len(LARGE)
            assert await there.by_hand.retry([name]) == 1
            with pytest.raises(ConnectorError, match="on its way"):
                there.by_hand.delete([name])
            assert there.by_hand.delete([]) == 0, "one that is on its way has to be read yet"
            assert sum(written) + sum(found) < 10_000, "its payload stays where it is"
            assert await there.deliver() == [LARGE]
            assert (there.table.dead_messages, there.table.dead_bytes, there.table.total_bytes) == (0, 0, 0)
            assert kept_pieces(there.table) == []

    asyncio.run(retry())


def test_a_retried_large_dead_letter_is_not_sent_before_its_payload_can_be_read_and_waits_for_no_timer_then(tmp_path):
    async def retry():
        with storage(tmp_path) as there:
            name = await dead_letter(there)
            await there.by_hand.retry([name])
            there.reader.refill(there.lane)  # it looks before the writer has stored it
            assert (there.dispatcher.producer.taken, there.lane.is_direct) == ([], False)
            there.dispatcher.replay.pop_all()
            await there.work()
            assert [message.payload for message in there.dispatcher.producer.taken] == [LARGE]

    asyncio.run(retry())


def shown(payload):
    return repr(payload[:60])[1:] + "..."


@pytest.mark.parametrize("names_it", [True, False])
def test_a_large_dead_letter_that_is_deleted_leaves_nothing(names_it, tmp_path):
    async def delete():
        with storage(tmp_path) as there:
            name = await dead_letter(there)
            await dead_letter(there, b"small")
            assert there.by_hand.delete([name] if names_it else []) == (1 if names_it else 2)
            assert kept_pieces(there.table) == []
            there.table.letters.count_now(Progress(print))
            assert there.table.dead_messages == (1 if names_it else 0)

    asyncio.run(delete())


def test_the_counts_of_dead_letters_are_held_against_their_pieces_too(tmp_path, caplog):
    async def count():
        with storage(tmp_path) as there:
            await dead_letter(there)
            await dead_letter(there, b"small")
            await there.table.letters.count_beside()
            return there.table.dead_bytes

    size_bytes = asyncio.run(count())
    with opened(tmp_path, FULL) as table:
        table.letters.count_now(Progress(print))
        assert (table.dead_messages, table.dead_bytes) == (2, size_bytes)
    assert "put right" not in caplog.text


def test_the_oldest_large_dead_letters_give_way_with_their_pieces(tmp_path):
    async def flood():
        with storage(tmp_path, limit_bytes=10 * 3 * len(LARGE)) as there:
            names = [await dead_letter(there) for _ in range(6)]
            assert [letter.id for letter in there.table.dead_letters()] == names[-2:]
            assert len(kept_pieces(there.table)) == 2 * 4

    asyncio.run(flood())


def test_a_large_message_that_waits_becomes_a_dead_letter_without_being_written_again(tmp_path, monkeypatch):
    async def move():
        with storage(tmp_path) as there:
            message = there.message(LARGE)
            await there.store(message)
            written, _ = watch_values(monkeypatch)
            message.dead_reason, message.finished = "moved_by_operator", True
            await there.writer.do(SetAside([message]))
            assert sum(written) < 10_000
            assert (there.table.total_bytes, there.table.dead_messages, len(kept_pieces(there.table))) == (0, 1, 4)

    asyncio.run(move())


# ---- formats


def test_a_large_payload_in_one_value_as_format_1_has_it_is_read_and_removed(tmp_path):
    async def upgrade():
        with storage(tmp_path) as there:
            append(there.table, [there.message(LARGE)])
            assert not kept_pieces(there.table)
            there.lane.resume(there.first)
            assert await there.deliver() == [LARGE]
            assert there.table.total_bytes == 0

    asyncio.run(upgrade())


def test_a_payload_that_was_not_read_is_never_taken_for_an_empty_one():
    unread = Pieces(bytes(12), PIECE_BYTES + 1, b"begins")
    message = Maker(type("Table", (), {"epoch": 1}))(payload=unread)
    assert len(message.payload) == PIECE_BYTES + 1
    for use in (lambda: message.fingerprint, lambda: pack_entry(message)):
        with pytest.raises(TypeError, match="not read"):
            use()
