"""The unsubscribe handshake of one connection: what a drain asks of the table and of the broker, and their answers.

The phases that it goes through are in `app.mqtt.unsubscribing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.core.requests import RememberSubscriptions
from app.mqtt.control_packets import UNSUBACK
from app.mqtt.naming import named
from app.mqtt.packet_sizes import parts_of_unsubscribe
from app.mqtt.unsubscribing import CLOSES, Phase

if TYPE_CHECKING:
    import logging

    from app.mqtt.client import BridgeClient
    from app.mqtt.subscriptions import Subscriptions
    from app.mqtt.unsubscribing import Unsubscribing

ASK_AGAIN_SECONDS = 30.0


class UnsubscribeHandshake:
    """How one connection ends its subscriptions; on the MQTT thread, but for `_forgotten`."""

    def __init__(
        self,
        client: BridgeClient,
        subscriptions: Subscriptions,
        unsubscribing: Unsubscribing,
        request: Callable[[RememberSubscriptions], None],
        log: logging.Logger,
    ) -> None:
        """Do nothing yet.

        Args:
            client: The connection.
            subscriptions: What the session has.
            unsubscribing: How far it is.
            request: Passes a request on to the table writer.
            log: The service's logger.
        """
        self._client = client
        self._subscriptions = subscriptions
        self._state = unsubscribing
        self._request = request
        self._log = log
        self._has_asked_table = False
        self._table_has_forgotten = False
        self._ask_again_at = 0.0
        self._refused: dict[str, str] = {}  # of what was asked for last
        self._asked: dict[int, tuple[list[str], float]] = {}  # filters, and when
        if unanswered := unsubscribing.on_connection():
            log.error("the MQTT broker does not end the subscription %s: %s", named(unanswered), CLOSES)

    def go_on(self) -> None:
        """Take the next step, if it is time for it; called often once the drain has begun."""
        state, subscriptions = self._state, self._subscriptions
        if not self._has_asked_table:
            self._has_asked_table = True
            generations = subscriptions.generations.by_filter
            self._request(RememberSubscriptions([], generations, self._forgotten, subscriptions.to_leave()))
        elif state.phase is Phase.FORGETTING and self._table_has_forgotten:
            state.on_forgotten()
        if state.phase is not Phase.FORGETTING and self._is_due():
            self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
            self._unsubscribe()

    def _is_due(self) -> bool:
        wanted = self._state.phase is Phase.UNSUBSCRIBING or self._state.wants_answer
        return wanted and time.monotonic() >= self._ask_again_at

    def _forgotten(self) -> None:
        """Note that the table has forgotten the subscriptions (event loop)."""
        self._table_has_forgotten = True

    def _unsubscribe(self) -> None:
        filters = list(self._state.kept) or self._subscriptions.youngest_first()
        asked_at, self._refused = time.monotonic(), {}
        for part in parts_of_unsubscribe(filters, self._client.largest_bytes):
            _, packet_identifier = self._client.unsubscribe(part)
            if packet_identifier is not None:
                self._state.on_asked(part)
                self._client.expect_answer(UNSUBACK, packet_identifier, len(part))
                self._asked[packet_identifier] = part, asked_at

    def has_asked(self, packet_identifier: int) -> bool:
        """Tell whether an UNSUBSCRIBE was this handshake's."""
        return packet_identifier in self._asked

    def on_unsubscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what the broker gave up (paho's callback); MQTT 3.1.1 has no reasons, and cannot refuse."""
        filters, asked_at = self._asked.pop(packet_identifier, ([], 0.0))
        self._state.on_unsuback(filters)
        self._refused |= {name: str(why) for name, why in zip(filters, reasons, strict=False) if why.is_failure}
        if not filters or any(at == asked_at for _, at in self._asked.values()):  # the others of the same moment
            return
        was_unsubscribed, refused = self._state.phase is Phase.UNSUBSCRIBED, dict(self._refused)
        self._state.on_answered(asked_at, refused)
        if was_unsubscribed:
            self._ask_again_at = 0.0
        elif refused:
            reasons_given = ", ".join(sorted(set(refused.values())))
            self._log.error("the MQTT broker does not end the subscription %s: %s", named([*refused]), reasons_given)
        else:
            self._ask_again_at = 0.0
            self._log.info("unsubscribed from everything; what the broker has queued by now still comes")
