"""The accounts of routes, which are put right late: who reads one sees what counting one by one would have given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core import accounts as accounts_module
from app.core.accounts import Account, Accounts, sums_by_route

BATCH = st.lists(st.tuples(st.sampled_from(["oslo", "bergen", "unmapped"]), st.integers(0, 300)), max_size=6)
HOW = st.sampled_from(["receive", "deliver", "deliver_from_memory", "replay", "read"])


def one_by_one(history) -> dict[str, Account]:
    """Count each message by itself."""
    found: dict[str, Account] = {}
    for how, batch in history:
        for route, payload_bytes in batch if how != "read" else ():
            given_sizes = () if how == "replay" else (payload_bytes,)
            getattr(found.setdefault(route, Account()), how)(1, *given_sizes)
    return found


def many_at_once(history) -> Accounts:
    """Count by batches, and read in between."""
    accounts = Accounts()
    for how, batch in history:
        routes, sizes_bytes = [route for route, _ in batch], [size_bytes for _, size_bytes in batch]
        if how == "read":
            for route in routes:
                assert accounts[route].received >= 0
        else:
            getattr(accounts, how)(routes, *(() if how == "replay" else (sizes_bytes,)))
    return accounts


@given(st.lists(st.tuples(HOW, BATCH), max_size=12))
def test_whoever_reads_an_account_sees_all_that_was_counted_until_then(history):
    """P8: the metrics account for every message, at every scrape."""
    named = {route for how, batch in history if how == "read" for route, _ in batch}
    expected = one_by_one(history)
    for route in named:
        expected.setdefault(route, Account())
    assert dict(many_at_once(history).items()) == expected
    assert sum(account.received for account in many_at_once(history).values()) == sum(
        account.received for account in expected.values()
    )
    assert set(many_at_once(history)) == set(expected)
    for route, account in expected.items():
        assert many_at_once(history)[route] == account


def test_what_is_noted_and_not_in_an_account_yet_is_bounded_though_nobody_reads(monkeypatch):
    monkeypatch.setattr(accounts_module, "NOTED_MESSAGES", 1_000)
    accounts = Accounts()
    longest = 0
    for number in range(30):
        accounts.receive([f"route {number * 100 + place}" for place in range(100)], [1] * 100)
        longest = max(longest, sum(len(noted) for noted, _ in accounts._received))
    assert 0 < longest < accounts_module.NOTED_MESSAGES
    assert sum(account.received for account in accounts.values()) == 3 * accounts_module.NOTED_MESSAGES


def test_messages_and_bytes_are_summed_by_route_over_batches_of_one_route_and_of_several():
    batches = [(["a", "a"], [1, 2]), (["a", "b", "a"], [4, 8, 16]), ([], [])]
    assert sorted(sums_by_route(batches)) == [("a", 4, 23), ("b", 1, 8)]
