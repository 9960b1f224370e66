"""How often a connection to a node of Kafka was lost, by librdkafka's statistics.

Of errors it says more than that, and less: attempts that fail are errors, a node that goes away may be none. In each of
its statistics a node is connected since some moment; if that is another moment than before, or it is not connected any
more, a connection was lost. So one that is lost and made again within five seconds counts, but not twice in this time.
Connections to an address of KAFKA_BROKER alone are ended by librdkafka itself, and do not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SAME_MOMENT_SECONDS = 0.5  # librdkafka reads its clock for each node anew
_NOW = re.compile(r'"ts": ?([0-9]{1,18}), ?"time"')
_UP = re.compile(
    r'"nodeid": ?([0-9]{1,10}), ?"nodename": ?"[^"]*", ?"source": ?"\w+", ?"state": ?"UP", ?"stateage": ?([0-9]{1,18})'
)


class LostConnections:
    """Counts them.

    Attributes:
        total: How many there were.
    """

    def __init__(self) -> None:
        """Know of no connection."""
        self.total = 0
        self._up_since: Mapping[int, float] = {}

    def note_statistics(self, brokers: str) -> None:
        """Take note of which nodes are connected, and since when (librdkafka's clock)."""
        told_at = _NOW.search(brokers)
        now_seconds = int(told_at[1]) / 1e6 if told_at else 0.0
        up_since = {int(node): now_seconds - int(age) / 1e6 for node, age in _UP.findall(brokers)}
        for node, since in self._up_since.items():
            if abs(up_since.get(node, float("inf")) - since) > SAME_MOMENT_SECONDS:
                self.total += 1
        self._up_since = up_since
