"""When a lane whose record was refused is tried again; without brokers and without waiting."""

from __future__ import annotations

from app.core.retry import FIRST_SECONDS, Retry


def waits(retry: Retry, times: int, began: float = 100.0) -> list[float]:
    """Return how long each of some tries in a row waits, when each fails as soon as it is due."""
    found, now = [], began
    for _ in range(times):
        found.append(retry.wait("why", now))
        now = retry.due_at
    return found


def test_the_interval_doubles_up_to_the_longest_one():
    assert waits(Retry(longest_seconds=5), 6) == [0.5, 1.0, 2.0, 4.0, 5, 5]


def test_the_second_of_two_records_that_are_refused_at_once_plans_nothing():
    """Each would double the interval: a hundred refused records are one try."""
    retry = Retry(longest_seconds=60)
    assert [retry.wait("why", 100.0), retry.wait("why too", 100.1), retry.wait("why too", 100.49)] == [0.5, 0, 0]
    assert (retry.due_at, retry.trouble) == (100.5, "why too")
    assert retry.wait("why too", 100.5) == 1.0


def test_after_a_record_that_kafka_has_the_first_interval_is_short_again_and_the_end_is_told_once():
    retry = Retry(longest_seconds=60)
    waits(retry, 4)
    assert retry.is_waiting
    retry.succeed()
    assert (retry.trouble, retry.is_waiting) == ("", False)
    assert [retry.pop_ended(), retry.pop_ended()] == ["why", ""]
    assert waits(retry, 1, began=1000.0) == [FIRST_SECONDS]


def test_a_lane_without_trouble_has_none_that_ends():
    retry = Retry(longest_seconds=60)
    assert (retry.trouble, retry.is_waiting, retry.due_at) == ("", False, 0.0)
    retry.succeed()
    assert retry.pop_ended() == ""


def test_what_is_taken_out_by_hand_has_the_next_one_tried_at_once():
    retry = Retry(longest_seconds=60)
    waits(retry, 3)
    retry.reset()
    assert (retry.trouble, retry.due_at) == ("", 0.0)
    assert waits(retry, 2) == [0.5, 1.0]
