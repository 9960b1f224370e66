"""A worker in which one function fails on purpose: `faust -A tests.support.failing_worker worker`, not `-A app.main`.

FAULTY_FUNCTION names the function, `module:Class.method`, FAULTY_ACT what it does. It does so while there is a file
`fault` in the working directory; what happens once removes the file. A file with the name of an act of flow control is
an order too, which is carried out within moments. FAULTY_CONSTANTS gives constants of modules other values, so that
nobody waits for minutes: `module:NAME=value`, or `module:NAME=value,value` for several, separated by blanks.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.oracle import wait_until
from tests.support.system import Bridge

FAULT = Path("fault")
BROKEN = "broken on purpose"
BLOCKED_SECONDS = 6.0
FLOW_CONTROL = ("suspend", "clear", "resume")
HOUR_SECONDS, YEAR_SECONDS = 3_600, 365 * 86_400


class FailingBridge(Bridge):
    """A bridge in which a function may fail; as good as any other until it is told to."""

    def __init__(
        self, *arguments: Any, function: str = "", act: str = "fail", constants: str = "", **settings: object
    ) -> None:
        super().__init__(*arguments, **settings)
        self.constants = constants
        self.function = function
        self.act = act

    def command(self) -> list[str]:
        return [sys.executable, "-m", "faust", "-A", "tests.support.failing_worker:app", "worker"]

    def environment(self) -> dict[str, str]:
        environment = dict(super().environment())
        faults = {"FAULTY_FUNCTION": self.function, "FAULTY_ACT": self.act, "FAULTY_CONSTANTS": self.constants}
        return environment | faults

    def begin(self, order: str = FAULT.name) -> None:
        """Let the function fail from now on, or give another order."""
        (self.directory / order).touch()

    def end(self) -> None:
        """Let it work again."""
        (self.directory / FAULT).unlink(missing_ok=True)

    def has_failed(self, order: str = FAULT.name) -> bool:
        """Tell whether what happens once has happened."""
        return not (self.directory / order).exists()

    def obey(self, order: str) -> None:
        """Give an order, and wait until it is carried out."""
        self.begin(order)
        wait_until(lambda: self.has_failed(order), order)


def _fail(*_: Any) -> None:
    FAULT.unlink()
    raise RuntimeError(BROKEN)


def _fail_always(*_: Any) -> None:
    raise RuntimeError(BROKEN)


def _block(function: Any, *arguments: Any) -> Any:
    FAULT.unlink()
    time.sleep(BLOCKED_SECONDS)
    return function(*arguments)


def _hang(function: Any, *arguments: Any) -> Any:
    wait_until(lambda: not FAULT.exists(), "the end of the fault", YEAR_SECONDS)
    return function(*arguments)


def _skip(*_: Any) -> bool:
    return True


def _an_hour_ago(function: Any) -> float:
    return function() - HOUR_SECONDS


def _in_a_year(function: Any) -> float:
    return function() + YEAR_SECONDS


ACTS = {
    "fail": _fail, "fail always": _fail_always, "block": _block, "hang": _hang, "skip": _skip,
    "an hour ago": _an_hour_ago, "in a year": _in_a_year,
}  # fmt: skip


def _break(place: str, act: str) -> None:
    """Replace a function by one that looks for the file at each call."""
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    @functools.wraps(function)
    def faulty(*arguments: Any) -> Any:
        return ACTS[act](function, *arguments) if FAULT.exists() else function(*arguments)

    setattr(owner, name, faulty)


def _obey(flow_control: Any) -> None:
    for order in filter(os.path.exists, FLOW_CONTROL):
        getattr(flow_control, order)()
        Path(order).unlink()


def _set(constant: str) -> None:
    place, _, value = constant.partition("=")
    module, _, name = place.partition(":")
    numbers = tuple(map(float, value.split(",")))
    setattr(importlib.import_module(module), name, numbers if len(numbers) > 1 else numbers[0])


def _load() -> Any:
    for constant in os.environ["FAULTY_CONSTANTS"].split():
        _set(constant)
    if os.environ["FAULTY_FUNCTION"]:
        _break(os.environ["FAULTY_FUNCTION"], os.environ["FAULTY_ACT"])
    loaded = importlib.import_module("app.main").app

    @loaded.timer(interval=0.02, name="orders")
    async def obey() -> None:
        _obey(loaded.flow_control)

    return loaded


if "FAULTY_FUNCTION" in os.environ:
    app = _load()
