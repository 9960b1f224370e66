"""The table beside a plain model, through any sequence of writes, syncs, reopenings, kills and losses.

Hypothesis draws the sequences, and shortens one that fails; `tests/unit/test_table.py` has the chosen ones. A kill is a
copy of the directory while the table is open. A loss is a kill whose log is cut off behind what was synced, as a power
cut does it. Damage to what was synced is left out: no table survives it, it is only reported.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.core.device_time import DeviceTime
from tables import layout
from tables.entry import entry_bytes, expected_bytes, pack_entry
from tests.support.oracle import wait_until
from tests.support.stored_messages import Maker, make_table

LIMIT_BYTES = 30_000  # a dozen of the largest payloads fill it
BALLAST_BYTES = 2**30  # a file with a hole: it is there and large enough, and takes no time to make
TOPICS = ("a", "a.b", "ab")
EVERYTHING = (1_000_000, 1_000_000_000)

topics = st.sampled_from(TOPICS)
routes = st.sampled_from(("r1", "r2/#:x", "ü/+:y"))
payloads = st.one_of(st.none(), st.binary(max_size=8), st.sampled_from((b"", b"x" * 300, bytes(2500))))
identifiers = st.integers(0, 4)  # 0: QoS 1; a small range, so that some are used again
commits = st.booleans()
places = st.lists(st.integers(0, 40), min_size=1, max_size=6)


class Entry(NamedTuple):
    """What the model knows of a message: all that its record needs, and where it belongs."""

    key: bytes
    topic: str
    route: str
    timestamp_ms: int
    device_time: tuple | None
    record_key: bytes | None
    headers: tuple
    payload: bytes | None
    dead_reason: str
    size_bytes: int


def entry_of(message, topic, key=b"", size_bytes=0):
    return Entry(
        key or message.key,
        topic,
        message.route,
        message.timestamp_ms,
        message.device_time,
        message.record_key,
        tuple(message.headers),
        None if message.is_tombstone else message.payload,
        message.dead_reason,
        size_bytes or entry_bytes(message.key, pack_entry(message)),
    )


class State(NamedTuple):
    """What the table holds after a write; never changed, so that earlier ones can be looked back at."""

    undelivered: dict[bytes, Entry]
    dead: dict[bytes, Entry]
    identifiers: frozenset[int]
    filters: tuple[str, ...] | None
    epoch: int

    def lane(self, topic):
        return [self.undelivered[key] for key in sorted(self.undelivered) if self.undelivered[key].topic == topic]


def observe(table):
    """Return what the table really holds."""
    undelivered = {}
    for topic in TOPICS:
        prefix = layout.undelivered_prefix(topic)
        found = [entry_of(message, topic) for message in table.read(prefix, prefix, *EVERYTHING)]
        assert [entry.key for entry in found] == sorted(entry.key for entry in found)
        undelivered |= {entry.key: entry for entry in found}
    dead = {
        letter.key: entry_of(letter.message, letter.topic, letter.key, letter.entry_bytes)
        for letter in table.dead_letters()
    }
    filters = table.metadata.filters()
    return State(
        undelivered,
        dead,
        frozenset(table.metadata.packet_identifiers()),
        None if filters is None else tuple(filters),
        table.metadata.value("epoch", 0),
    )


def compare(table, state):
    """Fail unless the table holds what the model does, in order, with its bytes, and counts it right."""
    assert observe(table) == state
    entries = state.undelivered.values()
    sizes = Counter()
    for entry in entries:
        sizes[entry.route] += entry.size_bytes
    assert {route: count for route, count in table.figures.messages.items() if count} == Counter(
        e.route for e in entries
    )
    assert {route: size for route, size in table.figures.bytes.items() if size} == {k: v for k, v in sizes.items() if v}
    assert (table.total_messages, table.total_bytes) == (len(state.undelivered), sizes.total())
    assert table.dead_messages == len(state.dead)
    assert table.dead_bytes == sum(entry.size_bytes for entry in state.dead.values())
    assert dict(table.lanes()) == {topic: lane[0].key for topic in TOPICS if (lane := state.lane(topic))}
    assert table.lost_messages == 0, "nothing that was synced is gone"


class TableMachine(RuleBasedStateMachine):
    """The table and its model; what a write does is in `working` until the write is committed."""

    def __init__(self):
        super().__init__()
        self.parent = Path(tempfile.mkdtemp(prefix="model-table-"))
        self.directories = (self.parent / str(number) for number in itertools.count())
        self.directory = next(self.directories)
        self.cursors = dict.fromkeys(TOPICS, b"")
        self.state = State({}, {}, frozenset(), None, 0)
        self.table = None

    def teardown(self):
        if self.table is not None:
            self.table.close()
        shutil.rmtree(self.parent)

    # ---- starting and ending

    @initialize()
    def start(self):
        self.directory.mkdir(mode=0o700, exist_ok=True)
        with (self.directory / "ballast").open("wb") as ballast:
            ballast.truncate(BALLAST_BYTES)
        self.table = make_table(self.directory, LIMIT_BYTES)
        self.table.open()
        compare(self.table, self.state)
        self.table.begin_epoch()
        self.state = self.state._replace(epoch=self.state.epoch + 1)
        assert self.table.epoch == self.state.epoch, "no epoch is used twice"
        self.make = Maker(self.table)
        self.messages = {}
        self.write = None
        self.mark_synced()

    def mark_synced(self):
        """Note the state that nothing may take away any more, and how far the log reaches."""
        self.log = newest_log(self.directory)
        self.ends = [self.log.stat().st_size]
        self.history = [self.state]

    @precondition(lambda self: self.write is None)
    @rule()
    def reopen(self):
        self.table.close()
        self.start()

    @rule()
    def kill(self):
        """End as SIGKILL does: everything written is there, an unfinished write is not."""
        self.restart_from_copy(self.log.stat().st_size)

    @rule(share=st.floats(0, 1))
    def lose(self, share):
        """End as a power cut does: of what was written after the last sync, a beginning is there."""
        self.restart_from_copy(self.ends[0] + int(share * (self.log.stat().st_size - self.ends[0])))

    def restart_from_copy(self, log_bytes):
        assert newest_log(self.directory) == self.log, "the log was changed for another: how much is synced is unknown"
        copy = next(self.directories)
        wait_until(lambda: copied_at_one_moment(self.directory / "undelivered", copy / "undelivered"), "a whole copy")
        with (copy / "undelivered" / self.log.name).open("r+b") as log:
            log.truncate(log_bytes)
        self.table.close()
        shutil.rmtree(self.directory)
        self.directory = copy
        self.state = self.history[sum(end <= log_bytes for end in self.ends) - 1]
        self.start()

    @precondition(lambda self: self.write is None)
    @rule()
    def sync(self):
        self.table.data.sync_now()
        self.mark_synced()

    # ---- writing: several operations may share a write

    def begin(self):
        if self.write is None:
            self.write = self.table.begin()
            self.undelivered, self.dead = dict(self.state.undelivered), dict(self.state.dead)
            self.identifiers, self.filters = set(self.state.identifiers), self.state.filters
        return self.write

    def end(self, commit):
        if commit and self.write is not None:
            self.write.commit()
            self.write = None
            self.note(State(self.undelivered, self.dead, frozenset(self.identifiers), self.filters, self.state.epoch))

    def note(self, state):
        self.state = state
        self.history.append(state)
        self.ends.append(self.log.stat().st_size)

    @rule()
    def commit(self):
        self.end(commit=True)

    def put(self, messages, topic):
        """Append the first messages, as many as there is room for, as the keeper does; return these."""
        sizes = itertools.accumulate(map(expected_bytes, messages))
        fitting = [message for message, size in zip(messages, sizes, strict=True) if self.table.has_room_for(size)]
        self.begin().append(fitting)
        for message in fitting:
            self.undelivered[message.key] = entry_of(message, topic)
            self.messages[message.key] = message
            if message.qos == 2:
                self.identifiers.add(message.packet_identifier)
        return fitting

    @rule(topic=topics, route=routes, lot=st.lists(st.tuples(payloads, identifiers), max_size=8), commit=commits)
    def append(self, topic, route, lot, commit):
        messages = [self.make(topic, route, payload, 2 if number else 1, number or 1) for payload, number in lot]
        for message in messages:
            if message.packet_identifier == 4:
                message.device_time = DeviceTime(b"", message.timestamp_ms - 1)
            message.record_key = None if message.is_tombstone else message.payload[:3] or None
        self.put(messages, topic)
        self.end(commit)

    @rule(topic=topics)
    def fill(self, topic):
        """Append until the keeper would stop."""
        self.put([self.make(topic, payload=bytes(2500)) for _ in range(LIMIT_BYTES // 2500)], topic)
        self.end(commit=True)

    def committed(self, topic, chosen):
        """Return messages of a lane that are in the table and that this write has not touched."""
        lane = [entry for entry in self.state.lane(topic) if self.write is None or entry.key in self.undelivered]
        entries = {lane[place % len(lane)].key for place in chosen} if lane else set()
        prefix = layout.undelivered_prefix(topic)
        return [self.messages.get(key) or self.table.read(prefix, key, 1, 1)[0] for key in sorted(entries)]

    @rule(topic=topics, chosen=places, move_head=st.booleans(), commit=commits)
    def remove(self, topic, chosen, move_head, commit):
        messages = self.committed(topic, chosen)
        if messages:
            self.begin().remove(messages)
            for message in messages:
                del self.undelivered[message.key]
            if move_head:
                left = [key for key, entry in self.undelivered.items() if entry.topic == topic]
                self.write.move_head(topic, min(left, default=messages[-1].key + layout.JUST_BEHIND))
        self.end(commit)

    @rule(topic=topics, chosen=places, stored=st.booleans(), commit=commits)
    def set_aside(self, topic, chosen, stored, commit):
        for message in self.committed(topic, chosen[:2]) if stored else [self.make(topic)]:
            message.dead_reason = "too_large"
            self.begin().add_dead_letter(message, topic)
            self.undelivered.pop(message.key, None)
            key = layout.DEAD_LETTER + message.key[-layout.SEQUENCE_BYTES :]
            size_bytes = entry_bytes(key, layout.pack((topic, pack_entry(message))))
            self.dead[key] = entry_of(message, topic, key, size_bytes)
        self.end(commit)

    @precondition(lambda self: self.write is None and self.state.dead)
    @rule(chosen=places, commit=commits)
    def retry(self, chosen, commit):
        keys = sorted(self.state.dead)
        ids = [key[1:].hex() for key in {keys[place % len(keys)] for place in chosen}]
        for letter in list(self.table.letters.chosen(ids)):
            message = letter.revived(self.make(letter.topic).key)
            if self.put([message], letter.topic):
                del self.dead[letter.key]
        self.end(commit)

    @precondition(lambda self: self.write is None and self.state.dead)
    @rule(chosen=st.one_of(st.just([]), places))
    def delete(self, chosen):
        """Delete some dead letters, all without a choice; in one write."""
        keys = sorted(self.state.dead)
        gone = dict.fromkeys(keys[place % len(keys)] for place in chosen)
        assert self.table.letters.delete([key[1:].hex() for key in gone]) == len(gone or keys)
        left = {key: entry for key, entry in self.state.dead.items() if gone and key not in gone}
        self.note(self.state._replace(dead=left))

    @rule(chosen=st.sets(st.integers(1, 4)), commit=commits)
    def forget(self, chosen, commit):
        self.begin().forget_packet_identifiers(chosen)
        self.identifiers -= chosen
        self.end(commit)

    @rule(filters=st.lists(st.sampled_from(("a/#", "ü/+")), max_size=2), commit=commits)
    def remember_filters(self, filters, commit):
        self.begin().set_meta("filters", filters)
        self.filters = tuple(filters)
        self.end(commit)

    # ---- reading

    @precondition(lambda self: self.write is None)
    @rule(topic=topics, limit_messages=st.integers(1, 10), limit_bytes=st.sampled_from((1, 1000, 1_000_000)))
    def read_on(self, topic, limit_messages, limit_bytes):
        """Read from where the last reading ended; it must be what reading from the start gives there."""
        cursor = self.cursors[topic] or layout.undelivered_prefix(topic)
        found = self.table.read(layout.undelivered_prefix(topic), cursor, limit_messages, limit_bytes)
        expected = [entry for entry in self.state.lane(topic) if entry.key >= cursor]
        assert [entry_of(message, topic) for message in found] == expected[: len(found)]
        assert bool(found) == bool(expected), "one at least, however small the limit"
        enough = len(found) == limit_messages or sum(len(message.payload) for message in found) >= limit_bytes // 2
        assert enough or len(found) == len(expected)
        if found:
            self.cursors[topic] = found[-1].key + layout.JUST_BEHIND

    @precondition(lambda self: self.write is None)
    @rule()
    def read_beside(self):
        """Look in with another process's means, as `dead-letters list` does."""
        reader = make_table(self.directory, LIMIT_BYTES)
        reader.open(read_only=True)
        try:
            compare(reader, self.state)
        finally:
            reader.close()

    @invariant()
    def the_table_agrees(self):
        if self.table is not None and self.write is None:
            compare(self.table, self.state)
            room_bytes = LIMIT_BYTES - sum(entry.size_bytes for entry in self.state.undelivered.values())
            assert room_bytes >= 0, "the byte limit holds"
            assert self.table.has_room_for(room_bytes)
            assert not self.table.has_room_for(room_bytes + 1)


def newest_log(directory):
    return max((directory / "undelivered").glob("*.log"))


def files(directory):
    """Return name and size of what the database consists of; `LOG` is RocksDB's report of what it does."""
    return {path.name: path.stat().st_size for path in directory.iterdir() if not path.name.startswith("LOG")}


def copied_at_one_moment(directory, copy):
    """Copy the files; return whether none was changed meanwhile, as RocksDB puts files together in the background."""
    shutil.rmtree(copy, ignore_errors=True)
    try:
        before = files(directory)
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("LOG*"))
        return files(directory) == before == files(copy)
    except OSError:  # one is gone already
        return False


def test_the_table_holds_what_was_written_through_any_reopenings_kills_and_losses():
    """P1, P2, P6 and P8: synced is there, a write is whole or absent, in order, counted, within the limit."""
    # Reopenings and syncs wait for the disk: half of the examples are enough, and stay below a minute on a slow one.
    few = settings(settings.default, max_examples=settings.default.max_examples // 2)
    run_state_machine_as_test(TableMachine, settings=few)
