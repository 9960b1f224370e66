"""Accepts the connections to the pages, counts them, and ends those that go beyond what is allowed.

asyncio would accept a hundred at a time, count none of them before its next turn, and when no file is left write a
hundred tracebacks and try again a hundred times a second later. Here one turn of the event loop accepts a few, each is
counted from then until its socket is closed, and some files are always left for the table, Kafka and MQTT.

Who has most connections loses one first. So a stranger with a thousand takes none from Prometheus or a probe that have
another address; of one client the oldest goes, as a scrape takes no time.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from app.open_files import file_limit, file_limit_advice
from app.web.connection import REQUEST_SECONDS, PageConnection
from app.web.refusals import Refusals

# Far more than one Prometheus, a probe and a few people need, and far fewer than the files that a process may open:
# a table that cannot open a file ends the worker.
LIMIT_CONNECTIONS = 100
LIMIT_UNREAD_BYTES = 16 * 1024 * 1024  # of all connections together, beyond what one has
ACCEPTED_PER_TURN = 8
SWEEP_SECONDS = 1.0
PAUSE_SECONDS = 1.0  # when no file is left and none of these connections can give one
NO_RESOURCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def connection_limit() -> int:
    """Return how many connections are kept: a quarter of the files that may be open, where these are few."""
    return min(LIMIT_CONNECTIONS, max(8, file_limit() // 4))


def spare_files() -> int:
    """Return how many of the last files no connection to the pages may take."""
    return min(32, file_limit() // 8)


def client_of(address: Any) -> str:
    """Return who connects, as it is counted: a host has one address of IPv4, and of IPv6 as many as it likes."""
    try:
        parsed = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except (ValueError, IndexError):
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Connections:
    """Those that are open.

    Attributes:
        refusals: What was cut.
    """

    def __init__(self, refusals: Refusals, make: Callable[[Connections, str], PageConnection]) -> None:
        """Take where it is noted what is cut, and what makes the protocol of a new connection."""
        self.refusals = refusals
        self._make = make
        self._open: dict[PageConnection, None] = {}  # the oldest first
        self._beginning: set[asyncio.Task[Any]] = set()
        self._sweep_handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def have_room(self) -> bool:
        """Tell whether another one may be accepted now: those that are cut take some turns of the event loop to end."""
        if len(self._open) < connection_limit() + ACCEPTED_PER_TURN:
            return True
        kept = sum(not connection.is_cut for connection in self._open)
        for _ in range(kept - connection_limit()):  # the limit of open files was lowered
            self._cut_one("too_many", str(kept))
        return False

    def admit(self, accepted: socket.socket, client: str) -> None:
        """Have a new connection served, at the cost of another one if there are too many."""
        kept = sum(not connection.is_cut for connection in self._open)
        if kept >= connection_limit():
            self._cut_one("too_many", str(kept))
        elif accepted.fileno() >= file_limit() - spare_files():  # a new file has the lowest number that is free
            self._cut_one("no_files", file_limit_advice())
        connection = self._make(self, client)
        self._open[connection] = None
        task = asyncio.get_running_loop().create_task(self._begin(accepted, connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket, connection: PageConnection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
        except Exception as error:  # noqa: BLE001 - whatever it is, its file must not stay open
            self.refusals.note("failed", connection.client, type(error).__name__)
            accepted.close()
            self.forget(connection)

    def cut_one_for_files(self) -> bool:
        """Cut a connection, as no file is left; return whether there was one."""
        return self._cut_one("no_files", file_limit_advice())

    def _cut_one(self, reason: str, detail: str) -> bool:
        """Cut the oldest connection of the client that has most."""
        left = [connection for connection in self._open if not connection.is_cut]
        if not left:
            return False
        counts = Counter(connection.client for connection in left)
        most = max(counts.values())
        victim = next(connection for connection in left if counts[connection.client] == most)
        self.refusals.note(reason, victim.client, detail)
        victim.cut()
        return True

    def forget(self, connection: PageConnection) -> None:
        """Count a connection out."""
        self._open.pop(connection, None)

    def relieve(self) -> None:
        """Cut a connection of the client that leaves most unread, if all together take too much memory."""
        unread = {connection: connection.unread_bytes for connection in self._open if connection.unread_bytes}
        if len(unread) < 2 or sum(unread.values()) <= LIMIT_UNREAD_BYTES:
            return
        counts: Counter[str] = Counter()
        for connection, size_bytes in unread.items():
            counts[connection.client] += size_bytes
        most = max(counts.values())
        victim = next(connection for connection in unread if counts[connection.client] == most)
        self.refusals.note("unread", victim.client, f"{most} bytes")
        victim.cut()

    def sweep(self) -> None:
        """Cut what takes too long, and come again in a second."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._open):
            if not connection.is_cut and connection.is_overdue(now):
                self.refusals.note("too_slow", connection.client, f"{REQUEST_SECONDS:.0f} s")
                connection.cut()
        self._sweep_handle = loop.call_later(SWEEP_SECONDS, self.sweep)

    def close(self) -> None:
        """Cut all, and look no more."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for connection in list(self._open):
            connection.cut()


class Listener:
    """Accepts at one socket; it is closed as asyncio's servers are."""

    def __init__(self, listening: socket.socket, connections: Connections) -> None:
        """Take the socket, which listens already, and who is told of what it accepts."""
        self._socket = listening
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Accept a few; the loop calls again if there are more, when others had their turn."""
        for _ in range(ACCEPTED_PER_TURN):
            if not self._connections.have_room():
                return
            try:
                accepted, address = self._socket.accept()
            except OSError as error:
                self._cannot(error)
                return
            try:
                accepted.setblocking(False)
                self._connections.admit(accepted, client_of(address))
            except OSError:
                accepted.close()

    def _cannot(self, error: OSError) -> None:
        """Wait for the next one, or for a file to be free; what a connection died of before it began is no error."""
        if error.errno not in NO_RESOURCE or self._connections.cut_one_for_files():
            return
        self._connections.refusals.throttle.warning(
            "accept", "the pages can accept no connection: %s; %s", error.strerror, file_limit_advice()
        )
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
