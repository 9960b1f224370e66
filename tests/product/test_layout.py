"""The tests themselves: where they lie, how they are marked, and that each promise is shown by some. No brokers."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.disk import LoopDisk
from tests.support.markers import FOLDERS, MARKS, PROMISES, SERVERS, promises_of, used_by
from tests.support.other_brokers import HiveMQ, Mochi
from tools.brokers import Kafka, Mosquitto

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = REPOSITORY / "tests"
GUARANTEES = (REPOSITORY / "docs" / "guarantees.md").read_text(encoding="utf-8")


@functools.cache
def docstrings():
    """Return the docstring of each test, by `folder/file.py::name`."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                found[f"{path.relative_to(TESTS)}::{node.name}"] = ast.get_docstring(node) or ""
    return found


def promised():
    """Return the tests that each promise names, by its number."""
    text = re.search(r"<!-- promises -->\n(.*?)<!-- end of promises -->", GUARANTEES, re.DOTALL)[1]
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    return {entry.split()[0]: re.findall(r"^- `([^`]+)`", entry, re.MULTILINE) for entry in entries}


def test_every_test_lies_in_a_folder_that_the_readme_names():
    readme = (TESTS / "README.md").read_text(encoding="utf-8")
    assert {path.relative_to(TESTS).parent.as_posix() for path in TESTS.rglob("test_*.py")} == set(FOLDERS)
    assert not [folder for folder in (*FOLDERS, "support") if f"| `{folder}/` |" not in readme]


def test_the_header_of_the_support_names_each_of_its_modules():
    named = ast.get_docstring(ast.parse((TESTS / "support" / "__init__.py").read_text(encoding="utf-8")))
    modules = {path.stem for path in (TESTS / "support").iterdir() if path.name[0] not in "_."}
    assert not [module for module in sorted(modules) if f"`{module}`" not in named]


def test_every_mark_is_registered():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    registered = re.findall(r'"(\w+): ', re.search(r"^markers = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1])
    assert sorted(registered) == sorted({*MARKS, "slow"})


def a_helper():
    """Stand for what a test calls."""
    return [Kafka, Mosquitto, HiveMQ, Mochi, Browser, LoopDisk]


def test_the_servers_that_a_test_starts_are_found_through_its_helpers():
    def a_test():
        return a_helper()

    assert {used.__name__ for used in used_by(a_test)} >= set(SERVERS)


def test_every_promise_that_a_test_cites_is_defined():
    cited = {number for text in docstrings().values() for number in re.findall(r"\bP\d+\b", text)}
    assert cited == set(PROMISES) == set(promised())


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_names_tests_that_cite_it_and_one_of_them_has_real_parts(promise):
    """What no unit test can show: that brokers, disk and process together keep it."""
    tests, known = promised()[promise], docstrings()
    assert not [test for test in tests if promise not in promises_of(known[test])]
    assert [test for test in tests if test.startswith(("bridge/", "faults/"))]
