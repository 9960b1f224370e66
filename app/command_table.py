"""The commands of Connector: one entry each, from which `connector` and `faust -A app.main` are made.

Nothing is loaded here, so that `connector --help` is quick and needs no settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import click


class Entry(NamedTuple):
    """A command.

    Attributes:
        summary: One line for the list of commands.
        place: `module:name` of a Click command that loads what it needs itself, as one that must run without the
            worker's settings does; empty: `app.commands.register` adds it to Faust's, and the whole worker is loaded.
    """

    summary: str
    place: str = ""

    def load(self) -> click.Command:
        """Import and return the Click command that `place` names."""
        module, _, name = self.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


COMMANDS = {
    "run": Entry("Run the bridge until it is stopped."),
    "check": Entry("Say whether everything is there that the worker needs."),
    "drain": Entry("Unsubscribe a running worker, and wait until Kafka has everything."),
    "dead-letters": Entry("List, retry or delete what Kafka could not accept; or unblock a lane."),
    "tap": Entry("Show the messages that pass through a running worker right now."),
    "routes": Entry(
        "List the routes with what each did; explain what becomes of a topic.", "app.commands.routes:program"
    ),
    "reload": Entry("Have a running worker read ROUTES_FILE anew.", "app.commands.reload:program"),
    "plan": Entry("Calculate the disk and the broker's queue that an outage takes."),
}
