"""What the processes of a program took: processor time and memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """What some processes took from the start of the measurement on.

    Attributes:
        cpu_seconds: User and system time of all threads.
        peak_bytes: The most memory that was resident, since the process began; several processes: the sum.
    """

    cpu_seconds: float
    peak_bytes: int


class Meter:
    """Measures processes, and those that they started."""

    def __init__(self, pids: Iterable[int]) -> None:
        """Begin now."""
        self._pids = tuple(pids)
        self._began_seconds = self._cpu_seconds()

    def read(self) -> Usage:
        """Return what they took until now; processes must still run."""
        peak = sum(_peak_bytes(process.pid) for process in self._processes())
        return Usage(self._cpu_seconds() - self._began_seconds, peak)

    def _processes(self) -> list[psutil.Process]:
        parents = [psutil.Process(pid) for pid in self._pids]
        return [*parents, *(child for parent in parents for child in parent.children(recursive=True))]

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._processes()]
        return sum(time.user + time.system for time in times)


def _peak_bytes(pid: int) -> int:
    """Return the high-water mark of a process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0
