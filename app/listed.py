"""Names in a sentence: the first of many, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int, number: int = 0) -> str:
    """Return names for a sentence, in their order.

    Args:
        names: All of them, or the first ones.
        most: How many of them are named.
        number: How many there are in all, if these are the first ones.
    """
    more = (number or len(names)) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
