"""What is free in memory goes back to the system."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.app_settings import app_settings

with app_settings():
    from app import application

REPOSITORY = Path(__file__).resolve().parents[2]
FREED = """
from pathlib import Path
from app.memory import give_free_memory_back, give_memory_back

def resident_mebibytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

give_memory_back()
pieces = [bytes(5000) for _ in range(20_000)]
kept = pieces[::100]  # as what stays lies between what was in flight
del pieces
before = resident_mebibytes()
give_free_memory_back()
print(before - resident_mebibytes())
"""


def test_what_is_free_between_what_stays_goes_back_to_the_system():
    """P6: after many outages a worker takes what it took after a few."""
    done = subprocess.run([sys.executable, "-c", FREED], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 60


def test_the_worker_does_that_on_a_timer_and_not_on_the_event_loop(monkeypatch):
    """It may take longer than messages should wait."""
    (task,) = [task for task in application.app._app_tasks if task.__name__ == "trim_memory"]
    threads = []
    monkeypatch.setattr(application, "give_free_memory_back", lambda: threads.append(threading.current_thread()))
    asyncio.run(task.__wrapped__.__wrapped__())
    assert threads and threading.main_thread() not in threads
