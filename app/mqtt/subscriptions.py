"""Which subscriptions the broker's session has, and what to SUBSCRIBE to and UNSUBSCRIBE from on a new connection.

A broker may resume a session that it saved before our newest subscriptions. So everything is subscribed to on each
connection where that is harmless: with MQTT 5, which sends no retained messages again. With MQTT 3.1.1 it is what was
not granted yet, what is wanted with another QoS than it was asked for, and what was granted less than a day ago
(`RENEW_SECONDS`): of those filters the retained messages come again with each connection. What a broker saved is a
state that it had, so of overlapping subscriptions it has the older ones; they are made again from the oldest to the
youngest.

A filter is, for all that is known here:

    wanted   -> granted                    SUBACK
    wanted   -> refused                    SUBACK says why; asked for again from time to time
    wanted   -> withheld                   not asked for yet: one of several at which the broker closes connections
    withheld -> granted, refused           asked for alone, and answered
    withheld -> left out                   the broker closes the connection at this one (`app.mqtt.forbidden`)
    refused, left out -> granted           in a new generation: what is queued by now has no copy of it
    granted  -> removed                    not mapped any more: unsubscribed from when what replaces it is granted

The filters of a running worker may change (`app.mqtt.filter_orders`).

`refused` has the reason of those that are refused, withheld and left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.mqtt.filter_orders import FilterOrders
from app.mqtt.forbidden import CLOSES, Forbidden
from app.mqtt.generations import LATEST, Generations
from app.mqtt.wanted_qos import WantedQos

# Many times as long as brokers take to save a session: mosquitto does it every half hour.
RENEW_SECONDS = 86_400.0
CLOCK_IS_SET_SECONDS = 1_600_000_000  # a clock that says less was not set yet, so its times tell no age
WITHHELD = "not asked for yet; the broker closed connections at one of several"


@dataclass(slots=True)
class SubscriptionPlan:
    """What to send after CONNACK, in order; nothing is unsubscribed from before what replaces it is granted."""

    subscribe: list[str]
    unsubscribe: list[str]


class Subscriptions:
    """The subscriptions of the session, over all its connections (MQTT thread, except where said otherwise).

    Attributes:
        generations: How old they are, and their identifiers.
        forbidden: Filters at which the broker closes the connection.
        remembered: The filters that the broker's session had when the table was last written; None if unknown.
        left: The filters that the session had when an earlier process was drained, if that one was the last; a
            generation does not tell, as it is also kept of filters that were refused or removed before.
        refused: Filters that the broker refused, with its reason; and those that are not asked for, with ours.
        granted_at: When each filter was granted first (Unix seconds); it is kept in the table.
        asked_qos: The QoS that each was asked for with when it was granted last; it is kept in the table.
        answered: The broker answered all that was asked: its session has our subscriptions.
        on_disk: The table is on disk; one in memory never has a record of an earlier process.
        lost: How often the broker had lost a session that we had.
        orders: Other filters, which the event loop orders.
    """

    def __init__(self, generations: Generations, qos: WantedQos) -> None:
        """Begin with the filters of the routes, of which nothing is known, and the QoS to subscribe with."""
        self.generations = generations
        self.on_disk = False
        self._qos = qos
        self.forbidden = Forbidden()
        self.remembered: frozenset[str] | None = None
        self.left: frozenset[str] = frozenset()
        self.refused: dict[str, str] = {}
        self.granted_at: dict[str, float] = {}
        self.asked_qos: dict[str, int] = {}
        self.answered = False
        self.lost = 0
        self.orders = FilterOrders()
        self._renews = False  # subscribing again is harmless on this connection
        self._had_one = False  # the broker has a session of ours, or one with a subscription that was granted
        self._granted_here: dict[str, float] = {}  # by a clock that nobody sets
        self._outdated: list[str] = []  # filters that have another identifier than they were subscribed to with

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic filters of the routes, in the order of precedence; with the group's prefix where there is one."""
        return self.generations.filters

    @property
    def is_shared(self) -> bool:
        """Whether the subscriptions are shared with other workers, which only MQTT 5 has."""
        return self.generations.is_shared

    def recover(
        self,
        remembered: Iterable[str] | None,
        generations: dict[str, int],
        *,
        left: Iterable[str] = (),
        granted_at: Mapping[str, float] | None = None,
        asked_qos: Mapping[str, int] | None = None,
        left_out: Iterable[str] = (),
        on_disk: bool = False,
    ) -> None:
        """Begin with what the table remembers (event loop, before the thread).

        Args:
            remembered: The filters that the session has; None if unknown.
            generations: When each was subscribed to.
            left: The filters that a drain left.
            granted_at: When each was granted first (Unix seconds).
            asked_qos: With which QoS each was asked for; what is missing, with MQTT_QOS.
            left_out: Filters at which the broker closes the connection.
            on_disk: The table is on disk: if it remembers nothing, no earlier process has written to it.
        """
        self.on_disk = on_disk
        self.remembered = None if remembered is None else frozenset(remembered)
        self.generations.replace(generations)
        self.left = frozenset(left)
        self.granted_at = dict(granted_at or {})
        self.asked_qos = dict(asked_qos or {})
        self.forbidden.recover(name for name in left_out if name in self.filters)

    def take_up_order(self) -> list[str]:
        """Have the filters that were ordered; return those to subscribe to, in the order of precedence."""
        order = self.orders.take_up()
        if order is None:
            return []
        removed = set(self.filters).difference(order.filters)
        added = self.generations.change_filters(order.filters, self.refused)
        for name in removed:
            self.refused.pop(name, None)
        self.forbidden.drop(removed)
        wanted = order.anew.union(added)
        return [name for name in self.filters if name in wanted]

    def leave(self, filters: Iterable[str]) -> None:
        """Note that UNSUBSCRIBE is about to be sent."""
        self.generations.leave(filters)

    def on_connected(self, *, session_present: bool, renews: bool) -> SubscriptionPlan:
        """Decide what to subscribe to on a new connection.

        Args:
            session_present: What CONNACK said.
            renews: Subscribing again is harmless: with MQTT 5 retain handling 1 keeps retained messages from coming
                again.
        """
        self._renews = renews
        self.take_up_order()  # the plan has all of them
        self.generations.begin_connection(session_present=session_present)
        self._outdated = []  # the plan has all of them
        self.generations.identify()
        had_one, self._had_one = self._had_one or bool(self.remembered), session_present
        if not session_present:
            self.lost += had_one
            return self._begin_anew()
        known = self.remembered or frozenset()
        # What an earlier process asked for may have been granted, though it ended before it was answered.
        asked = known or self.left or self.generations.known_filters()
        if self.remembered is not None and not self.answered:
            # One without a generation is one of which it is unknown whether the broker did without it for a while.
            by_filter = self.generations.by_filter
            old = asked.intersection(by_filter) if by_filter else asked
            if not known and not self.left:
                old = old.intersection(self._granted_here)  # of the others nobody heard that they were granted
            self.generations.begin([name for name in self.filters if name not in old])
        elif renews and self.is_unrecorded:
            self.generations.begin_apart()
        return self._plan(known, asked)

    @property
    def is_unrecorded(self) -> bool:
        """Whether there is no record of a session; if the broker has one, an earlier process made it.

        The table of that process is not here: its node was lost, its volume is not mounted, or it was in memory. What
        is queued by now may come twice where filters overlap, which what is published after this process has subscribed
        anew must not; also in a shared group.
        """
        return not (self.remembered is not None or self.generations.by_filter or self.left)

    def _begin_anew(self) -> SubscriptionPlan:
        """Begin with a session that has nothing."""
        self.answered = False
        self.remembered = self.left = frozenset()
        self.granted_at, self.asked_qos = {}, {}
        self._granted_here.clear()
        self.generations.replace(dict.fromkeys(self.filters, 1))
        return SubscriptionPlan(list(self.filters), [])

    def _plan(self, known: frozenset[str], asked: Iterable[str]) -> SubscriptionPlan:
        """Plan for a session that was resumed.

        Args:
            known: The filters that it has.
            asked: Those that it may have.
        """
        may_have, by_filter = set(asked), self.generations.by_filter
        wanted = [name for name in self.filters if self._renews or name not in known or self._is_to_renew(name)]
        wanted.sort(key=lambda name: by_filter.get(name, 0 if name in may_have else math.inf))
        # What was removed before may be there again: the session may have been saved before it was.
        return SubscriptionPlan(wanted, sorted(may_have.union(by_filter).difference(self.filters, [LATEST])))

    def _is_to_renew(self, name: str) -> bool:
        """Tell whether a filter is wanted with another QoS, or was granted so lately that the broker saved it before.

        The subscription is replaced by that, and what is queued stays ([MQTT-3.8.4-3]).
        """
        if self.asked_qos.get(name, self._qos.default) != self._qos.to_ask(name):
            return True
        if name in self._granted_here:
            return time.monotonic() - self._granted_here[name] < RENEW_SECONDS
        granted_at = self.granted_at.get(name, 0.0)
        return granted_at < CLOCK_IS_SET_SECONDS or time.time() - granted_at < RENEW_SECONDS

    def withhold(self, filters: Iterable[str]) -> None:
        """Do not rest on filters that are suspected or left out, and that the session is not known to have."""
        for name in filters:
            if name in self.forbidden.left_out:
                self.refused[name] = CLOSES
            elif name not in (self.remembered or ()):
                self.refused.setdefault(name, WITHHELD)
        self.generations.touch()

    def on_subscribed(self, topic_filter: str, refusal: str | None) -> None:
        """Note what SUBACK said of a filter; None: granted."""
        if self.generations.was_removed(topic_filter):
            return
        if refusal is not None:
            self.refused[topic_filter] = refusal
            self.generations.touch()
            return
        self._had_one = True
        self.granted_at.setdefault(topic_filter, time.time())
        self.asked_qos[topic_filter] = self._qos.to_ask(topic_filter)
        self._granted_here.setdefault(topic_filter, time.monotonic())
        if topic_filter in self.refused:
            # First, as the router may ask at any moment: what is queued has no copy of a filter that was refused.
            self._begin_generation([topic_filter])
            del self.refused[topic_filter]
            self.generations.touch()

    def _begin_generation(self, filters: list[str]) -> None:
        outdated = self.generations.begin(filters)
        self._outdated += outdated
        if outdated and self.is_shared:
            self.answered = False  # should the connection end first, the next one subscribes to all of them

    def pop_outdated(self) -> list[str]:
        """Return the filters that must be subscribed to again, as their identifiers have changed; each time once."""
        outdated, self._outdated = self._outdated, []
        return [name for name in dict.fromkeys(outdated) if name not in self.refused] if self._renews else []

    def on_all_answered(self, unwanted: Iterable[str] = ()) -> list[str]:
        """Note that nothing is left to ask for; return the filters to remember.

        Args:
            unwanted: Those that the broker still has though they are not mapped (any more).
        """
        self.answered = True
        self.orders.note_done()
        subscribed = [*(name for name in self.filters if name not in self.refused), *unwanted]
        self.remembered = frozenset(subscribed)
        self.granted_at = {name: at for name, at in self.granted_at.items() if name in self.remembered}
        self.asked_qos = {name: qos for name, qos in self.asked_qos.items() if name in self.remembered}
        return subscribed

    def generations_without(self, filters: Iterable[str]) -> dict[str, int]:
        """Return the generations of what the broker has for sure while it is asked to give up filters."""
        return self.generations.without([*filters, *self.refused])

    # ---- for a drain

    def to_leave(self) -> list[str]:
        """Return the filters whose copies may be queued at the broker when a drain begins."""
        names = dict.fromkeys((*(self.remembered or self.left or self.generations.by_filter), *self.filters))
        return [name for name in names if name not in self.refused and name != LATEST]

    def youngest_first(self) -> list[str]:
        """Return every filter that the broker's session may have, in the order in which to leave them."""
        by_filter = self.generations.by_filter
        names = dict.fromkeys((*self.filters, *by_filter, *(self.remembered or ())))
        names.pop(LATEST, None)
        return sorted(names, key=lambda name: by_filter.get(name, math.inf))[::-1]
