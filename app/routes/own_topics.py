"""Whether a route is the only one that writes to its Kafka topics, as one must be that has a limit for the table.

For templates this is stricter than need be: the text that a name begins with must be the route's own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import takewhile

from app.routes.kafka_topics import DerivedNames
from app.routes.templates import Template


class OwnTopics:
    """Finds out which routes may write to a topic of another."""

    def __init__(self, templates: Sequence[Template]) -> None:
        """Take the names of the routes' Kafka topics, or the templates for them."""
        self._templates = templates
        self._fixed: dict[str, list[int]] = {}
        self._made: dict[str, list[int]] = {}
        self._alike: dict[tuple[str, ...], list[int]] = {}  # by their literals
        for number, template in enumerate(templates):
            if template.is_fixed:
                self._fixed.setdefault(template.text, []).append(number)
            else:
                self._made.setdefault(template.literals[0], []).append(number)
                self._alike.setdefault(template.literals, []).append(number)
        self._names = DerivedNames(templates)
        self._topics, self._beginnings = sorted(self._fixed), sorted(self._made)

    def shared_with(self, number: int) -> int | None:
        """Return the number of another route that may write to a topic of this one; None: there is none."""
        template = self._templates[number]
        others = self._with_fixed(template.text) if template.is_fixed else self._with_made(template)
        return next((other for other in others if other != number), None)

    def _with_fixed(self, topic: str) -> Iterator[int]:
        """Iterate over the routes that may write to one topic."""
        yield from self._fixed.get(topic, ())
        if literals := self._names.literals_of(topic):
            yield from self._alike[literals]

    def _with_made(self, template: Template) -> Iterator[int]:
        """Iterate over the routes that may write to a topic that a template can make."""
        beginning = template.literals[0]
        for length in range(1, len(beginning)):
            yield from self._made.get(beginning[:length], ())
        for longer in _beginning_with(beginning, self._beginnings):
            yield from self._made[longer]
        names = DerivedNames([template])
        for topic in _beginning_with(beginning, self._topics):
            if names.may_have(topic):
                yield from self._fixed[topic]


def _beginning_with(text: str, ordered: Sequence[str]) -> Iterator[str]:
    """Iterate over those of some ordered texts that begin with a text."""
    first = bisect_left(ordered, text)
    places = range(first, len(ordered))
    return takewhile(lambda found: found.startswith(text), (ordered[place] for place in places))
