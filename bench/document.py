"""docs/performance.md, of which `bench.report` and `bench.profile` write a part each, between its pair of markers."""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def markers(name: str) -> tuple[str, str]:
    """Return the comments around the part with a name."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def rewritten(document: str, name: str, part: str) -> str:
    """Return the document with what is between the markers of a part replaced.

    Raises:
        ValueError: It does not have one pair of them.
    """
    begin, end = markers(name)
    head, found_begin, rest = document.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end or begin in tail or end in tail:
        raise ValueError(f"the document must have one pair of markers, {begin} and {end}")
    return f"{head}{begin}\n{part}\n{end}{tail}"
