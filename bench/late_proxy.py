"""A network that is far away: a proxy in front of Kafka, in a process of its own, whose answers come later."""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import Any

from typing_extensions import Self

from tools.brokers import free_port
from tools.brokers.process import HOST

CHUNK_BYTES = 1 << 18


class LateProxy:
    """The proxy, as a context manager.

    Attributes:
        port: Where clients connect to.
    """

    def __init__(self, server_port: int, late_seconds: float) -> None:
        """Take where Kafka listens, and how much later its answers are to come; nothing is started."""
        self.port = free_port()
        self._is_up = multiprocessing.Event()
        arguments = (self.port, server_port, late_seconds, self._is_up)
        self._process = multiprocessing.Process(target=_run, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._is_up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def _run(port: int, server_port: int, late_seconds: float, is_up: Any) -> None:
    asyncio.run(_serve(port, server_port, late_seconds, is_up))


async def _serve(port: int, server_port: int, late_seconds: float, is_up: Any) -> None:
    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(HOST, server_port)
        await asyncio.gather(_pump(reader, to_server, 0.0), _pump(from_server, writer, late_seconds))

    server = await asyncio.start_server(on_client, HOST, port, limit=CHUNK_BYTES)
    is_up.set()
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_seconds: float) -> None:
    """Carry one direction to its end; all that comes is equally late, and none waits for another."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(CHUNK_BYTES):
        if late_seconds:
            loop.call_later(late_seconds, writer.write, data)
        else:
            writer.write(data)
    loop.call_later(late_seconds, writer.close)
