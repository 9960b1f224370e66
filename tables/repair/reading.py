"""Reading a damaged database: every entry that can be read, and the places between them that cannot.

An iterator of RocksDB that meets a damaged block does not get over it, and one file that cannot be opened hides the
keys of all files around it. Both are a `Hole` here: what is in it may still be found in other ways (`salvage`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rocksdict import Rdict, RdictIter

from tables import layout

# A damaged block hides this many keys at most, if they follow each other; beyond, steps double.
NEAR_KEYS = 4096


class Hole(NamedTuple):
    """Keys that cannot be read.

    Attributes:
        after: The last key before them; empty: they begin with the first one.
        before: The first key behind them; None: they go on to the end.
    """

    after: bytes
    before: bytes | None


Found = tuple[bytes, bytes] | Hole


def readable(source: Rdict, start: bytes = b"\0") -> Iterator[Found]:
    """Iterate over all entries from a key on that can be read, in order, and over the holes between them."""
    first: bytes | None = start
    last = b""
    while first is not None:
        iterator = source.iter()  # a new one: one that has met damage does not get over it
        iterator.seek(first)
        while iterator.valid():
            last = iterator.key()
            yield last, iterator.value()
            iterator.next()
        if _is_sound(iterator):
            return
        first = _next_readable(source, last or start)
        yield Hole(last, first)


def between(source: Rdict, hole: Hole) -> Iterator[Found]:
    """Iterate over what another database can read of what is in a hole, and over the holes that remain."""
    for found in readable(source, hole.after + layout.JUST_BEHIND):
        if isinstance(found, Hole):  # the large values, for example, of which the repair forgets the files
            before = min(filter(None, (found.before, hole.before)), default=None)
            yield Hole(max(found.after, hole.after), before)
            if before == hole.before:
                return
            continue
        if hole.before is not None and found[0] >= hole.before:
            return
        yield found


def _next_readable(source: Rdict, last: bytes) -> bytes | None:
    """Find where reading goes on after a damaged block; None: nothing more is readable.

    Keys are taken for numbers. Those that follow each other are tried one by one, at the length of the last one. Then
    steps double, and the end of the block is found between the last two, at the length of the longest key there is.
    """
    for step in range(1, NEAR_KEYS):
        number = int.from_bytes(last, "big") + step
        found = _look(source, number.to_bytes(len(last) + 1, "big")[1:])
        if found is not None:
            return found or None
    length = max(layout.LONGEST_KEY_BYTES, len(last))
    damaged = int.from_bytes(last.ljust(length, b"\0"), "big")
    step = 1
    while (found := _look_at_number(source, damaged + step, length)) is None:
        damaged, step = damaged + step, 2 * step
    sound = damaged + step
    while sound - damaged > 1:  # between the two is the end of the block
        middle = (damaged + sound) // 2
        middle_found = _look_at_number(source, middle, length)
        if middle_found is None:
            damaged = middle
        else:
            sound, found = middle, middle_found
    return found or None


def _look_at_number(source: Rdict, number: int, length: int) -> bytes | None:
    return b"" if number >= 1 << 8 * length else _look(source, number.to_bytes(length, "big"))


def _look(source: Rdict, key: bytes) -> bytes | None:
    """Seek a key; return the one found there, empty at the end, None in a damaged block."""
    iterator = source.iter()
    iterator.seek(key)
    if not _is_sound(iterator):
        return None
    return bytes(iterator.key()) if iterator.valid() else b""


def _is_sound(iterator: RdictIter) -> bool:
    """Tell whether an iterator stands where it is because of its seek, not because of damage."""
    try:
        iterator.status()
    except Exception:  # noqa: BLE001, rocksdict raises nothing more special
        return False
    return True
