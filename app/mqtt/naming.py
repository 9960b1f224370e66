"""How filters are named in log lines and on the pages: only the first few, if there are many."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from app.listed import first_of

MOST_NAMED = 3  # filters in one sentence
MOST_SAID = 20  # filters with a log line of their own for the same trouble


def named(filters: Sequence[str], number: int = 0) -> str:
    """Return filters for a sentence, and how many more there are; `number` is of all, if these are the first ones."""
    return first_of([repr(name) for name in filters[:MOST_NAMED]], MOST_NAMED, number or len(filters))


def trouble_of(name: str, among: Collection[str]) -> str:
    """Return what tells the trouble of a filter from that of others: its name, or nothing where they are many."""
    return name if len(among) <= MOST_SAID else ""
