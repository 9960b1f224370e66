"""A connection without a socket: what the server's side of it writes is kept."""

from __future__ import annotations

import asyncio

MOST_TURNS = 20_000


class Wire(asyncio.Transport):
    """A client's connection, as the server sees it."""

    def __init__(self, protocol):
        super().__init__({"peername": ("127.0.0.1", 40_000), "sockname": ("127.0.0.1", 6066)})
        self.written = bytearray()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._closed = False
        protocol.connection_made(self)

    async def send(self, data):
        """Have the server receive data, and do what it can with them."""
        if data and not self._closed:
            self._protocol.data_received(data)
        await self._turn()

    async def end(self):
        """Hang up; return what was written."""
        if not self._closed:
            self._protocol.eof_received()
            await self._turn()
            self.abort()
        await self._turn()
        return bytes(self.written)

    async def _turn(self):
        """Let the event loop run until nothing is ready."""
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
            if not self._loop._ready:
                return
        raise AssertionError("the server does not come to rest")

    def write(self, data):
        if not self._closed:
            self.written += data

    def is_closing(self):
        return self._closed

    def close(self):
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def get_protocol(self):
        return self._protocol

    def set_protocol(self, protocol):
        self._protocol = protocol

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_reading(self):
        return True

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def can_write_eof(self):
        return False
