"""What a failure shows besides its traceback: what helpers compared, and how the logs of the test's workers end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG_BYTES = 6000

# Their assertions say what they compared, as those of the tests do; they must not have been imported before.
pytest.register_assert_rewrite("tests.support.oracle", "tests.support.system")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of the logs: their directory is gone when somebody reads of a failure."""
    outcome = yield
    report = outcome.get_result()
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and directory is not None:
        for path in sorted(directory.rglob("worker.log")):
            end = path.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
            report.sections.append((f"the end of {path.relative_to(directory)}", end))
