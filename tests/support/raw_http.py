"""Raw bytes to the pages, and a server of pages within the tests: what HTTP clients of libraries would not send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from app.web.server import PageServer

WAIT_SECONDS = 60.0


def connected(port: int, data: bytes = b"", host: str = "127.0.0.1", receive_bytes: int = 0) -> socket.socket:
    """Return a connection on which something was sent; with a small buffer for what it receives, if wanted."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    connection = socket.socket(family)
    connection.settimeout(WAIT_SECONDS)
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect((host, port))
    if data:
        connection.sendall(data)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the server ends the connection, cleanly or not."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    return received


def ask(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """Send bytes, say that no more come, and return everything that is answered."""
    with connected(port, host=host) as connection:
        with contextlib.suppress(ConnectionError):  # it was refused before it was sent
            connection.sendall(data)
        return rest_of(connection)


def get(port: int, path: str = "/", host: str = "localhost", *lines: str, method: str = "GET") -> bytes:
    """Ask for a page, and return head and body of the answer."""
    head = "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines))
    return ask(port, head.encode("utf-8", "surrogateescape") + b"\r\n\r\n")


def status_of(answer: bytes) -> int:
    """Return the status of an answer; 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def headers_of(answer: bytes) -> dict[str, str]:
    """Return the headers of an answer, their names in lower case."""
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@contextlib.contextmanager
def serving(application: web.Application, names: tuple[str, ...] = ()) -> Iterator[Any]:
    """Serve an application as the worker does, on a thread; yield the server, with its port in `port`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait_for(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT_SECONDS)

    server = PageServer(application, names)
    try:
        wait_for(server.start("127.0.0.1", 0))
        server.port = server._listeners[0]._socket.getsockname()[1]
        yield server
    finally:
        wait_for(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
