"""The state of the cluster as librdkafka reports it: which nodes it reaches, what failed, why records wait.

Statistics come every 5 seconds and are large: they are searched for the nodes' states, and read in full only when a
lane stands still. Kafka counts as connected when a node under its advertised address is, or when only the bootstrap
address was needed so far: a cluster that advertises addresses which cannot be reached answers there, and takes nothing.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from app.kafka.heard import LARGEST_INT32, whole
from app.kafka.lost_connections import LostConnections
from app.kafka.quotas import Quotas
from app.kafka.statistics import NodeTold, Statistics, read_statistics
from app.lines import short

log = logging.getLogger(__name__)

RECENT_SECONDS = 8.0  # a refused connection is tried again within a second, and statistics come every five
RECENT_TIMEOUT_SECONDS = 40.0  # an attempt that nobody answers takes 30 seconds
SILENT_SECONDS = 5.0  # a node that answers, answers within milliseconds
ASK_FOR_CODE = 'of which KAFKA_PRODUCER_CONFIG={"debug": "msg"} shows the code'
NAMED_REASONS = 3
KEPT_NODES = 200
KEPT_PARTITIONS = 1000  # of a topic, those in trouble first: one thousand sentences of more say no more

_NODE = re.compile(r"(?:\w+://)?(?P<address>[^\s/]+)/(?P<node>[0-9]{1,10}|bootstrap): (?P<text>.+)", re.DOTALL)
_STATE = re.compile(r'"nodeid": ?(-?[0-9]{1,10}), ?"nodename": ?"([^"]*)", ?"source": ?"\w+", ?"state": ?"(\w+)"')
_BRACKETS = str.maketrans("", "", "[]")  # of IPv6
_DETAILS = re.compile(r"^Connect to \S+ failed: | \(after \d+ms in state \w+.*$", re.DOTALL)


class Failure(NamedTuple):
    """The last failure of a node.

    Attributes:
        address: Where it was looked for.
        node: Its number; -1 for an address of KAFKA_BROKER of which the number is not known yet.
        text: What was wrong.
        at: `time.monotonic()` of it.
    """

    address: str
    node: int
    text: str
    at: float

    def is_recent(self, now: float) -> bool:
        """Whether it would have been seen again by now if it was over."""
        return now - self.at < (RECENT_TIMEOUT_SECONDS if "timed out" in self.text.lower() else RECENT_SECONDS)


@dataclass
class Partition:
    """What Kafka says of a partition.

    Attributes:
        leader: The number of the node that leads it, -1 if none does.
        replicas: The numbers of the nodes that are to have it.
        in_sync: How many of them have all of it.
        error: What is wrong with it; empty if nothing is.
    """

    leader: int
    replicas: tuple[int, ...]
    in_sync: int
    error: str = ""


def partitions_of(found: Any) -> dict[int, Partition]:
    """Return what matters of the description of a topic, an object of librdkafka's."""
    partitions = {
        whole(partition.id, 0, LARGEST_INT32, 0): Partition(
            whole(getattr(partition.leader, "id", -1), -1, LARGEST_INT32, -1),
            tuple(whole(node.id, -1, LARGEST_INT32, -1) for node in partition.replicas[:KEPT_NODES]),
            len(partition.isr),
        )
        for partition in found.partitions
    }
    first = sorted(partitions, key=lambda number: (not _trouble_of(number, partitions[number], 1), number))
    return {number: partitions[number] for number in first[:KEPT_PARTITIONS]}


def comparable(address: str) -> str:
    """Return an address in the form in which it is the same, whoever wrote it."""
    return short(address.translate(_BRACKETS).lower())


