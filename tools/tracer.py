"""The worker of the bridge, with each call of a function of the project written down: `python -m tools.tracer FILE`.

It is the real worker: `connector run`, in a process in which the interpreter reports calls on every thread
(`sys.setprofile`). The product has no hook for it. The calls are written to FILE when the worker ends.

A coroutine that goes on after it waited counts as called again, as the interpreter reports it so.
"""

from __future__ import annotations

import json
import runpy
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tools.calls import ANOTHER_IN_HAND, FOLLOWED, IN_HAND, OTHER, PRODUCT

_REPOSITORY = Path(__file__).resolve().parents[1]
_FOLDERS = tuple(f"{_REPOSITORY / package}/" for package in PRODUCT)
_MOST_ITEMS = 200  # of a list that are looked at for a message
_CONTAINERS = (list, tuple, set, frozenset, deque)
# Parts of the function in which they are written, though the interpreter calls them.
_PARTS = {"<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}


class Tracer:
    """Writes down calls; see `tools.calls` for what is written of each."""

    def __init__(self) -> None:
        """Make a tracer that has seen nothing."""
        self.calls: list[list[Any]] = []
        self._open: dict[int, int] = {}  # the number of the call by the id of its frame
        self._names: dict[CodeType, tuple[str, str] | None] = {}

    def start(self) -> None:
        """Have the interpreter report the calls of this thread, and of all threads that begin later."""
        threading.setprofile(self.on_event)
        sys.setprofile(self.on_event)

    def stop(self) -> None:
        """End it; other threads go on, and what they report is lost."""
        sys.setprofile(None)

    def on_event(self, frame: FrameType, event: str, result: Any) -> None:
        """Take what the interpreter reports; calls of functions that are not written in Python are left out."""
        if event == "call":
            self._on_call(frame)
        elif event == "return" and (number := self._open.pop(id(frame), None)) is not None:
            call = self.calls[number]
            call[-1] = max(call[-1], _in_hand(result))

    def _on_call(self, frame: FrameType) -> None:
        code = frame.f_code
        if code not in self._names:
            self._names[code] = _name(code)
        name = self._names[code]
        if name is None:
            return
        file, function = name
        self._open[id(frame)] = len(self.calls)
        caller = self._caller(frame)
        goes_on = frame.f_lineno != code.co_firstlineno
        self.calls.append(
            [time.monotonic(), threading.get_ident(), file, function, caller, goes_on, _arguments_in_hand(frame)]
        )

    def _caller(self, frame: FrameType) -> int:
        """Return the number of the call of the project's function from which this one was called; -1 if there is none.

        Between the two there may be functions of libraries.
        """
        above = frame.f_back
        while above is not None:
            number = self._open.get(id(above))
            if number is not None:
                return number
            above = above.f_back
        return -1


def _name(code: CodeType) -> tuple[str, str] | None:
    """Return file and function, none for code that is not the project's or no function of its own."""
    if not code.co_filename.startswith(_FOLDERS) or code.co_name in _PARTS:
        return None
    function: str = getattr(code, "co_qualname", code.co_name)  # Python 3.10 knows the bare name alone
    return str(Path(code.co_filename).relative_to(_REPOSITORY)), function.replace("<locals>.", "")


def _arguments_in_hand(frame: FrameType) -> int:
    """Tell which message is among the arguments of a call."""
    code = frame.f_code
    number = code.co_argcount + code.co_kwonlyargcount
    local = frame.f_locals
    return max((_in_hand(local.get(name)) for name in code.co_varnames[:number]), default=0)


def _in_hand(value: Any, depth: int = 2) -> int:
    """Tell which message a value is or holds: its bytes, the message, a list of messages, or an object with a list."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        return IN_HAND if FOLLOWED in data else ANOTHER_IN_HAND if OTHER in data else 0
    if depth and isinstance(value, _CONTAINERS):
        items = list(value)[:_MOST_ITEMS]  # a copy, as another thread may change it
        return max((_in_hand(item, depth - 1) for item in items), default=0)
    if depth and isinstance(value, dict):
        return _in_hand(list(value.values()), depth)
    if type(value).__module__.partition(".")[0] not in PRODUCT:
        return 0
    payload, messages = getattr(value, "payload", None), getattr(value, "messages", None)
    if isinstance(payload, bytes):
        return _in_hand(payload)
    return _in_hand(messages, depth) if isinstance(messages, _CONTAINERS) else 0


def main() -> None:
    """Run the worker, and write the calls when it has ended."""
    path = Path(sys.argv[1])
    tracer = Tracer()
    sys.argv = ["faust", "-A", "app.main", "worker"]
    tracer.start()
    try:
        runpy.run_module("faust", run_name="__main__", alter_sys=True)
    finally:
        tracer.stop()
        with path.open("w", encoding="utf-8") as file:
            json.dump(tracer.calls, file)


if __name__ == "__main__":
    main()
