"""librdkafka's statistics: the parts that show why records are not confirmed.

They are JSON into which librdkafka writes the names of nodes as Kafka said them, so a name with a quote in it breaks
them, or adds something that is not librdkafka's. Whatever does not have the expected form is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from app.kafka.heard import LARGEST_INT32, LARGEST_INT64, whole

LONGEST_CHARACTERS = 4_000_000  # to read more would hold up the event loop


class NodeTold(NamedTuple):
    """What is told of a node.

    Attributes:
        state: Of the connection, `UP` if it is there.
        unanswered: How many requests it has not answered.
        silent_seconds: How long nothing came from it.
    """

    state: str = "INIT"
    unanswered: int = 0
    silent_seconds: float = 0.0


class PartitionTold(NamedTuple):
    """What is told of a partition: which node leads it, -1 if none does, and whether librdkafka has records for it."""

    leader: int
    has_records: bool


@dataclass(frozen=True)
class Statistics:
    """What is told of the nodes by number, and of the topics by name and partition."""

    nodes: Mapping[int, NodeTold] = field(default_factory=dict)
    topics: Mapping[str, Mapping[int, PartitionTold]] = field(default_factory=dict)


def read_statistics(text: str) -> Statistics:
    """Return what matters of a text of librdkafka's; nothing if it is too long or no JSON."""
    try:
        told = json.loads(text) if 0 < len(text) <= LONGEST_CHARACTERS else {}
    except (ValueError, RecursionError):
        told = {}
    nodes = {_number(broker.get("nodeid"), -1): _node(broker) for _, broker in _pairs(told, "brokers")}
    topics = {name: dict(_partitions(topic)) for name, topic in _pairs(told, "topics")}
    return Statistics(nodes, topics)


def _pairs(told: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects in an object's entry, by their names."""
    inside = told.get(name) if isinstance(told, dict) else None
    for key, value in inside.items() if isinstance(inside, dict) else ():
        if isinstance(value, dict):
            yield key, value


def _node(broker: Mapping[str, Any]) -> NodeTold:
    silent_microseconds = whole(broker.get("rxidle"), 0, LARGEST_INT64, 0)
    return NodeTold(str(broker.get("state", "INIT")), _number(broker.get("waitresp_cnt"), 0), silent_microseconds / 1e6)


def _partitions(topic: Mapping[str, Any]) -> Iterator[tuple[int, PartitionTold]]:
    """Yield the partitions of a topic; librdkafka has one of its own, -1, for records without any."""
    for key, partition in _pairs(topic, "partitions"):
        number = _number(key, -1)
        if number >= 0:
            has_records = any(
                _number(partition.get(name), 0) for name in ("msgq_cnt", "xmit_msgq_cnt", "msgs_inflight")
            )
            yield number, PartitionTold(_number(partition.get("leader"), -1), has_records)


def _number(value: Any, otherwise: int) -> int:
    return whole(value, -1, LARGEST_INT32, otherwise)
