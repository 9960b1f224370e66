"""The figures of docs/performance.md: `python -m bench.report` writes tables and picture from what was measured.

Every figure is the median over the rounds, but for messages that were lost or came twice: of these it is the most in
any round, as a median would hide them. A ratio is that of the two medians that stand in the table.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import peers
from bench.document import DOCUMENT, rewritten
from bench.picture import draw
from bench.results import ABOUT, SCENARIOS, Row, grouped, median, of_scenario, read, rounds
from bench.tables import Columns, number, table

PART, PICTURE = "bench", "performance.svg"
ALTERNATIVE_TEXT = "Bars for each program: messages a second, processor time per message, latency, peak memory"
TELEGRAF, FLOOR = peers.Telegraf.title, peers.MosquittoSub.title
PROGRAMS = {kind.title: kind for kind in peers.KINDS}
NOT_APPLICABLE = "-"
MEGABYTE = 1e6
# Of these no median: one round in which it was so would be hidden.
MOST = {"lost", "twice", "out_of_order"}
TITLES = {
    "cold": "A flood right after the start",
    "killed": "Killed and started again",
    "payloads": "Payloads from 1 KiB to 10 MiB",
    "fleet": "Many devices",
    "late": "Answers that come late",
    "outage": "Kafka is away",
    "outages": "Kafka goes away again and again",
    "large": "A large backlog",
    "growth": "Topics, mappings and payloads",
    "routes": "One route, ten thousand, and a template",
    "window": "The window of unacknowledged messages",
    "scale": "More workers",
}
# Headings of the scenarios without a section of their own; a field that is not here has its name, without underscores.
OUTAGE_HEADINGS = {
    "case": "Stored",
    "store_rate": "Stored/s",
    "store_cpu_us": "CPU per stored message, µs",
    "start_seconds": "Start with them, s",
    "first_record_seconds": "First record, s",
    "drain_rate": "Drained/s",
    "drain_cpu_us": "CPU per drained message, µs",
}
HEADINGS: dict[str, dict[str, str]] = {
    "outage": OUTAGE_HEADINGS,
    "large": OUTAGE_HEADINGS,
    "killed": {"away_seconds": "Kill to connection, s", "rate": "Messages/s that it kept"},
    "payloads": {"case": "Payload"},
}
COMMON_HEADINGS = {
    "title": "Program",
    "qos": "QoS",
    "case": "Case",
    "promise": "Acknowledges",
    "cpu_ms_per_mb": "CPU per MB, ms",
    "mb_per_second": "MB/s",
    "per_core": "Messages/s per core of the program",
    "cpu_us": "CPU per message, µs",
    "cpu_ns_per_byte": "CPU per byte, ns",
    "rate": "Messages/s",
    "broker_share": "mosquitto's share of a core",
    "peak_mb": "Peak memory, MB",
    "start_mb": "Memory before, MB",
    "early_mb": "After four of them, MB",
    "last_mb": "After the last, MB",
}


def section(rows: Sequence[Row]) -> str:
    """Return what belongs into the document."""
    parts = [_header(rows)]
    if of_scenario(rows, "throughput"):
        parts.append(f"![{ALTERNATIVE_TEXT}]({PICTURE})")
    found = {scenario: of_scenario(rows, scenario) for scenario in SCENARIOS}
    parts += [SECTIONS.get(scenario, _generic)(measured) for scenario, measured in found.items() if measured]
    return "\n\n".join(parts)


def write(rows: Sequence[Row], document: Path = DOCUMENT) -> None:
    """Write the document's tables, and the picture beside it."""
    document.write_text(rewritten(document.read_text(encoding="utf-8"), PART, section(rows)), encoding="utf-8")
    if of_scenario(rows, "throughput"):
        draw(rows, document.with_name(PICTURE))


def _header(rows: Sequence[Row]) -> str:
    measured = {scenario: rounds(of_scenario(rows, scenario)) for scenario in SCENARIOS}
    most = max(measured.values())
    about = dict(of_scenario(rows, ABOUT)[-1])
    versions = [f"{name} {version}" for name, version in about.items() if name not in {"scenario", "date", "cores"}]
    fewer = [f"{scenario} {number}" for scenario, number in measured.items() if 0 < number < most]
    less = f" ({', '.join(fewer)})" if fewer else ""
    return (
        f"Measured on {about['date']}: the medians of {most} rounds{less}, on {about['cores']} cores,"
        f" with {', '.join(versions)}."
    )


