"""`connector COMMAND`: the program that users call.

It knows the list of commands (`app.command_table`) and nothing else: a list, a version or a misspelled command needs
neither settings nor Faust. Every other command is handed to Faust's command line as `faust -A app.main COMMAND` is, so
that both do the same, with the same exit codes and signals, in this process.
"""

from __future__ import annotations

import difflib
import importlib
import sys

import click

from app.command_table import COMMANDS
from app.version import VERSION

NAME = "connector"
HELP = """A bridge from MQTT to Kafka that loses nothing and keeps the order.

\b
Examples:
  connector run
  connector COMMAND --help
  connector --env-file /etc/connector.env drain

Settings are environment variables, or stand in .env of the working directory (docs/settings.md), or in another file
that --env-file names. A command beside a worker needs the worker's settings, and its user.
`faust -A app.main COMMAND` is the same as `connector COMMAND`.
"""
OTHER_NAMES = {"worker": "run", "start": "run", "deadletters": "dead-letters"}  # what is also tried first


class Program(click.Group):
    """The commands of the table, each of them loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, Click's signature
        """Return their names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, Click's signature
        """Return a command; one of Faust's stands in for itself, and takes all that follows its name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        return entry.load() if entry.place else _through_faust(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002, the same
        """Write the list without loading any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called.

        Raises:
            click.UsageError: There is none of the name; the text has the nearest.
        """
        if args[0] not in COMMANDS:
            ctx.fail(_unknown(args[0]))
        sys.argv[1:] = args  # without our own options, of which those who read it know nothing
        return super().resolve_command(ctx, args)


def _unknown(name: str) -> str:
    """Say that there is no such command, and which one may be meant."""
    near = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"; did you mean `{NAME} {near[0]}`?" if near else f"; there are {', '.join(COMMANDS)}"
    return f"there is no command {name!a}{meant}"


def _through_faust(name: str) -> click.Command:
    """Return a command that hands its arguments on as they are."""
    return click.Command(
        name,
        callback=lambda arguments: _run_faust([name, *arguments]),
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )


def _run_faust(words: list[str]) -> None:
    """Run a command of the app.

    The app is loaded before Faust looks for it, which it does in the working directory first: modules of other people
    may be there.
    """
    # Faust has taken hold of this list, not of the name.
    sys.argv[1:] = ["-A", "app.main", *words]
    importlib.import_module("app.main")
    from faust.cli.base import cli  # noqa: PLC0415, it takes a second to load

    cli(prog_name=NAME)


def _use_env_file(_context: click.Context, _option: click.Parameter, path: str | None) -> None:
    if path is not None:
        from app.settings import use_env_file  # noqa: PLC0415, a list of commands needs no settings

        try:
            use_env_file(path)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None


program = Program(NAME, help=HELP, no_args_is_help=True, context_settings={"help_option_names": ["--help"]})
click.version_option(VERSION, prog_name=NAME, message="%(prog)s %(version)s")(program)
click.option(
    "--env-file",
    metavar="FILE",
    expose_value=False,
    callback=_use_env_file,
    help="Read the settings from this file; variables of the environment beat it.",
)(program)


def main() -> None:
    """Run the command that the command line names; the process ends with its exit code."""
    program(prog_name=NAME)


if __name__ == "__main__":
    main()
