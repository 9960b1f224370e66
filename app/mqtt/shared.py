"""The session of a member of a shared group (MQTT_SHARED_GROUP): what differs from the session of a single worker.

SUBSCRIBE and UNSUBSCRIBE carry `$share/group/filter`, and so it is remembered in the table: when the group is another
one, or none, at the next start, the old subscriptions are removed like those of any filter that is gone. Everything
else goes by the plain filters, as messages carry plain topics. Retained messages never come by shared subscriptions.

Which copy to keep: where several filters match, the broker sends a copy for each, and each may go to another worker. No
worker sees what the others get. So the order of the routes decides, which is the same in all workers: the worker that
gets the copy for the first matching filter keeps it, and a worker that gets another copy drops it. *The oldest
subscription wins*, as it does for a single worker, would lose messages here: one worker is older than the other, so one
would drop the first match's copy and the other one the second's.

But a copy may only be dropped if the first match's was made. That is not so for what the broker had queued before the
first match was subscribed to. So the identifier of a subscription stands for the filter, for all filters in their order
and for the generation, which begins anew when a filter is added, or granted after it was refused: then all are
subscribed to again, in the order of precedence, under new identifiers. A copy with an older identifier is always kept:
some of what was queued when the filters changed is duplicated, none is lost. A filter that is shared and then is not,
or the other way round, thus has two identifiers, and what was queued with the old one is kept as well. With a broker
that keeps the first identifier of a subscription, messages are duplicated too, and none is lost.

That rests on the same filters in the same order in all workers. Workers that differ in the order may lose messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from app.mqtt.copies import Copies
from app.mqtt.generations import Generations
from app.routes import shared_filter, subscription_identifiers

if TYPE_CHECKING:
    from app.mqtt.subscriptions import Subscriptions


class SharedGenerations(Generations):
    """Generations of which each is one of all filters; the filters have the prefix."""

    is_shared = True

    def __init__(self, group: str, filters: Sequence[str]) -> None:
        """Begin with subscriptions of which nothing is known.

        Args:
            group: The group's name.
            filters: The plain filters of the routes, in the order of precedence.
        """
        super().__init__(tuple(shared_filter(group, name) for name in filters), {})
        self.shared_name = dict(zip(filters, self.filters, strict=True))
        self.identify()

    def begin(self, filters: Sequence[str]) -> list[str]:
        """Begin one for all filters: what is queued has no copy of those that are new."""
        if not filters:
            return []
        self.replace(dict.fromkeys(self.filters, self._latest() + 1))
        return list(self.filters)

    def identify(self) -> None:
        """Give the identifiers that stand for all filters in their order, and for the generation."""
        generation = max((self.by_filter.get(name, 0) for name in self.filters), default=0)
        meaning = "\0".join((str(generation), *self.filters))
        texts = {f"{name}\0{meaning}": name for name in self.filters}
        self.identifiers = {texts[text]: number for text, number in subscription_identifiers(texts).items()}
        self.touch()  # last: the router forgets what rested on the old ones


class SharedCopies(Copies):
    """Judges the copies of messages that any worker of the group may get; as `Copies` does, on the event loop."""

    def __init__(self, subscriptions: Subscriptions, generations: SharedGenerations) -> None:
        """Look at subscriptions, which the MQTT thread changes."""
        super().__init__(subscriptions)
        self._shared_name = generations.shared_name

    def winning_identifier(self, matching: Sequence[str]) -> int:
        """Return the identifier of the first match that is granted; 0: all copies."""
        granted = list(self._sure([self._shared_name[name] for name in matching if name in self._shared_name]))
        return self.generations.identifiers[granted[0]] if granted else 0

    def is_older_copy(self, identifiers: Iterable[int], matching: Sequence[str]) -> bool:  # noqa: ARG002, as Copies'
        """Tell whether a copy came by a subscription of before, whose siblings nobody may have kept."""
        ours = set(self.generations.identifiers.values())
        return any(identifier not in ours for identifier in identifiers)
