"""What explains each message that is in Kafka twice, where the broker repeats nothing but what it must: HiveMQ.

Every receipt gives a message a `connector-id`, which stays with it in the table. So a repetition has one of two kinds:

- With another `connector-id` it was received again. The broker has to have sent it again, which the proxy saw. With
  QoS 2 the bridge has to have ended between the two, as it knows an unfinished message through every reconnect.
- With the same `connector-id` the bridge produced it again. It has to have ended since the message was sent: in its
  life there is nothing twice.

What came too long ago to be in any window is not remembered, and a repetition of it is explained by nothing.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tests.support.nemesis.watch import Ledger, Wire
from tests.support.oracle import Record, parse

Message = tuple[str, int]  # MQTT topic and number
# More than all windows, what is in flight, and what a power cut may bring again: see `nemesis`.
REMEMBERED_MESSAGES = 100_000


class Lives:
    """Which messages had been sent to the bridge at each of its ends."""

    def __init__(self) -> None:
        """Begin with the first life."""
        self._highest: list[dict[str, int]] = []
        self._lock = threading.Lock()

    def end(self, highest: dict[str, int]) -> None:
        """Note an end, with the highest number that was sent of each MQTT topic; before the next life begins."""
        with self._lock:
            self._highest.append(highest)

    def ends_since(self, message: Message) -> int:
        """Return how often the bridge ended since the message was first sent to it."""
        topic, number = message
        with self._lock:
            return len(self._highest) - bisect_left([highest.get(topic, -1) for highest in self._highest], number)


@dataclass
class StrictLedger(Ledger):
    """A ledger that wants a reason for each repetition.

    Attributes:
        wire: What the broker sent.
        lives: The ends of the bridge.
        qos_2: The MQTT topics of QoS 2.
        fail: Is told of the first repetition that nothing explains.
        unexplained: Repetitions without a reason.
        received_again: Repetitions that came from MQTT.
        produced_again: Repetitions of the bridge's own.
    """

    wire: Wire = field(default_factory=Wire)
    lives: Lives = field(default_factory=Lives)
    qos_2: Collection[str] = ()
    fail: Callable[[str], None] = print
    unexplained: int = 0
    received_again: int = 0
    produced_again: int = 0
    _identities: OrderedDict[Message, Counter[bytes]] = field(default_factory=OrderedDict)

    def take(self, record: Record) -> None:
        """Take note of the next record of its partition, and judge it if it is a repetition."""
        duplicated = self.duplicated
        super().take(record)
        message = parse(record.value)
        if message is None:
            return
        identity = record.headers.get("connector-id", b"")
        if self.duplicated > duplicated:
            self._judge(message, identity)
        identities = self._identities.setdefault(message, Counter())
        identities[identity] += 1
        if len(self._identities) > REMEMBERED_MESSAGES:
            self._identities.popitem(last=False)

    def summary(self) -> str:
        """Say what the repetitions were."""
        return (
            f"Of the repetitions {self.received_again} were received again, {self.produced_again} were produced again "
            f"after an end of the bridge, and {self.unexplained} are explained by nothing."
        )

    def _judge(self, message: Message, identity: bytes) -> None:
        reason = self._what_is_wrong(message, identity)
        if reason:
            self.unexplained += 1
            if self.unexplained == 1:
                self.fail(f"nothing explains that message {message[1]} of {message[0]} came twice: {reason}")

    def _what_is_wrong(self, message: Message, identity: bytes) -> str:
        """Return why nothing explains a repetition; empty if something does."""
        earlier = self._identities.get(message)
        if earlier is None:
            return "it came too long ago to be in any window"
        ends = self.lives.ends_since(message)
        if identity in earlier:
            self.produced_again += 1
            return "" if earlier[identity] <= ends else f"it was produced again, and the bridge ended {ends} times"
        self.received_again += 1
        sent, received = self.wire.sent(message), len(earlier) + 1
        if received > sent:
            return f"it was received {received} times, and sent {sent} times"
        if message[0] in self.qos_2 and received > 1 + ends:
            return f"it has QoS 2 and was received {received} times, and the bridge ended {ends} times"
        return ""
