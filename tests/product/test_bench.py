"""What measures the bridge does not lie about it: packets, results, medians, the order of the runs; no real broker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import types
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import bridges, document, load, report, results, stage
from bench.bridges import Connector
from bench.peers import MQ_BRIDGE_VERSION, TELEGRAF_VERSION, MosquittoSub, Telegraf
from bench.results import Results, read
from bench.throughput import Throughput
from tests.support import scripted_broker
from tools.brokers.process import ProcessError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
ABOUT = {"scenario": "about", "date": "2001-02-03", "cores": 2, "Python": "3.11.7", "Kafka": "4.1.0"}


def throughput(number, title, cpu_us, rate=1000.0, arrived=100, twice=0, qos=1):
    values = Throughput(title, qos, 100, cpu_us, rate, 0.5, 0.25, 50_000_000, arrived, twice)
    return {"scenario": "throughput", "round": number, **vars(values)}


# The medians are 12, 24 and 4; the means are not.
ROWS = [
    ABOUT,
    *(throughput(number, Connector.title, cpu_us) for number, cpu_us in enumerate((10.0, 12.0, 50.0), 1)),
    *(throughput(number, Telegraf.title, cpu_us) for number, cpu_us in enumerate((24.0, 23.0, 90.0), 1)),
    *(throughput(number, MosquittoSub.title, cpu_us, arrived=0) for number, cpu_us in enumerate((9.0, 4.0, 1.0), 1)),
    *({"scenario": "latency", "round": number, "title": Connector.title, "p50_ms": p50, "p99_ms": 7.25, "share": 0.1}
      for number, p50 in enumerate((3.0, 2.0, 9.0), 1)),
    *({"scenario": "scale", "round": 1, "case": case, "workers": workers, "rate": 1234.5}
      for case, workers in (("one | alone", 1), ("two", 2))),
]  # fmt: skip


def cells(text, title, table=0):
    """Return the cells of a program's row in the n-th table that has it, by heading."""
    tables = [part.splitlines() for part in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)]
    found = [(lines[0], line) for lines in tables for line in lines[2:] if line.startswith(f"| {title} |")][table]
    heading, line = ([cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in found)
    return dict(zip(heading, line, strict=True))


# ---- the report


def test_the_document_has_its_markers():
    for name in ("bench", "profile"):
        assert DOCUMENT.count(f"<!-- {name}: begin -->") == DOCUMENT.count(f"<!-- {name}: end -->") == 1


def test_the_tables_show_medians_and_their_ratios():
    shown = cells(report.section(ROWS), Connector.title)
    assert shown["CPU per message, µs"] == "12.0"
    assert shown["Beside Telegraf"] == "0.50x"
    assert shown["Beside mosquitto_sub alone"] == "3.00x"
    assert shown["Acknowledges"] == Connector.promise
    assert (shown["Messages/s"], shown["Its share of a core"]) == ("1,000", "50%")
    assert (shown["mosquitto's share of a core"], shown["Peak memory, MB"]) == ("25%", "50")
    latency = cells(report.section(ROWS), Connector.title, table=1)
    assert (latency["p50, ms"], latency["p99, ms"], latency["Its share of a core"]) == ("3", "7.25", "10%")


def test_a_median_of_an_even_number_of_rounds_is_between_the_two_in_the_middle():
    assert cells(report.section([*ROWS, throughput(4, Connector.title, 14.0)]), Connector.title)[
        "CPU per message, µs"] == "13.0"  # fmt: skip


def test_what_was_lost_or_came_twice_in_one_round_is_not_hidden_by_the_others():
    shown = cells(report.section([*ROWS, throughput(4, Connector.title, 12.0, arrived=97, twice=2)]), Connector.title)
    assert (shown["Lost"], shown["Twice"]) == ("3", "2")
    assert cells(report.section(ROWS), MosquittoSub.title)["Lost"] == "-"


def test_without_telegraf_there_is_no_ratio_to_it():
    rows = [row for row in ROWS if row.get("title") != Telegraf.title]
    assert cells(report.section(rows), Connector.title)["Beside Telegraf"] == "-"


def test_each_qos_has_a_table_of_its_own():
    shown = report.section([*ROWS, throughput(1, Connector.title, 5.0, qos=0)])
    assert cells(shown, Connector.title, table=0)["CPU per message, µs"] == "5.0"
    assert cells(shown, Connector.title, table=1)["CPU per message, µs"] == "12.0"


def test_a_scenario_with_fields_of_its_own_has_a_table():
    shown = report.section(ROWS)
    assert "in a shared subscription (MQTT_SHARED_GROUP) on one mosquitto" in shown
    assert cells(shown, r"one \| alone") == {"Case": r"one \| alone", "Workers": "1", "Messages/s": "1,234"}


def test_in_every_scenario_what_was_lost_in_one_round_is_not_hidden_by_the_others():
    rows = [{"scenario": "scale", "round": lost, "case": "two", "rate": 10.0 * lost, "lost": lost, "twice": 3 * lost}
            for lost in (0, 1, 4)]  # fmt: skip
    shown = cells(report.section([ABOUT, *rows]), "two")
    assert (shown["Messages/s"], shown["Lost"], shown["Twice"]) == ("10", "4", "12")


def test_a_caption_is_the_first_line_of_its_module():
    assert "From publish to a Kafka consumer at 1,000 messages a second." in report.section(ROWS[:-2])


def test_the_header_says_when_where_and_how_often():
    header = report.section(ROWS).partition("\n")[0]
    assert header == (
        "Measured on 2001-02-03: the medians of 3 rounds (scale 1), on 2 cores, with Python 3.11.7, Kafka 4.1.0."
    )


@pytest.mark.parametrize("name", ["bench", "profile"])
def test_only_what_is_between_the_markers_is_replaced(name):
    begin, end = document.markers(name)
    once = document.rewritten(DOCUMENT, name, "figures")
    assert once.partition(begin)[2].partition(end)[0] == "\nfigures\n"
    assert document.rewritten(once, name, "figures") == once
    assert once.partition(begin)[0] == DOCUMENT.partition(begin)[0]
    assert once.partition(end)[2] == DOCUMENT.partition(end)[2]
    with pytest.raises(ValueError, match="markers"):
        document.rewritten(DOCUMENT.replace(end, ""), name, "figures")


def test_the_picture_is_the_same_each_time_and_links_to_nothing(tmp_path):
    pytest.importorskip("matplotlib", reason="`make bench` installs it")
    document = tmp_path / "performance.md"
    pictures = []
    for _ in range(2):
        document.write_text(DOCUMENT, encoding="utf-8")
        report.write(ROWS, document)
        pictures.append((tmp_path / report.PICTURE).read_text(encoding="utf-8"))
    assert pictures[0] == pictures[1]
    assert f"]({report.PICTURE})" in document.read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://([\w.]+)", pictures[0])) == {"www.w3.org"}, "the name spaces of XML"
    assert "<!DOCTYPE" not in pictures[0]


# ---- the runs


@dataclass(frozen=True)
class Made:
    case: str
    value: int


def scenario(monkeypatch, name, runs, **constants):
    module = types.ModuleType(f"bench.{name}")
    module.runs = lambda: list(runs)
    vars(module).update(constants)
    monkeypatch.setitem(sys.modules, f"bench.{name}", module)


def run(path, *arguments):
    arguments = ["--no-report", *arguments]
    return command.main(arguments, lambda: contextlib.nullcontext(None), path)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "missing_programs", list)
    monkeypatch.setattr(command, "about", lambda: {"date": "2001-02-03"})
    return tmp_path / "results.jsonl"