def _throughput(rows: Sequence[Row]) -> str:
    tables = [
        f"QoS {qos}, {max(row['messages'] for row in measured):,} messages in a round:\n\n{_throughput_table(measured)}"
        for (qos,), measured in sorted(grouped(rows, "qos").items())
    ]
    return "\n\n".join(["### As fast as it goes", *tables])


def _throughput_table(rows: Sequence[Row]) -> str:
    programs = grouped(rows, "title")
    cpu = {title: median(measured, "cpu_us") for (title,), measured in programs.items()}
    columns: Columns = {
        "Program": "title",
        "Acknowledges": _promise,
        "CPU per message, µs": lambda of: f"{median(of, 'cpu_us'):.1f}",
        "Beside Telegraf": lambda of: _ratio(cpu[of[0]["title"]], cpu.get(TELEGRAF)),
        "Beside mosquitto_sub alone": lambda of: _ratio(cpu[of[0]["title"]], cpu.get(FLOOR)),
        "Messages/s": lambda of: f"{median(of, 'rate'):,.0f}",
        "Its share of a core": lambda of: f"{median(of, 'share'):.0%}",
        "mosquitto's share of a core": lambda of: f"{median(of, 'broker_share'):.0%}",
        "Peak memory, MB": lambda of: f"{median(of, 'peak_bytes') / MEGABYTE:.0f}",
        "Lost": lambda of: _most(of, lambda row: row["messages"] - row["arrived"]),
        "Twice": lambda of: _most(of, lambda row: row["twice"]),
    }
    return table(columns, programs.values())


def _latency(rows: Sequence[Row]) -> str:
    columns: Columns = {
        "Program": "title",
        "Acknowledges": _promise,
        "p50, ms": _median_of("p50_ms"),
        "p99, ms": _median_of("p99_ms"),
        "Its share of a core": lambda of: f"{median(of, 'share'):.0%}",
    }
    return f"### How long a message takes\n\n{_caption('latency')}\n\n{table(columns, grouped(rows, 'title').values())}"


def _generic(rows: Sequence[Row]) -> str:
    """Return the table of a scenario with fields of its own: medians of its numbers, grouped by its texts."""
    scenario = rows[0]["scenario"]
    fields = [name for name in rows[0] if name not in {"scenario", "round"}]
    texts = [name for name in fields if isinstance(rows[0][name], str)]
    columns: Columns = {_heading(scenario, name): name for name in texts}
    columns |= {
        _heading(scenario, name): (_most_of if name in MOST else _median_of)(name)
        for name in fields
        if name not in texts
    }
    title = TITLES.get(scenario, scenario.capitalize())
    return f"### {title}\n\n{_caption(scenario)}\n\n{table(columns, grouped(rows, *texts).values())}"


def _median_of(name: str) -> Callable[[Sequence[Row]], str]:
    return lambda of: number(median(of, name))


def _most_of(name: str) -> Callable[[Sequence[Row]], str]:
    return lambda of: number(max(row[name] for row in of))


def _heading(scenario: str, name: str) -> str:
    return HEADINGS.get(scenario, {}).get(name) or COMMON_HEADINGS.get(name) or name.replace("_", " ").capitalize()


def _caption(scenario: str) -> str:
    """Return the first line of the scenario's module."""
    return (importlib.import_module(f"bench.{scenario}").__doc__ or "").partition("\n")[0]


def _promise(rows: Sequence[Row]) -> str:
    title = rows[0]["title"]
    return PROGRAMS[title].promise if title in PROGRAMS else NOT_APPLICABLE


def _ratio(value: float, beside: float | None) -> str:
    return f"{value / beside:.2f}x" if beside else NOT_APPLICABLE


def _most(rows: Sequence[Row], count: Callable[[Row], int]) -> str:
    """Return the largest count of any round; the floor writes nothing that could be counted."""
    kind = PROGRAMS.get(rows[0]["title"])
    if kind is not None and not kind.writes_to_kafka:
        return NOT_APPLICABLE
    return f"{max(map(count, rows)):,}"


SECTIONS = {"throughput": _throughput, "latency": _latency}


def main() -> int:
    """Write the report; return the exit status."""
    rows = read()
    if rounds(rows) == 0:
        print("nothing was measured yet: `make bench` does it", file=sys.stderr)
        return 1
    write(rows)
    print(f"{DOCUMENT.name} and {PICTURE} are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
