"""When the table is full: the decision, without a table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.core.message import Message
from app.storage.fullness import Fullness


@pytest.mark.parametrize(
    ("payload_bytes", "expected"),
    [
        (200, "the table is full (UNDELIVERED_MAX_BYTES), most of it is many/#:many"),
        (
            300_000,
            "the table has no room for a message of 300000 bytes for a:b (UNDELIVERED_MAX_BYTES), most of it is ",
        ),
    ],
)
def test_only_a_message_that_is_large_for_the_table_is_named_as_the_one_without_room(payload_bytes, expected):
    """What is about to be written with it is not in the table yet, so a full one may look half empty."""
    table = SimpleNamespace(
        figures=SimpleNamespace(bytes={"many/#:many": 600_000}),
        total_bytes=600_000,
        limit_bytes=1_000_000,
        check_disk_full=lambda: False,
    )
    fullness = Fullness(table, drop_oldest=False)
    waiting = Message(b"a", bytes(payload_bytes), 1, 2, 1, b"", 0, None)
    waiting.key, waiting.route, waiting.record_key, waiting.headers = b"key", "a:b", b"a", []
    fullness.log_full("it waits", waiting)
    assert fullness.reason.startswith(expected)
