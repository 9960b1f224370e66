"""What outlives a connection: the QoS 2 identifiers that await PUBREL, and which subscriptions the broker has.

It is also the decision what to SUBSCRIBE to and UNSUBSCRIBE from when a connection is made: once per process and
session, and again while a connection ended before the broker had answered all of it. Subscriptions are made in
the order of precedence (exact mappings first), so that no copy of a message can arrive through a later filter before
the subscription of the first match exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.messages import Message


@dataclass(slots=True)
class SubscriptionPlan:
    """What to send after CONNACK, in order."""

    subscribe: list[str]
    unsubscribe: list[str]


@dataclass
class Session:
    """The state of the MQTT session on our side; the MQTT thread's, except where said otherwise.

    Attributes:
        filters: The topic filters of the mappings, in the order of precedence.
        identifiers: The subscription identifier of each filter.
        qos: The QoS to subscribe with.
        remembered: The filters that the broker's session had when the table was last written; None if unknown.
        awaiting_release: QoS 2 messages by packet identifier, from PUBLISH to PUBREL; they survive reconnects.
        established: Identifiers of subscriptions whose copies are sure to come; shared with the router, which adds
            one when it sees its first copy.
        refused: Filters that the broker refused, with its reason.
        lost: How often the broker had lost a session that we had.
        was_connected: This process has had a connection.
        said_overlap: It was logged what overlapping filters do without subscription identifiers.
        answered: The broker answered all that was asked: its session has our subscriptions.
    """

    filters: tuple[str, ...]
    identifiers: dict[str, int]
    qos: int = 1
    remembered: frozenset[str] | None = None
    awaiting_release: dict[int, Message] = field(default_factory=dict)
    established: set[int] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    lost: int = 0
    was_connected: bool = False
    said_overlap: bool = False
    answered: bool = False

    def on_connected(self, *, session_present: bool, identifiers_available: bool) -> SubscriptionPlan:
        """Decide what to subscribe to on a new connection, and which subscriptions are established.

        Args:
            session_present: What CONNACK said.
            identifiers_available: MQTT 5 with subscription identifiers: subscribing again is harmless there, as
                retain handling 1 keeps retained messages from coming again.
        """
        had_one, self.was_connected = self.was_connected or bool(self.remembered), True
        if not session_present:
            self.lost += had_one
            self.answered = False
            self.remembered = frozenset()
            self.awaiting_release.clear()
            self.established.update(self.identifiers.values())
            return SubscriptionPlan(list(self.filters), [])
        if self.answered:
            return SubscriptionPlan([], [])
        known = self.remembered or frozenset()
        self.established.update(self.identifiers[name] for name in self.filters if name in known)
        wanted = self.filters if identifiers_available else [name for name in self.filters if name not in known]
        return SubscriptionPlan(list(wanted), sorted(known.difference(self.filters)))

    def on_subscribed(self, topic_filter: str, refusal: str | None) -> None:
        """Note what SUBACK said of a filter; None: granted."""
        if refusal is None:
            self.refused.pop(topic_filter, None)
        else:
            self.refused[topic_filter] = refusal
            self.established.discard(self.identifiers[topic_filter])

    def on_all_answered(self) -> list[str]:
        """Note that nothing is left to ask for; return the filters to remember."""
        self.answered = True
        granted = [name for name in self.filters if name not in self.refused]
        self.remembered = frozenset(granted)
        return granted

    def restore(self, packet_identifiers: Iterable[int]) -> None:
        """Take over the QoS 2 identifiers that were stored with their messages (event loop, before the thread)."""
        for identifier in packet_identifiers:
            message = Message(b"", b"", 2, 4, identifier, b"", 0, None)
            message.stored = message.safe = message.confirmed = True
            self.awaiting_release[identifier] = message
