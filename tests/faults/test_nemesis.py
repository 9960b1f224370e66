"""The nemesis itself: what it sees agrees with the oracle, a seed is a plan, and a short run keeps every promise."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nemesis.accounts import Lives, StrictLedger
from tests.support.nemesis.faults import FAULTS, PLACES, plan
from tests.support.nemesis.watch import Ledger, Wire
from tests.support.oracle import Oracle, Record, payload
from tests.support.proxied_protocols import TO_CLIENT, TO_SERVER, Frame
from tests.support.scripted_broker import PUBACK, PUBLISH, publish_packet

REPOSITORY = Path(__file__).resolve().parents[2]
# Chosen for what it brings within the time: SIGKILL, SIGTERM, a crash point, a power cut, a full disk, Kafka killed.
SEED, SECONDS = 170, 45


def record(topic: str, number: int, *, whole: bool = True) -> Record:
    value = payload(topic, number)
    return Record("records", 0, 0, topic.encode() if whole else b"", value, {"mqtt-topic": topic.encode()}, 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_ledger_says_what_the_oracle_says(seed):
    """P1, P2 and P3: lost, doubled, reordered, corrupted and spurious records are seen without being kept."""
    chance = random.Random(seed)
    records = [record(topic, number) for number in range(60) for topic in ("a", "b")]
    for _ in range(chance.randrange(12)):
        move = chance.choice(["lose", "double", "reorder", "corrupt"])
        position = chance.randrange(len(records))
        if move == "lose":
            del records[position]
        elif move == "double":
            records.insert(chance.randrange(position, len(records)), records[position])
        elif move == "reorder":
            records.insert(chance.randrange(len(records)), records.pop(position))
        else:
            records[position] = record("a", chance.randrange(60), whole=False)
    ledger = Ledger()
    for each in records:
        ledger.take(each)
    for sent in ({"a": 60, "b": 60}, {"a": 70, "b": 60}):
        assert ledger.verdict(sent) == Oracle(records).verdict(sent)
    ledger.take(record("a", 60))
    assert ledger.verdict({"a": 60, "b": 60}).spurious == 1


@pytest.mark.parametrize(
    ("first", "second", "headers", "by_the_broker"),
    [
        (b"bridge/start/1", b"bridge/start/2", {}, True),
        (b"bridge/start/2", b"bridge/start/1", {}, False),  # it was received in order
        (b"bridge/start/1", b"bridge/start/2", {"mqtt-dup": b"1"}, False),  # it had been delivered before
        (b"bridge/start/1", b"bridge/other/2", {}, False),  # another life: an earlier one may have had it
    ],
)
def test_a_wrong_order_is_the_brokers_only_if_the_bridge_received_it_so(first, second, headers, by_the_broker):
    """P2 is about the order of receipt; what cannot be told apart counts against the bridge."""
    ledger = Ledger()
    for number, identifier, more in ((0, b"bridge/start/0", {}), (2, first, {}), (1, second, headers)):
        each = record("a", number)
        each.headers |= {"connector-id": identifier, **more}
        ledger.take(each)
    assert (ledger.reordered, ledger.received_late) == (1, int(by_the_broker))


def test_the_wire_knows_what_the_broker_has_no_acknowledgement_of():
    """P3: an acknowledgement that did not pass the proxy leaves its message to be repeated."""
    wire = Wire()
    for identifier, number in ((1, 0), (2, 2), (3, 1)):
        packet = publish_packet("a", payload("a", number), 1, identifier)
        wire.append(Frame(0, TO_CLIENT, PUBLISH, identifier, 0, packet, 0.0))
    for identifier, forwarded in ((1, True), (2, False)):
        wire.append(Frame(0, TO_SERVER, PUBACK, identifier, 0, b"", 0.0, forwarded))
    assert (wire.ledger.reordered, wire.delivered) == (1, 3)
    again = publish_packet("a", payload("a", 0), 1, 9)
    wire.append(Frame(0, TO_CLIENT, PUBLISH, 9, 0, again, 0.0))
    assert wire.repeated == 1, "its acknowledgement was sent on"
    assert wire.close(0) == 3
    assert wire.close(0) == 0


class Story:
    """What a strict ledger is told, in short: sent by the broker, in Kafka with an identity, the bridge ended."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.wire, self.lives = Wire(), Lives()
        self.ledger = StrictLedger(wire=self.wire, lives=self.lives, qos_2=["b"], fail=self.failures.append)

    def tell(self, topic: str, steps: str) -> int:
        """Return how many repetitions nothing explains, after steps such as `sent`, `end`, or an identity."""
        for step in steps.split():
            if step == "sent":
                packet = publish_packet(topic, payload(topic, 0), 1, 1)
                self.wire.append(Frame(0, TO_CLIENT, PUBLISH, 1, 0, packet, 0.0))
            elif step == "end":
                self.lives.end(self.wire.highest())
            else:
                each = record(topic, 0)
                each.headers["connector-id"] = step.encode()
                self.ledger.take(each)
        return self.ledger.unexplained


