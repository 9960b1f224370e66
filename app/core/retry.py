"""When a lane whose record was refused for now is tried again: after an interval that doubles up to a longest one."""

from __future__ import annotations

FIRST_SECONDS = 0.5


class Retry:
    """The trouble of one lane, and the time of its next try.

    Attributes:
        trouble: Why the lane waits, for people; empty if it does not.
        ended: The last trouble, as long as its end is not logged; else empty.
        due_at: The time of the next try (monotonic clock).
        is_waiting: There was a trouble since Kafka had a record of the lane.
    """

    def __init__(self, longest_seconds: float) -> None:
        """Begin without trouble.

        Args:
            longest_seconds: Where the interval stops growing, INVOKE_LATENCY_SEC.
        """
        self.trouble = self.ended = ""
        self.due_at = 0.0
        self.is_waiting = False
        self._seconds = FIRST_SECONDS
        self._longest_seconds = longest_seconds

    def wait(self, trouble: str, now: float) -> float:
        """Note why the lane waits.

        Returns:
            The seconds until the next try; 0 if it is planned already.
        """
        self.trouble = trouble
        self.is_waiting = True
        if now < self.due_at:
            return 0.0
        seconds = self._seconds
        self.due_at = now + seconds
        self._seconds = min(seconds * 2, self._longest_seconds)
        return seconds

    def succeed(self) -> None:
        """Note that Kafka has a record of the lane."""
        self.trouble, self.ended = "", self.trouble
        self.is_waiting = False
        self._seconds = FIRST_SECONDS

    def give_up(self, trouble: str) -> None:
        """Note why nothing is tried any more, and wait for nothing."""
        self.trouble, self.due_at = trouble, 0.0

    def pop_ended(self) -> str:
        """Return the trouble whose end is to be logged, once; empty if there is none."""
        ended, self.ended = self.ended, ""
        return ended

    def reset(self) -> None:
        """Have the lane tried at once: what it waited with was taken out."""
        self.trouble, self.due_at, self._seconds = "", 0.0, FIRST_SECONDS
