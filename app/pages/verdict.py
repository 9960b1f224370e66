"""The verdict: is all well, and if not, what is wrong and what to do; each in a sentence.

A pure function: from the state of the bridge to findings. The gravest comes first, and is the headline:

1. The worker ends: soon it says nothing more.
2. Messages are lost as long as it lasts: the MQTT broker keeps none for us, or only so many, or Kafka will delete them.
3. Messages stop, and nothing is lost.
4. Others may read them.
5. Messages are slower than they could be, or may soon be.
6. Somebody has to decide something, in time.

Of one gravity, what concerns all messages comes before what concerns some. All that is a trouble comes before all that
wants attention, but for a stop, which explains the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from app.listed import first_of
from app.settings import Weakness

Level = Literal["ok", "attention", "trouble"]

NAMES_SHOWN = 10
MESSAGES_ARE_KEPT = "Messages are still received and kept"
NAMED_REFUSALS = 100  # filters; a user without rights may have ten thousand of them refused, and nobody reads more
CATCHING_UP_SECONDS = 5.0  # younger than that the backlog is no more than Kafka's answer being awaited


class Finding(NamedTuple):
    """What is so, and what to do about it."""

    level: Level
    text: str
    advice: str


@dataclass(frozen=True)
class Picture:
    """What the verdict rests on.

    Attributes:
        ends_because: The error that ends the worker; empty if there is none.
        stopping: The stop sequence has begun.
        leaving: How far a drain is, as `Unsubscribing.reason` says; empty if nobody asked for one.
        full_reason: Why nothing more is accepted; empty if it is.
        mqtt_connected: Whether the MQTT broker is connected.
        mqtt_address: Where it is.
        mqtt_fault: What it did that ended a connection, the last time.
        unanswered: What the MQTT broker was asked for and has not answered; empty if it answered everything.
        is_overdue: The deadline for that is over.
        less_granted: What the MQTT broker grants less than was asked for, a phrase each.
        refused_filters: Filters that the MQTT broker refused, with its reasons.
        kafka_connected: Whether Kafka takes records, as far as is known.
        kafka_judged: Something was heard of Kafka; at the start nothing is for some seconds.
        kafka_complaint: What is wrong with the addresses that Kafka advertises; empty if that is not known.
        lane_troubles: Lanes of which messages wait, with the reasons.
        lanes_not_shown: Kafka topics that Kafka does not show, and for which messages may wait.
        topics_not_shown: Kafka topics that Kafka does not show, and for which nothing waits yet.
        outlived: Sentences on lanes with messages that are older than what their topic keeps.
        clock_is_wrong: This machine's clock shows a time that has passed for certain.
        waiting_messages: Messages in the table.
        oldest_age_seconds: Age of the oldest of them.
        dead_letters: How many are kept.
        lost_lately: Messages may have been lost in the last hour.
        durable: The table is on disk.
        weaknesses: What weakens TLS, with what to do about it.
    """

    ends_because: str = ""
    stopping: bool = False
    leaving: str = ""
    full_reason: str = ""
    mqtt_connected: bool = True
    mqtt_address: str = ""
    mqtt_fault: str = ""
    unanswered: str = ""
    is_overdue: bool = False
    less_granted: Collection[str] = ()
    refused_filters: Mapping[str, str] = field(default_factory=dict)
    kafka_connected: bool = True
    kafka_judged: bool = True
    kafka_complaint: str = ""
    lane_troubles: Mapping[str, str] = field(default_factory=dict)
    lanes_not_shown: Collection[str] = ()
    topics_not_shown: Collection[str] = ()
    outlived: Sequence[str] = ()
    clock_is_wrong: bool = False
    waiting_messages: int = 0
    oldest_age_seconds: float = 0.0
    dead_letters: int = 0
    lost_lately: bool = False
    durable: bool = True
    weaknesses: Sequence[Weakness] = ()


def refusals(filters: Mapping[str, str]) -> list[str]:
    """Return what is said of filters that the MQTT broker refused, with its reasons: of many the first by name."""
    named = sorted(filters.items())[:NAMED_REFUSALS]
    more = len(filters) - len(named)
    said = [f"the MQTT broker refused the filter {name}: {reason}" for name, reason in named]
    return [*said, f"the MQTT broker refused {more} filters more"] if more > 0 else said


def findings(picture: Picture) -> list[Finding]:
    """Return everything that is to be said, the gravest first; never nothing."""
    by_gravity = (_ends, _loses, _stops, _exposes, _slows, _wants_a_decision)
    return [found for of_gravity in by_gravity for found in of_gravity(picture)] or [_well(picture)]


def _ends(picture: Picture) -> Iterator[Finding]:
    if picture.ends_because:
        yield Finding("trouble", "The worker ends because of an error.", picture.ends_because)
    if picture.stopping:
        yield Finding("attention", "The worker is stopping.", "What it has received goes to Kafka or to disk first.")


def _loses(picture: Picture) -> Iterator[Finding]:
    if picture.full_reason:
        advice = "Bring Kafka back, mend the lane that fills the table, or give it more room."
        yield Finding("trouble", f"Nothing more is accepted: {picture.full_reason}.", advice)
    if not picture.mqtt_connected:
        yield Finding(
            "trouble",
            "The MQTT broker is not connected: no message comes in.",
            (f"The last one that we ended: {picture.mqtt_fault}. " if picture.mqtt_fault else "")
            + f"Look at the broker at {picture.mqtt_address}, and at the last warnings below. Connector goes on "
            "trying.",
        )
    if picture.clock_is_wrong:
        yield Finding(
            "trouble",
            "The clock of this machine is wrong by years.",
            "Set it: records have the time of their receipt, and topics that keep records for a while delete them.",
        )
    if picture.unanswered and picture.is_overdue:
        yield _unanswered(picture, "trouble")
    for refusal in refusals(picture.refused_filters):
        yield Finding(
            "trouble",
            f"{refusal[0].upper()}{refusal[1:]}.",
            "Give our user the right to subscribe to it. Connector asks again from time to time.",
        )
    if picture.outlived:
        yield Finding(
            "trouble",
            f"{picture.outlived[0][0].upper()}{picture.outlived[0][1:]}.",
            "Raise its retention.ms before Kafka has them, or set its message.timestamp.type to LogAppendTime: else "
            "Kafka deletes them soon after.",
        )


def _stops(picture: Picture) -> Iterator[Finding]:
    if picture.kafka_connected:
        if picture.lane_troubles:
            yield _lanes_wait(picture.lane_troubles, set(picture.lanes_not_shown))
    elif picture.kafka_judged:
        yield _kafka_away(picture)


def _exposes(picture: Picture) -> Iterator[Finding]:
    for weakness in picture.weaknesses:
        yield Finding("trouble", f"TLS is weakened: {weakness.text}.", f"{weakness.advice}.")


def _slows(picture: Picture) -> Iterator[Finding]:
    if picture.unanswered and not picture.is_overdue:
        yield _unanswered(picture, "attention")
    if not picture.kafka_connected and not picture.kafka_judged:
        kept = "" if picture.full_reason else " Messages are received and kept meanwhile."
        yield Finding("attention", "Kafka has not answered yet.", f"It takes some seconds after the start.{kept}")
    if picture.leaving:
        yield Finding(
            "attention",
            f"The worker is {picture.leaving}.",
            "Stop it once the command `drain` says that Kafka has everything. Its next start subscribes again.",
        )
    if picture.less_granted:
        told = "; ".join(picture.less_granted)
        yield Finding("attention", "The MQTT broker grants less than was asked for.", f"{told[0].upper()}{told[1:]}.")
    if picture.topics_not_shown:
        yield Finding(
            "attention",
            f"Kafka shows no topic named {first_of(sorted(picture.topics_not_shown), NAMES_SHOWN)}.",
            "Create it, or allow our user to see it: messages for it would wait in the table.",
        )


def _wants_a_decision(picture: Picture) -> Iterator[Finding]:
    if picture.lost_lately:
        yield Finding("attention", "Messages may have been lost in the last hour.", "See possible losses, below.")
    if picture.dead_letters:
        yield Finding(
            "attention",
            f"Dead letters wait for a decision: {picture.dead_letters}.",
            "They cannot go to Kafka as they are. See dead letters, below: mend the cause and retry, or delete them.",
        )
    if not picture.durable:
        yield Finding(
            "attention",
            "What waits for Kafka is in memory only.",
            "Set DB_PERSIST_PATH, so that it survives the worker.",
        )


def _unanswered(picture: Picture, level: Level) -> Finding:
    return Finding(
        level,
        f"The MQTT broker has not answered {picture.unanswered}.",
        "Connector asks again. Some brokers do not know QoS 2: with MQTT_QOS=2, try 1. Else see its log.",
    )


def _kafka_away(picture: Picture) -> Finding:
    kept = "Nothing new is acknowledged to MQTT until then" if picture.full_reason else MESSAGES_ARE_KEPT
    advice = f"Bring Kafka back. {kept}; none that is acknowledged gets lost."
    if not picture.durable:
        advice = "Bring Kafka back, and do not end the worker before: they are in memory only."
    why = f": {picture.kafka_complaint}. Messages" if picture.kafka_complaint else ": messages"
    return Finding("trouble", f"Kafka is not reachable{why} wait in the table.", advice)


def _lanes_wait(troubles: Mapping[str, str], not_shown: set[str]) -> Finding:
    topic, reason = next(iter(sorted(troubles.items())))
    text = (
        f"The lane {topic} waits: {reason}."
        if len(troubles) == 1
        else f"{len(troubles)} lanes wait; {topic}: {reason}."
    )
    absent = sorted(not_shown.intersection(troubles))
    create = f"Create {first_of(absent, NAMES_SHOWN)}, or allow our user to see it. " if absent else ""
    look = "Look at the topic, its nodes and the rights on it. " if len(absent) < len(troubles) else ""
    return Finding("trouble", text, f"{create}{look}Connector tries again by itself; the other lanes go on.")


def _well(picture: Picture) -> Finding:
    if picture.waiting_messages and picture.oldest_age_seconds >= CATCHING_UP_SECONDS:
        return Finding("ok", "All is well: what waited goes to Kafka now.", "New messages follow behind it, in order.")
    return Finding("ok", "All is well.", "Messages go from MQTT to Kafka.")
