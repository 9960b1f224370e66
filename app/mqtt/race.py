"""The race of a name's addresses for the connection, and the deadline of an attempt to connect.

The addresses are tried as RFC 8305 has it: IPv6 and IPv4 in turn, one more every quarter of a second while none has
answered, at once after a refusal. The first that answers is used: one good address among silent ones is reached.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from app.listed import first_of

BEAT_SECONDS = 0.1  # how long a stop waits at most for an attempt to end
STAGGER_SECONDS = 0.25  # between two addresses, as RFC 8305 recommends
LONGEST_NAMED = 3  # of addresses in one sentence

Address = tuple[Any, ...]  # family and socket address, as getaddrinfo gives them


@dataclass
class Attempt:
    """One attempt to connect, from the lookup to CONNACK.

    Attributes:
        seconds: How long it may take.
        beat: Called several times a second; raises if the attempt is to end.
        until: When it must be done (`time.monotonic()`).
    """

    seconds: float
    beat: Callable[[], None] = lambda: None
    until: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.until = time.monotonic() + self.seconds

    def wait_seconds(self, what: str) -> float:
        """Return how long to wait before the next look.

        Args:
            what: What is waited for.

        Raises:
            TimeoutError: The deadline is over.
        """
        self.beat()
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{what} within {self.seconds:.0f} s")
        return min(left, BEAT_SECONDS)


def in_turn(addresses: list[Address]) -> list[Address]:
    """Return the addresses with their families in turn, beginning with that of the first."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]


def first_to_answer(addresses: list[Address], attempt: Attempt) -> tuple[Address, socket.socket]:
    """Return the first address that accepts a TCP connection, and the connection; all others are closed."""
    race = _Race(addresses)
    try:
        while race.goes_on:
            if (won := race.look(attempt.wait_seconds(race.silence()))) is not None:
                return won
        raise race.error()
    finally:
        race.close()


class _Race:
    """TCP connections to several addresses, begun one after the other."""

    def __init__(self, addresses: list[Address]) -> None:
        self._waiting = list(addresses)
        self._addresses = addresses
        self._open: dict[int, tuple[Address, socket.socket]] = {}
        self._poll = select.poll()
        self._next_at = 0.0
        self._problems: list[str] = []

    @property
    def goes_on(self) -> bool:
        """Whether an address may still answer."""
        return bool(self._waiting or self._open)

    def silence(self) -> str:
        """Say who does not answer."""
        return f"no answer from {first_of([str(address[0]) for _, address in self._addresses], LONGEST_NAMED)}"

    def look(self, seconds: float) -> tuple[Address, socket.socket] | None:
        """Begin with the next address if it is time, wait for an answer, and return what has connected."""
        now = time.monotonic()
        if self._waiting and (now >= self._next_at or not self._open):
            self._begin(self._waiting.pop(0))
            self._next_at = now + STAGGER_SECONDS
        for number, _ in self._poll.poll(seconds * 1000):
            address, connection = self._open.pop(number)
            self._poll.unregister(number)
            problem = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not problem:
                return address, connection
            connection.close()
            self._fail(problem)
        return None

    def _begin(self, address: Address) -> None:
        try:
            connection = socket.socket(address[0], socket.SOCK_STREAM)
        except OSError as error:  # this machine has no IPv6, or no file left
            self._fail(error.errno or 0)
            return
        connection.setblocking(False)
        problem = connection.connect_ex(address[1])
        if problem in {0, errno.EINPROGRESS}:
            self._open[connection.fileno()] = address, connection
            self._poll.register(connection, select.POLLOUT)
        else:
            connection.close()
            self._fail(problem)

    def _fail(self, problem: int) -> None:
        self._problems.append(f"[Errno {problem}] {os.strerror(problem)}")
        self._next_at = 0.0

    def error(self) -> OSError:
        """Return an error with every reason once, and how many addresses were tried."""
        reasons = "; ".join(dict.fromkeys(self._problems)) or "the name has no addresses"
        return OSError(reasons if len(self._addresses) < 2 else f"{reasons} ({len(self._addresses)} addresses)")

    def close(self) -> None:
        """Close what is still open."""
        for _, connection in self._open.values():
            connection.close()
