"""Long work on the event loop: in parts of some milliseconds, between which everything else has a turn.

Work is written as an iterator of small pieces, each of which takes far less than a part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TypeVar

Piece = TypeVar("Piece")

PART_SECONDS = 0.005


def next_part(pieces: Iterator[Piece]) -> list[Piece]:
    """Return as many pieces as are made in `PART_SECONDS`, at least one; none if there are no more."""
    part: list[Piece] = []
    ends = time.monotonic() + PART_SECONDS
    for piece in pieces:
        part.append(piece)
        if time.monotonic() >= ends:
            break
    return part


async def listed(pieces: Iterator[Piece]) -> list[Piece]:
    """Return all pieces; others have a turn after each part of them."""
    made: list[Piece] = []
    while part := next_part(pieces):
        made += part
        await asyncio.sleep(0)
    return made
