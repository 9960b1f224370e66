"""What every test is held to: it leaves nothing behind, and a unit test or a model starts no server."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest

from tools.brokers import ServerProcess

WITHOUT_SERVERS = ("unit", "model")
_THREADS_LIMIT_SECONDS = 30.0
# pytest writes into the first at each phase of a test.
_CHANGING_VARIABLES = {"PYTEST_CURRENT_TEST"}
_lasting: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def environment_is_left_as_found() -> Iterator[None]:
    """Fail a test that leaves environment variables changed, and change them back for the next one."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    changed -= _CHANGING_VARIABLES
    for name in changed:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    if changed:
        pytest.fail(f"the test left environment variables changed: {sorted(changed)}")


@contextlib.contextmanager
def threads_that_last() -> Iterator[None]:
    """Let the threads that the body starts outlive the test, as all tests share them and the first one started them."""
    before = set(threading.enumerate())
    yield
    _lasting.update(set(threading.enumerate()) - before)


@pytest.fixture(autouse=True)
def threads_are_ended() -> Iterator[None]:
    """Fail a test that leaves threads running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _THREADS_LIMIT_SECONDS
    while left := [thread for thread in set(threading.enumerate()) - before - _lasting if thread.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"the test left threads running: {[thread.name for thread in left]}")
        left[0].join(0.1)


@pytest.fixture(autouse=True)
def no_server_is_started(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a unit test or a model that starts a broker or a worker: it belongs into another folder."""
    if not any(request.node.get_closest_marker(folder) for folder in WITHOUT_SERVERS):
        yield
        return

    def refused(server: ServerProcess) -> None:
        pytest.fail(f"this test starts {server.title}: it belongs into tests/bridge or tests/faults")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerProcess, "start", refused)
        yield
