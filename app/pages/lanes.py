"""What the pages show of each lane: how much waits, and where, and why it does not move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app import metrics
from app.kafka.watch import oldest_in_flight_seconds

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.kafka.dispatcher import Dispatcher


def lanes_as_dictionary(dispatcher: Dispatcher) -> dict[str, Any]:
    """Return the lanes by their Kafka topic, for `/status`."""
    waiting = waiting_by_topic()
    return {
        lane.topic: {
            "behind": not lane.is_direct,
            "with_kafka_client": lane.in_flight.messages,
            "oldest_in_flight_seconds": round(oldest_in_flight_seconds(lane), 3),
            "waiting_messages": waiting.get(lane.topic, 0),
            "limit_unknown": dispatcher.topics.unknown.get(lane.topic, ""),
            "trouble": _trouble(lane, dispatcher),
        }
        for lane in dispatcher
    }


def waiting_by_topic() -> dict[str, int]:
    """Return how many messages the table holds for each Kafka topic."""
    waiting: dict[str, int] = {}
    for route, account in metrics.accounts.items():
        topic = route.rpartition(":")[2]  # a Kafka topic has no colon
        waiting[topic] = waiting.get(topic, 0) + account.undelivered
    return waiting


def _trouble(lane: Lane, dispatcher: Dispatcher) -> str:
    """Return why a lane's messages do not move, empty if they do."""
    if lane.trouble:
        return lane.trouble
    if not dispatcher.producer.connected:
        return "Kafka is not reachable" if dispatcher.producer.cluster.is_judged else "Kafka has not answered yet"
    if lane.topic in dispatcher.topics.stalled:
        return dispatcher.topics.stalled[lane.topic]
    return f"Kafka shows no topic named {lane.topic}" if lane.topic in dispatcher.topics.missing else ""
