"""One Kafka topic: does it exist, is it writable, and what does its configuration mean for messages that waited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from app.check.findings import Finding, Report
from app.kafka.heard import LARGEST_INT64, whole
from app.kafka.topic_limits import NO_RECORD_FITS_BYTES, configuration_of
from app.kafka.visit import Topic
from app.plan import duration_text

if TYPE_CHECKING:
    from app.settings import Settings

REPORT = Report("kafka")
SHORT_RETENTION_MS = 86_400_000  # of an outage that is looked at on the next day, Kafka would delete what waited
SHORT_AGE_MS = 60_000  # clocks differ by seconds
ENOUGH_NODES = 3  # for copies that outlive a node
RIGHTS = frozenset({"WRITE", "ALL"})
CREATE = (
    "Create it, or correct the route; if it exists, grant Connector's user Describe and Write on it. It need not be "
    "there where Kafka creates topics by itself (auto.create.topics.enable)."
)


def judged(settings: Settings, name: str, topic: Topic, nodes: int, *, has_no_keys: bool) -> Iterator[Finding]:
    """Yield the findings of one topic.

    Args:
        settings: Of the worker.
        name: Of the topic.
        topic: What Kafka said of it.
        nodes: How many nodes Kafka has.
        has_no_keys: Records without a key go there.
    """
    if topic.is_missing:
        yield REPORT.wrong("topic", name, f"the topic {name} does not exist, or is not shown", CREATE)
    elif topic.refusal:
        yield REPORT.wrong(
            "topic",
            name,
            f"Kafka says nothing of the topic {name}: {topic.refusal}",
            "Grant Connector's user Describe and Write on it.",
        )
    else:
        values = topic.values or {}
        wanted = configuration_of(values).in_sync_replicas
        yield _copies(name, topic, wanted, nodes)
        yield _rights(name, topic)
        if topic.values is None:
            yield REPORT.doubtful(
                "topic_settings",
                name,
                f"what the topic {name} takes and keeps is not known: {topic.no_values}",
                "Grant Connector's user DescribeConfigs on it; else it learns by refusals.",
            )
        else:
            yield from configured(settings, name, values, has_no_keys=has_no_keys)


def _copies(name: str, topic: Topic, wanted: int, nodes: int) -> Finding:
    """Judge where the partitions are, and whether they take records now."""
    partitions = topic.partitions.values()
    leaderless = [number for number, each in topic.partitions.items() if each.leader < 0]
    fewest = min((each.in_sync for each in partitions), default=0)
    copies = min((len(each.replicas) for each in partitions), default=0)
    text = f"the topic {name} has partitions: {len(partitions)}, replicas: {copies}, in sync: {fewest}"
    if leaderless:
        return REPORT.wrong(
            "topic",
            name,
            f"{text}; {len(leaderless)} have no leader",
            "Start the Kafka brokers that are down, or give all of them the listener of KAFKA_BROKER.",
        )
    if fewest < wanted:
        return REPORT.wrong(
            "topic",
            name,
            f"{text}; {wanted} must have a record (min.insync.replicas): Kafka refuses records now",
            "Start the Kafka brokers that are down, or lower min.insync.replicas of the topic.",
        )
    if fewest == wanted < copies or 1 < copies <= wanted:
        return REPORT.doubtful(
            "topic",
            name,
            f"{text}; {wanted} must have a record (min.insync.replicas): Kafka refuses records when one more is away",
            "Start the Kafka brokers that are down, or let min.insync.replicas be less than the replicas.",
        )
    if copies == 1 and nodes >= ENOUGH_NODES:
        return REPORT.doubtful(
            "topic", name, f"{text}: when its node is away nothing goes there", "Give it more replicas."
        )
    return REPORT.good("topic", name, text)


def _rights(name: str, topic: Topic) -> Finding:
    if topic.rights is None:
        text = f"whether records may be written to the topic {name} is unknown: Kafka does not say"
        return REPORT.doubtful("write", name, text, "Look at the access rules of Connector's user.")
    if not topic.rights & RIGHTS:
        text = f"records may not be written to the topic {name}: the right Write is missing"
        return REPORT.wrong("write", name, text, "Grant Connector's user Write on it.")
    return REPORT.good("write", name, f"records may be written to the topic {name}")


def configured(
    settings: Settings, name: str, values: Mapping[str, str | None], *, has_no_keys: bool
) -> Iterator[Finding]:
    """Yield what the configuration of a topic means; one finding that names it, if none of it is odd."""
    found = [*_sizes(settings, name, values), *_cleaning(name, values, has_no_keys=has_no_keys), *_times(name, values)]
    yield from found
    if not found:
        known = configuration_of(values)
        keeps = "for ever" if known.keeps_ms is None else f"for {_in_words(known.keeps_ms)}"
        if values.get("message.timestamp.type") == "LogAppendTime":
            keeps = "from its arrival on"
        text = (
            f"the topic {name} takes batches of {known.limit_bytes or 'any number of'} bytes, and keeps records {keeps}"
        )
        yield REPORT.good("topic_settings", name, text)


def _sizes(settings: Settings, name: str, values: Mapping[str, str | None]) -> Iterator[Finding]:
    limit_bytes, wanted_bytes = configuration_of(values).limit_bytes, settings.mqtt_maximum_packet_bytes
    if limit_bytes is None:
        return
    text = f"the topic {name} takes batches of {limit_bytes} bytes at most (max.message.bytes, segment.bytes)"
    if limit_bytes < NO_RECORD_FITS_BYTES:
        yield REPORT.wrong("size", name, f"{text}, into which no record fits", "Raise max.message.bytes of the topic.")
    elif wanted_bytes is not None and limit_bytes < wanted_bytes:
        yield REPORT.doubtful(
            "size",
            name,
            f"{text}; MQTT_MAXIMUM_PACKET_BYTES allows {wanted_bytes}, and larger messages become dead letters",
            "Raise max.message.bytes of the topic, or lower MQTT_MAXIMUM_PACKET_BYTES.",
        )


def _cleaning(name: str, values: Mapping[str, str | None], *, has_no_keys: bool) -> Iterator[Finding]:
    if "compact" not in (values.get("cleanup.policy") or ""):
        return
    text = f"the topic {name} is compacted (cleanup.policy)"
    if not has_no_keys:
        yield REPORT.doubtful(
            "cleanup",
            name,
            f"{text}: of the records with the same key (RECORD_KEY) it keeps the newest alone",
            "Set cleanup.policy=delete if every record is wanted.",
        )
    else:
        yield REPORT.wrong(
            "cleanup",
            name,
            f"{text}, and records without a key go there (RECORD_KEY is empty): Kafka refuses them",
            "Set RECORD_KEY, or cleanup.policy=delete.",
        )


def _times(name: str, values: Mapping[str, str | None]) -> Iterator[Finding]:
    known = configuration_of(values)
    if known.keeps_ms is not None and known.keeps_ms < SHORT_RETENTION_MS:
        yield REPORT.doubtful(
            "retention",
            name,
            f"the topic {name} keeps records for {_in_words(known.keeps_ms)} from their receipt on (retention.ms): of "
            "what waits for longer in an outage, Kafka deletes all soon after it has it",
            "Raise retention.ms above the longest outage, or set message.timestamp.type=LogAppendTime.",
        )
    if known.takes_age_ms is not None and known.takes_age_ms < SHORT_AGE_MS:
        yield REPORT.doubtful(
            "age",
            name,
            f"the topic {name} takes no records that are older than {_in_words(known.takes_age_ms)} "
            "(message.timestamp.before.max.ms): what waits for longer gets another time",
            "Raise it, or read the header connector-received.",
        )
    after_ms = whole(values.get("message.timestamp.after.max.ms"), -1, LARGEST_INT64, -1)
    if 0 <= after_ms < SHORT_AGE_MS and values.get("message.timestamp.type") != "LogAppendTime":
        yield REPORT.doubtful(
            "clock",
            name,
            f"the topic {name} takes no records that are {_in_words(after_ms)} ahead of Kafka's clock "
            "(message.timestamp.after.max.ms)",
            "Raise it, or keep the clocks of this machine and of Kafka together.",
        )


def _in_words(milliseconds: int) -> str:
    return duration_text(milliseconds / 1000) if milliseconds >= 1000 else f"{milliseconds} ms"
