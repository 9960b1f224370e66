"""The messages of a lane that the table writer was asked to store and has not written yet, in order."""

from __future__ import annotations

from collections import deque

from app.core.message import Message


class Unwritten(deque[Message]):
    """The messages, oldest first."""

    def drop_written(self) -> None:
        """Drop, at the head, messages that are written or need not be written any more."""
        while self and (self[0].stored or self[0].finished):
            self.popleft()

    def drop_finished(self) -> None:
        """Drop all messages that are finished, also behind one that waits for room in the table."""
        rest = [message for message in self if not message.finished]
        self.clear()
        self.extend(rest)
