"""Bounds for what Kafka sends: each number goes through here before anything is decided by it.

Kafka, or a server in its place, may send any number that its protocol allows, or a text where a number belongs. That is
no reason to fail: it becomes a number that the code expects. Texts go through `app.lines.short`.
"""

from __future__ import annotations

import re
from typing import Any

LARGEST_INT32, LARGEST_INT64 = 2**31 - 1, 2**63 - 1
MOST_DIGITS = 300  # with blanks and zeros before the number

# As many digits as there are in the largest; Python refuses to read thousands of them.
_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,20})")


def whole(value: Any, lowest: int, highest: int, otherwise: int) -> int:
    """Return a number that Kafka named, the nearest bound if it is beyond, `otherwise` if it is no whole number."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip()[: MOST_DIGITS + 1])
        if found is None:
            return otherwise
        value = int(found[1] + found[2])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124, NaN
        return otherwise
    return int(min(max(value, lowest), highest))
