"""One connection to the pages, as aiohttp reads and answers it, with an end that strangers cannot put off.

aiohttp closes a connection when its client has read everything, which a client need not do. Here it is cut: what was
not read is thrown away. aiohttp logs what is malformed as it came, secrets in it too; here it is not shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp.web import BaseRequest, HTTPException, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from yarl import URL

from app.web.answers import HEADERS, plain, refusal

if TYPE_CHECKING:
    from aiohttp.web import Server

    from app.web.refusals import Refusals

# For a request to come, or an answer to be read: many times what a slow telephone needs.
REQUEST_SECONDS = 30.0
# Between two requests; Prometheus may ask once a minute, and keeps its connection.
IDLE_SECONDS = 150.0
HEAD_BYTES = 32 * 1024  # the longest request without its body
MOST_HEAD_LINES = 64
MALFORMED = "This is no request of HTTP that these pages understand; they speak no TLS."
FAILED = "This page has failed; the log of the worker says why."
OPTIONS: dict[str, Any] = {
    "access_log": None,
    "keepalive_timeout": IDLE_SECONDS,
    "max_headers": MOST_HEAD_LINES,
    "lingering_time": 1.0,  # so long the rest of a body is read that nobody wants, so that the answer to it is seen
    "auto_decompress": False,  # a few bytes would become megabytes
}


class Registry(Protocol):
    """Knows all connections, as a connection sees it; `app.web.accepting` has it."""

    @property
    def refusals(self) -> Refusals:
        """Where it is noted what is cut."""

    def forget(self, connection: PageConnection) -> None:
        """Count a connection out."""

    def relieve(self) -> None:
        """Cut a connection, if all together take too much memory."""


class PageConnection(RequestHandler):
    """One connection.

    Attributes:
        client: Whose it is, as it is counted: the address, of IPv6 the network of it.
        is_cut: It is being ended.
    """

    def __init__(self, server: Server, connections: Registry, client: str) -> None:
        """Take the server whose pages are shown, and who counts the connections."""
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **OPTIONS)
        self.client = client
        self.is_cut = False
        self._is_lost = False
        self._connections = connections
        self._now: Callable[[], float] = loop.time
        self._progress_at = loop.time()
        self._is_begun = True  # of a client that connects a request is expected
        self._ended_with_head = True
        self._head_bytes = 0

    @property
    def unread_bytes(self) -> int:
        """How much was answered that the client has not read."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def is_overdue(self, now: float) -> bool:
        """Tell whether the client takes too long: to send a request, or to read what was answered."""
        if self.transport is None or self._is_at_work():
            return False
        waits_for_us = not self._is_begun and not self._request_in_progress and not self.unread_bytes
        return not waits_for_us and now - self._progress_at > REQUEST_SECONDS

    def _is_at_work(self) -> bool:
        """Tell whether a page has all of its request and is to answer."""
        request = self._current_request
        return request is not None and request.content.is_eof()

    def cut(self) -> None:
        """End it at once."""
        self.is_cut = True
        self.force_close()

    def force_close(self) -> None:
        """End it at once, however much of the answers the client has not read."""
        transport = self.transport
        super().force_close()
        if transport is not None and not self._is_lost:  # else asyncio would end it twice, and fail
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if it was not cut while it began."""
        super().connection_made(transport)
        if self.is_cut:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out: its socket is closed next."""
        self._is_lost = True
        super().connection_lost(exc)
        self._connections.forget(self)

    def data_received(self, data: bytes) -> None:
        """Read requests; their heads have a bound together too."""
        if data and not self._is_begun:
            self._is_begun, self._progress_at = True, self._now()
        # Else a part of the next request may have come with this one, which aiohttp does not tell.
        self._ended_with_head = data.endswith(b"\r\n\r\n")
        requests = self._request_count
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 - asyncio would log it, with what was received
            self._connections.refusals.note("malformed", self.client, type(error).__name__)
            self.cut()
            return
        self._name_what_is_asked_for()
        if self._waiter is None or self._request_count != requests:  # a page is at work, or has been
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._connections.refusals.note("malformed", self.client, "its headers are too long")
            self.cut()

    def _name_what_is_asked_for(self) -> None:
        """Have a CONNECT that names no host answered: aiohttp reads it, and fails when it looks at its address."""
        for place, (message, payload) in enumerate(self._messages):
            if getattr(message, "url", "") is None:
                self._messages[place] = message._replace(path="/", url=URL("/")), payload  # type: ignore[union-attr]

    def pause_writing(self) -> None:
        """Wait until the client reads, if all connections together do not hold too much."""
        super().pause_writing()
        self._connections.relieve()

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        """Answer; aiohttp looks at the next request when most of the answer is read."""
        if isinstance(resp, HTTPException):
            resp = plain(resp)
        resp.headers.update(HEADERS)
        outcome = await super().finish_response(request, resp, start_time)
        self._progress_at, self._is_begun = self._now(), bool(self._messages) or not self._ended_with_head
        return outcome

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it has what was received
    ) -> StreamResponse:
        """Answer what aiohttp could not read, or what failed where no page is at fault."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone
        if isinstance(exc, UnicodeError):
            status = 400  # aiohttp would repeat what was received, which is no text
        self._connections.refusals.note("malformed" if status == 400 else "failed", self.client, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a part is answered already")
        answer: Response = refusal(status, MALFORMED if status == 400 else FAILED)
        answer.force_close()
        return answer

    def log_exception(self, *_args: Any, **options: Any) -> None:
        """Say of what kind an error of the server is, and nothing of what is in it."""
        self._connections.refusals.note("failed", self.client, type(options.get("exc_info")).__name__)
