"""Where a message's processor time goes, stage by stage: `python -m bench.profile` prints it and writes it down.

The stages are timed in a worker with clocks (`bench.profiled`), which cost a little themselves.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import psutil

from bench.bridges import Connector
from bench.document import DOCUMENT, rewritten
from bench.load import WARM_UP_MESSAGES, Publisher, fifty_topics
from bench.stage import Stage, open_stage
from bench.usage import Meter
from tools.worker import Worker

MESSAGES = 300_000
ROUNDS = 2  # the first one warms Kafka up


class ProfiledWorker(Worker):
    """A worker with clocks."""

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "bench.profiled", "worker"]


def measure(stage: Stage, qos: int) -> dict[str, float]:
    """Return microseconds per message by stage, at full rate."""
    with stage.run() as run:
        publisher = Publisher(run.mosquitto.port, fifty_topics(MESSAGES, qos))
        output = run.directory / "profile.json"
        bridge = run.bridge(Connector, qos, MESSAGES, profile_output=output)
        bridge.worker = ProfiledWorker(bridge.directory, bridge.worker.settings)
        with bridge:
            run.warm_up(qos, expected=WARM_UP_MESSAGES)
            before, meter = _thread_seconds(bridge.worker.pid), Meter(bridge.pids)
            publisher.start()
            run.arrivals.wait_for(WARM_UP_MESSAGES + MESSAGES)
            total, after = meter.read().cpu_seconds, _thread_seconds(bridge.worker.pid)
            publisher.wait()
        found = json.loads(output.read_text())
    python_seconds = sum(after[thread] - before.get(thread, 0.0) for thread in found["threads"] if thread in after)
    stages = {name: found["own_ns"].get(name, 0) / MESSAGES / 1000 for name in found["stages"]}
    stages["event loop, Faust, selectors"] = python_seconds / MESSAGES * 1e6 - sum(stages.values())
    stages["threads of librdkafka and RocksDB"] = (total - python_seconds) / MESSAGES * 1e6
    return stages


def _thread_seconds(pid: int) -> dict[int, float]:
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process(pid).threads()}


def table(by_qos: dict[int, dict[str, float]]) -> str:
    """Return the table of the document."""
    lines = ["| stage | " + " | ".join(f"QoS {qos}, us | share" for qos in by_qos) + " |"]
    lines.append("| --- |" + " ---: | ---: |" * len(by_qos))
    totals = {qos: sum(stages.values()) for qos, stages in by_qos.items()}
    for name in by_qos[0]:
        cells = [
            f"{stages.get(name, 0):.2f} | {stages.get(name, 0) / totals[qos]:.0%}" for qos, stages in by_qos.items()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| all | " + " | ".join(f"{totals[qos]:.2f} | 100%" for qos in by_qos) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the table into the document."""
    by_qos: dict[int, dict[str, float]] = {}
    began = time.monotonic()
    with open_stage() as stage:
        for number in range(ROUNDS):
            for qos in (0, 1):
                print(f"round {number + 1} of {ROUNDS}, QoS {qos}, {time.monotonic() - began:.0f} s", file=sys.stderr)
                by_qos[qos] = measure(stage, qos)
    text = table(by_qos)
    print(text)
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text(encoding="utf-8"), "profile", text), encoding="utf-8")


if __name__ == "__main__":
    main()
