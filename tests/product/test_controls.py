"""The controls do not rot: each change still fits the code, and its tests exist. `make controls` runs them."""

import ast

import pytest

from tests.support.controls import CONTROLS, REPOSITORY, Change


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_the_changes_of_a_control_fit_the_code_and_leave_it_readable(control):
    """No promise by itself: it keeps the proof that the tests of the promises can fail."""
    texts = {change.file: (REPOSITORY / change.file).read_text(encoding="utf-8") for change in control.changes}
    for change in control.changes:
        texts[change.file] = change.applied(texts[change.file])
    for text in texts.values():
        ast.parse(text)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_the_tests_of_a_control_exist(control):
    for test in control.tests:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"\ndef {name}(" in (REPOSITORY / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["nothing", "old old"])
def test_a_change_that_does_not_fit_exactly_once_is_refused(text):
    with pytest.raises(ValueError, match="not once: 'old'"):
        Change("file.py", "old", "new").applied(text)
