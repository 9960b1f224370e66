"""`connector reload`: have a running worker read ROUTES_FILE anew.

The worker does it (`app.lifecycle.reload`), checks the file, and says what has changed or what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from app.application import settings
from app.commands.telling import as_json_option, errors_are_told, no_worker, way_to_worker
from app.control import ask_worker
from app.data_directory import real_directory
from app.errors import SettingsError
from app.lines import escaped, escaped_json
from app.listed import first_of

NAMES_SHOWN = 20


def told(answer: dict[str, Any]) -> Iterator[str]:
    """Yield what the worker answered, for people."""
    if answer["problems"]:
        yield from answer["problems"]
        yield "connector: the file is wrong, and the routes of the worker stay as they are"
        return
    kinds = [(kind, answer[kind]) for kind in ("added", "removed", "changed") if answer[kind]]
    for kind, names in kinds:
        yield f"{kind}: {first_of(names, NAMES_SHOWN)}"
    if answer["moved"]:
        yield "the routes are in another order"
    yield from (f"warning: {sentence}" for sentence in answer["shadowed"][:NAMES_SHOWN])
    if answer["missing_topics"]:
        names = first_of(answer["missing_topics"], NAMES_SHOWN)
        yield (
            f"warning: Kafka shows no topic named {names}: create it, or allow the worker's user to see it; what goes "
            "there waits in the table"
        )
    if answer["mqtt"]:
        yield answer["mqtt"]
    count = f"{answer['routes']} route{'' if answer['routes'] == 1 else 's'}"
    has_changed = bool(kinds) or answer["moved"]
    yield f"the worker has taken up the file: {count}" if has_changed else f"nothing has changed: {count}, as before"


@click.command("reload")
@as_json_option
def program(*, as_json: bool) -> None:
    """Have a running worker read ROUTES_FILE anew, without a restart.

    Messages flow on, and none is lost. If anything is wrong with the file, the routes stay as they are. Other settings
    are read at a start only.

    \b
    Example:
      connector reload

    It ends with 0 when the worker has the routes of the file, with 1 when it could not be done, and with 2 when the
    file is wrong.
    """  # noqa: D301, \b is Click's: lines that stay as they are
    with errors_are_told():
        directory = way_to_worker(real_directory(settings.db_persist_path))
        answer = ask_worker(directory, "reload")
        if answer is None:
            raise no_worker(directory, "nothing is to be done, as a start reads ROUTES_FILE")
    if as_json:
        click.echo(escaped_json(answer))
    else:
        for line in told(answer):
            click.echo(escaped(line), err=bool(answer["problems"]))
    if answer["problems"]:
        raise SystemExit(SettingsError.exit_code)
