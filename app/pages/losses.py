"""When messages may have been lost, and why: windows of time that an operator can compare with what was published.

They are found by comparing counters once a second, so the path of a message has no code for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_LIST = 20
JOINED_SECONDS = 60.0  # what is lost again within this time is the same window

# What is said of each kind. The first two lose only what is not repeated: QoS 0.
EXPLANATIONS = {
    "started": "The worker was not running before this. The broker does not repeat QoS 0; the rest it kept.",
    "mqtt_away": "The MQTT broker was not connected. The broker does not repeat QoS 0; the rest it kept.",
    "session_lost": "The MQTT broker had lost our session, and with it what it kept for us.",
    "damage": "The table's files were damaged. Kafka may have some of these messages.",
    "dropped": "Messages were given up.",
    "dead_letters_dropped": "Dead letters were dropped, as their room is limited.",
}
CERTAIN = frozenset({"session_lost", "damage", "dropped", "dead_letters_dropped"})


@dataclass(slots=True)
class Window:
    """A time in which messages may have been lost.

    Attributes:
        kind: One of EXPLANATIONS.
        subject: What was lost, where the kind has several: route and reason.
        from_seconds: Unix time of its beginning; None: unknown, before the worker's start.
        until_seconds: Unix time of its end; None: it is not over.
        count: How often, or how many messages; 0: unknown.
    """

    kind: str
    subject: str
    from_seconds: float | None
    until_seconds: float | None
    count: int = 0

    def extend(self, until_seconds: float, more: int = 0) -> None:
        """Let the window reach to a later end, with so much more in it."""
        self.until_seconds = until_seconds
        self.count += more

    def as_dictionary(self) -> dict[str, Any]:
        """Return it for `/status`."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "explanation": EXPLANATIONS[self.kind],
            "from_seconds": self.from_seconds,
            "until_seconds": self.until_seconds,
            "count": self.count,
        }


class Losses:
    """The last such windows."""

    def __init__(self, started_seconds: float) -> None:
        """Begin with the start, before which nobody was here."""
        self._away: Window | None = Window("started", "", None, None)
        self._windows: deque[Window] = deque([self._away], LONGEST_LIST)
        self._counts: dict[tuple[str, str], int] = {}
        self._absence_from: float | None = None
        self._looked_seconds = self._started_seconds = started_seconds

    def look(self, now_seconds: float, *, connected: bool, counts: Mapping[tuple[str, str], int]) -> None:
        """Compare with the last look.

        Args:
            now_seconds: Unix time.
            connected: Whether the MQTT broker is.
            counts: What was lost since the start, by kind and subject.
        """
        if not connected and self._away is None:
            self._away = Window("mqtt_away", "", now_seconds, None)
            self._windows.append(self._away)
        # An absence that was shorter than from one look to the next was not seen.
        self._absence_from = self._away.from_seconds if self._away is not None else self._looked_seconds
        if connected and self._away is not None:
            self._away.extend(now_seconds)
            self._away = None
        self._looked_seconds = now_seconds
        for (kind, subject), count in counts.items():
            more = count - self._counts.get((kind, subject), 0)
            if more > 0:
                self._counts[kind, subject] = count
                self._add(kind, subject, now_seconds, more)

    def _add(self, kind: str, subject: str, now_seconds: float, count: int) -> None:
        for window in self._windows:
            since = now_seconds - (window.until_seconds or 0.0)
            if (window.kind, window.subject) == (kind, subject) and since < JOINED_SECONDS:
                window.extend(now_seconds, count)
                return
        begin: float | None = now_seconds
        if kind == "session_lost":
            begin = self._absence_from
        elif kind == "damage":
            begin, now_seconds = None, self._started_seconds
        self._windows.append(Window(kind, subject, begin, now_seconds, count))

    def since(self, unix_seconds: float) -> bool:
        """Whether more than QoS 0 was lost since then."""
        return any(
            window.kind in CERTAIN and (window.until_seconds or unix_seconds) >= unix_seconds
            for window in self._windows
        )

    def as_list(self) -> list[dict[str, Any]]:
        """Return them, newest first."""
        return [window.as_dictionary() for window in reversed(self._windows)]
