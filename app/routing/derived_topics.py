"""Kafka topics whose names are made from MQTT topics, which publishers choose: how many, and which are mixed up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.logged_text import LoggedText
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.routes import Resolved

log = logging.getLogger(__name__)

LOGGED_MIXTURES = 100  # names; more lines would tell nothing new


class DerivedTopics:
    """The derived Kafka topics that are in use; on the event loop.

    Attributes:
        refused: How many times an MQTT topic had no Kafka topic, as there were too many.
    """

    def __init__(self, most_topics: int) -> None:
        """Know none yet; `most_topics` is ROUTES_MAX_TOPICS."""
        self.refused = 0
        self._most_topics = most_topics
        self._captured: dict[str, tuple[str, ...]] = {}  # by the name: what it was first made of
        self._logged: set[str] = set()
        self._throttle = Throttle(log)

    def admit(self, resolved: Resolved) -> bool:
        """Tell whether messages may go to a derived Kafka topic, which is in use from then on."""
        name, captured = resolved.kafka_topic, resolved.captured
        first = self._captured.get(name)
        if first is None:
            if len(self._captured) >= self._most_topics:
                self._refuse(name)
                return False
            self._captured[name] = captured
        elif first != captured:
            self._log_mixture(name, first, captured)
        return True

    def _refuse(self, name: str) -> None:
        self.refused += 1
        self._throttle.warning(
            "too many",
            "%d Kafka topics are made from MQTT topics already, and ROUTES_MAX_TOPICS allows no more: messages for %s "
            "and other new ones become dead letters; raise it, or see which publisher makes so many",
            len(self._captured),
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
