"""The commands beside `worker`: a module for each, and here the list of them.

They ask a running worker through `app.control`, as only the worker may change its table and use its MQTT session.
`plan` connects to nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from faust.cli.base import cli

from app.commands import dead_letters, drain, plan

if TYPE_CHECKING:
    from app.routes import RouteTable
    from tables.undelivered import UndeliveredTable

COMMANDS = ("worker", "drain", "dead-letters", "plan", "tables", "agents")


def register(table: UndeliveredTable, directory: Path | None, routes: RouteTable) -> None:
    """Add the commands to the app."""
    cli.list_commands = lambda _context: list(COMMANDS)  # Faust's others want its own Kafka, or its own stores
    cli.get_command = lambda context, name: click.Group.get_command(cli, context, name) if name in COMMANDS else None
    dead_letters.register(table, directory, routes)
    drain.register(directory)
    plan.register()
