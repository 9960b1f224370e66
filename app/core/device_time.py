"""The time that a device says its message is of."""

from __future__ import annotations

from typing import NamedTuple


class DeviceTime(NamedTuple):
    """What a device says.

    Attributes:
        text: As it came; empty when it comes from the table.
        time_ms: Milliseconds since 1970; 0: it cannot be used.
    """

    text: bytes
    time_ms: int
