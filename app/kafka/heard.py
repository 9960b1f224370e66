"""What Kafka says, within bounds: each number and text of its goes through here before anything is decided by it.

Kafka, or what answers in its place, may name any number that its protocol carries, a text where a number belongs, or a
text of megabytes. None of that is an error of ours: a number becomes one that the code expects, a text a short one.
"""

from __future__ import annotations

import re
from typing import Any

LARGEST_INT32, LARGEST_INT64 = 2**31 - 1, 2**63 - 1
LONGEST_TEXT_CHARACTERS = 300

# As many digits as there are in the largest; Python refuses to read thousands of them.
_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,20})")


def whole(value: Any, lowest: int, highest: int, otherwise: int) -> int:
    """Return a number that Kafka named, the nearest bound if it is beyond, `otherwise` if it is no whole number."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip()[: LONGEST_TEXT_CHARACTERS + 1])
        if found is None:
            return otherwise
        value = int(found[1] + found[2])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124, NaN
        return otherwise
    return int(min(max(value, lowest), highest))


def short(text: Any) -> str:
    """Return a text of Kafka's, cut where it is longer than a sentence."""
    words = str(text)
    return words if len(words) <= LONGEST_TEXT_CHARACTERS else f"{words[:LONGEST_TEXT_CHARACTERS]}..."
