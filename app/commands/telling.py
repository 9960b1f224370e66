"""What the commands have in common: how they speak to their user, as text or as JSON, and print their errors."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from faust.cli import option

from app.data_directory import AS_WORKER
from app.errors import WHERE_SETTINGS_ARE, ConnectorError, SettingsError
from app.hardening import harden_process
from app.lines import escaped, escaped_json, last_word

as_json_option = option("--json", "as_json", is_flag=True, help="for programs: an object of JSON on each line")


class Told(NamedTuple):
    """One thing that a command says: a sentence for people, and the same in fields for programs."""

    text: str
    fields: dict[str, Any]

    def line(self, *, as_json: bool) -> str:
        """Return it as one line, in which nothing from outside can do harm."""
        return escaped_json(self.fields) if as_json else escaped(self.text)


def way_to_worker(directory: Path | None) -> Path:
    """Return the data directory, by way of which a worker is asked.

    Raises:
        ConnectorError: There is none.
    """
    if directory is None:
        raise ConnectorError("DB_PERSIST_PATH is not set: a worker is reached by way of its data directory")
    return directory


def no_worker(directory: Path, advice: str) -> ConnectorError:
    """Return the error that no worker runs, with what to do about it.

    Args:
        directory: The data directory, real.
        advice: What to do if it is the right one; one that does not exist is not.
    """
    if not directory.exists():
        advice = f"that directory does not exist: {AS_WORKER}"
    return ConnectorError(f"no worker runs on {directory}: {advice}")


@contextlib.contextmanager
def errors_are_told() -> Iterator[None]:
    """Keep others out of the process; end it with one line, and the exit code, of an error that its user can act on."""
    harden_process()
    try:
        yield
    except SettingsError as error:  # a line for each setting, as at a start
        print(last_word(f"{error}\n{WHERE_SETTINGS_ARE}", as_json=False), file=sys.stderr)  # noqa: T201, the same
        raise SystemExit(error.exit_code) from error
    except ConnectorError as error:
        print(f"connector: {escaped(str(error))}", file=sys.stderr)  # noqa: T201, a command speaks to its user
        raise SystemExit(error.exit_code) from error


def on_interrupt() -> asyncio.Event:
    """Return an event that Ctrl-C and SIGTERM set; the handlers of Faust would end the process without a word."""
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    return interrupted
