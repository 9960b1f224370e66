"""`connector check`: whether everything is there that the worker needs; the work is in `app.check`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from faust.cli import option

from app.application import app, settings
from app.check.run import run
from app.commands.telling import as_json_option, errors_are_told


def checked(*, offline: bool, as_json: bool) -> int:
    """Check, and return the exit code, also when Ctrl-C ends it."""
    with errors_are_told():
        try:
            return run(settings, offline=offline, as_json=as_json)
        except KeyboardInterrupt:
            print("connector: the check was interrupted", file=sys.stderr)  # noqa: T201, a command speaks to its user
            return 1


def register() -> None:
    """Add the command to the app."""

    @app.command(
        option("--offline", is_flag=True, help="look at the settings and routes alone; connect to nothing"),
        as_json_option,
    )
    async def check(self: Any, offline: bool, as_json: bool) -> None:
        """Say whether everything is there that the worker needs: settings, disk, MQTT broker and Kafka.

        It works before the first start and beside a running worker, which it does not disturb. It ends with 1 if
        something is wrong, else with 0.

        \b
        Examples:
          connector check
          connector check --offline
        """  # noqa: D301, \b is Click's: lines that stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):  # the loop stands still meanwhile, and its own handlers with it
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.default_int_handler)
        raise SystemExit(checked(offline=offline, as_json=as_json or self.json))
