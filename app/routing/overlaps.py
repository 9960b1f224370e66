"""The warning about routes that match the same MQTT topic: one of them is used, and the log says which."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from app.logged_text import LoggedText
from app.routes import Route, topic_text

log = logging.getLogger(__name__)

LOGGED_PAIRS = 100  # more lines would tell nothing new


class Overlaps:
    """Warns of routes that match the same topic, once for each pair of them."""

    def __init__(self) -> None:
        """Know of none yet."""
        self._logged: set[tuple[str, str]] = set()

    def log(self, topic: bytes, matches: Sequence[Route]) -> None:
        """Warn of routes that match a topic, if it was not said of them before; the first one is used."""
        if len(self._logged) >= LOGGED_PAIRS:
            return
        first = matches[0].name
        news = [match.name for match in matches[1:] if (first, match.name) not in self._logged]
        if not news:
            return
        self._logged.update((first, name) for name in news)
        log.warning(
            "several routes match the MQTT topic %r: %s is used, not %s",
            LoggedText(topic_text(topic)),
            first,
            ", ".join(news),
        )
        if len(self._logged) >= LOGGED_PAIRS:
            log.warning("that is enough of routes that overlap: further pairs of them are not logged")
