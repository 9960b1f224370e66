"""The commands: a module for each. `app.command_table` lists them; here they become commands of the app.

They ask a running worker through `app.control`, as only the worker may change its table and its routes, and use its
MQTT session. `run` is the worker itself, `check` connects as it does and changes nothing, `plan` and `routes explain`
connect to nothing. `telling` is
how they speak to their user.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from faust.cli.base import cli

from app.command_table import COMMANDS

if TYPE_CHECKING:
    from app.routes import RouteTable
    from tables.undelivered import UndeliveredTable

OF_FAUST = ("worker", "tables", "agents")  # its others want its own Kafka, or its own stores


def register(table: UndeliveredTable, directory: Path | None, routes: RouteTable) -> None:
    """Add the commands to the app; those that have a place in the table load what they need themselves."""
    # Each of them loads the app, and so the settings, which the others may do without.
    from app.commands import check, dead_letters, drain, plan, run, tap  # noqa: PLC0415

    cli.list_commands = lambda _context: [*COMMANDS, *OF_FAUST]
    cli.get_command = _command
    run.register()
    dead_letters.register(table, directory, routes)
    drain.register(directory)
    plan.register()
    check.register()
    tap.register(directory)


def _command(context: click.Context, name: str) -> click.Command | None:
    """Return a command by its name."""
    if name in COMMANDS and COMMANDS[name].place:
        return COMMANDS[name].load()
    return click.Group.get_command(cli, context, name) if name in (*COMMANDS, *OF_FAUST) else None
