"""How much may be held in memory alone: received, and neither with Kafka nor on disk.

The MQTT thread counts what it receives, the event loop what became safe. Each side writes its own two counters only, so
no lock is needed. When the budget is used up, the MQTT thread reads its socket no more until half of it is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class MemoryBudget:
    """The budget and its use; see the module's header.

    Attributes:
        limit_messages: At this many the socket is read no more. With more, the last ones of a burst would not be
            confirmed within STORE_AFTER_MS, and would be stored although Kafka is there.
        limit_bytes: In bytes, as `Message.size_bytes` counts them.
        received_messages: Received since the start; written by the MQTT thread.
        received_bytes: The sum of their `size_bytes`.
        safe_messages: Of these, no longer in memory alone; written by the event loop.
        safe_bytes: The sum of their `size_bytes`, less what all messages became in addition after they were received.
        is_waiting: The MQTT thread waits until half of the budget is free.
        wake: Wakes the MQTT thread.
    """

    limit_messages: int = 5_000
    limit_bytes: int = 64 * 1024 * 1024
    received_messages: int = 0
    received_bytes: int = 0
    safe_messages: int = 0
    safe_bytes: int = 0
    is_waiting: bool = False
    wake: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def held_messages(self) -> int:
        """Messages that memory alone holds."""
        return self.received_messages - self.safe_messages

    @property
    def held_bytes(self) -> int:
        """The sum of their `size_bytes`."""
        return self.received_bytes - self.safe_bytes

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Take what wakes the MQTT thread, of which there is one."""
        if self.wake is not None:
            raise AssertionError("the memory budget has something that it wakes")
        self.wake = wake

    def add(self, messages: int, size_bytes: int) -> None:
        """Count messages that were received (MQTT thread)."""
        self.received_messages += messages
        self.received_bytes += size_bytes

    def check_full(self, coming_bytes: int = 0) -> bool:
        """Tell whether the socket must not be read for now, and remember it for `count_safe` (MQTT thread).

        Args:
            coming_bytes: The length of a large packet of which a part was read; the rest waits for room as well, unless
                nothing else is held.
        """
        messages, held_bytes = self.held_messages, self.held_bytes
        full = messages >= self.limit_messages or held_bytes >= self.limit_bytes
        if coming_bytes and messages and held_bytes + coming_bytes > self.limit_bytes:
            full = True
        self.is_waiting = full
        return full

    def count_safe(self, messages: int, size_bytes: int) -> None:
        """Count messages that became safe; wake the reader if it waits and half of the budget is free (event loop)."""
        self.safe_messages += messages
        self.safe_bytes += size_bytes
        if self.is_waiting and self.wake is not None and self._is_half_free():
            self.wake()

    def count_more(self, size_bytes: int) -> None:
        """Count what messages count for in addition to what they were received with (event loop)."""
        self.safe_bytes -= size_bytes

    def _is_half_free(self) -> bool:
        messages = self.held_messages
        return not messages or (messages * 2 < self.limit_messages and self.held_bytes * 2 < self.limit_bytes)
