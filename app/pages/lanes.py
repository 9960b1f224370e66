"""What the pages show of each lane: how much waits, and where, and why it does not move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from app import metrics
from app.kafka.watch import oldest_in_flight_seconds

if TYPE_CHECKING:
    from app.core.lane import Lane
    from app.kafka.dispatcher import Dispatcher


SHOWN_LANES = 200  # those that wait first: what is beyond nobody reads


def lanes_as_dictionary(dispatcher: Dispatcher, waiting: Mapping[str, int]) -> dict[str, Any]:
    """Return the lanes by their Kafka topic, for `/status`; of many those that wait, and some of the others.

    Args:
        dispatcher: The lanes.
        waiting: How many messages the table holds for each Kafka topic.
    """
    lanes = list(dispatcher)
    if len(lanes) > SHOWN_LANES:
        lanes.sort(key=lambda lane: (not lane.trouble, lane.is_direct, -waiting.get(lane.topic, 0)))
    return {
        lane.topic: {
            "behind": not lane.is_direct,
            "with_kafka_client": lane.in_flight.messages,
            "oldest_in_flight_seconds": round(oldest_in_flight_seconds(lane), 3),
            "waiting_messages": waiting.get(lane.topic, 0),
            "limit_unknown": dispatcher.topics.unknown.get(lane.topic, ""),
            "trouble": _trouble(lane, dispatcher),
        }
        for lane in lanes[:SHOWN_LANES]
    }


def waiting_by_topic(
    dispatcher: Dispatcher, written: Mapping[str, int], kafka_topic_of: Callable[[str], str | None]
) -> dict[str, int]:
    """Return how many messages the table holds for each Kafka topic.

    The table counts them by route. Where a route has one Kafka topic, that is enough. Of a derived topic it is known
    what this start wrote and removed; what an earlier one left there counts as one message, until the lane is direct.

    Args:
        dispatcher: The lanes.
        written: How many messages this start wrote into the table and did not remove, by Kafka topic.
        kafka_topic_of: Returns the Kafka topic of a route, None if that is derived; of one that is gone, as far as its
            name says it.
    """
    waiting: Counter[str] = Counter()
    for route, account in metrics.accounts.items():
        if account.undelivered and (topic := kafka_topic_of(route)) is not None:
            waiting[topic] += account.undelivered
    derived = [lane for lane in dispatcher if lane.topic not in waiting and not dispatcher.lanes.lasts(lane.topic)]
    return waiting | {lane.topic: max(written.get(lane.topic, 0), int(not lane.is_direct)) for lane in derived}


def _trouble(lane: Lane, dispatcher: Dispatcher) -> str:
    """Return why a lane's messages do not move, empty if they do."""
    if lane.trouble:
        return lane.trouble
    if not dispatcher.producer.connected:
        return "Kafka is not reachable" if dispatcher.producer.cluster.is_judged else "Kafka has not answered yet"
    if lane.topic in dispatcher.topics.stalled:
        return dispatcher.topics.stalled[lane.topic]
    return f"Kafka shows no topic named {lane.topic}" if lane.topic in dispatcher.topics.not_shown else ""
