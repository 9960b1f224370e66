"""Opening a connection to the broker: lookup, TCP and TLS, within the one deadline of an attempt.

The MQTT thread does it and never blocks: it waits a moment at a time and calls `Attempt.beat` in between, which shows
that the thread moves, and ends the attempt when the worker stops. Whether the worker lives says nothing of the network.

- A lookup cannot be interrupted. A thread of its own does it, one at a time: the next attempt waits for one that has
  not ended. Being a daemon, it holds up no stop.
- The addresses race for the connection (`app.mqtt.race`).
- An address that accepted TCP, but gave no TLS or no CONNACK, is tried last by the next attempt.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading

from app.mqtt.race import Address, Attempt, first_to_answer, in_turn

MOST_DOUBTFUL = 64  # more than a name has; those of former lookups give way


class Lookup:
    """The lookup of a name, on a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        """Begin it."""
        self.done = threading.Event()
        self._where = host, port
        self._addresses: list[Address] = []
        self._problem = ""  # not the exception: it would hold its own frames, and they this
        threading.Thread(target=self._run, name="lookup", daemon=True).start()

    def _run(self) -> None:
        try:
            self._addresses = look_up(*self._where)
        except Exception as error:  # noqa: BLE001, whatever it is, it is the answer
            self._problem = str(error)
        finally:
            self.done.set()

    def answer(self) -> list[Address]:
        """Return the addresses.

        Raises:
            OSError: The name has none, or nobody could tell.
        """
        if self._problem:
            raise OSError(f"the name {self._where[0]} cannot be looked up: {self._problem}")
        return self._addresses


class Opening:
    """Opens connections to one broker, and keeps for the next attempt what one has shown."""

    def __init__(self, host: str, port: int) -> None:
        """Do nothing yet."""
        self._host = host
        self._port = port
        self._lookup: Lookup | None = None
        self._doubtful: list[Address] = []  # those that came to nothing, the last one last
        self._used: Address | None = None

    def open(self, attempt: Attempt, context: ssl.SSLContext | None) -> socket.socket:
        """Return a connection that does not block; over TLS if there is a context.

        Raises:
            OSError: It cannot be had within the deadline, which is a `TimeoutError`, or not at all.
        """
        self._used = None
        addresses = sorted(in_turn(self._find(attempt)), key=self._doubt)
        address, connection = first_to_answer(addresses, attempt)
        self._used = address
        self.came_to_nothing()  # until it is accepted
        return connection if context is None else with_tls(connection, context, self._host, attempt)

    def came_to_nothing(self) -> None:
        """Note that the last connection was no good, so far."""
        self.was_accepted()
        if self._used is not None:
            self._doubtful = [*self._doubtful, self._used][-MOST_DOUBTFUL:]

    def was_accepted(self) -> None:
        """Note that the broker answered on the last connection."""
        self._doubtful = [address for address in self._doubtful if address != self._used]

    def _doubt(self, address: Address) -> int:
        return self._doubtful.index(address) + 1 if address in self._doubtful else 0

    def _find(self, attempt: Attempt) -> list[Address]:
        try:
            return _addresses(self._host, self._port, socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):  # it is a name
            pass
        if self._lookup is None:
            self._lookup = Lookup(self._host, self._port)
        while not self._lookup.done.wait(attempt.wait_seconds(f"no answer to the lookup of the name {self._host}")):
            pass
        lookup, self._lookup = self._lookup, None
        return lookup.answer()


def look_up(host: str, port: int) -> list[Address]:
    """Return the addresses of a name, as the system gives them; blocks."""
    return _addresses(host, port)


def _addresses(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def with_tls(plain: socket.socket, context: ssl.SSLContext, host: str, attempt: Attempt) -> ssl.SSLSocket:
    """Return the connection with TLS on it, when the handshake is done."""
    try:
        connection = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except (ValueError, OSError):
        plain.close()
        raise
    poll = select.poll()
    try:
        while (event := _shake_hands(connection)) is not None:
            poll.register(connection, event)
            poll.poll(attempt.wait_seconds("the broker accepted the connection, and no TLS handshake") * 1000)
    except BaseException:
        connection.close()
        raise
    return connection


def _shake_hands(connection: ssl.SSLSocket) -> int | None:
    """Go on with the handshake; return what to wait for, None when it is done."""
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return select.POLLIN
    except ssl.SSLWantWriteError:
        return select.POLLOUT
    return None
