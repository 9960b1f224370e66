"""What the commands have in common: how they print their errors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from app.errors import ConnectorError
from app.hardening import harden_process
from app.lines import escaped


@contextlib.contextmanager
def errors_are_told() -> Iterator[None]:
    """Keep others out of the process; end it with one line, and the exit code, of an error that its user can act on."""
    harden_process()
    try:
        yield
    except ConnectorError as error:
        print(f"connector: {escaped(str(error))}", file=sys.stderr)  # noqa: T201, a command speaks to its user
        raise SystemExit(error.exit_code) from error
