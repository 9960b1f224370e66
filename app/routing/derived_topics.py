"""Kafka topics whose names are made from MQTT topics, which publishers choose: how many, and which are mixed up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from app.logged_text import LoggedText
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.destination import Destination

log = logging.getLogger(__name__)

LOGGED_MIXTURES = 100  # names; more lines would tell nothing new


class InUse(Protocol):
    """What is in use: `app.kafka.lanes`."""

    @property
    def passing(self) -> int:
        """How many Kafka topics are in use that no route names."""

    @property
    def passing_lanes(self) -> int:
        """How many of them have a lane; the others are only kept."""

    def is_in_use(self, topic: str) -> bool:
        """Tell whether a Kafka topic is in use."""


class DerivedTopics:
    """The derived Kafka topics; on the event loop.

    Attributes:
        refused: How many times an MQTT topic had no Kafka topic, as there were too many.
    """

    def __init__(self, most_topics: int, in_use: InUse) -> None:
        """Take ROUTES_MAX_TOPICS, and what knows which topics are in use."""
        self.refused = 0
        self._most_topics = most_topics
        self._in_use = in_use
        self._captured: WeakKeyDictionary[Destination, tuple[str, ...]] = WeakKeyDictionary()  # what made it first
        self._logged: set[str] = set()
        self._throttle = Throttle(log)

    def admit(self, name: str, forget: Callable[[], None]) -> bool:
        """Tell whether messages may go to a derived Kafka topic.

        Args:
            name: The topic.
            forget: Forgets the destinations that are only kept, without a lane, so that they are in use no more.
        """
        in_use = self._in_use
        if in_use.is_in_use(name) or in_use.passing < self._most_topics:
            return True
        if in_use.passing_lanes < in_use.passing:
            forget()
        if in_use.passing < self._most_topics:
            return True
        self._refuse(name)
        return False

    def note(self, destination: Destination, captured: tuple[str, ...]) -> None:
        """Note what a derived Kafka topic is made of, and log it if it was made of something else before."""
        first = self._captured.setdefault(destination, captured)
        if first != captured:
            self._log_mixture(destination.topic, first, captured)

    def _refuse(self, name: str) -> None:
        self.refused += 1
        self._throttle.warning(
            "too many",
            "%d Kafka topics that no route names are in use, and ROUTES_MAX_TOPICS allows no more: messages for %s and "
            "other new ones that are made from MQTT topics become dead letters; raise it, or see which publisher makes "
            "so many",
            self._in_use.passing,
            name,
        )

    def _log_mixture(self, name: str, first: tuple[str, ...], other: tuple[str, ...]) -> None:
        """Warn that a Kafka topic gets what different parts of MQTT topics became, once for each Kafka topic."""
        if name in self._logged or len(self._logged) >= LOGGED_MIXTURES:
            return
        self._logged.add(name)
        log.warning(
            "different MQTT topics go to the Kafka topic %s, as its name is made of %r and of %r: characters that "
            "Kafka does not allow become _, and parts that stand next to each other are joined",
            name,
            LoggedText(" and ".join(first)),
            LoggedText(" and ".join(other)),
        )
        if len(self._logged) >= LOGGED_MIXTURES:
            log.warning("that is enough of Kafka topics with several origins: further ones are not said")