@pytest.mark.parametrize(
    ("topic", "steps", "unexplained"),
    [
        ("a", "sent x/1", 0),
        ("a", "sent x/1 sent x/2", 0),  # the broker sent it again
        ("a", "sent x/1 x/2", 1),  # it did not
        ("a", "sent x/1 sent x/2 x/3", 1),
        ("a", "sent x/1 x/1", 1),  # nothing comes twice in one life
        ("a", "sent sent x/1 x/1", 1),
        ("a", "end sent x/1 x/1", 1),  # it ended before that
        ("a", "sent x/1 end x/1", 0),
        ("a", "sent end x/1 x/1 x/1", 1),  # two repetitions for one end
        ("a", "sent x/1 end sent y/1 y/1", 0),
        ("b", "sent x/1 sent x/2", 1),  # QoS 2, and nothing ended but a connection
        ("b", "sent x/1 end sent y/1", 0),
        ("b", "sent x/1 end sent y/1 sent y/2", 1),
    ],
)
def test_a_strict_ledger_wants_a_reason_for_each_repetition(topic, steps, unexplained):
    """P3, message by message: a redelivery that was seen, or an end of the bridge since it was sent."""
    story = Story()
    assert story.tell(topic, steps) == unexplained
    assert len(story.failures) == min(1, unexplained)


def test_a_strict_ledger_explains_no_repetition_of_what_is_older_than_any_window(monkeypatch):
    """P3: however often the broker sent it, and the bridge ended."""
    monkeypatch.setattr("tests.support.nemesis.accounts.REMEMBERED_MESSAGES", 3)
    story = Story()
    assert story.tell("a", "sent x/1 sent end x/2") == 0
    for number in range(1, 4):
        story.ledger.take(record("c", number))
    assert story.tell("a", "sent end x/3") == 1
    assert "too long ago" in story.failures[0]


def test_a_seed_is_a_plan():
    """The same seed makes the same faults with the same choices, another seed others; and every kind has its turn."""
    first, again, other = (list(itertools.islice(plan(seed, (5, 20), with_disk=True), 400)) for seed in (1, 1, 2))
    assert first == again != other
    assert {fault.name for _, faults in first for fault in faults} == set(FAULTS)
    assert {len(faults) for _, faults in first} == {1, 2, 3}
    assert all(5 <= pause_seconds <= 20 for pause_seconds, _ in first)


def test_faults_of_one_step_act_on_different_parts():
    """Else one would heal what the other does."""
    for _, faults in itertools.islice(plan(3, (5, 20), with_disk=True), 400):
        parts = [part for fault in faults for part in FAULTS[fault.name].parts]
        assert len(parts) == len(set(parts))


def test_without_a_disk_of_its_own_nothing_is_done_to_the_disk():
    """Else the disk of the machine would be filled."""
    for _, faults in itertools.islice(plan(3, (5, 20), with_disk=False), 400):
        assert not any("disk" in FAULTS[fault.name].parts for fault in faults)


def test_the_places_to_crash_at_are_those_of_the_bridge():
    """They are read from the module's text, as it cannot be imported without settings."""
    assert len(PLACES) >= 12
    assert {"after-receive", "before-remove"} <= set(PLACES)


@pytest.mark.slow
def test_a_short_run_keeps_every_promise(tmp_path):
    """P1, P2, P3, P6, P8 and P10: a minute of the nemesis, by a seed that kills, cuts and stops."""
    command = [
        sys.executable, "-m", "tests.support.nemesis", "--minutes", str(SECONDS / 60), "--seed", str(SEED),
        "--pause-seconds", "1", "3", "--longest-seconds", "8", "--rate", "1500", "--keep", tmp_path,
    ]  # fmt: skip
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    assert f"seed {SEED}: every promise was kept" in result.stdout
    assert "Verdict(lost=0," in result.stdout
