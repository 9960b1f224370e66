"""Which subscription a message came by: the mapping that it belongs to, and which of its copies to keep.

A broker delivers a copy per matching subscription. Kept is that of the subscription which is *oldest*, as only its copy
is sure to exist: a filter that was added later has no copy of what the broker had queued before. So the generation of
each subscription is remembered, also of those that were removed since, as copies of theirs may still be queued. Within
a generation, subscriptions are made in the order of precedence. After a drain none is there any more, and they are made
from the oldest to the youngest: the copy to keep comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.routes import plain_filter, subscription_identifiers


class Copies:
    """What a session knows of copies; its fields are described in `app.mqtt.session`."""

    filters: tuple[str, ...]
    identifiers: dict[str, int]
    remembered: frozenset[str] | None
    generations: dict[str, int]
    left: frozenset[str]
    refused: dict[str, str]

    def copy_to_keep(self, matching: Sequence[str]) -> int:
        """Return the subscription identifier of the copy to keep; 0: all (event loop).

        Args:
            matching: The filters of the mappings that match the message's topic, in the order of precedence.
        """
        generations = self.generations
        sure = [name for name in matching if name in generations and name not in self.refused]
        return self.identifiers[min(sure, key=generations.__getitem__)] if sure else 0

    def is_older_copy(self, identifiers: Iterable[int], matching: Sequence[str]) -> bool:
        """Tell whether a copy came by a subscription that we do not have (any more), and nothing else may carry it.

        Args:
            identifiers: The copy's subscription identifiers, none of them the one to keep.
            matching: As for `copy_to_keep`.
        """
        generations = self.generations
        kept = min((generations[name] for name in matching if name in generations), default=0)
        known = {self.identifiers.get(name) or _identifier(name): age for name, age in generations.items()}
        ours = set(self.identifiers.values())
        return all(known.get(identifier, 0) < kept for identifier in identifiers if identifier not in ours) and any(
            identifier not in ours for identifier in identifiers
        )

    def filters_of(self, identifiers: Iterable[int]) -> list[str]:
        """Return the filters of the mappings, as written, by which a message came; the first in order first."""
        found = set(identifiers)
        return [plain_filter(name) for name in self.filters if self.identifiers[name] in found]

    def removed_filters(self) -> list[str]:
        """Return the filters, as written in mappings, that the session had and that are mapped no more."""
        had = {plain_filter(name) for name in (*self.generations, *(self.remembered or ()), *self.left)}
        return sorted(had.difference(plain_filter(name) for name in self.filters))

    def came_by_removed(self, identifiers: Iterable[int]) -> bool:
        """Tell whether a message came by a subscription that we removed."""
        return not {_identifier(name) for name in self.removed_filters()}.isdisjoint(identifiers)


def _identifier(topic_filter: str) -> int:
    return subscription_identifiers([topic_filter])[topic_filter]
