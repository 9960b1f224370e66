"""Tables in Markdown, of groups of lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bench.results import Row

# Heading: the name of a text that all lines of a group have in common, or what to say of the group.
Columns = dict[str, str | Callable[[Sequence[Row]], str]]


def table(columns: Columns, groups: Iterable[Sequence[Row]]) -> str:
    """Return a table with a line for each group; texts are set to the left, figures to the right."""
    lines = [[_cell(column, group) for column in columns.values()] for group in groups]
    texts = [
        isinstance(column, str) or cell[:1].isalpha() for column, cell in zip(columns.values(), lines[0], strict=True)
    ]
    rules = ["---" if text else "--:" for text in texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(columns), rules, *lines])


def number(value: float) -> str:
    """Return a number with the digits that count: three, or all of a whole one."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cell(column: str | Callable[[Sequence[Row]], str], group: Sequence[Row]) -> str:
    text = str(group[0][column]) if isinstance(column, str) else column(group)
    return text.replace("|", "\\|")
