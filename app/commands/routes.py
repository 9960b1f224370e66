"""`connector routes`: the routes with what they did, what becomes of a topic, and the schema of the file.

The counts are the running worker's, which is asked for them. All else needs the settings and no worker; the schema not
even these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from app.commands.telling import as_json_option, errors_are_told, no_worker
from app.lines import escaped, escaped_json
from app.routes import shadowed
from app.routing.explained import explain
from app.settings import load_settings, routes_schema

COLUMNS = ("received", "delivered", "stored", "dead_letters", "dropped", "waiting")
LONGEST_COLUMN = 40


@click.group("routes", invoke_without_command=True)
@as_json_option
@click.pass_context
def program(context: click.Context, *, as_json: bool) -> None:
    """List the routes, with what each did since the start of the worker; explain one; or print the schema of the file.

    Without a running worker the routes alone are listed, as the settings have them.

    \b
    Examples:
      connector routes
      connector routes explain plant/oslo/press-7/temperature
      connector routes schema > routes.schema.json

    It ends with 0, or with 2 when settings are wrong.
    """  # noqa: D301, \b is Click's: lines that stay as they are
    if context.invoked_subcommand is None:
        with errors_are_told():
            _list(as_json=as_json)


@program.command("explain")
@click.argument("mqtt_topics", metavar="MQTT_TOPIC...", nargs=-1, required=True)
@as_json_option
@click.pass_context
def explain_topics(context: click.Context, mqtt_topics: tuple[str, ...], *, as_json: bool) -> None:
    """Say which route takes the messages of a topic, and the record they become; which others match, and why not they.

    Nothing is connected, and no worker needs to run: the settings alone are read.

    \b
    Example:
      connector routes explain plant/oslo/press-7/temperature

    It ends with 0, with 1 when a topic becomes no record, and with 2 when settings are wrong.
    """  # noqa: D301, the same
    with errors_are_told():
        settings = load_settings()
        table = settings.route_table()
        hidden = {each.route.name for each in shadowed(table.routes)}
        found = [explain(settings, table, topic, hidden) for topic in mqtt_topics]
    as_json = as_json or bool(context.parent and context.parent.params["as_json"])  # before or behind `explain`
    for each in found:
        for line in [escaped_json(each.as_dictionary())] if as_json else map(escaped, each.lines()):
            click.echo(line)
    if not all(each.becomes_record for each in found):
        raise SystemExit(1)


@program.command("schema")
def schema() -> None:
    """Print the JSON Schema of ROUTES_FILE, with which editors complete and check it.

    \b
    Example:
      connector routes schema > routes.schema.json
    """  # noqa: D301, the same
    click.echo(json.dumps(routes_schema(), indent=2))


def _list(*, as_json: bool) -> None:
    settings = load_settings()
    hidden = {each.route.name: each.text for each in shadowed(settings.routes)}
    counted, why_not = _counts_of_worker()
    rows = [{"route": route.name, "filter": route.mqtt_filter, "to": route.to.text} for route in settings.routes]
    for row in counted or rows:
        if as_json:
            click.echo(escaped_json({**row, "shadowed": hidden.get(row["route"])}))
    if not as_json:
        for line in _table(counted or rows):
            click.echo(line)
        for text in hidden.values():
            click.echo(escaped(f"warning: {text}"))
    if counted is None:
        click.echo(escaped(f"nothing is counted, as {why_not}"), err=True)


def _counts_of_worker() -> tuple[list[dict[str, Any]] | None, str]:
    """Return what the worker counted; None if there is none, and why."""
    from app.application import settings  # noqa: PLC0415, these load the whole app, which `schema` does not need
    from app.control import ask_worker  # noqa: PLC0415, the same
    from app.data_directory import real_directory  # noqa: PLC0415, the same

    directory = real_directory(settings.db_persist_path)
    if directory is None:
        return None, "DB_PERSIST_PATH is not set: a worker is reached by way of its data directory"
    return ask_worker(directory, "routes"), str(no_worker(directory, "its counts are gone with it"))


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield heading and rows, each column as wide as what is in it, up to a bound."""
    names = [name for name in ("route", "filter", "to", *COLUMNS) if name in rows[0]]
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[_cell(row[name]) for name in names] for row in rows]
    widths = [min(LONGEST_COLUMN, max(len(row[place]) for row in cells)) for place in range(len(names))]
    for row in cells:
        shown = [
            f"{text:>{width}}" if name in COLUMNS else f"{text:<{width}}"
            for name, text, width in zip(names, row, widths, strict=True)
        ]
        yield "  ".join(shown).rstrip()


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else escaped(value) or "-"
