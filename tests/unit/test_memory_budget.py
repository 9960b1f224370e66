"""How much memory alone may hold, and when the MQTT thread reads again; without brokers and without threads."""

from __future__ import annotations

import pytest

from app.core.memory_budget import MemoryBudget


class Wakes(list):
    """How often the MQTT thread was woken."""

    def __call__(self) -> None:
        self.append(1)


def budget_of(messages: int = 10, size_bytes: int = 1000) -> tuple[MemoryBudget, Wakes]:
    budget, wakes = MemoryBudget(limit_messages=messages, limit_bytes=size_bytes), Wakes()
    budget.wake_by(wakes)
    return budget, wakes


def make_safe(budget: MemoryBudget, messages: int, size_bytes: int) -> None:
    """Count messages that became safe, as the acknowledger does."""
    budget.count_safe(messages, size_bytes)


def test_what_is_received_and_not_safe_is_held():
    budget, _ = budget_of()
    budget.add(3, 300)
    make_safe(budget, 1, 120)
    assert (budget.held_messages, budget.held_bytes) == (2, 180)
    make_safe(budget, 2, 180)
    assert (budget.held_messages, budget.held_bytes) == (0, 0)
    assert (budget.received_messages, budget.received_bytes) == (3, 300), "counted from the start, for the stop"


@pytest.mark.parametrize(("messages", "size_bytes"), [(10, 10), (1, 1000)], ids=["messages", "bytes"])
def test_nothing_is_read_when_it_is_used_up(messages, size_bytes):
    budget, _ = budget_of()
    budget.add(messages - 1, size_bytes - 1)
    assert not budget.check_full()
    budget.add(1, 1)
    assert budget.check_full()
    assert budget.is_waiting


@pytest.mark.parametrize(
    ("messages", "size_bytes", "is_woken"), [(6, 600, False), (5, 400, False), (4, 500, False), (4, 499, True)]
)
def test_it_is_read_again_when_half_of_both_bounds_is_free_and_not_before(messages, size_bytes, is_woken):
    """To wake the thread for each message would cost more than the message."""
    budget, wakes = budget_of()
    budget.add(10, 1000)
    assert budget.check_full()
    make_safe(budget, 10 - messages, 1000 - size_bytes)
    assert bool(wakes) is is_woken


def test_it_is_read_again_when_nothing_is_held_however_small_the_budget():
    """Half of one message is none."""
    budget, wakes = budget_of(messages=1)
    budget.add(1, 5000)
    assert budget.check_full()
    make_safe(budget, 1, 5000)
    assert wakes


def test_nobody_is_woken_who_does_not_wait():
    budget, wakes = budget_of()
    budget.add(5, 500)
    assert not budget.check_full()
    make_safe(budget, 5, 500)
    assert not wakes


def test_the_rest_of_a_large_packet_waits_for_room_unless_nothing_else_is_held():
    """One that is larger than the budget would else wait for ever."""
    budget, _ = budget_of()
    assert not budget.check_full(5000)
    budget.add(1, 600)
    assert not budget.check_full(400)
    assert budget.check_full(401)


def test_one_thread_is_woken_and_no_other_takes_its_place():
    budget, _ = budget_of()
    with pytest.raises(AssertionError):
        budget.wake_by(lambda: None)
