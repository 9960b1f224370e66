"""How large the disk under a table should be, and how long a start may take that repairs it. Calculation only.

What RocksDB makes of entries on the disk was measured, and a test measures it again: entries that do not compress take
their own size, some more where files overlap, and its log beside them. A repair (tables.repair.salvage) writes all that
is readable once more, and keeps the damaged files. On a disk with room for one table alone, each start with a full and
damaged table would fail.
"""

from __future__ import annotations

import math

from tables.engine.ballast import BALLAST_BYTES, SCARCE_BYTES
from tables.engine.opening import LOG_LIMIT_BYTES, WRITE_BUFFER_BYTES, WRITE_BUFFERS
from tables.undelivered import DEAD_LETTER_SHARE

DISK_SHARE = 1.1  # of what the table may hold: removed entries, and entries twice, on RocksDB's lower levels
# RocksDB writes new files before it removes the old ones, and both are there together for a while; of a large table it
# does that part by part.
DISK_OVERLAP_BYTES = 1024 * 1024 * 1024
# RocksDB's log and write buffers, the ballast, and what must stay free or nothing is accepted.
DISK_FIXED_BYTES = LOG_LIMIT_BYTES + WRITE_BUFFERS * WRITE_BUFFER_BYTES + BALLAST_BYTES + SCARCE_BYTES
# A tenth of the slowest that was seen on a busy machine, with the smallest messages. A repair reads the table three
# times and writes it two or three times, so that this is a disk of 12 MB a second.
REPAIRED_BYTES_PER_SECOND = 2_000_000
USUAL_START_SECONDS = 600  # of a sound table on a slow disk, with a large log to read


def disk_bytes(limit_bytes: int) -> int:
    """Return what a table with this UNDELIVERED_MAX_BYTES may take of the disk, while all is well."""
    kept_bytes = _kept_bytes(limit_bytes)
    return math.ceil(kept_bytes * DISK_SHARE) + min(kept_bytes, DISK_OVERLAP_BYTES) + DISK_FIXED_BYTES


def volume_bytes(limit_bytes: int) -> int:
    """Return what the disk should have: room for the table, and for the files of a damaged one beside it."""
    return disk_bytes(limit_bytes) + math.ceil(_kept_bytes(limit_bytes) * DISK_SHARE)


def repair_seconds(limit_bytes: int) -> int:
    """Return how long a start may take that repairs a full table, on a slow disk."""
    return USUAL_START_SECONDS + math.ceil(_kept_bytes(limit_bytes) / REPAIRED_BYTES_PER_SECOND)


def _kept_bytes(limit_bytes: int) -> int:
    return math.ceil(limit_bytes * (1 + DEAD_LETTER_SHARE))
