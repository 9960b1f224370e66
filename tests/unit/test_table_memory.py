"""What the table has in memory of what is on disk; no brokers are needed."""

from __future__ import annotations

import os

from tables.engine.opening import BLOCK_CACHE_BYTES
from tests.support.stored_messages import Maker, append, contents, opened

MESSAGES, LOT, PAYLOAD_BYTES = 10_000, 1_000, 2_000
FOOTERS_BYTES = 20_000  # of a few files; the index of these messages would be ten times as much


def test_reading_a_backlog_leaves_little_of_it_in_memory_nor_its_index(tmp_path):
    """P6: the blocks and indexes that are kept are bounded, whatever the number of messages and files."""
    with opened(tmp_path) as table:
        make = Maker(table)
        for _ in range(MESSAGES // LOT):
            append(table, [make(payload=os.urandom(PAYLOAD_BYTES)) for _ in range(LOT)])
        database = table.data.database
        database.flush()
        assert len(contents(table, "alpha")) == MESSAGES
        assert table.data.file_bytes > 3 * BLOCK_CACHE_BYTES
        assert database.property_int_value("rocksdb.block-cache-usage") < 1.2 * BLOCK_CACHE_BYTES
        assert database.property_int_value("rocksdb.estimate-table-readers-mem") < FOOTERS_BYTES
