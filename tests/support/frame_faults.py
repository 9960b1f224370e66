"""What may become of a frame that passes the fault proxy, and the rules that say of which.

Each fault is a function that returns the bytes that are sent on in the frame's place, or cuts the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.oracle import wait_until
from tests.support.proxied_protocols import Direction, Frame, produce_response_with_error


class CutError(Exception):
    """The connection ends, with a reset on both sides or in order, after some bytes were sent on."""

    def __init__(self, data: bytes, *, reset: bool = True) -> None:
        super().__init__()
        self.data = data
        self.reset = reset


def forward(frame: Frame) -> bytes:
    """Send it on."""
    return frame.data


def drop(frame: Frame) -> bytes:
    """Leave it out; the connection goes on."""
    return b""


def cut_before(frame: Frame) -> bytes:
    """Reset the connection; nothing of it is sent on."""
    raise CutError(b"")


def cut_inside(frame: Frame) -> bytes:
    """Reset the connection; the first half of it is sent on."""
    raise CutError(frame.data[: len(frame.data) // 2])


def cut_after(frame: Frame) -> bytes:
    """Send it on and close the connection, without a reset, which could overtake it."""
    raise CutError(frame.data, reset=False)


def flip_byte(position: int) -> Callable[[Frame], bytes]:
    """Send it on with all bits of one byte changed; a negative position counts from the end."""

    def act(frame: Frame) -> bytes:
        data = bytearray(frame.data)
        data[position] ^= 0xFF
        return bytes(data)

    return act


def answer_with_error(code: int) -> Callable[[Frame], bytes]:
    """Send on a Produce response that says that this error happened."""
    return lambda frame: produce_response_with_error(frame, code)


@dataclass
class Rule:
    """What becomes of some frames of one type, in one direction, over all connections; see `FaultProxy.on`."""

    direction: Direction
    kind: int
    act: Callable[[Frame], bytes]
    first: int
    times: int | None
    then: Callable[[Frame], object] | None
    matched: int = 0
    acted: int = 0

    def takes(self, frame: Frame) -> bool:
        """Count a frame; return whether this rule acts on it."""
        if (frame.direction, frame.kind) != (self.direction, self.kind):
            return False
        self.matched += 1
        if self.matched < self.first or (self.times is not None and self.matched >= self.first + self.times):
            return False
        self.acted += 1
        return True

    def wait(self, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until it has acted so many times."""
        what = f"the proxy to act {times} times on frames of type {self.kind} {self.direction.value}"
        wait_until(lambda: self.acted >= times, what, seconds)
