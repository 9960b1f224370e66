"""The web server: Faust's, with a bound on its connections."""

from __future__ import annotations

from typing import Any

from aiohttp.web import AppRunner
from faust.web.drivers.aiohttp import Web

from app.errors import ConnectorError

# Far more than one Prometheus, a probe and a few people need, and far fewer than the files that a process may open:
# a table that cannot open a file ends the worker.
LIMIT_CONNECTIONS = 100


class BoundedRunner(AppRunner):
    """Keeps the newest connections: who sends half a request and waits is the first to go, a scrape takes no time."""

    @property
    def server(self) -> Any:
        """Return what makes the handler of a new connection."""
        return super().server and self._handler

    def _handler(self) -> Any:
        server = super().server
        assert server is not None
        for oldest in server.connections[: 1 - LIMIT_CONNECTIONS]:
            oldest.force_close()
        return server()


class WebServer(Web):
    """Faust's web server; that its port is taken is told in a sentence."""

    mundane_level = "debug"

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._runner = BoundedRunner(self.web_app, access_log=None)

    async def start_server(self) -> None:
        """Listen.

        Raises:
            ConnectorError: The port is taken, or the address is none of this host.
        """
        try:
            await super().start_server()
        except OSError as error:
            where = f"WEB_HOST {self.app.conf.web_bind}, WEB_PORT {self.app.conf.web_port}"
            raise ConnectorError(f"{where}: cannot listen there: {error.strerror}") from error

    async def _cleanup_app(self) -> None:
        """Clean up without Faust's line in the log."""
        await self.web_app.cleanup()
