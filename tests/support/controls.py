"""The controls: faults that are put into the bridge on purpose, each of which the tests must see.

    make controls

Each control is a small change of a scratch copy of the repository, and the few tests that ought to turn red with it.
A control is caught when one of them fails; those that stay green are named, as they do not see what they ought to.
Without any change all of them must pass, or their red says nothing. The exit code is 0 only if every control was
caught.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 600


class Change(NamedTuple):
    """A text in a file, which must be there exactly once, and what takes its place."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """Return a file's text with the change.

        Raises:
            ValueError: The old text is not there exactly once.
        """
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.file} has {count} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)


class Control(NamedTuple):
    """A fault, and the tests that ought to see it."""

    name: str
    changes: list[Change]
    tests: list[str]


_POWER_CUT = (
    "tests/faults/test_power_cut.py::test_a_power_cut_right_after_an_acknowledgement_finds_its_message_on_the_disk"
)
_FILTER_CHANGES = (
    "tests/model/test_filter_changes.py::"
    "test_no_change_of_filters_loses_a_message_and_only_one_that_removes_some_may_double_any"
)
_SIMULATION = (
    "tests/model/test_simulation.py::"
    "test_no_interleaving_of_outages_refusals_and_crashes_loses_reorders_or_strands_a_message"
)
_GAP = (
    "tests/unit/test_damage.py::test_what_follows_a_gap_that_was_never_synced_is_dropped_as_it_would_be_sent_too_early"
)
_WINDOW = "app/mqtt/window.py"
_FUZZER = "tests/model/test_fuzz.py::test_a_fuzzer_finds_nothing_in_twenty_seconds"

CONTROLS = [
    Control(
        "acknowledged before the sync",
        [
            Change(
                "app/storage/writer.py",
                "        self._syncs.add(messages)\n        self._syncs.soon()\n",
                "        self._syncs._acknowledge(messages)\n        self._syncs.soon()\n",
            )
        ],
        [f"{_POWER_CUT}[slow]"],
    ),
    Control(
        "an acknowledgement is sent on another connection",
        [
            Change(_WINDOW, "        self.closed = True\n", "        self.closed = False\n"),
            Change(_WINDOW, "        self.pending = deque()\n", ""),
            Change(_WINDOW, "class Window:\n", "_outgoing: deque[bytes] = deque()\n\n\nclass Window:\n"),
            Change(_WINDOW, "self.outgoing: deque[bytes] = deque()\n", "self.outgoing = _outgoing\n"),
        ],
        [
            "tests/unit/test_window.py::test_a_closed_window_sends_nothing",
            "tests/bridge/test_mqtt.py::test_an_old_acknowledgement_is_not_sent_on_a_new_connection",
        ],
    ),
    Control(
        "a failed delivery counts as delivered",
        [
            Change(
                "app/core/lane.py",
                "confirmed = [message for message in messages if message.error is None]",
                "confirmed = list(messages)",
            )
        ],
        [
            _SIMULATION,
            "tests/bridge/test_refusals.py::test_a_topic_that_takes_nothing_at_all_keeps_its_messages_and_no_other_lane",
        ],
    ),
    Control(
        "no sync reaches the disk",
        [
            Change(
                "tests/faults/test_power_cut.py",
                "        bridge.injection = injection\n",
                '        bridge.injection = "fdatasync,fsync:retval=0"\n',
            )
        ],
        [f"{_POWER_CUT}[0]"],
    ),
    Control(
        "new messages overtake what waits in the table",
        [
            Change(
                "app/core/lane.py",
                "            return Decision((), self.store_now(messages))\n",
                "            lots, rest = self._hand_over(messages, at)\n"
                "            return Decision(lots, self.store_now(rest))\n",
            )
        ],
        [
            _SIMULATION,
            "tests/bridge/test_kafka.py::test_kafka_restarts_under_traffic_and_everything_arrives_once_in_order",
        ],
    ),
    Control(
        "QoS 2: packet identifiers are not stored",
        [
            Change(
                "tables/write.py",
                "            if message.qos == 2 and identifier:\n",
                "            if False:\n",
            )
        ],
        [
            "tests/unit/test_table.py::test_packet_identifiers_and_filters_survive",
            "tests/bridge/test_mqtt.py::test_a_stored_qos_2_message_is_not_doubled_by_a_crash_before_pubrel",
        ],
    ),
    Control(
        "the end of an iteration is not checked",
        [Change("tables/engine/store.py", "        self._check_end(last)\n", "")],
        ["tests/unit/test_damage.py::test_a_flipped_bit_in_a_table_file_loses_what_is_counted_and_nothing_else"],
    ),
    Control(
        "what follows a gap that was never synced is kept",
        [
            Change(
                "tables/repair/damage.py",
                "return min((gap.first for gap in self.gaps if gap.first >= self.synced_before), default=None)",
                "return None",
            )
        ],
        [_GAP],
    ),
    Control(
        "acknowledged out of order",
        [
            Change(
                _WINDOW, "        if self.closed or not pending or not pending[0].safe:\n", "        if self.closed:\n"
            ),
            Change(
                _WINDOW,
                "        while pending and (message := pending[0]).safe:\n            pending.popleft()\n",
                "        for message in [one for one in pending if one.safe]:\n            pending.remove(message)\n",
            ),
        ],
        [
            "tests/unit/test_window.py::test_messages_that_become_safe_in_any_order_are_acknowledged_in_the_order_of_receipt",
            "tests/bridge/test_mqtt.py::test_acknowledgements_are_in_the_order_of_receipt_whatever_each_lane_does",
        ],
    ),
    Control(
        "copies by a filter that was just removed are dropped, though those by the others were dropped for them",
        [Change("app/mqtt/copies.py", " or self._came_by_former_winner(identifiers, matching)", "")],
        [_FILTER_CHANGES],
    ),
    # Of these the corpora have no input: the fuzzers have to find them.
    Control(
        "fuzzed packets: another message under a packet identifier in use is taken for the same one",
        [
            Change(
                "app/mqtt/admission.py",
                "            if message.flags & 8 and self._is_known(message):\n",
                "            if message.flags & 8:\n",
            )
        ],
        [f"{_FUZZER}[packets]"],
    ),
    Control(
        "fuzzed properties: what was cut off is a header",
        [
            Change(
                "app/mqtt/properties.py",
                "if stop <= self.end:\n                self.headers.append((_NAMES[kind]",
                "if stop:\n                self.headers.append((_NAMES[kind]",
            )
        ],
        [f"{_FUZZER}[properties]"],
    ),
    Control(
        "fuzzed entries: a record's key may be anything",
        [Change("tables/entry.py", "            and (record_key is None or type(record_key) is bytes)\n", "")],
        [f"{_FUZZER}[entries]"],
    ),
    Control(
        "fuzzed control socket: an id may be a number",
        [
            Change(
                "app/control.py",
                "isinstance(each, str) for each in ids",
                "isinstance(each, (str, int)) for each in ids",
            )
        ],
        [f"{_FUZZER}[control]"],
    ),
    Control(
        "fuzzed pages: a body that is no object is not foreseen",
        [Change("app/pages/dead_letters.py", "not isinstance(request, dict) or len", "len")],
        [f"{_FUZZER}[pages]"],
    ),
]


class Outcome(NamedTuple):
    """What became of some tests: pytest's exit status, how many of each kind, which failed, and all that it said."""

    status: int
    passed: int
    skipped: int
    failed: list[str]
    text: str


