"""The properties that librdkafka's producer begins with; those of KAFKA_PRODUCER_CONFIG come on top of them.

An idempotent librdkafka has one request of each partition on its way at a time. What comes meanwhile waits in its
queue, and once it has waited for `linger.ms`, a thread asks without a pause whether it may be sent. So where Kafka
takes longer to answer than that, the thread takes a whole core, for messages that could not leave sooner anyway. With a
`linger.ms` that is a little longer, it sleeps. Only a message that comes alone leaves later then.
"""

from __future__ import annotations

import math
from typing import Any

# Kafka refuses a batch as a whole when one record in it is too large. A record above `batch.size` travels alone, so
# `batch.size` must stay below the `max.message.bytes` of every topic; few are set below 64 KiB. `app.kafka.learning`
# raises it once it knows what the topics take.
BATCH_SIZE_BYTES = 65536
LONGEST_ANSWER_BYTES = 32_000_000  # none that we get comes near; it is memory that Kafka could have us take
# linger.ms: with 0 a record leaves 1.2 ms earlier, in requests so small that a message costs a fifth more.
BASE_CONFIGURATION: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": 0,
    "linger.ms": 1,
    "batch.num.messages": 10_000,
    # Just below the broker's default socket.request.max.bytes: above it the broker closes the connection at each try.
    "message.max.bytes": 103_000_000,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 262_144,
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1_000,
    # How soon a topic that was missing is seen once it exists.
    "topic.metadata.refresh.interval.ms": 10_000,
    "topic.metadata.propagation.max.ms": 5_000,
    "statistics.interval.ms": 5_000,
    "log.connection.close": False,
    # Client telemetry (KIP-714): a broker decides how often and how much; nobody here needs it.
    "enable.metrics.push": False,
    "receive.message.max.bytes": LONGEST_ANSWER_BYTES,
}

# Nearer than that, an answer takes as long as librdkafka's threads need to wake each other.
FAR_SECONDS = 0.005
LINGER_FACTOR = 1.2
LONGEST_LINGER_MS = 500
LINGER_NAMES = frozenset({"linger.ms", "queue.buffering.max.ms"})


def fitting_linger_ms(round_trip_seconds: float) -> int:
    """Return a `linger.ms` for a Kafka that answers after so long; 0 if it is near, or not known to be far."""
    if round_trip_seconds < FAR_SECONDS:
        return 0
    return min(LONGEST_LINGER_MS, math.ceil(LINGER_FACTOR * round_trip_seconds * 1000))


def whole_number(value: object, otherwise: int) -> int:
    """Return a property's value; what is none librdkafka refuses when it starts, in a better sentence."""
    try:
        return int(str(value))
    except ValueError:
        return otherwise
