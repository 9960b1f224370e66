"""What came of the tests in a fresh Debian: every skipped test with its reason, which must be an expected one.

`python3 tests/product/fresh_report.py REPORT LOG`: the report is pytest's, in the format of JUnit; of the log, the last
line that pytest wrote is shown again. It runs outside of `.venv`, with the standard library alone. It ends with 1 for a
test that was skipped for another reason or that failed, and if nothing was tested.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def always() -> bool:
    """Tell that a reason counts everywhere."""
    return True


def disks_cannot_be_mounted() -> bool:
    """Tell whether this machine refuses what these tests need, whatever is installed."""
    probe = "d=$(mktemp -d) && truncate -s 4M $d.img && mkfs.ext4 -q $d.img && mount -o loop $d.img $d && umount $d"
    command = ["unshare", "--mount", "bash", "-c", f"({probe}); status=$?; rm -rf $d $d.img; exit $status"]
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def control_groups_are_refused() -> bool:
    """Tell whether no control group with a limit of memory can be made here, of version 1 or 2."""
    first = Path("/sys/fs/cgroup/memory")
    is_first = (first / "memory.limit_in_bytes").exists()
    group = (first if is_first else Path("/sys/fs/cgroup")) / f"connector-fresh-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return True
    try:
        for name in ("memory.limit_in_bytes",) if is_first else ("memory.max", "memory.swap.max"):
            (group / name).write_text(str(64 * 1024 * 1024))
    except OSError:
        return True
    finally:
        group.rmdir()
    return False


def nothing_makes_inputs() -> bool:
    """Tell whether Atheris is not built for this machine or this Python."""
    return platform.machine() != "x86_64" or not (3, 11) <= sys.version_info < (3, 14)


@dataclass(frozen=True)
class Expected:
    """A reason for skipping that is no fault.

    Attributes:
        reason: how the reason begins that the test gives.
        why: why this machine cannot do better.
        counts: whether that is so here.
    """

    reason: str
    why: str
    counts: Callable[[], bool] = always


OLD_GO = "Debian 12 has Go 1.19, and nothing newer is fetched"
EXPECTED = (
    Expected("mochi-mqtt is not built", OLD_GO),
    Expected("needs kustomize, which `make brokers` builds", f"{OLD_GO}; Debian has no kubectl"),
    Expected("needs the definitions of the Prometheus operator", OLD_GO),
    Expected("needs what `make chart-test` builds", f"it takes minutes, so `make test` does without; {OLD_GO}"),
    Expected("`make bench` installs it", "the comparison has a set of packages of its own, which tests do without"),
    Expected("a file system cannot be mounted here", "the kernel has no loop devices here", disks_cannot_be_mounted),
    Expected("no file system can be made here", "the kernel has no loop devices here", disks_cannot_be_mounted),
    Expected("Atheris is for Linux on x86-64", "it is not built for this machine or Python", nothing_makes_inputs),
    Expected("no control group with a memory limit", "this machine lets nobody make one", control_groups_are_refused),
)


@dataclass(frozen=True)
class Skipped:
    """A test that was skipped, and what it said."""

    name: str
    reason: str

    def expected(self) -> Expected | None:
        """Return the entry of the list that it is on."""
        return next((entry for entry in EXPECTED if self.reason.startswith(entry.reason) and entry.counts()), None)


@dataclass(frozen=True)
class Report:
    """What pytest said of all tests."""

    total: int
    skipped: Sequence[Skipped]
    failed: Sequence[str]


def read_report(text: str) -> Report:
    """Return what stands in a report; one that cannot be read raises ValueError."""
    try:
        cases = list(ET.fromstring(text).iter("testcase"))
    except ET.ParseError as error:
        raise ValueError(f"pytest's report cannot be read: {error}") from error
    skipped, failed = [], []
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped += [Skipped(name, _reason(found)) for found in case.findall("skipped")]
        failed += [name] if case.find("failure") is not None or case.find("error") is not None else []
    return Report(len(cases), skipped, failed)


def _reason(found: ET.Element) -> str:
    reason = found.get("message") or found.text or ""
    return reason.removeprefix("Skipped: ").strip()


def closing_line(log: str) -> str:
    """Return the last line with which pytest closed, or none."""
    lines = re.findall(r"^(?:=+ )?(?:\d+ [a-z]+.*|no tests ran) in \d+\.\d+s.*$", log, re.MULTILINE)
    return lines[-1] if lines else ""


def verdict(report: Report) -> list[str]:
    """Return what is wrong."""
    wrong = [f"failed: {name}" for name in report.failed]
    wrong += [f"skipped for a reason that nobody expects: {each.name}: {each.reason}"
              for each in report.skipped if each.expected() is None]  # fmt: skip
    return wrong if report.total > len(report.skipped) else [*wrong, "no test ran"]


def main(arguments: Sequence[str]) -> int:
    """Print the skipped tests and the verdict, and return the exit code."""
    report_path, log_path = map(Path, arguments)
    if not report_path.exists():
        print("pytest wrote no report: it did not get as far as the tests")
        return 1
    report = read_report(report_path.read_text(encoding="utf-8"))
    print(f"{len(report.skipped)} of {report.total} tests were skipped")
    for reason in sorted({each.reason for each in report.skipped}):
        alike = [each for each in report.skipped if each.reason == reason]
        entry = alike[0].expected()
        print(f"{len(alike)} skipped: {reason}\n  {'expected: ' + entry.why if entry else 'NOT EXPECTED'}")
        print(*(f"    {each.name}" for each in alike), sep="\n")
    wrong = verdict(report)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(closing_line(log_path.read_text(encoding="utf-8", errors="replace")))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
