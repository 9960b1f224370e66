"""What Kafka says, within bounds: each number of its goes through here before anything is decided by it.

Kafka, or what answers in its place, may name any number that its protocol carries, or a text where a number belongs.
None of that is an error of ours: it becomes a number that the code expects. Its texts go through `app.lines.short`.
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
