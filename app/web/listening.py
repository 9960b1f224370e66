"""The sockets that the pages listen at.

Faust's web server binds to one family of addresses: `::` would leave out IPv4. Here `::` is every address of both, and
a name stands for all its addresses that this host has.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any

NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104  # nosec B104 - these are compared, and bound to if WEB_HOST says so
HINTS = {
    errno.EADDRINUSE: "another program listens there; end it, or set another WEB_PORT",
    errno.EADDRNOTAVAIL: "it is no address of this host; :: and 0.0.0.0 are all of them",
    errno.EAFNOSUPPORT: "this host has no IPv6; 0.0.0.0 is every address of IPv4",
    errno.EACCES: "ports below 1024 need a right that the worker does not have; set another WEB_PORT",
}
# What the kernel keeps of each connection, sent and received; accepted sockets inherit it. By itself it would take
# megabytes for a client that does not read.
KERNEL_BUFFER_BYTES = 64 * 1024


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
    for listener in listeners:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            listener.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER_BYTES)
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
