"""Asking Kafka what its topics take: what an answer that is none leaves behind, with the broker that librdkafka has."""

from __future__ import annotations

import concurrent.futures
import weakref
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from oracle import wait_until

from app.kafka.topic_limits import _limit_bytes, ask_limits

TIMES = 3


def threads():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.usefixtures("without_collector")
def test_asking_again_and_again_leaves_no_thread_and_no_connection_behind():
    """Invariant 6: a Kafka that never says it is asked for ever, each time by a client of its own."""
    broker = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    address = next(iter(broker.list_topics(timeout=10).brokers.values()))
    configuration = {"bootstrap.servers": f"{address.host}:{address.port}", "log_level": 0}
    producer = Producer(configuration)
    producer.produce("topic", b"")
    assert not producer.flush(10)
    before = threads()
    for _ in range(TIMES):
        with pytest.raises(KafkaException, match="controller"):  # that broker has none
            ask_limits(producer, configuration, {"topic"}, 0.3)
    wait_until(lambda: threads() <= before, "the end of the clients' threads")


@pytest.mark.usefixtures("without_collector")
def test_an_answer_that_may_not_be_read_is_not_held():
    """Invariant 6: without the right DescribeConfigs it comes every five minutes."""
    answer: concurrent.futures.Future[object] = concurrent.futures.Future()
    answer.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    assert _limit_bytes(answer, 1) is None
    held = weakref.ref(answer)
    del answer
    assert held() is None
