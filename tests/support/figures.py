"""The figures of docs/reliability.md: what the tests did to the bridge, and what came of it.

While CONNECTOR_FIGURES names a file, each verdict of the oracle and each violent end is noted in it, a line of JSON
each, with the test's name. `python -m tests.support.figures FILE` makes the tables from these lines; `make figures`
does both.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.oracle import Verdict

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def note(what: str, **values: int) -> None:
    """Note something about the test that is running, if somebody wants to know."""
    path = os.environ.get("CONNECTOR_FIGURES")
    if path:
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        line = json.dumps({"test": test, "what": what, **values}) + "\n"
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line)  # one small write: tests run side by side


def note_verdict(verdict: Verdict, messages: int, allowed: int) -> None:
    """Note what the oracle said of so many messages, and how many repetitions were allowed."""
    note(
        "verdict",
        messages=messages,
        lost=verdict.lost,
        reordered=verdict.reordered,
        duplicated=verdict.duplicated,
        allowed=allowed,
    )


# What is done to the bridge, and the tests that do it.
ROWS = (
    ("Nothing: 100,000 messages, three partitions", "faults/test_main_job.py::test_100_000_messages_cross"),
    ("Kafka is killed for 20 s at 5,000 messages/s", "faults/test_main_job.py::test_kafka_is_away_for_20_seconds"),
    ("Kafka is away for 40 s", "faults/test_kafka_changes.py::test_no_message_is_given_up"),
    ("Kafka is silent for 5 s (no reset)", "faults/test_network_kafka.py::test_kafka_is_silent"),
    ("The path to Kafka comes and goes every 2 s", "faults/test_network_kafka.py::test_a_path_to_kafka"),
    ("Kafka's answers are lost after it acted", "faults/test_network_kafka.py::test_answers_of_kafka"),
    ("Three Kafka nodes: leaders killed", "faults/test_cluster.py::test_the_leader_is_killed"),
    ("Three Kafka nodes: rolling restart", "faults/test_cluster.py::test_a_rolling_restart"),
    ("Three Kafka nodes: two away", "faults/test_cluster.py::test_with_two_of_three"),
    ("The Kafka client fails for good", "faults/test_network_kafka.py::test_after_an_error_of_the_idempotent"),
    ("Started without Kafka, 50,000 taken, SIGKILL", "faults/test_main_job.py::test_50_000_messages_taken"),
    ("SIGKILL at random under load, QoS 1 and 2", "faults/test_main_job.py::test_ten_sigkills"),
    ("SIGKILL under load, HiveMQ and mochi-mqtt", "bridge/test_other_brokers.py::test_sigkills_under_load"),
    ("SIGKILL at named places, direct", "faults/test_crash_points.py::test_a_crash_on_the_way_to_kafka"),
    ("SIGKILL at named places, storing", "faults/test_crash_points.py::test_a_crash_on_the_way_to_the_disk"),
    ("SIGKILL at named places, draining", "faults/test_crash_points.py::test_a_crash_while_the_table_drains"),
    ("Power cut at random under load", "faults/test_power_cut.py::test_power_cuts_at_random"),
    ("Power cut right after the k-th PUBACK", "faults/test_power_cut.py::test_a_power_cut_right_after"),
    ("The disk is full", "faults/test_disk.py::test_a_disk_that_"),
    ("A sync fails (EIO)", "faults/test_disk.py::test_a_sync_that_fails"),
    ("A sync takes half a second, each", "faults/test_disk.py::test_a_slow_disk"),
    ("The MQTT connection is cut under load", "faults/test_network.py::test_a_connection_that_is_cut"),
    ("The MQTT connection is half-open", "faults/test_network.py::test_a_half_open_connection"),
    ("The process stands still (SIGSTOP)", "faults/test_network.py::test_a_process_that_stands_still"),
    ("mosquitto restarts with a full queue", "bridge/test_sessions.py::test_a_broker_that_is_restarted"),
    ("SIGTERM with Kafka down, QoS 0, 1 and 2", "faults/test_main_job.py::test_sigterm_with_kafka_down"),
    ("The nemesis, for a minute", "faults/test_nemesis.py::"),
)
COLUMNS = "| What happens to it | Runs | Kills and cuts | Messages | Lost | Out of order | Twice | Twice at most |"


def table(lines: list[dict[str, object]]) -> str:
    """Return the table in Markdown."""
    found: dict[str, list[dict[str, object]]] = defaultdict(list)
    for line in lines:
        found[str(line["test"])].append(line)
    rows = [COLUMNS, "| --- | --: | --: | --: | --: | --: | --: | --: |"]
    for what, prefix in ROWS:
        tests = {test: notes for test, notes in found.items() if prefix in test}
        notes = [note for notes in tests.values() for note in notes]
        verdicts = [note for note in notes if note["what"] == "verdict"]
        if verdicts:
            ends = sum(note["what"] in {"SIGKILL", "power cut"} for note in notes)
            cells = [sum(int(str(note[name])) for note in verdicts) for name in NAMES]
            rows.append(f"| {what} | {len(tests)} | {ends or ''} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    return "\n".join(rows) + "\n"


NAMES = ("messages", "lost", "reordered", "duplicated", "allowed")


def rewritten(document: str, figures: str) -> str:
    """Return the document with its table replaced."""
    head, rest = document.split(BEGIN)
    return f"{head}{BEGIN}\n{figures}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    noted = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text(encoding="utf-8"), table(noted)), encoding="utf-8")
    print(table(noted))