def test_each_round_begins_with_another_run_and_a_scenario_may_have_fewer_rounds(monkeypatch, path, capsys):
    runs = [(name, lambda _stage, name=name: Made(name, 1)) for name in ("a", "b", "c")]
    scenario(monkeypatch, "latency", runs)
    scenario(monkeypatch, "growth", [("big", lambda _stage: [Made("x", 1), Made("y", 2)])], ROUNDS_LIMIT=1)
    assert run(path, "--only", "latency,growth", "--rounds", "2") == 0
    assert [(row["round"], row["case"]) for row in read(path)[1:]] == [
        (1, "a"), (1, "b"), (1, "c"), (1, "x"), (1, "y"), (2, "b"), (2, "c"), (2, "a"),
    ]  # fmt: skip
    assert re.search(r"\[4 of 7, \d+:\d\d\] growth, round 1: big", capsys.readouterr().err)


def test_control_c_ends_it_and_keeps_what_was_measured(monkeypatch, path, capsys):
    runs = [("a", lambda _stage: Made("a", 1)), ("b", lambda _stage: os.kill(os.getpid(), signal.SIGINT))]
    scenario(monkeypatch, "latency", runs)
    former = signal.getsignal(signal.SIGINT)
    assert run(path, "--only", "latency") == command.INTERRUPTED
    assert [row["case"] for row in read(path)[1:]] == ["a"]
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is former


