"""What outlives a connection: the QoS 2 identifiers that await PUBREL, and which subscriptions the broker has.

It is also the decision what to SUBSCRIBE to and UNSUBSCRIBE from when a connection is made. A broker may resume a
session that it saved before our newest subscriptions. So everything is subscribed to on each connection where that is
harmless: with MQTT 5, which sends no retained messages again. With MQTT 3.1.1 it is what was not granted yet, and what
was granted less than a day ago (`RENEW_SECONDS`): of those filters the retained messages come again with each
connection. What a broker saved is a state that it had, so of overlapping subscriptions it has the older ones; they are
made again from the oldest to the youngest. A process that is drained subscribes to nothing (`app.mqtt.leaving`).

Which copy of a message to keep, and which mapping it belongs to, is in `app.mqtt.copies`.
`app.mqtt.shared` is the session of a worker that shares its subscriptions with others.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from app.messages import Message
from app.mqtt.copies import LATEST, Copies
from app.mqtt.forbidden import CLOSES, Forbidden
from app.mqtt.requests import named

if TYPE_CHECKING:
    from app.mqtt.granted import Shortfall

# Many times as long as brokers take to save a session: mosquitto does it every half hour.
RENEW_SECONDS = 86_400.0
HELD_BYTES = 2_048  # a smaller message that Kafka has is held until PUBREL: there are 65,535 at most
CLOCK_IS_SET_SECONDS = 1_600_000_000  # a clock that says less was not set yet, so its times tell no age


@dataclass(slots=True)
class SubscriptionPlan:
    """What to send after CONNACK, in order; nothing is unsubscribed from before what replaces it is granted."""

    subscribe: list[str]
    unsubscribe: list[str]


@dataclass
class Session(Copies):
    """The state of the MQTT session on our side; the MQTT thread's, except where said otherwise.

    Attributes:
        filters: The topic filters of the mappings, in the order of precedence.
        identifiers: The subscription identifier of each filter.
        qos: The QoS to subscribe with.
        remembered: The filters that the broker's session had when the table was last written; None if unknown.
        generations: When each subscription was made, by filter; also of removed ones, until the session is lost. A
            filter is missing while that is unknown.
        left: The filters that the session had when an earlier process was drained, if that one was the last; a
            generation does not tell, as it is also kept of filters that were refused or removed before.
        version: Changes with what `copy_to_keep` answers; read by the router, which keeps the answers.
        maybe_stored: Identifiers that the table may hold of ended QoS 2 flows: their PUBREL goes by way of the keeper.
        awaiting_release: QoS 2 messages by packet identifier, from PUBLISH to PUBREL; they survive reconnects.
        stored_fingerprints: By packet identifier, of the messages in `awaiting_release` that are not held in memory.
        refused: Filters that the broker refused, with its reason; and those that are not asked for, with ours.
        forbidden: Filters at which the broker closes the connection.
        granted_at: When each filter was granted first (Unix seconds); it is kept in the table.
        asking_qos: The QoS to ask for: `qos`, or 1 where the broker does not answer to 2.
        unanswered: What the broker was asked for on this connection and has not answered, as a sentence; empty if it
            answered everything.
        is_overdue: The deadline for that is over.
        less_granted: What the broker grants less than was asked for on this connection.
        lost: How often the broker had lost a session that we had.
        faults: How many connections ended as the broker did what MQTT does not allow.
        last_fault: What it was, the last time.
        said_overlap: It was logged what overlapping filters do without subscription identifiers.
        answered: The broker answered all that was asked: its session has our subscriptions.
        is_shared: The subscriptions are shared with other workers, which only MQTT 5 has.
        leaving: The worker is drained: it subscribes to nothing until its next start (set on the event loop).
        left_at: `time.monotonic()` when the broker had ended all subscriptions on this connection; 0 before.
        wants_answer: The drain wants a sign that the broker is there and has nothing more (set on the event loop).
        answered_at: `time.monotonic()` when a drain asked the last question that the broker has answered; 0 before.
        renews: Subscribing again is harmless on this connection.
        not_left: Filters that the broker refused to unsubscribe from, with its reason.
    """

    is_shared: ClassVar[bool] = False

    filters: tuple[str, ...]
    identifiers: dict[str, int]
    qos: int = 1
    remembered: frozenset[str] | None = None
    generations: dict[str, int] = field(default_factory=dict)
    left: frozenset[str] = frozenset()
    version: int = 0
    awaiting_release: dict[int, Message] = field(default_factory=dict)
    maybe_stored: set[int] = field(default_factory=set)
    stored_fingerprints: dict[int, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    forbidden: Forbidden = field(default_factory=Forbidden, repr=False)
    granted_at: dict[str, float] = field(default_factory=dict)
    asking_qos: int = -1
    unanswered: str = ""
    is_overdue: bool = False
    less_granted: list[Shortfall] = field(default_factory=list)
    lost: int = 0
    faults: int = 0
    last_fault: str = ""
    said_overlap: bool = False
    answered: bool = False
    leaving: bool = False
    left_at: float = 0.0
    wants_answer: bool = False
    answered_at: float = 0.0
    not_left: dict[str, str] = field(default_factory=dict)
    renews: bool = False
    _had_one: bool = False  # the broker has a session of ours, or one with a subscription that was granted
    _held: deque[Message] = field(default_factory=deque, repr=False)
    _granted_here: dict[str, float] = field(default_factory=dict, repr=False)  # by a clock that nobody sets
    _again: list[str] = field(default_factory=list, repr=False)
    _first: dict[str, int] = field(default_factory=dict, repr=False)
    _aged: tuple[dict[str, int], dict[str, int], dict[int, int]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Ask for the QoS of the settings."""
        self.asking_qos = self.qos

    def on_connected(self, *, session_present: bool, renews: bool) -> SubscriptionPlan:
        """Decide what to subscribe to on a new connection.

        Args:
            session_present: What CONNACK said.
            renews: Subscribing again is harmless: with MQTT 5 retain handling 1 keeps retained messages from coming
                again.
        """
        self.renews = renews
        self.identify()
        had_one, self._had_one = self._had_one or bool(self.remembered), session_present
        if not session_present:
            self.lost += had_one
            self.answered = False
            self.remembered = self.left = frozenset()
            self._forget_releases()
            self.granted_at = {}
            self._granted_here.clear()
            self._set_generations(dict.fromkeys(self.filters, 1))
            return SubscriptionPlan(list(self.filters), [])
        known = self.remembered or frozenset()
        # What an earlier process asked for may have been granted, though it ended before it was answered.
        asked = known or self.left or frozenset(self.generations).difference([LATEST])
        if self.remembered is not None and not self.answered:
            # One without a generation is one of which it is unknown whether the broker did without it for a while.
            old = asked.intersection(self.generations) if self.generations else asked
            if not known and not self.left:
                old = old.intersection(self._granted_here)  # of the others nobody heard that they were granted
            self._begin_generation([name for name in self.filters if name not in old])
        wanted = [name for name in self.filters if renews or name not in known or self._is_young(name)]
        wanted.sort(key=lambda name: self.generations.get(name, 0 if name in asked else math.inf))
        # What was removed before may be there again: the session may have been saved before it was.
        return SubscriptionPlan(wanted, sorted(asked.union(self.generations).difference(self.filters, [LATEST])))

    def _is_young(self, name: str) -> bool:
        """Tell whether a filter was granted so lately that what the broker saved may be older."""
        if name in self._granted_here:
            return time.monotonic() - self._granted_here[name] < RENEW_SECONDS
        granted_at = self.granted_at.get(name, 0.0)
        return granted_at < CLOCK_IS_SET_SECONDS or time.time() - granted_at < RENEW_SECONDS

    def hold_back(self, filters: Iterable[str]) -> None:
        """Do not rest on filters that are suspected or left out, and that the session is not known to have."""
        for name in filters:
            if name in self.forbidden.left_out:
                self.refused[name] = CLOSES
            elif name not in (self.remembered or ()):
                self.refused.setdefault(name, "not asked for yet; the broker closed connections at one of several")
        self.version += 1

    @property
    def leaving_reason(self) -> str:
        """How far a drain is, for `/health/ready` and the page; empty if nobody asked for one."""
        if not self.leaving:
            return ""
        if self.left_at:
            return "drained: subscribed to nothing until the next start"
        if kept := self.not_left:
            reasons = ", ".join(sorted(set(kept.values())))
            return f"draining: the MQTT broker does not end the subscription {named([*kept])} ({reasons})"
        return "draining: the MQTT broker has not ended our subscriptions yet"

    def to_leave(self) -> list[str]:
        """Return the filters whose copies may be queued at the broker when a drain begins."""
        names = dict.fromkeys((*(self.remembered or self.left or self.generations), *self.filters))
        return [name for name in names if name not in self.refused and name != LATEST]

    def youngest_first(self) -> list[str]:
        """Return every filter that the broker's session may have, in the order in which to leave them."""
        names = dict.fromkeys((*self.filters, *self.generations, *(self.remembered or ())))
        names.pop(LATEST, None)
        return sorted(names, key=lambda name: self.generations.get(name, math.inf))[::-1]

    def on_subscribed(self, topic_filter: str, refusal: str | None) -> None:
        """Note what SUBACK said of a filter; None: granted."""
        if refusal is not None:
            self.refused[topic_filter] = refusal
            self.version += 1
            return
        self._had_one = True
        self.granted_at.setdefault(topic_filter, time.time())
        self._granted_here.setdefault(topic_filter, time.monotonic())
        if topic_filter in self.refused:
            # First, as the router may ask at any moment: what is queued has no copy of a filter that was refused.
            self._begin_generation([topic_filter])
            self._again.append(topic_filter)  # under the identifier of its new generation
            del self.refused[topic_filter]
            self.version += 1

    def take_outdated(self) -> list[str]:
        """Return the filters that must be subscribed to again, as their identifiers have changed."""
        outdated, self._again = self._again, []
        return outdated if self.renews else []

    def on_all_answered(self, unwanted: Iterable[str] = ()) -> list[str]:
        """Note that nothing is left to ask for; return the filters to remember.

        Args:
            unwanted: Those that the broker still has though they are not mapped (any more).
        """
        self.answered = True
        subscribed = [*(name for name in self.filters if name not in self.refused), *unwanted]
        self.remembered = frozenset(subscribed)
        self.granted_at = {name: at for name, at in self.granted_at.items() if name in self.remembered}
        return subscribed

    def _begin_generation(self, filters: Sequence[str]) -> None:
        if filters:
            generation = max(self.generations.values(), default=0) + 1
            self._set_generations({**self.generations, **dict.fromkeys(filters, generation)})

    def _set_generations(self, generations: dict[str, int]) -> None:
        self.generations = generations  # replaced, never changed: the event loop may be reading it
        self.identify()
        self.version += 1

    def note_fault(self, fault: str) -> None:
        """Note that a connection ends for what the broker did."""
        self.faults += 1
        self.last_fault = fault

    def begin_release(self, message: Message) -> None:
        """Note that a QoS 2 message was received that PUBREL will end."""
        identifier = message.packet_identifier
        self.stored_fingerprints.pop(identifier, None)
        old = self.awaiting_release.get(identifier)
        if old is None:
            self.maybe_stored.discard(identifier)  # PUBCOMP was sent since, so it was durably forgotten
        else:  # the broker is done with the old message, the table is not
            old.packet_identifier = 0  # where it is still to be stored: not under what is another message's now
            if old.stored:
                self.maybe_stored.add(identifier)
        self.awaiting_release[identifier] = message
        self._held.append(message)
        self._let_go()

    def end_release(self, identifier: int) -> bool:
        """Note a PUBREL; return whether the table may hold the identifier, which must go before PUBCOMP is sent."""
        self.stored_fingerprints.pop(identifier, None)
        message = self.awaiting_release.pop(identifier, None)
        if message is not None and message.stored:
            self.maybe_stored.add(identifier)
        return identifier in self.maybe_stored

    def _forget_releases(self) -> None:
        """Forget all QoS 2 flows with their session; what is stored from now on stores no identifier of it."""
        for message in self.awaiting_release.values():
            message.packet_identifier = 0
        self.awaiting_release.clear()
        self._held.clear()
        self.stored_fingerprints.clear()
        self.maybe_stored.clear()

    def redelivered(self, message: Message) -> Message | None:
        """Return the QoS 2 message that a PUBLISH repeats; None if it is a new one.

        Without DUP it is new: the broker is done with the old one [MQTT-3.3.1-1]. So is another message under the same
        identifier: the broker lost the session that the identifier is remembered from.
        """
        known = self.awaiting_release.get(message.packet_identifier)
        if known is None or not message.flags & 8:
            return None
        fingerprint = self.stored_fingerprints.get(message.packet_identifier)
        expected = known.fingerprint if fingerprint is None else fingerprint
        return known if message.fingerprint == expected else None

    def restore(self, packet_identifiers: Mapping[int, int]) -> None:
        """Take over the QoS 2 identifiers that were stored with their messages (event loop, before the thread).

        Args:
            packet_identifiers: The identifiers, with the fingerprints of their messages.
        """
        for identifier, fingerprint in packet_identifiers.items():
            self._remember(identifier, fingerprint)

    def _remember(self, identifier: int, fingerprint: int, *, stored: bool = True) -> None:
        """Have a message stand for one of which only the packet identifier is still of interest."""
        message = Message(b"", b"", 2, 4, identifier, b"", 0, None)
        message.stored, message.safe, message.confirmed = stored, True, True
        self.awaiting_release[identifier] = message
        self.stored_fingerprints[identifier] = fingerprint

    def _let_go(self) -> None:
        """Do not hold messages until PUBREL that the table or Kafka has; a broker may take its time for it."""
        held = self._held
        while held and held[0].safe:
            message = held.popleft()
            identifier = message.packet_identifier
            if self.awaiting_release.get(identifier) is not message:
                continue
            if message.stored:
                self._remember(identifier, message.fingerprint)
            elif message.confirmed and message.size_bytes > HELD_BYTES:
                self._remember(identifier, message.fingerprint, stored=False)