def copy_to(directory: Path) -> None:
    """Copy what is in git, or would be with `git add`, and point to the tools."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.splitlines()
    for name in names:
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)
    for name in (".venv", ".tools"):
        (directory / name).symlink_to((REPOSITORY / name).resolve())


def run_tests(directory: Path, tests: list[str]) -> Outcome:
    """Run tests of a copy."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "--durations=0", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    failed = re.findall(r"^FAILED \S*?::(\S+)", done.stdout, re.MULTILINE)
    passed, skipped = (
        sum(int(number) for number in re.findall(rf"(\d+) {kind}", done.stdout.splitlines()[-1]))
        for kind in ("passed", "skipped")
    )
    return Outcome(done.returncode, passed, skipped, failed, done.stdout + done.stderr)


def tried(control: Control) -> str:
    """Try one control; return why it was not caught, or nothing, and print what happened."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="control-") as temporary:
        directory = Path(temporary)
        copy_to(directory)
        for change in control.changes:
            path = directory / change.file
            path.write_text(change.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
        outcome = run_tests(directory, control.tests)
    seconds = f"{time.monotonic() - began:.0f} s"
    # 1: some tests failed. Anything else means that they could not be run.
    if outcome.status == 1 and outcome.failed:
        names = [test.rpartition("::")[2] for test in control.tests]
        green = [name for name in names if not any(failed.startswith(name) for failed in outcome.failed)]
        still = f"; still green: {', '.join(green)}" if green else ""
        print(f"caught      {control.name} ({seconds}): {', '.join(outcome.failed)}{still}", flush=True)
        return ""
    why = f"pytest ended with {outcome.status}, {outcome.passed} passed, {outcome.skipped} skipped"
    print(f"NOT CAUGHT  {control.name} ({seconds}): {why}\n{outcome.text}", flush=True)
    return control.name


def unchanged_tests_pass(controls: list[Control]) -> bool:
    """Run all the tests without any change."""
    began = time.monotonic()
    tests = sorted({test for control in controls for test in control.tests})
    with tempfile.TemporaryDirectory(prefix="control-") as directory:
        copy_to(Path(directory))
        outcome = run_tests(Path(directory), tests)
    seconds = f"{time.monotonic() - began:.0f} s"
    if outcome.status == 0:
        print(f"unchanged, {outcome.passed} tests pass, {outcome.skipped} are skipped ({seconds})", flush=True)
        return True
    print(f"UNCHANGED, {len(outcome.failed)} tests fail ({seconds}):\n{outcome.text}", flush=True)
    return False


def main() -> int:
    """Try the controls; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="those with this text in their name")
    controls = [each for each in CONTROLS if parser.parse_args().only in each.name]
    sound = unchanged_tests_pass(controls)
    missed = [name for name in map(tried, controls) if name]
    print(f"{len(controls) - len(missed)} of {len(controls)} controls were caught")
    return 0 if sound and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
