"""What was asked of the broker on one connection and is not answered yet: SUBSCRIBE and UNSUBSCRIBE have a deadline.

The deadline is ten seconds after the last answer, and doubles each time that it passes, as the network may be slow.
Time counts only while the socket is read: an answer that was not read yet is not missing.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, Literal

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from app.mqtt.control_packets import SUBACK, UNSUBACK
from app.mqtt.naming import MOST_NAMED, named
from app.mqtt.packet_sizes import parts_of_unsubscribe

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient

Kind = Literal["SUBSCRIBE", "UNSUBSCRIBE"]

ANSWERS = {"SUBSCRIBE": SUBACK, "UNSUBSCRIBE": UNSUBACK}
ANSWER_SECONDS = 10.0  # the first deadline; the longest is six times that


class Pauses:
    """How long to wait until something is asked again: ever longer, each round of answers counted once."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        """Take the first pause, and where it stops growing."""
        self._seconds, self._longest_seconds = first_seconds, longest_seconds
        self._is_new_round = True

    def begin_round(self) -> None:
        """Note that it is asked again."""
        self._is_new_round = True

    def of_this_round(self) -> float:
        """Return the pause after this round's first answer, 0 after the others."""
        if not self._is_new_round:
            return 0.0
        self._is_new_round = False
        pause_seconds, self._seconds = self._seconds, min(2 * self._seconds, self._longest_seconds)
        return pause_seconds


class UnansweredRequests:
    """The requests of one connection that are not answered."""

    def __init__(self, client: BridgeClient) -> None:
        """Begin with none."""
        self._client = client
        self._open: dict[int, tuple[Kind, list[str]]] = {}  # by packet identifier
        self._numbers: dict[tuple[Kind, tuple[str, ...]], list[int]] = {}  # the packet identifiers of each request
        self._filters: Counter[Kind] = Counter()  # how many these ask for
        self._patience_seconds = ANSWER_SECONDS
        self._since = 0.0

    def __bool__(self) -> bool:
        """Whether an answer is missing."""
        return bool(self._open)

    def filters(self, kind: Kind) -> list[str]:
        """Return the filters that were asked for and not answered, each once, in order."""
        found = [name for asked, names in list(self._open.values()) if asked == kind for name in names]
        return list(dict.fromkeys(found))

    def first(self, kind: Kind) -> list[str]:
        """Return the first of the same; there may be thousands."""
        found = (name for asked, names in self._open.values() if asked == kind for name in names)
        return list(dict.fromkeys(itertools.islice(found, 2 * MOST_NAMED)))

    def named(self, kind: Kind) -> str:
        """Return the same for a sentence; empty if there are none."""
        first = self.first(kind)
        return named(first, self._filters[kind]) if first else ""

    def subscribe(self, topic_filter: str, qos: int, *, version5: bool, identifier: int) -> None:
        """Send one SUBSCRIBE for one filter, as an identifier applies to all filters of its packet.

        Args:
            topic_filter: The filter.
            qos: The QoS to ask for.
            version5: With MQTT 5 the broker is told to send retained messages for a new subscription only.
            identifier: The subscription identifier; 0: none.
        """
        if not version5:
            self._note("SUBSCRIBE", self._client.subscribe(topic_filter, qos)[1], [topic_filter])
            return
        options = SubscribeOptions(
            qos=qos, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        )
        properties = None
        if identifier:
            properties = Properties(PacketTypes.SUBSCRIBE)
            properties.SubscriptionIdentifier = identifier
        _, number = self._client.subscribe(topic_filter, options=options, properties=properties)
        self._note("SUBSCRIBE", number, [topic_filter])

    def unsubscribe(self, filters: list[str]) -> None:
        """Send UNSUBSCRIBE, in as many packets as the broker's limit makes of it."""
        for part in parts_of_unsubscribe(filters, self._client.largest_bytes):
            self._note("UNSUBSCRIBE", self._client.unsubscribe(part)[1], part)

    def _note(self, kind: Kind, number: int | None, filters: list[str]) -> None:
        if number is None:
            return
        if not self._open:
            self._since = time.monotonic()
        self._client.expect_answer(ANSWERS[kind], number, len(filters))
        self._open[number] = kind, filters
        request = kind, tuple(filters)
        if request not in self._numbers:
            self._filters[kind] += len(filters)
        self._numbers.setdefault(request, []).append(number)

    def answered(self, kind: Kind, number: int) -> list[str]:
        """Return the filters of the request that this answers; none if it was answered before."""
        asked, filters = self._open.get(number, (kind, []))
        if asked != kind or not filters:
            return []
        self._filters[kind] -= len(filters)
        for other in self._numbers.pop((kind, tuple(filters)), ()):  # what was asked for twice is answered by either
            if self._open.get(other) == (kind, filters):
                del self._open[other]
        self._since, self._patience_seconds = time.monotonic(), ANSWER_SECONDS
        return filters

    def check_overdue(self, *, reading: bool) -> bool:
        """Tell whether a deadline has passed since the last call."""
        now = time.monotonic()
        if not self._open or not reading:
            self._since = now
        if now - self._since < self._patience_seconds:
            return False
        self._since, self._patience_seconds = now, min(2 * self._patience_seconds, 6 * ANSWER_SECONDS)
        return True
