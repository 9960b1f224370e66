"""SUBSCRIBE and UNSUBSCRIBE on one connection, their answers and refusals.

    begin -> SUBSCRIBE each filter of the plan -> SUBACK ... all are answered
          -> what was withheld or got another identifier, one step after the other
          -> UNSUBSCRIBE what is not mapped -> UNSUBACK
          -> the table remembers the subscriptions

The same steps follow when the filters change on a connection (`take_up_order`).

What is not answered in time is logged, makes the worker not ready, and is asked for again on the same connection:
messages of other filters may flow there. A broker that has been heard since, and still does not answer SUBSCRIBE with
QoS 2, is asked with QoS 1 the third time. What is refused is asked for again from time to time. `app.mqtt.forbidden`
deals with filters for which the broker closes the connection.

All of it runs on the MQTT thread, most of it in paho's callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.core.requests import Remember, RememberSubscriptions
from app.mqtt.naming import trouble_of
from app.mqtt.requests import Pauses, UnansweredRequests
from app.routes import plain_filter

if TYPE_CHECKING:
    from app.mqtt.client import BridgeClient
    from app.mqtt.granted import Grants
    from app.mqtt.session import Session
    from app.mqtt.subscriptions import SubscriptionPlan
    from app.throttle import Throttle

ASK_AGAIN_SECONDS = 30.0  # how often a refused filter is subscribed to again, as its right may be granted later
ASK_AGAIN_SOON_SECONDS = 1.0  # where the refusal is of the moment: the broker says that the packet identifier is in use
PACKET_IDENTIFIER_IN_USE = 0x91


class Subscriber:
    """The subscriptions of one connection.

    Attributes:
        requests: What is not answered.
        unwanted: What the broker's session has, or may have, though it is not mapped.
    """

    def __init__(
        self,
        client: BridgeClient,
        session: Session,
        request: Callable[[Remember | RememberSubscriptions], None],
        throttle: Throttle,
        *,
        speaks_5: bool,
    ) -> None:
        """Do nothing before `begin`.

        Args:
            client: The connection.
            session: What outlives it.
            request: Passes a request on to the table writer.
            throttle: Logs what happens again and again, once a minute.
            speaks_5: The connection speaks MQTT 5.
        """
        self.requests = UnansweredRequests(client)
        self.unwanted: list[str] = []
        self._client = client
        self._session = session
        self._subscriptions = session.subscriptions
        self._request = request
        self._throttle = throttle
        self._speaks_5 = speaks_5
        self._deadlines = 0  # that passed without an answer
        self._begun_at = 0.0
        self._may_unsubscribe = True
        self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
        self._soon = Pauses(ASK_AGAIN_SOON_SECONDS, ASK_AGAIN_SECONDS)
        self._noted_generations: dict[str, int] | None = None  # that the table was told on this connection

    def begin(self, plan: SubscriptionPlan, grants: Grants) -> None:
        """Subscribe, after CONNACK, to all but what is suspected of closing the connection, which comes later."""
        self._begun_at = time.monotonic()
        self._grants = grants
        self._log_overlaps()
        self.unwanted = plan.unsubscribe
        wanted = self._allowed(plan.subscribe)
        at_once = self._subscriptions.forbidden.to_ask_first(wanted)
        self._subscriptions.withhold(name for name in wanted if name not in at_once)
        for topic_filter in at_once:
            self._subscribe(topic_filter)
        self._go_on_when_answered()

    def take_up_order(self) -> None:
        """Subscribe to filters that are new, and unsubscribe from those that are gone, if others were ordered."""
        if not self._subscriptions.orders.is_ordered:
            return
        before = set(self._subscriptions.filters)
        wanted = self._subscriptions.take_up_order()
        mapped = set(self._subscriptions.filters)
        self.unwanted = sorted(before.union(self.unwanted).difference(mapped))
        self._may_unsubscribe = True
        allowed = set(self._allowed(list(self._subscriptions.filters)))
        for topic_filter in wanted:
            if topic_filter in allowed:
                self._subscribe(topic_filter)
        self._go_on_when_answered()

    def _log_overlaps(self) -> None:
        if (
            not self._grants.has_identifiers
            and len(self._subscriptions.filters) > 1
            and self._session.is_first("overlaps")
        ):
            self._throttle.log.info(
                "there are no subscription identifiers here (they come with MQTT 5): where filters overlap, a message "
                "becomes as many records as the broker delivers copies"
            )

    def _allowed(self, wanted: list[str]) -> list[str]:
        """Leave out filters for which to ask would be a protocol error."""
        why = self._grants.check(wanted, self._subscriptions.generations.identifiers)
        for name, reason in why.items():
            self._subscriptions.on_subscribed(name, reason)
            which = trouble_of(name, why)
            self._throttle.error(which, "the MQTT broker cannot be asked for the filter %r: %s", name, reason)
        return [name for name in wanted if name not in why]

    def _subscribe(self, topic_filter: str) -> None:
        generations = self._subscriptions.generations
        if generations.by_filter is not self._noted_generations:
            self._note_generations()
        identifier = generations.identifiers[topic_filter] if self._grants.has_identifiers else 0
        qos = self._session.qos.to_ask(topic_filter)
        self.requests.subscribe(topic_filter, qos, version5=self._speaks_5, identifier=identifier)

    def _note_generations(self) -> None:
        """Have the generations remembered before all is answered, which may never be.

        The next process must know what may have been granted, and use no number of a generation for another one.
        """
        self._noted_generations = self._subscriptions.generations.by_filter
        self._request(Remember("generations", self._subscriptions.generations_without(self.unwanted)))

    # ---- the answers

    def on_subscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what was granted (paho's callback)."""
        filters = self.requests.answered("SUBSCRIBE", packet_identifier)
        if not filters:
            return
        topic_filter, reason = filters[0], reasons[0]
        subscriptions = self._subscriptions
        self._deadlines = 0
        subscriptions.forbidden.on_answered(topic_filter)
        subscriptions.on_subscribed(topic_filter, str(reason) if reason.is_failure else None)
        if reason.is_failure:
            which = trouble_of(topic_filter, subscriptions.refused)
            self._throttle.error(which, "the MQTT broker refused the filter %r: %s", topic_filter, reason)
            self._ask_again_soon_if_in_use(reason)
            if topic_filter in (subscriptions.remembered or ()):
                self._note_generations()  # it may have no subscription any more
        else:
            self._throttle.end(topic_filter, "the MQTT broker grants the filter %r now", topic_filter)
            self._grants.note(topic_filter, reason.value)
        self._go_on_when_answered()

    def on_unsubscribe(
        self, _client: object, _data: object, packet_identifier: int, reasons: Any, _properties: object
    ) -> None:
        """Note what the broker gave up; MQTT 3.1.1 has no reasons (paho's callback)."""
        asked = self.requests.answered("UNSUBSCRIBE", packet_identifier)
        if not asked:
            return
        kept = {name: reason for name, reason in zip(asked, reasons, strict=False) if reason.is_failure}
        for name, reason in kept.items():
            which = "kept", trouble_of(name, kept)
            self._throttle.warning(which, "the MQTT broker does not give up the filter %r: %s", name, reason)
            self._ask_again_soon_if_in_use(reason)
        self.unwanted = [name for name in self.unwanted if name in kept or name not in asked]
        self._go_on_when_answered()

    def _ask_again_soon_if_in_use(self, reason: Any) -> None:
        """Ask soon again, and ever more rarely: some brokers have one set of identifiers for both directions."""
        if reason.value == PACKET_IDENTIFIER_IN_USE and (pause_seconds := self._soon.of_this_round()):
            self._ask_again_at = time.monotonic() + pause_seconds

    # ---- the next step

    def _go_on_when_answered(self) -> None:
        """Once nothing is left to be answered, take the next step; the last is to have the subscriptions remembered."""
        subscriptions = self._subscriptions
        if self._session.unsubscribing.has_begun:
            self._note_unanswered()
            return  # the unsubscribe handshake has nothing remembered
        if not self.requests:
            for topic_filter in subscriptions.pop_outdated() or subscriptions.forbidden.to_ask_next():
                self._subscribe(topic_filter)
        if not self.requests and self._may_unsubscribe:
            self._unsubscribe()
        if not self.requests:
            self._remember()
        self._note_unanswered()

    def _unsubscribe(self) -> None:
        """Unsubscribe from what is not mapped; but not while what replaces it, shared or not, is refused."""
        refused = {plain_filter(name) for name in self._subscriptions.refused}
        filters = [name for name in self.unwanted if plain_filter(name) not in refused]
        self._may_unsubscribe = False
        if filters and self._subscriptions.forbidden.may_unsubscribe:
            # Should nobody hear of the answer, it is not known whether they were there all the time.
            self._request(Remember("generations", self._subscriptions.generations_without(filters)))
            self._subscriptions.leave(filters)
            self.requests.unsubscribe(filters)

    def _remember(self) -> None:
        subscriptions = self._subscriptions
        subscribed = subscriptions.on_all_answered(self.unwanted)
        left_out = list(subscriptions.forbidden.left_out)
        generations = subscriptions.generations.by_filter
        if self.unwanted:  # what was to go, and is there for all that is known, may have been gone for a while
            generations = subscriptions.generations_without(self.unwanted)
        granted_at, asked_qos = dict(subscriptions.granted_at), dict(subscriptions.asked_qos)
        self._request(
            RememberSubscriptions(
                subscribed, generations, granted_at=granted_at, asked_qos=asked_qos, left_out=left_out
            )
        )
        less = self._grants.less(self._session.qos.of)
        if self._session.standing.note_granted(less):
            which = tuple(each.what for each in less)
            text = "; ".join(map(str, less))
            self._throttle.warning(which, "the MQTT broker grants less than was asked for: %s", text)

    def _note_unanswered(self) -> None:
        """Note it for the pages; an UNSUBSCRIBE matters only when its deadline is over, as messages come without it."""
        asked, is_overdue = self.requests.named("SUBSCRIBE"), self._deadlines > 0 and bool(self.requests)
        what = ""
        if asked:
            qos = self._session.qos.named(self.requests.first("SUBSCRIBE"))
            what = f"SUBSCRIBE with QoS {qos} to {asked}"
        elif is_overdue:
            what = f"UNSUBSCRIBE from {self.requests.named('UNSUBSCRIBE')}"
        self._session.standing.note_unanswered(what, is_overdue=is_overdue)

    # ---- by the clock

    def look_at_the_clock(self) -> None:
        """Ask again for what was not answered in time, and from time to time for what was refused."""
        if self.requests.check_overdue(reading=self._client.reading):
            self._ask_once_more()
        elif time.monotonic() >= self._ask_again_at:
            self._ask_again()

    def _ask_once_more(self) -> None:
        """Log what is not answered, and ask for it again."""
        self._deadlines += 1
        self._note_unanswered()
        session = self._session
        is_qos_2 = session.qos.is_asked_for_2(self.requests.filters("SUBSCRIBE"))
        self._throttle.error(
            "unanswered", "the MQTT broker does not answer %s; it is asked again%s", session.standing.unanswered,
            "; some brokers do not know QoS 2: try MQTT_QOS=1" if is_qos_2 else "",
        )  # fmt: skip
        if is_qos_2 and self._deadlines > 1 and self._client.heard_at > self._begun_at:
            session.qos.ask_for_1_at_most()
            self._throttle.log.error("from now on QoS 1 is asked for, as QoS 2 is not answered; set MQTT_QOS=1")
        for topic_filter in self.requests.filters("SUBSCRIBE"):
            self._subscribe(topic_filter)
        # Not from what is mapped again since.
        if unsubscribed := [name for name in self.requests.filters("UNSUBSCRIBE") if name in self.unwanted]:
            self.requests.unsubscribe(unsubscribed)

    def _ask_again(self) -> None:
        """Ask again for what was refused, and have the broker give up what is not mapped."""
        self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
        self._soon.begin_round()
        forbidden = self._subscriptions.forbidden
        not_now = {*forbidden.suspects, *forbidden.left_out}
        refused = [
            name for name in self._subscriptions.refused if name not in not_now and self._grants.is_allowed(name)
        ]
        if refused or self.unwanted or forbidden.left_out:
            self._may_unsubscribe = True
            for topic_filter in refused:
                self._subscribe(topic_filter)
            self._go_on_when_answered()
