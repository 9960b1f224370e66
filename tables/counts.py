"""Counts of undelivered messages that are wrong, as an older version or damage may have left them.

Entries are not scanned for it, as there may be millions. But where there are none, nothing may be counted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.metrics import MISCOUNTED, accounts

if TYPE_CHECKING:
    from tables.undelivered import UndeliveredTable

log = logging.getLogger(__name__)


def check_empty(table: UndeliveredTable) -> None:
    """See that an empty table counts nothing; else put its counts and the accounts right."""
    if {0}.issuperset(table.messages.values()) and {0}.issuperset(table.bytes.values()):
        return
    if next(table.lanes(), None) is not None:
        return
    log.warning(
        "the table counted %d undelivered messages, and is empty: the counts are put right", table.total_messages
    )
    for route, messages in table.messages.items():
        account = accounts[route]
        account.leave_table(table.bytes[route], messages)
        if messages > 0:
            account.dropped[MISCOUNTED] += messages
        else:
            account.recovered -= messages
    write = table.begin()
    write.clear_counts()
    write.commit()
