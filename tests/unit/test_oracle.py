"""The oracle waits for messages, not for a number of records, and knows where order is promised."""

from __future__ import annotations

from tests.support.oracle import Awaited, Oracle, Record, payload


def record(topic: str, number: int, kafka_topic: str = "records") -> Record:
    headers = {"mqtt-topic": topic.encode()}
    return Record(kafka_topic, 0, 0, topic.encode(), payload(topic, number), headers, 0)


def test_repetitions_do_not_stand_for_messages_that_are_on_their_way():
    """P1: else a message that comes a second after the others counts as lost."""
    awaited = Awaited({"a": 3, "b": 1})
    for topic, number in (("a", 0), ("a", 1), ("a", 0), ("a", 1), ("b", 0)):
        awaited.take(record(topic, number))
        assert not awaited.has_come
    awaited.take(record("a", 2))
    assert awaited.has_come


def test_a_number_of_records_is_awaited_whatever_they_are():
    awaited = Awaited(2)
    awaited.take(Record("records", 0, 0, None, b"", {}, 0))
    assert not awaited.has_come
    awaited.take(record("a", 0))
    assert awaited.has_come


def test_order_is_judged_within_a_kafka_topic_alone():
    """Two lanes end their deliveries as they like; a message of one may come before an older one of the other."""
    across = [record("a", 1, "new"), record("a", 0, "old")]
    assert Oracle(across).verdict({"a": 2}).reordered == 0
    within = [record("a", 1), record("b", 0, "other"), record("a", 0)]
    assert Oracle(within).verdict({"a": 2, "b": 1}).reordered == 1
