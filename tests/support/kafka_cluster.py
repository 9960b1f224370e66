"""Three nodes of Apache Kafka, each of them broker and controller: every record is on all, and two must have it."""

from __future__ import annotations

import threading
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic, PartitionMetadata
from typing_extensions import Self

from tests.support.oracle import wait_until
from tools.brokers import Kafka
from tools.brokers.process import HOST

NODES = 3
PROPERTIES = {
    # A leader or a controller that was killed is missed soon.
    "controller.quorum.fetch.timeout.ms": "1500",
    "controller.quorum.election.timeout.ms": "500",
    "min.insync.replicas": "2",
}


class KafkaCluster:
    """The nodes; a context manager that starts and stops them together, as none serves without a second one.

    Attributes:
        nodes: By node id, from 1 on.
        bootstrap: The value of `bootstrap.servers`.
    """

    def __init__(self, directory: Path) -> None:
        """Choose the ports; nothing is started."""
        self.nodes = {number: Kafka(directory / str(number)) for number in range(1, NODES + 1)}
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes.values())
        voters = ",".join(f"{number}@{HOST}:{node._controller_port}" for number, node in self.nodes.items())
        for number, node in self.nodes.items():
            node._properties |= PROPERTIES | {"node.id": str(number), "controller.quorum.voters": voters}

    def start(self, *numbers: int) -> None:
        """Start nodes at the same time; all of them if none is named."""
        self._all_at_once([self.nodes[number].start for number in numbers or self.nodes])

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic that is on all nodes, and return when it is."""
        admin = self.nodes[1].admin()
        wait_until(lambda: len(admin.list_topics(timeout=10).brokers) == NODES, "all nodes in the cluster")
        admin.create_topics([NewTopic(name, partitions, NODES)])[name].result(20)
        self.wait_until_replicated(name)

    def leader(self, topic: str, partition: int = 0) -> int:
        """Return the number of the node that leads a partition, once one does."""
        return wait_until(lambda: max(self._partition(topic, partition).leader, 0), f"a leader of {topic}")

    def wait_until_replicated(self, topic: str, partition: int = 0, replicas: int = NODES) -> None:
        """Wait until so many nodes, no more and no fewer, have what is written to a partition."""
        wait_until(
            lambda: len(self._partition(topic, partition).isrs) == replicas, f"{replicas} replicas of {topic} in sync"
        )

    def _partition(self, topic: str, partition: int) -> PartitionMetadata:
        """Return what the cluster says of a partition; one without a leader while it says nothing."""
        running = next(node for node in self.nodes.values() if node.running)
        try:
            found = running.admin().list_topics(topic, timeout=5).topics[topic]
        except KafkaException:
            return PartitionMetadata()
        return found.partitions.get(partition, PartitionMetadata())

    @staticmethod
    def _all_at_once(tasks: list) -> None:
        threads = [threading.Thread(target=task) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        try:
            self.start()
            assert all(node.running for node in self.nodes.values()), self.nodes[1].log_tail()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Asked to stop together, the last ones would wait in vain for a controller.
        self._all_at_once([node.kill for node in self.nodes.values()])
