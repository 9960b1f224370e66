"""How far a drain's unsubscribing is (`connector drain`).

`app.lifecycle.drain` begins it; from then until the process ends, nothing is subscribed to. Each connection goes
through the steps (`app.mqtt.unsubscribe_handshake`). The phases:

    SUBSCRIBED    no drain
       | begin (event loop)
       v
    FORGETTING    the table is to forget, durably, that the session has subscriptions. Else a crash after the next step
       |          would leave a worker that trusts its table and subscribes to nothing, where subscriptions are not
       |          renewed at each start (MQTT 3.1.1)
       v
    UNSUBSCRIBING UNSUBSCRIBE of every filter that the session may have, the youngest first, the oldest last: of several
       |          copies of a message the oldest subscription's is the one that is kept, so it must be the last to
       |          cease. A filter that the broker refuses to give up is asked for again from time to time
       v
    UNSUBSCRIBED  UNSUBACK came: the broker queues nothing more. When all is quiet, the same UNSUBSCRIBE once more. Its
                  UNSUBACK shows that the broker is there and has read every acknowledgement: silence alone may be a
                  network that carries nothing, and much is still queued behind it

Each connection begins at FORGETTING: answers on an earlier connection do not count.

What is in the session's queue at UNSUBACK still comes, and is received and acknowledged like everything else. (MQTT
leaves that to the broker, see [MQTT-3.10.4]; those that are tested send it.) How old each subscription was is kept, so
that copies which are still queued when the worker subscribes again are judged as they would have been.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Sequence

from app.mqtt.naming import named

ATTEMPTS = 3  # without an answer, until it is logged: one connection may end for another reason
CLOSES = (
    "it closes the connection, or gives no answer, when it is asked to; a drain cannot end so: delete the session of "
    "this client id at the broker once the worker is stopped"
)


class Phase(enum.Enum):
    """How far it is; see the module's header."""

    SUBSCRIBED = enum.auto()
    FORGETTING = enum.auto()
    UNSUBSCRIBING = enum.auto()
    UNSUBSCRIBED = enum.auto()


NEXT = {
    Phase.SUBSCRIBED: {Phase.FORGETTING},
    Phase.FORGETTING: {Phase.UNSUBSCRIBING, Phase.FORGETTING},
    Phase.UNSUBSCRIBING: {Phase.UNSUBSCRIBED, Phase.FORGETTING},
    Phase.UNSUBSCRIBED: {Phase.FORGETTING},
}


class Unsubscribing:
    """How far a drain's unsubscribing is, over all connections.

    Attributes:
        phase: How far it is on this connection.
        unsubscribed_at: `time.monotonic()` when the broker had ended all subscriptions on this connection; 0 before.
        answered_at: `time.monotonic()` when the last question was asked that the broker has answered; 0 before.
        kept: Filters that the broker refused to unsubscribe from, with its reason.
        wants_answer: The drain wants a sign that the broker is there and has nothing more.
        unanswered: How often in a row the broker gave no answer to an UNSUBSCRIBE, by filter.
    """

    def __init__(self) -> None:
        """Begin without a drain."""
        self.phase = Phase.SUBSCRIBED
        self.unsubscribed_at = 0.0
        self.answered_at = 0.0
        self.kept: dict[str, str] = {}
        self.wants_answer = False
        self.unanswered: Counter[str] = Counter()

    @property
    def has_begun(self) -> bool:
        """Whether the worker is drained: it subscribes to nothing until its next start."""
        return self.phase is not Phase.SUBSCRIBED

    @property
    def reason(self) -> str:
        """How far a drain is, for `/health/ready` and the page; empty if nobody asked for one."""
        if not self.has_begun:
            return ""
        if self.phase is Phase.UNSUBSCRIBED:
            return "drained: subscribed to nothing until the next start"
        if self.kept:
            reasons = ", ".join(sorted(set(self.kept.values())))
            return f"draining: the MQTT broker does not end the subscription {named([*self.kept])} ({reasons})"
        return "draining: the MQTT broker has not ended our subscriptions yet"

    # ---- the event loop's side

    def begin(self) -> None:
        """Begin, as the worker is drained."""
        self._go_to(Phase.FORGETTING)

    def has_answered_since(self, busy_at: float, now: float) -> bool:
        """Tell whether the broker was asked, and has answered, since there was something to do.

        If not, have it asked, once nothing is under way: it must have read all acknowledgements by then.

        Args:
            busy_at: When there was something to do last, by `time.monotonic()`.
            now: The time, by `time.monotonic()`.
        """
        if self.answered_at >= busy_at:
            return True
        self.wants_answer = now > busy_at
        return False

    # ---- the MQTT thread's side

    def on_connection(self) -> list[str]:
        """Begin anew on another connection; return the filters that count as kept from now on, for want of answers."""
        self.unsubscribed_at = self.answered_at = 0.0
        if self.has_begun:
            self._go_to(Phase.FORGETTING)
        self.kept |= {name: CLOSES for name, count in self.unanswered.items() if count >= ATTEMPTS}
        return [name for name, count in self.unanswered.items() if count == ATTEMPTS]

    def on_forgotten(self) -> None:
        """Note that the table has forgotten the subscriptions."""
        self._go_to(Phase.UNSUBSCRIBING)

    def on_asked(self, filters: Sequence[str]) -> None:
        """Note that the broker is asked to give up filters."""
        self.wants_answer = False
        self.unanswered.update(filters)

    def on_unsuback(self, filters: Sequence[str]) -> None:
        """Note that the broker gave an answer for filters."""
        for name in filters:
            self.unanswered.pop(name, None)

    def on_answered(self, asked_at: float, kept: dict[str, str]) -> None:
        """Note the answers to all that was asked at one moment.

        Args:
            asked_at: When the question was asked.
            kept: The filters that the broker does not give up, with its reason.
        """
        self.answered_at = asked_at
        if self.phase is Phase.UNSUBSCRIBED:
            return
        self.kept = kept
        if not kept:
            self.unsubscribed_at = time.monotonic()
            self._go_to(Phase.UNSUBSCRIBED)

    def _go_to(self, phase: Phase) -> None:
        assert phase in NEXT[self.phase], f"{self.phase} -> {phase}"
        self.phase = phase
