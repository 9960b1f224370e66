"""Which records go with the current time; without brokers."""

from __future__ import annotations

import math

import pytest

from app.core.lane_states import Lot
from app.core.message import Message
from app.core.moment import Moment
from app.core.receipt_times import ReceiptTimes

# One moment for a whole test: between two looks at a clock, seconds may pass.
NOW = Moment(100_000.0, 1_700_000_000_000)


def message(number: int, age_ms: int, handed_seconds_ago: float = 0.0) -> Message:
    """Return a message of a lane that was received so long ago, and handed to librdkafka so long ago."""
    made = Message(b"a", b"", 0, 0, 0, b"", NOW.wall_ms - age_ms, None)
    made.key = bytes([number])
    made.handed_at = NOW.seconds - handed_seconds_ago
    return made


def sent_with_current_time(times: ReceiptTimes, messages: list[Message]) -> list[bool]:
    """Return for each message whether it is sent with the current time."""
    lots = times.cut(messages, NOW)
    assert [message for lot in lots for message in lot.messages] == messages
    return [lot.with_current_time for lot in lots for _ in lot.messages]


def test_without_a_limit_every_record_has_its_own_time_however_old_it_is():
    messages = [message(number, 10**12 // (number + 1)) for number in range(10)]
    times = ReceiptTimes()
    assert times.cut(messages, NOW) == [Lot(messages, with_current_time=False)]
    assert not times.are_of_interest


def test_where_the_limit_is_known_the_younger_half_keeps_its_own_time():
    times = ReceiptTimes()
    times.note_limit(60_000)
    ages_ms = [90_000, 60_001, 31_000, 29_000, 1000, 0]
    messages = [message(number, age_ms) for number, age_ms in enumerate(ages_ms)]
    assert sent_with_current_time(times, messages) == [True, True, True, False, False, False]


def test_what_was_refused_and_all_that_are_older_go_with_the_current_time():
    times = ReceiptTimes()
    messages = [message(number, age_ms) for number, age_ms in enumerate([9000, 7000, 5000, 8000, 1000])]
    assert times.note_refused(messages[1], messages[2].key, NOW)
    assert times.has_refused
    assert sent_with_current_time(times, messages) == [True, True, True, True, False]
    times.forget()
    assert sent_with_current_time(times, messages) == [False] * 5


def test_a_record_that_had_the_current_time_already_is_not_sent_with_it_again():
    """The clock is wrong then; or else it would go round and round without a pause."""
    times = ReceiptTimes()
    refused = message(1, 9000)
    assert times.note_refused(refused, b"", NOW)
    assert not times.note_refused(refused, b"", NOW)


def test_a_record_from_the_future_goes_with_the_current_time():
    """It was received while the clock was ahead."""
    messages = [message(0, -3_600_000), message(1, -3_500_000), message(2, 0)]
    assert sent_with_current_time(ReceiptTimes(), messages) == [True, True, False]


@pytest.mark.parametrize(
    ("limit_ms", "seconds", "expected"), [(10_000, 0.1, False), (10_000, 1, True), (400, 0.2, True)]
)
def test_records_that_stand_still_get_no_further_ones(limit_ms, seconds, expected):
    times = ReceiptTimes()
    times.note_limit(limit_ms)
    assert times.stand_still(message(0, 0, handed_seconds_ago=seconds), NOW) == expected


@pytest.mark.parametrize(
    ("limit_ms", "age_ms", "handed_seconds_ago", "expected"),
    [
        (5000, 6000, 5.5, True),  # it was young when it was handed over
        (5000, 6000, 0.0, False),  # it was old already, and had the current time
        (5000, 4000, 4.0, False),
        (math.inf, 10**9, 4.0, False),
    ],
)
def test_a_record_grew_too_old_in_librdkafka_if_it_had_its_own_time(limit_ms, age_ms, handed_seconds_ago, expected):
    times = ReceiptTimes()
    times.note_limit(limit_ms)
    assert times.grew_too_old(message(1, age_ms, handed_seconds_ago), NOW) == expected
