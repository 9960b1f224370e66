"""Which of many short texts another one has, in a time that hardly depends on how many they are.

A key in PEM has fifty lines, and each of them many forms. To look for one after the other would have each line of the
log cost as much as a message. So the text is sampled: every few characters a piece of it is looked up in a table. The
table has the pieces that begin at each of the first few characters of a probe, so wherever a probe is in a text, one of
them is met; then it is compared as a whole. Probes are in two tables, as long ones allow for rarer samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# From which length on probes are in a table, and how long its pieces are. The text is sampled so rarely that a piece
# lies within the first characters of a probe of that length. Longer pieces are met by chance less often.
SHORTEST_PROBE_CHARACTERS = 8
_TABLES = ((SHORTEST_PROBE_CHARACTERS, 6), (20, 16))


class Probes:
    """Texts that are looked for together."""

    def __init__(self, probes: Iterable[str]) -> None:
        """Take the texts, each of at least `SHORTEST_PROBE_CHARACTERS`."""
        rest = set(probes)
        self._tables: list[_Table] = []
        for from_characters, piece_characters in reversed(_TABLES):
            taken = {probe for probe in rest if len(probe) >= from_characters}
            rest -= taken
            if taken:
                self._tables.append(_Table(taken, from_characters, piece_characters))

    def found_in(self, text: str) -> set[str]:
        """Return those that the text has."""
        return {probe for table in self._tables for probe in table.found_in(text)}


class _Table:
    """Probes of at least one length, by the pieces at their beginning."""

    def __init__(self, probes: Iterable[str], from_characters: int, piece_characters: int) -> None:
        self._piece = piece_characters
        self._step = from_characters - piece_characters + 1
        self._by_piece: dict[str, list[str]] = {}
        for probe in probes:
            for piece in {probe[place : place + piece_characters] for place in range(self._step)}:
                self._by_piece.setdefault(piece, []).append(probe)

    def found_in(self, text: str) -> Iterator[str]:
        """Yield those that the text has, perhaps several times."""
        by_piece, length = self._by_piece, self._piece
        for at in range(0, len(text) - length + 1, self._step):
            if (piece := text[at : at + length]) in by_piece:
                first = max(0, at - self._step + 1)
                yield from (probe for probe in by_piece[piece] if text.find(probe, first, at + len(probe)) >= 0)
