"""How far the publisher is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_LINE_INTERVAL_SECONDS = 5.0


class Display(Protocol):
    """What shows the progress, for as long as the `with` block lasts."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, messages: int) -> None:
        """Take the number of messages so far."""


class _Bar:
    """A progress bar; without a total, a moving one."""

    def __init__(self, total_messages: int) -> None:
        self._progress = Progress(TextColumn("published"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._task = self._progress.add_task("", total=total_messages or None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, messages: int) -> None:
        self._progress.update(self._task, completed=messages)


class _Lines:
    """A line each few seconds, for a log."""

    def __init__(self) -> None:
        self._next_line = time.monotonic() + _LINE_INTERVAL_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave nothing behind: each line stands for itself."""

    def show(self, messages: int) -> None:
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_INTERVAL_SECONDS
            print(f"{messages} messages published", flush=True)


def display(total_messages: int) -> Display:
    """Return what fits standard output; a total of 0 means that the end is not known."""
    return _Bar(total_messages) if sys.stdout.isatty() else _Lines()
