"""The state of the conversation with the broker, for the pages: what is not answered, what was not granted, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.mqtt.granted import Shortfall


class Standing:
    """Noted on the MQTT thread, read by the pages.

    Attributes:
        unanswered: What the broker was asked for on this connection and has not answered, as a sentence; empty if it
            answered everything.
        is_overdue: The deadline for that is over.
        less_granted: What the broker grants less than was asked for on this connection.
        faults: How many connections ended as the broker did what MQTT does not allow.
        last_fault: What it was, the last time.
    """

    def __init__(self) -> None:
        """Begin before the first connection."""
        self.unanswered = ""
        self.is_overdue = False
        self.less_granted: list[Shortfall] = []
        self.faults = 0
        self.last_fault = ""

    def begin_connection(self) -> None:
        """Forget what was asked for on the last connection."""
        self.note_unanswered("", is_overdue=False)
        self.less_granted = []

    def note_unanswered(self, what: str, *, is_overdue: bool) -> None:
        """Note what the broker has not answered."""
        self.unanswered, self.is_overdue = what, is_overdue

    def note_granted(self, less: list[Shortfall]) -> bool:
        """Note what the broker grants less than was asked for; return whether that is news."""
        is_news = bool(less) and less != self.less_granted
        self.less_granted = less
        return is_news

    def note_fault(self, fault: str) -> None:
        """Note that a connection ends for what the broker did."""
        self.faults += 1
        self.last_fault = fault
