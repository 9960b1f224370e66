"""Marks each test by its folder, by the servers that it starts, and by the promises that its docstring cites.

Nobody writes these marks by hand, so none is forgotten: the folder is where the test lies, the servers are found in
what the test and its helpers refer to, and a promise is cited as `P3` (docs/guarantees.md). `slow` alone is written, at
tests that take more than 20 seconds.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

import pytest

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = ("unit", "model", "bridge", "faults", "product")
PROMISES = tuple(f"P{number}" for number in range(1, 11))
# The classes that stand for servers, by the name of the class.
SERVERS = {
    "Kafka": "needs_kafka",
    "Mosquitto": "needs_mosquitto",
    "HiveMQ": "needs_hivemq",
    "Mochi": "needs_mochi",
    "Browser": "needs_browser",
    "LoopDisk": "needs_root",
}
MARKS = (*FOLDERS, *PROMISES, *SERVERS.values())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the marks."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(TESTS):
            for mark in marks_of(item):
                item.add_marker(mark)


def marks_of(item: pytest.Function) -> Iterator[str]:
    """Yield the marks of a test."""
    yield item.path.relative_to(TESTS).parts[0]
    yield from promises_of(item.function.__doc__ or "")
    fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
    classes = {used.__name__ for used in used_by(item.function, *fixtures, *item_values(item))}
    yield from (mark for server, mark in SERVERS.items() if server in classes)


def item_values(item: pytest.Function) -> list[object]:
    """Return the values with which a test is parametrized, itself or through its fixtures."""
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []


def promises_of(docstring: str) -> list[str]:
    """Return the promises that a docstring cites."""
    return [promise for promise in PROMISES if re.search(rf"\b{promise}\b", docstring)]


def used_by(*roots: object) -> set[type]:
    """Return the classes that some functions use, and those that the helpers use which they call."""
    classes: set[type] = set()
    seen: set[FunctionType] = set()
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if isinstance(value, type):
            if value not in classes and value.__module__.startswith(("tests.", "tools.")):
                classes.add(value)
                waiting += [*value.__mro__, *vars(value).values()] if value.__module__.startswith("tests.") else []
        elif isinstance(value, (list, tuple)):
            waiting += value
        else:
            function = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and function not in seen and function.__module__.startswith("tests."):
                seen.add(function)
                waiting += [function.__globals__.get(name) for name in _names_in(function.__code__)]
    return classes


def _names_in(code: CodeType) -> set[str]:
    """Return the names in a function's code, and in that of the functions within it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names, *(name for each in inner for name in _names_in(each))}
