"""Runs fuzzers, or tries single inputs once more: `make fuzz` does it."""

from __future__ import annotations

import argparse
import sys

from tests.model.fuzz.child import TARGETS
from tests.model.fuzz.run import WHY_NOT, is_possible, run, try_corpus


def main():
    """Run the fuzzers one after the other; return the exit code."""
    parser = argparse.ArgumentParser(description="Run fuzzers, or try inputs once more.")
    parser.add_argument("target", nargs="?", choices=TARGETS, help="all of them, one after the other, if it is missing")
    parser.add_argument("--seconds", type=int, default=60, help="how long each runs")
    parser.add_argument("--seed", type=int, default=0, help="of a run before; another one each time if it is missing")
    parser.add_argument("--input", nargs="+", default=[], help="files to try, and nothing else")
    chosen = parser.parse_args()
    if chosen.input:
        said, is_well = try_corpus(chosen.target, chosen.input)
        print(said, end="")
        return 0 if is_well else 1
    if not is_possible():
        print(f"inputs cannot be made here: {WHY_NOT}", file=sys.stderr)
        return 1
    found = 0
    for target in [chosen.target] if chosen.target else TARGETS:
        outcome = run(target, chosen.seconds, chosen.seed, keep=True)
        print(outcome.text, flush=True)
        found += outcome.failed
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
