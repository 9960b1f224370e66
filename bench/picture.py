"""The picture of docs/performance.md: four panels with a bar for each program, the same file for the same figures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.results import Row, grouped, median, of_scenario

SIZE_INCHES = (10.0, 7.0)
# Told apart by those who see no red or green too; further programs begin again.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#999999", "#56b4e9")
GROUP_WIDTH = 0.8
MEGABYTE = 1e6
STYLE = {
    "svg.hashsalt": "connector",  # else the names in the file are chosen anew each time
    "svg.fonttype": "path",  # the same in every viewer
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
# By default matplotlib writes the date, and links to itself and to vocabularies.
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
# Groups of bars: for each group its name, and the height of the bar of each program that has one.
Groups = dict[str, dict[str, float]]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture.

    Raises:
        ModuleNotFoundError: matplotlib, which only `make bench` installs, is missing.
    """
    import matplotlib as mpl  # here, as the tables are made without it
    from matplotlib.figure import Figure

    programs = {title: COLOURS[number % len(COLOURS)] for number, title in enumerate(_titles(rows))}
    with mpl.rc_context(STYLE):
        # White, as dark letters are drawn on it also where the page around is dark.
        figure = Figure(figsize=SIZE_INCHES, facecolor="white", layout="constrained")
        panels = figure.subplots(2, 2).flat
        for panel, (title, groups, logarithmic) in zip(panels, _panels(rows), strict=True):
            _bars(panel, title, groups, programs, logarithmic=logarithmic)
        handles, labels = next(iter(figure.axes)).get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(programs), frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    path.write_text(_without_addresses(buffer.getvalue()), encoding="utf-8")


def _titles(rows: Sequence[Row]) -> list[str]:
    return [title for (title,) in grouped(of_scenario(rows, "throughput"), "title")]


def _panels(rows: Sequence[Row]) -> list[tuple[str, Groups, bool]]:
    """Return title, bars, and whether the scale is logarithmic."""
    throughput, latency = of_scenario(rows, "throughput"), grouped(of_scenario(rows, "latency"), "title")

    def by_qos(value: Callable[[Sequence[Row]], float]) -> Groups:
        return {
            f"QoS {qos}": {title: value(of) for (title,), of in grouped(measured, "title").items()}
            for (qos,), measured in grouped(throughput, "qos").items()
        }

    took = {
        label: {title: median(of, name) for (title,), of in latency.items()}
        for label, name in (("p50", "p50_ms"), ("p99", "p99_ms"))
    }
    return [
        ("Messages a second", by_qos(lambda of: median(of, "rate")), False),
        ("Processor time per message, µs", by_qos(lambda of: median(of, "cpu_us")), False),
        ("Latency at 1,000 messages/s, ms (logarithmic)", took, True),
        ("Peak memory, MB", by_qos(lambda of: median(of, "peak_bytes") / MEGABYTE), False),
    ]


def _bars(panel: Any, title: str, groups: Groups, programs: dict[str, str], *, logarithmic: bool) -> None:
    width = GROUP_WIDTH / len(programs)
    for place, (program, colour) in enumerate(programs.items()):
        shown = [(group, bars[program]) for group, bars in enumerate(groups.values()) if program in bars]
        positions = [group + (place - (len(programs) - 1) / 2) * width for group, _ in shown]
        panel.bar(positions, [height for _, height in shown], width * 0.95, color=colour, label=program)
    panel.set_title(title, loc="left")
    panel.set_xticks(range(len(groups)), list(groups))
    panel.grid(axis="y", color="#dddddd")
    if logarithmic and any(groups.values()):
        panel.set_yscale("log")
    if logarithmic:
        panel.yaxis.set_major_formatter("{x:g}")
    else:
        panel.yaxis.set_major_formatter("{x:,.0f}")


def _without_addresses(drawing: str) -> str:
    """Return the drawing without its document type, which names a file elsewhere; the name spaces of XML stay."""
    without = re.sub(r"<!DOCTYPE[^>]*>\s*", "", drawing)
    return re.sub(r" +$", "", without, flags=re.MULTILINE)
