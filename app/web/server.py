"""The web server as Faust starts and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError
from faust.web.drivers.aiohttp import Web

from app.errors import ConnectorError
from app.web.accepting import Connections, Listener
from app.web.answers import refusal
from app.web.asking import Doorkeeper, Names
from app.web.connection import FAILED, MALFORMED, PageConnection
from app.web.listening import HINTS, listen
from app.web.refusals import Refusals

# Of requests that come at the same time, so many are answered before messages have their turn: some milliseconds.
REQUESTS_AT_ONCE = 8
STOP_SECONDS = 1.0  # so long a stop waits for answers that are being made


class PageServer:
    """Serves the routes of an aiohttp application, and nothing of Faust's."""

    def __init__(self, application: web.Application, names: Iterable[str]) -> None:
        """Take the application, which is not frozen yet, and the names under which its pages answer."""
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_SECONDS)
        self.refusals = Refusals()
        self.connections = Connections(self.refusals, self._connection)
        self._doorkeeper = Doorkeeper(Names(names), self.refusals)
        self._listeners: list[Listener] = []
        self._turns = asyncio.Semaphore(REQUESTS_AT_ONCE)

        @web.middleware
        async def serve(request: web.Request, handler: Any) -> web.StreamResponse:  # aiohttp calls it by these names
            return await self._serve(request, handler)

        application.middlewares.append(serve)

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: The port is taken, or the address is none of this host.
        """
        await self._runner.setup()
        for listening in await listen(host, port):
            if self._runner.server is None:
                listening.close()  # the worker stops already
            else:
                self._listeners.append(Listener(listening, self.connections))
        if self._listeners:
            self.connections.sweep()

    async def stop(self) -> None:
        """Accept no more, let pages answer, and cut the rest."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        await self._runner.cleanup()
        self.connections.close()

    def _connection(self, connections: Connections, client: str) -> PageConnection:
        server = self._runner.server
        assert server is not None
        return PageConnection(server, connections, client)

    async def _serve(self, request: web.Request, page: Any) -> web.StreamResponse:
        """Have a page answered, if the request may be; what fails in it is logged, and not shown."""
        async with self._turns:
            await asyncio.sleep(0)  # the event loop sees to everything else before the next ones
        refused = self._doorkeeper.refusal(request)
        if refused is not None:
            return refused
        client = request.remote or "somebody"
        try:
            answer: web.StreamResponse = await page(request)
        except (web.HTTPException, ConnectionError):
            raise
        except (HttpProcessingError, RequestPayloadError):
            self.refusals.note("malformed", client, "its body")
            return refusal(400, MALFORMED)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other pages go on
            self._note_failure(request, error)
            return refusal(500, FAILED)
        return answer

    def _note_failure(self, request: web.Request, error: Exception) -> None:
        self.refusals.counts["failed"] += 1
        resource = request.match_info.route.resource
        page = resource.canonical if resource is not None else "that was asked for"
        self.refusals.throttle.error(
            (page, type(error)), "the page %s has failed; please report it", page, exc_info=error
        )


class WebServer(Web):
    """Faust's web server; that it cannot listen is told in a sentence."""

    mundane_level = "debug"

    def __init__(self, app: Any, *, allowed_hosts: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._pages = PageServer(self.web_app, (app.conf.web_bind, *allowed_hosts))

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many requests and connections were refused or cut, by the reason."""
        return self._pages.refusals.counts

    async def start_server(self) -> None:
        """Listen.

        Raises:
            ConnectorError: The port is taken, or the address is none of this host.
        """
        host, port = self.app.conf.web_bind, self.app.conf.web_port
        try:
            await self._pages.start(host, port)
        except OSError as error:
            hint = HINTS.get(error.errno or 0)
            reason = f"{error.strerror}: {hint}" if hint else error.strerror
            raise ConnectorError(f"WEB_HOST {host}, WEB_PORT {port}: cannot listen there: {reason}") from error

    async def stop_server(self) -> None:
        """Stop."""
        await self._pages.stop()


def in_url(host: str) -> str:
    """Return a host as it stands in a URL, before its port."""
    return f"[{host}]" if ":" in host else host