def test_control_c_is_no_failure_even_if_cleaning_up_fails(monkeypatch, path, capsys):
    def fail(_stage):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            raise RuntimeError("the broker was gone already")

    scenario(monkeypatch, "latency", [("a", fail)])
    assert run(path, "--only", "latency") == command.INTERRUPTED
    assert "failed" not in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_go_on(monkeypatch, path, capsys):
    runs = [("a", lambda _stage: 1 // 0), ("b", lambda _stage: Made("b", 1))]
    scenario(monkeypatch, "latency", runs)
    assert run(path, "--only", "latency", "--rounds", "1") == 1
    assert [row["case"] for row in read(path)[1:]] == ["b"]
    assert "failed: ZeroDivisionError" in capsys.readouterr().err


def test_a_missing_program_is_left_out_and_the_target_that_installs_it_is_named(monkeypatch, path, capsys):
    monkeypatch.setattr(command, "missing_programs", lambda: ["telegraf"])
    runs = [(f"QoS 1, {title}", lambda _stage, title=title: Made(title, 1)) for title in ("Connector", "Telegraf")]
    scenario(monkeypatch, "latency", runs)
    assert run(path, "--only", "latency", "--rounds", "1") == 0
    assert [row["case"] for row in read(path)[1:]] == ["Connector"]
    assert "`make peers` installs it" in capsys.readouterr().err


def test_a_scenario_that_is_measured_again_replaces_its_results_and_no_others(tmp_path):
    path = tmp_path / "results.jsonl"
    former = Results(path)
    former.add("latency", 1, Made("old", 1))
    former.add("window", 1, Made("kept", 1))
    again = Results(path)
    assert len(read(path)) == 2, "nothing is lost before there is something new"
    again.add("latency", 1, Made("new", 1))
    again.add("latency", 2, Made("new", 2))
    assert [row["case"] for row in read(path)] == ["kept", "new", "new"]
    assert results.rounds(results.of_scenario(read(path), "latency")) == 2


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--only", "speed"), ("--only", "")])
def test_an_argument_that_makes_no_sense_is_refused(path, arguments):
    with pytest.raises(SystemExit):
        run(path, *arguments)
    assert not path.exists()


def test_the_version_of_telegraf_is_the_same_everywhere():
    assert f"TELEGRAF_VERSION := {TELEGRAF_VERSION}\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    modules = (REPOSITORY / "bench" / "telegraf" / "go.mod").read_text(encoding="utf-8")
    assert f"github.com/influxdata/telegraf v{TELEGRAF_VERSION} " in modules


def test_the_version_of_mq_bridge_is_the_same_everywhere_and_its_licence_is_known():
    assert f"MQ_BRIDGE_VERSION := {MQ_BRIDGE_VERSION}\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    locked = (REPOSITORY / "requirements" / "mq-bridge.txt").read_text(encoding="utf-8")
    assert re.findall(r"^([\w-]+)==", locked, re.MULTILINE) == ["mq-bridge", "typing-extensions"], "look at a new one"
    assert f"mq-bridge=={MQ_BRIDGE_VERSION} \\\n    --hash=sha256:" in locked


# ---- who has subscribed


def test_a_program_that_does_not_subscribe_is_not_measured(tmp_path, monkeypatch):
    class Deaf(Connector):
        stopped = False

        def start(self):
            """Do nothing."""

        def stop(self):
            self.stopped = True

    monkeypatch.setattr(bridges, "SUBSCRIBE_SECONDS", 0.1)
    deaf = Deaf(tmp_path, 1, "", "", 1, 1)
    deaf.subscriptions = lambda: 3
    with pytest.raises(ProcessError, match="did not subscribe"), deaf:
        pass
    assert deaf.stopped


@pytest.mark.parametrize(
    ("line", "counts"),
    [("1: bench-sub 1 bench/#", 1), ("1: a 0 $share/bench/bench/#", 1), ("1: a 2 bench/7/#", 1),
     ("1: New client connected from 127.0.0.1:1 as bench-sub (p5, c0, k60).", 0)],
)  # fmt: skip
def test_a_subscription_is_found_in_the_log_of_mosquitto(line, counts):
    assert len(stage.SUBSCRIBED.findall(f"1: mosquitto version 2.0.11 running\n{line}\n")) == counts


# ---- the traffic


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("remaining", [40, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152])
def test_a_packet_is_what_mqtt_wants(qos, remaining):
    """The length has one byte more from 128, 16,384 and 2,097,152 bytes on."""
    topic = "bench/ä"
    data = b"x" * (remaining - 2 - len(topic.encode()) - (2 if qos else 0))
    made = load.publish_packet(topic, data, qos, 40_000)
    assert made == scripted_broker.publish_packet(topic, data, qos, 40_000, version=4)


def test_a_payload_has_its_number_its_time_and_its_size():
    data = load.payload(123, 100)
    assert len(data) == 100
    assert int(data[:12]) == 123
    assert int(data[12:32]) > 0
    assert len(load.payload(123, 10)) == 10


def test_payloads_beside_each_other_have_nothing_in_common_that_compression_could_use():
    letters = load.random_letters(1 << 20)
    payloads = [load.payload(number, 1024, letters) for number in range(100)]
    assert {len(data) for data in payloads} == {1024}
    assert b"\n" not in letters
    assert len(zlib.compress(b"".join(payloads), level=1)) > 0.7 * 1024 * 100, "six bits of eight are by chance"


def test_a_publisher_that_is_stopped_waits_for_no_more_than_it_has_sent(monkeypatch):
    """A message may be acknowledged before it is known that it was the last one."""
    monkeypatch.setattr(load, "GIVE_UP_SECONDS", 60.0)
    with scripted_broker.ScriptedBroker() as broker:
        publisher = load.Publisher(broker.port, load.Traffic(["a"], 1_000, rate=1))
        publisher.start()
        broker.wait_for(scripted_broker.PUBLISH)
        # For as many as there may be of until it stops; a thousand were to be sent.
        broker.send(scripted_broker.packet_of(scripted_broker.PUBACK << 4, b"\x00\x01") * 100)
        sent = publisher.stop()
        broker.wait_for(scripted_broker.DISCONNECT)
        assert sent == len(broker.received(scripted_broker.PUBLISH)) < 100
