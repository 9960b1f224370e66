"""The web server: Faust's, with a bound on its connections, and with sockets of our own.

Faust's binds to one family of addresses: `::` would leave out IPv4. Here `::` is every address of both, and a name
stands for all its addresses that this host has.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any

from aiohttp.web import AppRunner, SockSite
from faust.web.drivers.aiohttp import Web

from app.errors import ConnectorError
from app.open_files import file_limit

# Far more than one Prometheus, a probe and a few people need, and far fewer than the files that a process may open:
# a table that cannot open a file ends the worker.
LIMIT_CONNECTIONS = 100
NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104  # nosec B104 - these are compared, and bound to if WEB_HOST says so
HINTS = {
    errno.EADDRINUSE: "another program listens there; end it, or set another WEB_PORT",
    errno.EADDRNOTAVAIL: "it is no address of this host; :: and 0.0.0.0 are all of them",
    errno.EAFNOSUPPORT: "this host has no IPv6; 0.0.0.0 is every address of IPv4",
    errno.EACCES: "ports below 1024 need a right that the worker does not have; set another WEB_PORT",
}


def connection_limit() -> int:
    """Return how many connections are kept: a quarter of the files that may be open, where these are few."""
    return min(LIMIT_CONNECTIONS, max(8, file_limit() // 4))


class BoundedRunner(AppRunner):
    """Keeps the newest connections: who sends half a request and waits is the first to go, a scrape takes no time."""

    @property
    def server(self) -> Any:
        """Return what makes the handler of a new connection."""
        return super().server and self._handler

    def _handler(self) -> Any:
        server = super().server
        assert server is not None
        for oldest in server.connections[: 1 - connection_limit()]:
            oldest.force_close()
        return server()


class WebServer(Web):
    """Faust's web server; that it cannot listen is told in a sentence."""

    mundane_level = "debug"

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._runner = BoundedRunner(self.web_app, access_log=None)

    async def start_server(self) -> None:
        """Listen.

        Raises:
            ConnectorError: The port is taken, or the address is none of this host.
        """
        host, port = self.app.conf.web_bind, self.app.conf.web_port
        await self._runner.setup()
        try:
            for listener in await listen(host, port):
                if self._runner.server is None:
                    listener.close()  # the worker stops already
                else:
                    await SockSite(self._runner, listener).start()
        except OSError as error:
            hint = HINTS.get(error.errno or 0)
            reason = f"{error.strerror}: {hint}" if hint else error.strerror
            raise ConnectorError(f"WEB_HOST {host}, WEB_PORT {port}: cannot listen there: {reason}") from error

    async def _cleanup_app(self) -> None:
        """Clean up without Faust's line in the log."""
        await self.web_app.cleanup()


def in_url(host: str) -> str:
    """Return a host as it stands in a URL, before its port."""
    return f"[{host}]" if ":" in host else host


async def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of a host; `::` is every address, IPv4 too.

    Raises:
        OSError: It has no address that is this host's, or one of them cannot be listened at.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    with contextlib.ExitStack() as undone:
        attempts = [_listener_or_error(family, address) for family, address in addresses]
        listeners = [undone.enter_context(attempt) for attempt in attempts if isinstance(attempt, socket.socket)]
        errors = [attempt for attempt in attempts if isinstance(attempt, OSError)]
        for error in errors:
            if error.errno not in NOT_HERE or not listeners:
                raise error
        undone.pop_all()
    return listeners


def _listener_or_error(family: socket.AddressFamily, address: Any) -> socket.socket | OSError:
    try:
        return _listener(family, address)
    except OSError as error:
        return error


def _listener(family: socket.AddressFamily, address: Any) -> socket.socket:
    """Listen at one address; where there is no IPv6, `::` is what there is of IPv4."""
    everywhere = address[0] == ANY_IPV6
    try:
        both = everywhere and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, dualstack_ipv6=both)
    except OSError as error:
        if not everywhere or error.errno not in NOT_HERE:
            raise
    return socket.create_server((ANY_IPV4, address[1]))
