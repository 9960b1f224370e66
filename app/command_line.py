"""What the command line of this process asks for, as Faust's own parser reads it; known before there is an app."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from faust.cli.base import cli

HELP, PLAN = "--help", "plan"
WORKERS = {"run", "worker"}  # the second is Faust's name


def command() -> str:
    """Return the command of this process; empty if there is none, or another program imports the app."""
    return (*_words(sys.argv[1:]), "")[0]


def needs_no_settings() -> bool:
    """Tell whether this process plans, or shows a help text; further behind, these words are a command's arguments."""
    words = _words(sys.argv[1:])
    return command() in {HELP, PLAN} or words[1:2] == [HELP]


def _words(arguments: Sequence[str]) -> list[str]:
    """Return the command and its arguments, without Faust's own options and their values."""
    parser = cli.make_parser(click.Context(cli, resilient_parsing=True))
    try:
        options, words, _ = parser.parse_args(list(arguments))
    except click.UsageError:  # Faust tells it
        return []
    return [HELP] if options.get("help") else words
