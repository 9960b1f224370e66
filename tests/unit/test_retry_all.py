"""All dead letters sent once more, however many there are: in parts, with turns for others and bounds in memory."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import pytest

from app.core.message import MESSAGE_OVERHEAD_BYTES
from app.core.requests import SetAside, StoreMessages
from app.errors import ConnectorError
from tables import dead_letters, layout
from tests.support.app_settings import app_settings
from tests.support.stored_messages import add_dead_letter, contents, copy_of_open, opened
from tests.unit.test_dead_letter_ids import state, true_counts, with_dead_letters

with app_settings():
    from app import control
    from app.pages import dead_letters as pages_dead_letters
    from app.pages.dead_letters import DeadLetterPages
    from app.pages.reuse import Share
    from app.storage import retry_all, writer

MANY = 20_000
LONGEST_SECONDS = 0.05  # of the event loop, by its processor time
USER_PROPERTIES = [(f"mqtt-user-{number}", b"x") for number in range(1000)]


def add_many(there, count, topic="alpha", headers=(), payload=b""):
    """Add dead letters, as a flood leaves them."""
    write = there.table.begin()
    for _ in range(count):
        message = there.make(payload=payload)
        message.dead_reason, message.headers = "too_large", [*message.headers, *headers]
        write.add_dead_letter(message, topic)
    write.commit()


@contextmanager
def longest_turn(monkeypatch):
    """Note the longest turn of the event loop, in seconds of the processor; the collector would add what tests left."""
    run, longest = asyncio.events.Handle._run, [0.0]

    def timed(handle):
        began = time.thread_time()
        run(handle)
        longest[0] = max(longest[0], time.thread_time() - began)

    gc.disable()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.events.Handle, "_run", timed)
            yield longest
    finally:
        gc.enable()


@asynccontextmanager
async def table_writer(there, seen=None):
    """Do what is asked of the table writer, as its agent does; with `seen` not before nothing more comes."""

    async def work():
        requests = there.requests.table
        while True:
            if seen is not None:
                seen.append(
                    [each.message for each in there.letters._under_way.values() if each.message.dead_letter_key]
                )
            while requests and (not seen or len(seen[-1]) == len(seen[-2])):
                await there.writer.do(requests.pop(0))
            there.writer._syncs._messages.clear()
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()


def retried(there, seen=None):
    """Retry all beside the table writer; return how many."""

    async def run():
        if seen is not None:
            seen.append([])
        async with table_writer(there, seen):
            return await there.by_hand.retry([])

    return asyncio.run(run())


def test_many_dead_letters_are_retried_with_turns_for_others_within_the_bound_of_memory(tmp_path, monkeypatch):
    """125,000 were taken in one turn of two seconds, with 185 MB."""
    with with_dead_letters(tmp_path, []) as there:
        add_many(there, MANY)
        with longest_turn(monkeypatch) as longest:
            assert retried(there) == MANY
        assert longest[0] < LONGEST_SECONDS
        add_many(there, MANY)
        seen = []
        assert retried(there, seen) == MANY
        assert max(map(len, seen)) == dead_letters.RETRIED_MESSAGES
        assert (there.table.total_messages, there.table.letters.counted()) == (2 * MANY, (0, 0))


def test_dead_letters_count_for_their_headers_where_they_are_retried(tmp_path):
    with with_dead_letters(tmp_path, []) as there:
        add_many(there, 150, headers=USER_PROPERTIES)
        seen = []
        assert retried(there, seen) == 150
        each = 1000 * 280
        most = max(sum(message.size_bytes for message in under_way) for under_way in seen)
        assert dead_letters.RETRIED_BYTES <= most < dead_letters.RETRIED_BYTES + 2 * each
        add_many(there, 100, headers=USER_PROPERTIES)
        before = state(there.table)
        with pytest.raises(ConnectorError, match="nothing was changed: these dead letters take"):
            there.retry([name for name, _ in before[0]])
        assert state(there.table) == before
        one = next(there.table.dead_letters())
        assert one.revived(b"key").size_bytes == one.message.size_bytes > each + MESSAGE_OVERHEAD_BYTES


@pytest.mark.parametrize("command", ["retry all without a mapping", "retry", "delete", "delete all", "list"])
def test_no_command_holds_others_up_for_the_number_of_dead_letters(command, tmp_path, monkeypatch):
    with with_dead_letters(tmp_path, []) as there:
        add_many(there, MANY, "" if "mapping" in command else "alpha")
        ids = [letter.id for letter, _ in zip(there.table.dead_letters(), range(dead_letters.MOST_IDS), strict=False)]

        async def run():
            if command == "retry all without a mapping":
                with pytest.raises(ConnectorError, match="no route matches"):
                    await there.by_hand.retry([])
            elif command == "retry":
                await there.by_hand.retry(ids)
            elif command == "list":
                DeadLetterPages(there.table, None, None, Share()).listing(None)
            else:
                there.by_hand.delete([] if command == "delete all" else ids)

        with longest_turn(monkeypatch) as longest:
            asyncio.run(run())
        assert longest[0] < LONGEST_SECONDS


@pytest.mark.parametrize("length", [300, 2_000, 21_000])
def test_a_list_of_dead_letters_with_long_topics_of_many_characters_holds_nobody_up(length, tmp_path, monkeypatch):
    """Fifty topics of 2,000 characters, of which few come twice, took 170 to 340 ms; nobody needs a token to ask."""
    letters = "".join(map(chr, (*range(0x3400, 0xA000), *range(0xAC00, 0xD7A4))))
    with with_dead_letters(tmp_path, []) as there:
        write = there.table.begin()
        for number in range(60):
            message = there.make(payload=b"")
            topic = (letters[number * 500 :] + letters)[:length]
            message.dead_reason, message.headers = "too_large", [("mqtt-topic", topic.encode())]
            write.add_dead_letter(message, "alpha")
        write.commit()
        pages = DeadLetterPages(there.table, None, None, Share())

        async def run():
            return pages.listing(None)

        with longest_turn(monkeypatch) as longest:
            found = json.loads(asyncio.run(run()).text)
        assert longest[0] < LONGEST_SECONDS
        topics = [each["mqtt_topic"] for each in found["dead_letters"]]
        assert found["count"] == 60
        assert len(topics) == (50 if length == 300 else 10)
        assert sum(map(len, topics)) < pages_dead_letters.SHOWN_CHARACTERS + 3_000


def test_a_large_dead_letter_pushes_out_many_small_ones_with_turns_for_others(tmp_path, monkeypatch):
    """64,000 of them were read and dropped in one turn of 0.3 s."""
    with with_dead_letters(tmp_path, []) as there:
        for _ in range(3):
            add_many(there, MANY)
        there.table.limit_bytes = there.table.dead_bytes * 10
        message = there.make(payload=bytes(int(there.table.dead_bytes * 0.7)))
        message.destination, message.dead_reason = there.dispatcher.destination("alpha"), "too_large"

        async def run():
            async with table_writer(there):
                await there.writer.do(SetAside([message]))

        with longest_turn(monkeypatch) as longest:
            asyncio.run(run())
        assert longest[0] < LONGEST_SECONDS
        assert there.letters.dropped > MANY
        assert there.table.letters.counted() == true_counts(there.table)
        assert there.table.dead_bytes <= there.table.limit_bytes / 10
        assert there.table.dead_messages == 3 * MANY + 1 - there.letters.dropped


def test_many_small_messages_that_are_stored_at_once_leave_turns_for_others(tmp_path, monkeypatch):
    """A write of 4 MiB had 20,000 of them."""
    with with_dead_letters(tmp_path, []) as there:
        messages = [there.make(payload=b"") for _ in range(MANY)]
        for message in messages:
            message.destination = there.dispatcher.destination("alpha")

        async def run():
            async with table_writer(there):
                await there.writer.do(StoreMessages(messages))

        with longest_turn(monkeypatch) as longest:
            asyncio.run(run())
        assert longest[0] < LONGEST_SECONDS
        assert there.table.total_messages == MANY


# ---- what happens between two parts


@pytest.fixture
def one_by_one(monkeypatch):
    """Have parts of one dead letter; return what is to happen between two of them."""
    acts = []

    async def others_turn(_store):
        await asyncio.sleep(0)
        if acts:
            acts.pop(0)()

    monkeypatch.setattr(retry_all, "PART_SECONDS", -1.0)
    monkeypatch.setattr(retry_all.pieces, "others_turn", others_turn)
    return acts


def test_what_is_refused_again_between_two_parts_is_not_sent_a_second_time(tmp_path, one_by_one):
    with with_dead_letters(tmp_path) as there:

        def refuse():
            ((message, _),) = there.letters._under_way.values()
            add_dead_letter(there.table, message, "alpha")

        one_by_one.append(refuse)
        assert retried(there) == 3
        assert [payload for _, payload in state(there.table)[0]] == [b"first"]


def test_what_is_deleted_between_two_parts_is_not_sent_and_what_comes_waits_for_the_next_command(tmp_path, one_by_one):
    with with_dead_letters(tmp_path) as there:
        _, second, _ = [name for name, _ in state(there.table)[0]]
        one_by_one += [
            lambda: there.by_hand.delete([second]),
            lambda: add_dead_letter(there.table, there.make(payload=b"late"), "alpha"),
        ]
        assert retried(there) == 2
        assert contents(there.table, "alpha") == [b"first", b"third"]
        assert [payload for _, payload in state(there.table)[0]] == [b"late"]
        assert there.table.letters.counted() == true_counts(there.table)


def test_what_is_on_its_way_again_is_not_deleted_with_all_and_a_kill_just_then_loses_none(tmp_path, one_by_one):
    """P1: their entries were gone, and both commands counted them (2,000 and 1,047 of 3,000)."""
    with with_dead_letters(tmp_path) as there:
        counts = []
        one_by_one += [
            lambda: counts.append(there.by_hand.delete([])),
            lambda: copy_of_open(tmp_path, tmp_path / "killed"),
        ]
        assert (there.retry([]), counts) == (1, [2])
        for request in there.requests.table:
            asyncio.run(there.writer.do(request))
        assert contents(there.table, "alpha") == [b"first"]
        assert there.table.letters.counted() == true_counts(there.table) == (0, 0)
    with opened(tmp_path / "killed") as table:
        left = contents(table, "alpha") + [letter.message.payload for letter in table.dead_letters()]
        assert left == [b"first"]
        assert table.letters.counted() == true_counts(table)


@pytest.mark.parametrize("named", [(), (0,), (4,), (1, 2, 3), (0, 2, 4), (0, 1, 2, 3, 4)], ids=str)
def test_all_are_deleted_but_those_that_are_on_their_way_wherever_they_are_between_the_others(named, tmp_path):
    with with_dead_letters(tmp_path, [b"0", b"1", b"2", b"3", b"4"]) as there:
        ids = [name for name, _ in state(there.table)[0]]
        chosen = [ids[number] for number in named]
        if chosen:
            there.retry(chosen)
        assert there.by_hand.delete([]) == 5 - len(named)
        assert [name for name, _ in state(there.table)[0]] == chosen
        assert there.table.letters.counted() == true_counts(there.table)
        there.by_hand.delete([])
        for name in chosen:
            with pytest.raises(ConnectorError, match="on its way to Kafka already"):
                there.by_hand.delete([name])
        assert [name for name, _ in state(there.table)[0]] == chosen


def test_to_delete_all_beside_as_many_as_may_be_on_their_way_holds_nobody_up(tmp_path, monkeypatch):
    """To write 16 MiB of them again took 0.1 s of the processor, and 0.8 s in all."""
    with with_dead_letters(tmp_path, []) as there:
        each = bytes(dead_letters.RETRIED_BYTES // dead_letters.RETRIED_MESSAGES - 600)
        add_many(there, dead_letters.RETRIED_MESSAGES + 10, payload=each)
        for part in range(0, dead_letters.RETRIED_MESSAGES, dead_letters.MOST_IDS):
            ids = [letter.id for letter in there.table.dead_letters()]
            there.retry(ids[part : part + dead_letters.MOST_IDS])

        async def run():
            assert there.by_hand.delete([]) == 10

        with longest_turn(monkeypatch) as longest:
            asyncio.run(run())
        assert longest[0] < LONGEST_SECONDS
        assert there.table.letters.counted() == true_counts(there.table)


@pytest.mark.parametrize("named", [0, 1, 2])
def test_what_is_on_its_way_again_gives_way_to_no_newer_one_and_takes_no_room_from_others(named, tmp_path):
    """It counted as dropped, and arrived as well; after a kill it did not."""
    with with_dead_letters(tmp_path) as there:
        ids = [name for name, _ in state(there.table)[0]]
        if named:
            there.retry(ids[:named])
        there.table.limit_bytes = there.table.dead_bytes * 10 + 9
        for payload in (b"newer", b"later"):
            message = there.make(payload=payload)
            message.destination, message.dead_reason = there.dispatcher.destination("alpha"), "too_large"
            asyncio.run(there.writer.do(SetAside([message])))
        assert there.letters.dropped == max(0, 2 - named)
        assert [name for name, _ in state(there.table)[0]][:named] == ids[:named]
        assert there.table.dead_messages == 5 - there.letters.dropped
        assert there.table.letters.counted() == true_counts(there.table)


def test_two_commands_do_not_retry_all_at_the_same_time(tmp_path, one_by_one):
    with with_dead_letters(tmp_path) as there:

        async def twice():
            async with table_writer(there):
                return await asyncio.gather(*[there.by_hand.retry([]) for _ in range(2)], return_exceptions=True)

        count, refusal = asyncio.run(twice())
        assert (count, str(refusal)) == (3, "nothing was changed: all dead letters are being retried already")
        assert contents(there.table, "alpha") == [b"first", b"second", b"third"]
        assert retried(there) == 0


@pytest.mark.parametrize("why", ["the worker stops", "the table is full", "there is no more time"])
def test_what_was_not_retried_yet_stays(why, tmp_path, one_by_one, monkeypatch):
    with with_dead_letters(tmp_path) as there:

        def happen():
            if why == "the worker stops":
                there.dispatcher.stop_replaying()
            elif why == "the table is full":
                there.table.limit_bytes = 1
            else:
                later = time.monotonic() + 100
                monkeypatch.setattr(retry_all, "time", SimpleNamespace(monotonic=lambda: later))

        one_by_one += [lambda: None, happen]
        if why == "the table is full":
            monkeypatch.setattr(writer.TableWriter, "is_full", property(lambda _: there.table.limit_bytes == 1))
        assert retried(there) == 2
        assert state(there.table)[0][-1][1] == b"third"


def test_a_kill_between_two_parts_loses_and_doubles_nothing_and_keeps_the_order(tmp_path, one_by_one):
    """P1 and P2."""

    class KilledError(Exception):
        pass

    def kill():
        raise KilledError

    payloads = [b"%d" % number for number in range(10)]
    with with_dead_letters(tmp_path, payloads) as there:
        one_by_one += [lambda: None] * 5 + [kill]
        with pytest.raises(KilledError):
            retried(there)
    with opened(tmp_path) as table:
        stored = contents(table, "alpha")
        assert stored
        assert stored + [letter.message.payload for letter in table.dead_letters()] == payloads
        assert table.letters.counted() == true_counts(table)


def test_one_that_cannot_be_read_holds_up_none_before_it(tmp_path):
    with with_dead_letters(tmp_path) as there:
        write = there.table.begin()
        write._batch.put(layout.DEAD_LETTER + bytes.fromhex(state(there.table)[0][-1][0]), b"nonsense")
        write.commit()
        with pytest.raises(ConnectorError):
            retried(there)
        assert contents(there.table, "alpha") == [b"first", b"second"]


def test_a_command_waits_less_for_its_answer_than_it_does_before_it_gives_up():
    assert retry_all.RETRY_SECONDS < control.ANSWER_SECONDS
