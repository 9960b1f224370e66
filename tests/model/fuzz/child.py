"""The process of one fuzzer.

python -m tests.model.fuzz.child TARGET try FILE...      tries these inputs, and those of the corpus if there are none
python -m tests.model.fuzz.child TARGET fuzz OPTION...   makes inputs, with the options of libFuzzer
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from tests.model.fuzz.bounds import bounded

CORPUS = Path(__file__).parent / "corpus"
# And how many inputs are tried in 20 seconds at least, on a machine that does much else at the same time.
TARGETS = {"packets": 1_000, "properties": 500, "entries": 1_000, "control": 100, "pages": 100}
FAILED = 77  # as Atheris ends
PACKAGES = ["app", "agents", "tables", "tests.model.fuzz"]  # in which it sees what an input reaches
# Enough to import the program with; nothing is connected.
ENVIRONMENT = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "127.0.0.1",
    "MQTT_CLIENT_ID": "fuzzed",
    "TOPIC_LIST": "a/b:topic-a",
    "KAFKA_BROKER": "127.0.0.1:9",
    "WEB_TOKEN": "a-token-for-the-fuzzers",
    "LOG_LVL": "debug",  # the most is said, and no secret is among it
}


def inputs_of(target):
    """Return the files of a target's corpus."""
    return sorted(path for path in (CORPUS / target).iterdir() if not path.name.startswith("."))


def try_files(target, paths):
    """Try each file; return the exit status."""
    try_input = bounded(importlib.import_module(f"tests.model.fuzz.{target}").prepare())
    try_input(b"")  # what is loaded once is no input's
    failed = 0
    for path in paths:
        try:
            try_input(path.read_bytes())
        except Exception:  # noqa: PERF203, each input for itself
            print(f"FAILED {path}\n{traceback.format_exc()}", flush=True)
            failed += 1
    print(f"{target}: {len(paths) - failed} of {len(paths)} inputs are well", flush=True)
    return FAILED if failed else 0


def fuzz(target, options):
    """Make inputs until the time is over, or one fails."""
    import atheris  # noqa: PLC0415, not everywhere

    with atheris.instrument_imports(include=PACKAGES):
        module = importlib.import_module(f"tests.model.fuzz.{target}")
        try_input = bounded(module.prepare())
    try_input(b"")

    def mutate(data, largest, seed):
        return module.changed(data, lambda part: atheris.Mutate(part, max(1, largest)), seed)[:largest]

    extra = {"custom_mutator": mutate} if hasattr(module, "changed") else {}
    atheris.Setup([sys.argv[0], f"-max_len={module.LONGEST_BYTES}", *options], try_input, **extra)
    atheris.Fuzz()


def main():
    """Do what the command line says; return the exit status."""
    target, way, *rest = sys.argv[1:]
    os.environ.update(ENVIRONMENT)
    if way == "try":
        return try_files(target, [Path(name) for name in rest] or inputs_of(target))
    return fuzz(target, rest)


if __name__ == "__main__":
    sys.exit(main())