class Cluster:
    """What is known of the cluster.

    Attributes:
        connected: Kafka takes records, as far as is known.
        is_judged: Something was heard of it; at the start nothing is for some seconds, and that is no outage.
        known_addresses: Where librdkafka looks for nodes, without the addresses of KAFKA_BROKER.
        told_at: `time.monotonic()` of the last statistics.
        lost: How often a connection was lost.
        quotas: Which nodes throttle Connector.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self.connected = self.is_judged = False
        self.known_addresses: set[str] = set()
        self.told_at = float("-inf")
        self.lost = LostConnections()
        self.quotas = Quotas()
        self._failures: dict[int, Failure] = {}
        self._up: set[int] = set()
        self._addresses: dict[int, str] = {}  # also of nodes that librdkafka has given up
        self._bootstrap_up_at = self._bootstrap_failed_at = float("-inf")
        self._statistics = ""
        self._read: tuple[str, Statistics] = ("", Statistics())

    # ---- what librdkafka tells

    def note_error(self, error: KafkaError) -> None:
        """Take note of what librdkafka says of a node, or of all of them."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001, librdkafka's own codes begin with _
            self.is_judged = True
            self._up.clear()
            self.connected = self.connected and self._has_no_failure(time.monotonic())
            return
        log.debug("librdkafka: %s", error)
        found = _NODE.match(error.str() or "")
        if found is None:
            return
        node = -1 if found["node"] == "bootstrap" else int(found["node"])
        if node < 0:
            self._bootstrap_failed_at = time.monotonic()
        if len(self._failures) >= KEPT_NODES:
            self._failures.clear()
        text = short(_DETAILS.sub("", found["text"]))
        self._failures[node] = Failure(short(found["address"]), node, text, time.monotonic())
        self.connected = self.connected and bool(self._up)

    def note_statistics(self, statistics: str) -> None:
        """Take note of the states of all nodes."""
        self.is_judged = True
        self._statistics = statistics
        brokers = statistics.partition('"topics"')[0]
        self.lost.note_statistics(brokers)
        states = _STATE.findall(brokers)
        self._up = {int(node) for node, _, state in states if state == "UP"}
        if len(self._addresses) >= KEPT_NODES:
            self._addresses.clear()
        self._addresses |= {int(node): short(address) for node, address, _ in states[:KEPT_NODES]}
        self.known_addresses = {comparable(address) for node, address, _ in states[:KEPT_NODES] if int(node) >= 0}
        self.told_at = now = time.monotonic()
        if -1 in self._up:
            self._bootstrap_up_at = now
        for node in self._up:
            self._failures.pop(node, None)
        if self._up - {-1}:
            self.connected = True
        elif self._up:
            self.connected = self._failing_node(now) is None
        else:
            self.connected = self.connected and self._has_no_failure(now)

    def note_answer(self, told: set[str]) -> None:
        """Take note that Kafka named these addresses; what failed with one of them is not over (it is said once)."""
        self._bootstrap_up_at = now = time.monotonic()
        for node, failure in self._failures.items():
            if node not in self._up and comparable(failure.address) in told:
                self._failures[node] = failure._replace(at=now)

    def note_answered(self) -> None:
        """Take note that Kafka answered a question, before there were any statistics."""
        self.connected = self.is_judged = True

    def note_confirmed(self) -> None:
        """Take note that Kafka confirmed a record."""
        self.connected = True
        self._failures.clear()

    def _has_no_failure(self, now: float) -> bool:
        """Tell whether nothing speaks against Kafka but that no node is connected.

        Kafka ends connections that are not used for `connections.max.idle.ms`, with no word to librdkafka, which then
        says that all nodes are down. It connects again when it needs to.
        """
        return not any(failure.is_recent(now) for failure in self._failures.values())

    def _failing_node(self, now: float) -> Failure | None:
        """Return the last failure of a node under its advertised address, if it has not passed."""
        recent = [failure for failure in self._failures.values() if failure.node >= 0 and failure.is_recent(now)]
        return max(recent, key=lambda failure: failure.at, default=None)

    # ---- what is said of it

    @property
    def has_a_node(self) -> bool:
        """Whether a node is connected under the address that Kafka advertises for it."""
        return bool(self._up - {-1})

    @property
    def complaint(self) -> str:
        """What is wrong with the advertised addresses, if that is why Kafka is not connected; else empty."""
        now = time.monotonic()
        failing = None if self.connected else self._failing_node(now)
        answers = self._bootstrap_up_at > self._bootstrap_failed_at and now - self._bootstrap_up_at < 3 * RECENT_SECONDS
        if failing is None or not answers:
            return ""
        return (
            f"Kafka answers, but the address {failing.address} that it advertises for node {failing.node} cannot be "
            f"reached from here ({failing.text}): check advertised.listeners"
        )

    def why_waiting(self, topic: str, partitions: Mapping[int, Partition], in_sync_replicas: int) -> str:
        """Return what is known of why records of a topic do not land.

        Args:
            topic: The Kafka topic.
            partitions: What Kafka said of its partitions; empty if it was not asked, or did not answer.
            in_sync_replicas: How many nodes must have a record; 0: not known.
        """
        told = self._all_told().topics.get(topic, {})
        waiting = {number for number, partition in told.items() if partition.has_records} or set(told) or {*partitions}
        known = {number: Partition(told[number].leader, (), 0) for number in waiting if number in told}
        known |= {number: partition for number, partition in partitions.items() if number in waiting}
        reasons = [_trouble_of(number, partition, in_sync_replicas) for number, partition in sorted(known.items())]
        led_by = {partition.leader for partition in known.values() if partition.leader >= 0}
        wanted = {node for partition in known.values() if partition.leader < 0 for node in partition.replicas}
        reasons += [self._trouble_with(node) for node in sorted(led_by | wanted)]
        if wanted:
            reasons.append(f"it should be on {' and '.join(map(self._name, sorted(wanted)[:NAMED_REASONS]))}")
        found = list(dict.fromkeys(filter(None, reasons)))
        answering = [self._name(node) for node in sorted(led_by) if self._broker(node).state == "UP"]
        if not found and answering:
            names = " and ".join(answering[:NAMED_REASONS])
            found = [f"{names} answers, is slow or has librdkafka repeat its requests, {ASK_FOR_CODE}"]
        return "; ".join(found[:NAMED_REASONS])

    def _trouble_with(self, node: int) -> str:
        """Return what is wrong with a node; empty if it is connected and answers."""
        broker = self._broker(node)
        failure = self._failures.get(node)
        if broker.state != "UP":
            if failure is None and broker.state == "INIT":
                return ""  # there was nothing to send there yet
            return f"{self._name(node)} is not connected{f': {failure.text}' if failure else ''}"
        if seconds := self.quotas.throttled_seconds(node):
            return f"{self._name(node)} throttles Connector for {seconds:.0f} s, as a quota of Kafka's is exceeded"
        if broker.unanswered and broker.silent_seconds >= SILENT_SECONDS:
            return f"{self._name(node)} is connected and has not answered for {broker.silent_seconds:.0f} s"
        return ""

    def _name(self, node: int) -> str:
        failure = self._failures.get(node)
        address = self._addresses.get(node) or (failure.address if failure else "")
        return f"node {node} ({address})" if address else f"node {node}"

    def _broker(self, node: int) -> NodeTold:
        return self._all_told().nodes.get(node, NodeTold())

    def _all_told(self) -> Statistics:
        """Return the last statistics, read once."""
        if self._read[0] is not self._statistics:
            self._read = self._statistics, read_statistics(self._statistics)
        return self._read[1]


def _trouble_of(number: int, partition: Partition, in_sync_replicas: int) -> str:
    """Return what is wrong with a partition; empty if nothing is."""
    if partition.leader < 0:
        return f"partition {number} has no leader"
    if partition.in_sync < min(in_sync_replicas, len(partition.replicas)):
        return (
            f"of the {len(partition.replicas)} nodes of partition {number} {partition.in_sync} are in sync, "
            f"and its topic wants {in_sync_replicas} (min.insync.replicas)"
        )
    return f"partition {number}: {partition.error}" if partition.error else ""
