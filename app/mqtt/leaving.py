"""Leaving: a drain's part of the conversation with the broker (`faust -A app.main drain`; `agents.drain` begins it).

From when `Session.leaving` is set until the process ends, nothing is subscribed to, and each connection goes through:

1. The table forgets, durably, that the session has subscriptions. Else a crash after the next step would leave a worker
   that trusts its table and subscribes to nothing, where subscriptions are not renewed at each start (MQTT 3.1.1).
2. UNSUBSCRIBE of every filter that the session may have, the youngest first, the oldest last: of several copies of a
   message the oldest subscription's is the one that is kept, so it must be the last to cease.
3. UNSUBACK: the broker queues nothing more. A filter that it refuses to let go is asked for again from time to time.
4. When all is quiet, the same UNSUBSCRIBE once more. Its UNSUBACK shows that the broker is there and has read every
   acknowledgement: silence alone may be a network that carries nothing, and much is still queued behind it.

What is in the session's queue by then still comes, and is received and acknowledged like everything else. (MQTT leaves
that to the broker, see [MQTT-3.10.4]; those that are tested send it.) How old each subscription was is kept, so that
copies which are still queued when the worker subscribes again are judged as they would have been.

All of it runs on the MQTT thread, but for `_forgotten`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.messages import Subscribed
from app.mqtt.control_packets import UNSUBACK
from app.mqtt.packet_sizes import parts_of_unsubscribe
from app.mqtt.requests import named

if TYPE_CHECKING:
    import logging

    from app.mqtt.client import BridgeClient
    from app.mqtt.session import Session

ASK_AGAIN_SECONDS = 30.0
ATTEMPTS = 3  # without an answer, until it is said: one connection may end for another reason
CLOSES = (
    "it closes the connection, or gives no answer, when it is asked to; a drain cannot end so: delete the session of "
    "this client id at the broker once the worker is stopped"
)


class Leaving:
    """How one connection ends its subscriptions."""

    def __init__(
        self, client: BridgeClient, session: Session, request: Callable[[Subscribed], None], log: logging.Logger
    ) -> None:
        """Do nothing yet; what an earlier connection was told does not count on this one.

        Args:
            client: The connection.
            session: What outlives it.
            request: Passes a request on to the keeper.
            log: The service's logger.
        """
        self._client = client
        self._session = session
        self._request = request
        self._log = log
        self._is_forgetting = False
        self._is_forgotten = False
        self._ask_again_at = 0.0
        self._refused: dict[str, str] = {}  # of what was asked for last
        self._asked: dict[int, tuple[list[str], float]] = {}  # filters, and when
        session.left_at = session.answered_at = 0.0
        self._note_unanswered()

    def _note_unanswered(self) -> None:
        """Say of which filters the broker gave no answer, on several connections in a row."""
        counts = self._session.forbidden.unanswered_in_drain
        self._session.not_left.update({name: CLOSES for name, count in counts.items() if count >= ATTEMPTS})
        if news := [name for name, count in counts.items() if count == ATTEMPTS]:
            self._log.error("the MQTT broker does not end the subscription %s: %s", named(news), CLOSES)

    def go_on(self) -> None:
        """Take the next step, if it is time for it; called often while `Session.leaving` is set."""
        if not self._is_forgetting:
            self._is_forgetting = True
            session = self._session
            self._request(Subscribed([], session.generations, self._forgotten, session.to_leave()))
        elif self._is_forgotten and self._is_due():
            self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
            self._session.wants_answer = False
            self._unsubscribe()

    def _is_due(self) -> bool:
        wanted = not self._session.left_at or self._session.wants_answer
        return wanted and time.monotonic() >= self._ask_again_at

    def _forgotten(self) -> None:
        """Note that the table has forgotten the subscriptions (event loop)."""
        self._is_forgotten = True

    def _unsubscribe(self) -> None:
        self._client.on_unsubscribe = self.on_unsubscribe
        filters = list(self._session.not_left) or self._session.youngest_first()
        asked_at, self._refused = time.monotonic(), {}
        for part in parts_of_unsubscribe(filters, self._client.largest_bytes):
            _, packet_identifier = self._client.unsubscribe(part)
            if packet_identifier is not None:
                self._session.forbidden.unanswered_in_drain.update(part)
                self._client.expect_answer(UNSUBACK, packet_identifier, len(part))
                self._asked[packet_identifier] = part, asked_at

    def on_unsubscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what the broker let go (paho's callback); MQTT 3.1.1 has no reasons, and cannot refuse."""
        filters, asked_at = self._asked.pop(packet_identifier, ([], 0.0))
        for name in filters:
            self._session.forbidden.unanswered_in_drain.pop(name, None)
        self._refused |= {name: str(why) for name, why in zip(filters, reasons, strict=False) if why.is_failure}
        if not filters or any(at == asked_at for _, at in self._asked.values()):  # the others of the same moment
            return
        self._session.answered_at = asked_at
        if self._session.left_at:
            self._ask_again_at = 0.0
            return
        refused = self._session.not_left = dict(self._refused)
        if refused:
            reasons_given = ", ".join(sorted(set(refused.values())))
            self._log.error("the MQTT broker does not end the subscription %s: %s", named([*refused]), reasons_given)
        if not refused:
            self._ask_again_at = 0.0
            self._session.left_at = time.monotonic()
            self._log.info("unsubscribed from everything; what the broker has queued by now still comes")
