"""Kafka: can its addresses be reached, does it let the producer in, and can it be reached where it says that it is.

A client is sent on from KAFKA_BROKER to the addresses that the nodes advertise. That these cannot be reached from here
is the usual trouble with a Kafka in containers, so each is tried.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.check.findings import Finding, Looking, Report, Step
from app.check.network import Place, opened, reach
from app.check.tls import HANDSHAKE_SECONDS, kafka_context, shaken, speaks_tls
from app.check.topics import judged
from app.errors import ConnectorError
from app.kafka.visit import RIGHT, SIGN_IN, SILENT, TLS, KafkaVisit, Node, Refusal
from app.lines import short
from app.mqtt.opening import with_tls
from app.mqtt.race import Attempt
from app.settings.addresses import broker_hosts

if TYPE_CHECKING:
    from app.settings import Settings

REPORT = Report("kafka")
SIGN_IN_SECONDS = 15.0  # with a token that is to be had first
ANSWER_SECONDS = 10.0
MOST_UNREACHED = 3  # nodes or topics: each takes seconds, and the next one tells nothing new
KAFKA_PORT = 9092  # librdkafka's, where KAFKA_BROKER names none


def kafka(settings: Settings) -> Looking[None]:
    """Look at Kafka as far as it goes."""
    properties = settings.kafka_configuration()
    is_reached = False
    for place in places(settings.kafka_broker):
        is_reached |= yield from _reached(place, properties)
    if not is_reached:
        return
    try:
        visit = KafkaVisit(properties)
    except ConnectorError as error:
        yield REPORT.wrong("settings", "", str(error), "Correct the file or KAFKA_PRODUCER_CONFIG.")
        return
    try:
        yield from _visited(settings, visit, properties)
    finally:
        visit.close()


def places(brokers: str) -> list[Place]:
    """Return the addresses of KAFKA_BROKER."""
    found = []
    for text, host in zip(brokers.split(","), broker_hosts(brokers), strict=True):
        port = text.rpartition(":")[2]
        has_port = text != host and port.isdecimal()  # of an address in brackets alone the rest ends with one
        found.append(Place(host, int(port) if has_port else KAFKA_PORT, "KAFKA_BROKER"))
    return found


def _reached(place: Place, properties: Mapping[str, Any]) -> Looking[bool]:
    """Connect to one address, with TLS if that is wanted; return whether it works."""
    connection = yield from opened(REPORT, place)
    if connection is None:
        return False
    try:
        context = _context(properties)
    except OSError as error:
        connection.close()
        yield REPORT.wrong("tls", str(place), f"a file cannot be used: {short(error)}", "Correct KAFKA_CA_FILE.")
        return False
    if context is None:
        connection.close()
        return True
    encrypted = yield from shaken(REPORT, place, connection, context, "KAFKA")
    if encrypted is None:
        return False
    encrypted.close()
    return True


def _context(properties: Mapping[str, Any]) -> ssl.SSLContext | None:
    """Return a context if TLS is wanted, and Python can have the same as librdkafka."""
    return kafka_context(properties) if str(properties["security.protocol"]).endswith("SSL") else None


def _visited(settings: Settings, visit: KafkaVisit, properties: Mapping[str, Any]) -> Looking[None]:
    """Sign in, and look at nodes and topics."""
    protocol = str(properties["security.protocol"])
    yield Step(f"signing in to Kafka ({protocol})")
    refusal = visit.sign_in(SIGN_IN_SECONDS)
    if refusal is not None and refusal.kind == SILENT and (place := _place_of_tls(settings, protocol)) is not None:
        text = f"Kafka speaks TLS at {place}, and is asked without"
        yield REPORT.wrong("tls", str(place), text, "Set KAFKA_TLS=true, or correct the port in KAFKA_BROKER.")
        return
    yield signed_in(refusal, settings, protocol)
    if refusal is not None and refusal.kind in {SIGN_IN, TLS}:
        return
    yield from _nodes(visit.nodes, properties)
    if refusal is None or refusal.kind == RIGHT:
        yield from _topics(settings, visit, len(visit.nodes))


def _place_of_tls(settings: Settings, protocol: str) -> Place | None:
    """Return an address at which Kafka wants TLS, if it is asked without."""
    if protocol.endswith("SSL"):
        return None
    return next((place for place in places(settings.kafka_broker) if speaks_tls(place)), None)


def _topics(settings: Settings, visit: KafkaVisit, nodes: int) -> Looking[None]:
    """Look at each Kafka topic; not at all of very many, if Kafka does not answer."""
    for route in settings.routes:
        if route.kafka_topic is None:
            text = f"the Kafka topics that are made by {route.to.text!r} are not known before messages come"
            advice = "See that they exist, or that Kafka creates topics by itself (auto.create.topics.enable)."
            yield REPORT.doubtful("topic", route.to.text, text, advice)
    known = topics_of(settings)
    if known:
        yield Step(f"asking for {len(known)} topics")
    silent = 0
    for count, (name, topic) in enumerate(visit.topics(known, ANSWER_SECONDS), 1):
        yield from judged(settings, name, topic, nodes, has_no_keys=known[name])
        silent += topic.is_silent
        if silent == MOST_UNREACHED and count < len(known):
            text = f"{len(known) - count} more topics were not asked for, as Kafka does not answer"
            yield REPORT.doubtful("topic", "", text, "Look at the log of the Kafka brokers, and check again.")
            return


def signed_in(refusal: Refusal | None, settings: Settings, protocol: str) -> Finding:
    """Return the finding of how the producer was received."""
    subject = settings.kafka_broker
    if refusal is None:
        return REPORT.good("sign_in", subject, f"Kafka let the producer in ({protocol}), and to write idempotently")
    if refusal.kind == RIGHT:
        return REPORT.wrong(
            "idempotent_write",
            subject,
            f"Kafka refuses the idempotent producer: {refusal.text}",
            "Grant Connector's user Write on its topics, or IdempotentWrite on the cluster.",
        )
    if refusal.kind == TLS:
        return REPORT.wrong(
            "tls",
            subject,
            f"librdkafka refuses Kafka's certificate: {refusal.text}",
            "Name a file with the authority that signed it in KAFKA_CA_FILE: librdkafka may not know the system's.",
        )
    if refusal.kind == SIGN_IN:
        who = "SASL_OAUTHBEARER_" if settings.sasl_ssl else "KAFKA_SASL_"
        return REPORT.wrong(
            "sign_in", subject, f"Kafka cannot be signed in to: {refusal.text}", f"Correct the {who} variables."
        )
    if "alert" in refusal.text and "certificate" in refusal.text:
        return REPORT.wrong(
            "tls",
            subject,
            f"Kafka refuses our certificate, or that there is none: {refusal.text}",
            "Give a client certificate that Kafka trusts in KAFKA_CERT_FILE and KAFKA_KEY_FILE.",
        )
    return REPORT.wrong(
        "sign_in",
        subject,
        f"Kafka accepts connections, and does not answer the producer: {refusal.text}",
        "Look whether this listener wants TLS (KAFKA_TLS) or a user (KAFKA_SASL_MECHANISM, SASL_SSL), at the addresses "
        "that Kafka advertises (advertised.listeners), and at the right IdempotentWrite of Connector's user.",
    )


def _nodes(nodes: Sequence[Node], properties: Mapping[str, Any]) -> Looking[None]:
    """Try to reach each node; not all of very many, if some cannot be."""
    unreached = 0
    for count, node in enumerate(nodes):
        if unreached == MOST_UNREACHED:
            text = f"{len(nodes) - count} more nodes were not tried"
            yield REPORT.doubtful("node", "", text, "Correct what is named above, and check again.")
            return
        yield Step(f"connecting to node {node.number}")
        found = advertised(node, properties)
        unreached += found.verdict == "wrong"
        yield found


def advertised(node: Node, properties: Mapping[str, Any]) -> Finding:
    """Try to reach a node where Kafka says that it is, with TLS if that is wanted, and return the finding."""
    place = Place(node.host, node.port, "advertised.listeners")
    try:
        context = _context(properties)
        connection = reach(place)
        with connection if context is None else with_tls(connection, context, place.host, Attempt(HANDSHAKE_SECONDS)):
            how = "accepts connections" if context is None else "speaks TLS"
    except (OSError, ValueError) as error:
        return REPORT.wrong(
            "node",
            str(place),
            f"Kafka says that node {node.number} is at {place}, which cannot be reached from here: {short(error)}",
            "Start the node, or correct advertised.listeners of Kafka, its certificate, or the name service or network "
            "of this machine.",
        )
    return REPORT.good("node", str(place), f"node {node.number} is at {place} and {how}")


def topics_of(settings: Settings) -> dict[str, bool]:
    """Return the Kafka topics that are known, and whether records without a key go there."""
    found: dict[str, bool] = {}
    for route in settings.routes:
        has_no_key = not route.key_or(settings.record_key).text
        for name in filter(None, (route.kafka_topic, route.dead_letter_topic or settings.dead_letter_topic)):
            found[name] = found.get(name, False) or has_no_key
    return found
