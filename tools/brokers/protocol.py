"""What every broker that speaks the Kafka protocol has in common, Apache Kafka or not."""

from __future__ import annotations

import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tools.brokers.process import ProcessError, ServerProcess

_REQUEST_LIMIT_SECONDS = 20.0


class KafkaProtocolServer(ServerProcess):
    """A broker that speaks the Kafka protocol: how to see that it serves, and how to make a topic."""

    @property
    def bootstrap(self) -> str:
        """The value of `bootstrap.servers`."""
        return f"{self.host}:{self.port}"

    def admin(self) -> AdminClient:
        """Return a new administration client; quiet, as the broker may be down on purpose.

        Keep it until its futures are done: they fail when it is gone.
        """
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def ready(self) -> bool:
        """Tell whether the broker answers and is part of its cluster."""
        try:
            return bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def create_topic(self, name: str, partitions: int = 1, **config: object) -> None:
        """Create a topic and return when it can be written to.

        Args:
            name: the name of the topic.
            partitions: the number of its partitions.
            config: settings of the topic, with underscores for the dots of their names.
        """
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin = self.admin()
        created = admin.create_topics([NewTopic(name, partitions, 1, config=settings)])
        created[name].result(_REQUEST_LIMIT_SECONDS)
        deadline = time.monotonic() + _REQUEST_LIMIT_SECONDS
        while not _has_leaders(admin, name, partitions):
            if time.monotonic() > deadline:
                raise ProcessError(f"topic {name} had no leader within {_REQUEST_LIMIT_SECONDS:.0f} seconds")
            time.sleep(0.02)


def _has_leaders(admin: AdminClient, name: str, partitions: int) -> bool:
    """Tell whether each partition of the topic has a leader."""
    topic = admin.list_topics(timeout=_REQUEST_LIMIT_SECONDS).topics.get(name)
    return (
        topic is not None
        and len(topic.partitions) == partitions
        and all(partition.leader >= 0 for partition in topic.partitions.values())
    )
