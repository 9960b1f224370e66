"""The nemesis: everything that can go wrong goes wrong, by chance, for as long as wanted; then there is one verdict.

    make nemesis                 30 minutes, a new seed
    make nemesis MINUTES=5 SEED=123
    make nemesis BROKER=hivemq

A mosquitto, a Kafka and the bridge between them run under load, with a fault proxy on both networks and the bridge's
data on a disk that can lose its power. Steps of one to three faults at a time follow each other (`nemesis_faults`).
After the last one all is healed and drained, and the oracle compares what Kafka holds with what was published. The
exit code is 0 only if every promise was kept.

With HiveMQ the verdict is strict: no wrong order is excused, and each repetition needs a reason (`nemesis_accounts`).

The seed makes the plan of the faults, and the sizes of the messages. What the operating system schedules, and how long
brokers take to start, cannot be played again: the same seed is the same trouble, not the same interleaving.

Ctrl-C ends the faults, and the verdict comes then; a second one ends at once.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.figures import note_verdict
from tests.support.nemesis.accounts import StrictLedger
from tests.support.nemesis.faults import FAULTS, Planned, plan
from tests.support.nemesis.system import (
    BACKLOG_MESSAGES,
    MQTT_TOPICS,
    PROBE_TOPIC,
    TOPICS,
    WINDOW_MESSAGES,
    World,
    world,
)
from tests.support.nemesis.watch import Ledger, Limits, Reader, Watcher
from tests.support.oracle import Verdict, duplicates_allowed, wait_until

PROGRESS_SECONDS = 10.0
QUIET_SECONDS = 60.0  # without a record more, what is missing is missing
PROBE_SECONDS = 20.0
# All lanes together may have twice what one may, and each its reserve; see app.core.in_flight.
DIRECT_LANE_MESSAGES = 20_000  # new messages are not bounded by INVOKE_MAX_GOROUTINE
IN_FLIGHT_MESSAGES = 2 * DIRECT_LANE_MESSAGES + 100 * len(TOPICS)
# A power cut also repeats what was removed since the last sync: about a second's deliveries, at the fastest.
REMOVED_MESSAGES = 20_000


class Run:
    """One run of the nemesis."""

    def __init__(self, seed: int, options: argparse.Namespace) -> None:
        """Nothing is started yet."""
        self.seed = seed
        self.options = options
        self.is_strict = options.broker == "hivemq"
        self.began = time.monotonic()
        self.ledger = Ledger()
        self.allowed = 0
        self.counts: Counter[str] = Counter()
        self._saying = threading.Lock()

    def say(self, text: str) -> None:
        """Print a line with the moment; a failure with the seed."""
        if text.startswith("FAILURE"):
            text += f"   [seed {self.seed}]"
        with self._saying:
            print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def run(self, directory: Path) -> bool:
        """Make trouble, heal, judge; return whether all promises were kept."""
        with world(directory, self.options.broker, self.options.rate, self.seed, self.say) as system:
            if self.is_strict:
                self.ledger = StrictLedger(
                    wire=system.wire, lives=system.lives, qos_2={*MQTT_TOPICS[2], PROBE_TOPIC}, fail=system.fail
                )
            bridge = system.supervisor.bridge
            with (
                Reader(system.kafka.bootstrap, TOPICS, self.ledger) as reader,
                Watcher(bridge, Limits(), system.fail) as watcher,
            ):
                self._listen_to_ctrl_c(system)
                system.ended_connections()
                progress = threading.Thread(target=self._tell_progress, args=(system, watcher), daemon=True)
                progress.start()
                self._make_trouble(system)
                system.ended.set()
                system.publishers.end()
                self._drain(system, watcher)
                self._probe(system)
                return self._judge(system, reader, watcher)

    def _listen_to_ctrl_c(self, system: World) -> None:
        def end(*_: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.say("no more faults; the verdict follows, and Ctrl-C does not wait for it")
            system.ended.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)

    # ---- trouble

    def _make_trouble(self, system: World) -> None:
        deadline = time.monotonic() + self.options.minutes * 60
        steps = plan(
            self.seed,
            tuple(self.options.pause_seconds),
            with_disk=system.disk is not None,
            longest_seconds=self.options.longest_seconds,
        )
        for number, (pause_seconds, faults) in enumerate(steps, 1):
            system.wait(min(pause_seconds, max(0.0, deadline - time.monotonic())))
            if system.ended.is_set() or time.monotonic() >= deadline:
                break
            self._step(system, number, faults)
        system.wait(2)

    def _step(self, system: World, number: int, faults: list[Planned]) -> None:
        self.say(f"step {number}: {'; '.join(map(str, faults))}")
        with ThreadPoolExecutor() as pool:
            for fault, done in [(fault, pool.submit(fault.act, system)) for fault in faults]:
                self.counts[fault.name] += 1
                if done.exception() is not None:
                    system.fail(f"the nemesis itself, {fault.name}: {done.exception()!r}")
        self._allow(system, faults)

    def _allow(self, system: World, faults: list[Planned]) -> None:
        """Add what the events since the step before may repeat."""
        ends, unacknowledged = system.supervisor.ends.total(), system.ended_connections()
        crashes, self.counts["ends"] = ends - self.counts["ends"], ends
        cuts = sum(FAULTS[fault.name].cuts_power for fault in faults)
        allowed = cuts * REMOVED_MESSAGES + self._allowed(crashes, unacknowledged)
        self.allowed += allowed
        self.say(
            f"  healed; ends of the bridge: {crashes}, connections to MQTT that ended, with what was unacknowledged: "
            f"{unacknowledged}, power cuts: {cuts}; allowed repetitions: {allowed}; so far {self.ledger.duplicated} of "
            f"{self.allowed}"
        )

    def _allowed(self, crashes: int, unacknowledged: list[int]) -> int:
        """Return what crashes and ends of connections may repeat; unless strict, the whole window for each."""
        if self.is_strict:
            return sum(unacknowledged) + crashes * IN_FLIGHT_MESSAGES
        # Beyond the window mosquitto sent what it must not, and sends it again; see `nemesis_watch`.
        excess = sum(count for count in unacknowledged if count > WINDOW_MESSAGES)
        return excess + duplicates_allowed(
            crashes=crashes,
            connections_lost=max(0, len(unacknowledged) - crashes),
            window=WINDOW_MESSAGES,
            in_flight=IN_FLIGHT_MESSAGES,
        )

    def _tell_progress(self, system: World, watcher: Watcher) -> None:
        while not system.ended.wait(PROGRESS_SECONDS):
            ledger, memory_bytes = self.ledger, watcher.peaks["memory_bytes"]
            self.say(
                f"  published {sum(system.publishers.sent.values())}, in Kafka {ledger.records} ({ledger.duplicated} "
                f"twice, {ledger.reordered} late), in the table {watcher.undelivered:.0f}, memory at most "
                f"{memory_bytes // 1_000_000} MB"
            )

    # ---- the end

    def _drain(self, system: World, watcher: Watcher) -> None:
        self.say("all is healed; draining")
        sent = system.publishers.sent
        records, since = -1, 0.0
        while self.ledger.lost(sent) or watcher.undelivered:
            if self.ledger.records != records:
                records, since = self.ledger.records, time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                if not self._is_held_back_by_mosquitto(system):
                    system.fail(f"it did not drain: no record for {QUIET_SECONDS:.0f} s")
                    break
                since = time.monotonic()
            time.sleep(0.2)
        time.sleep(3)  # for what comes twice
        if not watcher.look():
            system.fail("the bridge does not answer at the end")
        self._allow(system, [])

    def _is_held_back_by_mosquitto(self, system: World) -> bool:
        """Tell whether mosquitto, once, sends nothing though it has every acknowledgement; then end its connection."""
        held_back = system.wire.ledger.lost(system.publishers.sent)
        connections = system.open_connections()
        unacknowledged, unfinished = (
            sum(map(count, connections)) for count in (system.wire.unacknowledged, system.wire.unfinished)
        )
        self.say(
            f"  quiet: the broker has not sent {held_back} messages, has no acknowledgement of {unacknowledged} others "
            f"and no PUBCOMP of {unfinished}; the bridge says: {system.supervisor.bridge.get('/status')[1]}; "
            f"the broker's log ends so:\n{system.broker.log_tail()}"
        )
        if self.is_strict or not held_back or unacknowledged or unfinished or self.counts["held back"]:
            return False
        self.counts["held back"] += 1
        self.say("mosquitto holds messages back; that is not charged to the bridge, and its connection is ended")
        system.mqtt_proxy.cut()
        return True

    def _probe(self, system: World) -> None:
        began = time.monotonic()
        try:
            system.publishers.probe()
            wait_until(lambda: self.ledger.highest[PROBE_TOPIC] >= 0, "the probe in Kafka", PROBE_SECONDS)
        except Exception as error:
            system.fail(f"a fresh message did not cross: {error}")
        else:
            self.say(f"a fresh message crossed in {time.monotonic() - began:.2f} s")

    def _reordered_by_mosquitto(self, system: World) -> int:
        """Return how many messages mosquitto sent in the order in which they are in Kafka, which was wrong."""
        by_mosquitto = system.wire.ledger.reordered
        if by_mosquitto:
            self.say(f"mosquitto itself sent {by_mosquitto} messages too late; that is not charged to the bridge")
        return min(self.ledger.received_late, by_mosquitto)

    def _judge_repetitions(self, system: World, verdict: Verdict) -> None:
        by_broker = system.wire.repeated
        if by_broker:
            self.say(f"{self.options.broker} sent {by_broker} messages again whose acknowledgements were on their way")
        if verdict.duplicated > self.allowed + by_broker:
            system.fail(f"{verdict.duplicated} messages came twice, and {self.allowed} + {by_broker} might have")
        if isinstance(self.ledger, StrictLedger):
            print(self.ledger.summary())

    def _judge(self, system: World, reader: Reader, watcher: Watcher) -> bool:
        verdict = self.ledger.verdict(system.publishers.sent)
        if self.is_strict and system.wire.ledger.reordered:
            system.fail(f"{self.options.broker} itself sent {system.wire.ledger.reordered} messages too late")
        elif not self.is_strict:
            verdict.reordered -= self._reordered_by_mosquitto(system)
        messages = sum(system.publishers.sent.values())
        note_verdict(verdict, messages, self.allowed)
        if verdict != Verdict(duplicated=verdict.duplicated):
            system.fail(f"the oracle: {verdict}")
        self._judge_repetitions(system, verdict)
        if reader.skipped:
            system.fail(f"the reader passed over {reader.skipped} offsets, so nothing can be said")
        for name in FAULTS:
            print(f"{self.counts[name]:6}  {name}")
        ends = ", ".join(f"{count} with {status}" for status, count in sorted(system.supervisor.ends.items()))
        print(f"The bridge was started {system.supervisor.starts} times and ended: {ends or 'never'}.")
        print(f"It answered {watcher.scrapes} scrapes; at most: {watcher.peaks}.")
        print(f"Published {messages}, in Kafka {self.ledger.records} records.")
        print(f"{verdict}, {self.allowed} repetitions allowed.")
        for failure in system.failures:
            print(f"FAILED (seed {self.seed}): {failure}")
        print(f"seed {self.seed}: {'FAILED' if system.failures else 'every promise was kept'}")
        return not system.failures


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--broker", choices=BACKLOG_MESSAGES, default="mosquitto")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rate", type=float, default=2500.0, help="messages published a second")
    parser.add_argument("--pause-seconds", type=float, nargs=2, default=(5.0, 20.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--longest-seconds", type=float, default=60.0, help="no fault lasts longer")
    parser.add_argument("--keep", type=Path, help="an empty directory for logs and data, which is kept")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    run = Run(seed, options)
    run.say(
        f"seed {seed}: `make nemesis BROKER={options.broker} SEED={seed}` makes the same plan (what the system "
        "schedules is another matter)"
    )
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        return 0 if run.run(options.keep) else 1
    with tempfile.TemporaryDirectory(prefix="nemesis-") as directory:
        return 0 if run.run(Path(directory)) else 1


if __name__ == "__main__":
    sys.exit(main())
