"""Starts the process of a fuzzer, and says what came of it.

What it tried that reached something new is kept from one run by hand to the next in `build/fuzz`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.model.fuzz.child import CORPUS

REPOSITORY = Path(__file__).resolve().parents[3]
ONE_INPUT_SECONDS = 20  # ended from outside, whatever it does; see also `bounds`
MEMORY_MIB = 1024
START_SECONDS = 60
ENOUGH_LINES = 60
PROGRESS = ("#", "INFO:", "WARNING:", "0x", "\\", "Base64:", "stat::")
WHY_NOT = "Atheris is for Linux on x86-64 with Python 3.11 to 3.13"
# libFuzzer judges by the peak of memory that Linux counts for a process, and a process begins with that of the one that
# called exec: of the tests' own process, which may be larger than all that a fuzzer may have. A shell is small.
IN_A_PROCESS_OF_ITS_OWN = ("/bin/sh", "-c", '"$@"; exit "$?"', "fuzzer")


class Outcome(NamedTuple):
    """What came of a run: how many inputs were tried, whether one failed, and what to tell."""

    tried: int
    failed: bool
    text: str


def is_possible():
    """Tell whether inputs can be made here; the corpus can be tried anywhere."""
    return importlib.util.find_spec("atheris") is not None


def environment():
    """Return the environment of the process: nothing of Connector's settings but what `child` sets."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR", "LANG"}}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "0"}


def try_corpus(target, paths=()):
    """Try the inputs of a corpus, or these, without making others; return what was said, and whether all are well."""
    child = [sys.executable, "-m", "tests.model.fuzz.child", target, "try", *map(str, paths)]
    command = [*IN_A_PROCESS_OF_ITS_OWN, *child]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr, done.returncode == 0


def run(target, seconds, seed=0, *, keep=False):
    """Run a fuzzer.

    Args:
        target: Its name.
        seconds: How long.
        seed: Of what it does by chance; 0: another one each time.
        keep: Begin with what runs before have found to reach something new, and add to it.
    """
    seed = seed or int.from_bytes(os.urandom(4), "big") % (2**31 - 1) + 1
    before = set((CORPUS / target).iterdir())
    with contextlib.ExitStack() as stack:
        if keep:
            work = REPOSITORY / "build" / "fuzz" / target
            work.mkdir(parents=True, exist_ok=True)
        else:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        command = [
            *IN_A_PROCESS_OF_ITS_OWN, sys.executable, "-m", "tests.model.fuzz.child", target, "fuzz",
            f"-seed={seed}", f"-max_total_time={seconds}", f"-timeout={ONE_INPUT_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={CORPUS / target}/", "-print_final_stats=1",
            str(work), str(CORPUS / target),
        ]  # fmt: skip
        began = time.monotonic()
        limit_seconds = seconds + START_SECONDS + ONE_INPUT_SECONDS
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, errors="replace", timeout=limit_seconds,
            check=False,
        )  # fmt: skip
        took = f"{time.monotonic() - began:.0f} s, seed {seed}"
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    count = int(tried[1]) if tried else 0
    if done.returncode == 0:
        return Outcome(count, failed=False, text=f"{target}: {count:,} inputs in {took}; nothing was found")
    lines = [line[:1000] for line in (done.stderr + done.stdout).splitlines() if not line.startswith(PROGRESS)]
    said = "\n".join(lines[-ENOUGH_LINES:])
    new = sorted(set((CORPUS / target).iterdir()) - before)
    advice = "\n".join(f"it is {path}; try it again: {again(target, path)}" for path in new)
    return Outcome(count, failed=True, text=f"{said}\n{target}: an input fails after {count:,} in {took}\n{advice}")


def again(target, path):
    """Return the command that tries one input once more."""
    return f"make fuzz TARGET={target} INPUT={path.relative_to(REPOSITORY)}"
