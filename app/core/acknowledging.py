"""What a message, and those who make it safe, know of the window of its MQTT connection."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class AcknowledgementWindow(Protocol):
    """The unacknowledged messages of one connection: the methods that other modules use of `app.mqtt.window`."""

    def acknowledge_safe(self) -> None:
        """Acknowledge all safe messages that no unsafe one precedes."""

    def complete(self, packet_identifiers: Collection[int]) -> None:
        """Queue the PUBCOMP of each packet identifier."""

    def forgotten(self) -> None:
        """Let messages be received again: all identifiers of the lost session are durably forgotten."""
