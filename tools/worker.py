"""The bridge itself as a child process, with settings given as environment variables."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools.brokers import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REPOSITORY = Path(__file__).resolve().parents[1]
# What a program needs to run at all; the settings of the bridge come from `settings` alone.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class Worker(ServerProcess):
    """A worker of the bridge; `port` is that of its web server.

    It runs in its directory, not in the repository, so that nobody's `.env` changes what it does.
    """

    title = "worker"
    start_limit_seconds = 30.0

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        """Choose the port; nothing is started.

        Args:
            directory: where its log goes, and its data unless the settings say otherwise.
            settings: its environment variables; the port of the web server is added.
        """
        super().__init__(directory)
        # Its log is a file, in which people and tests look for sentences.
        defaults = {"DB_PERSIST_PATH": str(directory / "data"), "LOG_FORMAT": "text"}
        self.settings = {**defaults, **settings, "WEB_PORT": str(self.port)}

    @property
    def url(self) -> str:
        """The address of its web server."""
        return f"http://{self.host}:{self.port}"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "faust", "-A", "app.main", "worker"]

    def environment(self) -> Mapping[str, str]:
        """Return the settings and what a program needs to run at all."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {**inherited, "PYTHONPATH": str(_REPOSITORY), "PYTHONUNBUFFERED": "1", **self.settings}

    def ready(self) -> bool:
        """Tell whether the worker says that messages cross."""
        return self.status("/health/ready") == http.HTTPStatus.OK

    def status(self, path: str) -> int | None:
        """Return the status code of a page, or none when nobody answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
