"""The MQTT broker: can it be reached and signed in to, what does it grant, may each filter be subscribed to.

Two connections (`app.mqtt.visit`): the first one asks for what the worker asks for, and learns the limits; it ends its
session with DISCONNECT, and subscribes to nothing, so that nothing can be queued for it. The second one subscribes, in
a session that ends with the connection, whatever happens to it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.check.findings import Finding, Looking, Report, Step
from app.check.network import CONNECT_SECONDS, Place, opened
from app.check.tls import shaken, speaks_tls
from app.lines import short
from app.mqtt import granted
from app.mqtt.naming import named
from app.mqtt.opening import Opening
from app.mqtt.race import Attempt
from app.mqtt.visit import Answered, Visit, Visiting, visitor_id
from app.settings.tls_context import tls_context

if TYPE_CHECKING:
    from app.settings import Settings

REPORT = Report("mqtt")
ANSWER_SECONDS = 10.0
MOST_CLOSED = 3  # connections that the broker closes at a filter: after so many the rest is not asked for
BAD_CLIENT_ID, BAD_VERSION, BAD_PASSWORD, NOT_AUTHORIZED = 0x85, 0x84, 0x86, 0x87
NAMES_THE_BROKER = "MQTT_BROKER_URL or MQTT_BROKER_PORT"


def mqtt(settings: Settings) -> Looking[None]:
    """Look at the broker as far as it goes."""
    place = Place(settings.mqtt_host, settings.mqtt_port, NAMES_THE_BROKER)
    connection = yield from opened(REPORT, place)
    if connection is None:
        return
    context = None
    if settings.mqtt_tls:
        try:
            context = tls_context(settings.mqtt_ca_file, settings.mqtt_cert_file, settings.mqtt_key_file)
        except OSError as error:
            connection.close()
            yield REPORT.wrong("tls", str(place), short(error), "Correct the file.")
            return
        encrypted = yield from shaken(REPORT, place, connection, context, "MQTT")
        if encrypted is None:
            return
        connection = encrypted
    yield from _visits(settings, _visiting(settings), place, connection, context)


def _visiting(settings: Settings) -> Visiting:
    password = settings.mqtt_user_password
    return Visiting(
        settings.mqtt_host,
        settings.mqtt_port,
        visitor_id(settings.mqtt_client_id),
        settings.mqtt_version == "5",
        settings.mqtt_keepalive_sec,
        settings.mqtt_receive_maximum,
        settings.mqtt_user_name,
        password.get_secret_value() if password else None,
    )


def _visits(
    settings: Settings,
    visiting: Visiting,
    place: Place,
    connection: socket.socket,
    context: ssl.SSLContext | None,
) -> Looking[None]:
    """Make the two connections; the first one is open already."""
    yield Step(f"signing in with MQTT {settings.mqtt_version} as {visiting.client_id!r}")
    answer = yield from _signed_in(settings, Visit(visiting, connection), place)
    if answer is None:
        return
    again = Opening(settings.mqtt_host, settings.mqtt_port)
    if answer.code == BAD_VERSION and visiting.is_5 and not settings.mqtt_shared_group:
        yield REPORT.doubtful(
            "version",
            str(place),
            f"the broker does not speak MQTT 5 ({answer.name}): the worker goes on with MQTT 3.1.1",
            "Set MQTT_VERSION=3.1.1 to save the attempt, or update the broker.",
        )
        visiting = visiting._replace(is_5=False)
        visit = Visit(visiting, again.open(Attempt(CONNECT_SECONDS), context))
        answer = yield from _signed_in(settings, visit, place)
        if answer is None:
            return
    yield signed_in(answer, visiting, place)
    if answer.is_refusal:
        return
    properties = answer.properties if visiting.is_5 else None
    filters = {route.mqtt_filter: route.qos_or(settings.mqtt_qos) for route in settings.routes}
    yield from limits(settings, list(filters), properties, place)
    left_out = granted.not_allowed(list(filters), {}, properties)
    wanted = {name: qos for name, qos in filters.items() if name not in left_out}
    yield from _subscribed(settings, visiting, wanted, again, context)


def _signed_in(settings: Settings, visit: Visit, place: Place) -> Looking[Answered | None]:
    """Sign in, leave, and return the answer; None if there is none."""
    try:
        answer = visit.sign_in(ANSWER_SECONDS, session_expiry_seconds=settings.mqtt_session_expiry_sec)
        visit.leave()
    except OSError as error:
        yield REPORT.wrong(
            "sign_in",
            str(place),
            f"no answer to CONNECT from {place}: {short(error)}",
            _why_silent(settings, place),
        )
        return None
    finally:
        visit.close()
    return answer


def _why_silent(settings: Settings, place: Place) -> str:
    """Return what to do about a broker that does not answer CONNECT."""
    if settings.mqtt_tls:
        return "Look at the broker's log. Perhaps it wants a client certificate that it trusts (MQTT_CERT_FILE)."
    if speaks_tls(place):
        return "It speaks TLS at this port: give MQTT_BROKER_URL an address with mqtts://, or set MQTT_TLS=true."
    return "Look at the broker's log. Perhaps another kind of server listens there: correct MQTT_BROKER_PORT."


def signed_in(answer: Answered, visiting: Visiting, place: Place) -> Finding:
    """Return the finding of what CONNACK answered."""
    user = f"user {visiting.user_name!r}" if visiting.user_name is not None else "no user name"
    how = f"with {user}, as {visiting.client_id!r}"
    if not answer.is_refusal:
        version = "5" if visiting.is_5 else "3.1.1"
        return REPORT.good("sign_in", str(place), f"signed in with MQTT {version}, {how}")
    refusal = f"the broker refuses {how}: {answer.name}"
    if answer.code == BAD_CLIENT_ID:
        return REPORT.doubtful(
            "sign_in",
            str(place),
            f"{refusal}; rights may hang on the client id, and the worker has another one",
            "Allow client ids that begin with MQTT_CLIENT_ID, to have the rest checked too.",
        )
    advice = {
        BAD_VERSION: "Unset MQTT_SHARED_GROUP, which needs MQTT 5, or update the broker.",
        BAD_PASSWORD: "Correct MQTT_USER_NAME and MQTT_USER_PASSWORD.",
        NOT_AUTHORIZED: "Correct MQTT_USER_NAME and MQTT_USER_PASSWORD, or the rights of this user; if the broker has "
        "a list of client ids, allow those that begin with MQTT_CLIENT_ID.",
    }
    return REPORT.wrong("sign_in", str(place), refusal, advice.get(answer.code, "Look at the broker's log."))


def limits(settings: Settings, filters: Sequence[str], properties: Any, place: Place) -> Iterator[Finding]:
    """Yield what CONNACK grants, and what of it is less than the worker asks for."""
    if unusable := granted.unusable(properties, is_shared=bool(settings.mqtt_shared_group)):
        yield REPORT.wrong("limits", str(place), unusable, "The worker cannot use this broker as it is.")
    if properties is not None:
        yield REPORT.good("limits", str(place), f"the broker grants {_in_words(settings, properties)}")
    asked = granted.Asked(settings.mqtt_session_expiry_sec, settings.mqtt_keepalive_sec)
    for shortfall in granted.of_connack(asked, filters, properties):
        text = f"{shortfall.what}: {shortfall.granted} instead of {shortfall.asked}"
        yield REPORT.doubtful("limits", shortfall.what, text, f"What follows: {shortfall.means}.")
    for name, reason in granted.not_allowed(filters, {}, properties).items():
        yield REPORT.wrong("filter", name, f"{name!r} must not be asked for: {reason}", "Change the route.")


def _in_words(settings: Settings, properties: Any) -> str:
    """Return all limits of CONNACK; what is not in it has the value that MQTT 5 says (section 3.2.2.3)."""
    expiry = getattr(properties, "SessionExpiryInterval", settings.mqtt_session_expiry_sec)
    size = getattr(properties, "MaximumPacketSize", None)
    yes_or_no = {
        "retained messages": "RetainAvailable",
        "wildcards": "WildcardSubscriptionAvailable",
        "subscription identifiers": "SubscriptionIdentifierAvailable",
        "shared subscriptions": "SharedSubscriptionAvailable",
    }
    return ", ".join((
        f"session expiry {expiry} s",
        f"keepalive {getattr(properties, 'ServerKeepAlive', settings.mqtt_keepalive_sec)} s",
        f"receive maximum {getattr(properties, 'ReceiveMaximum', 65_535)} (of what is published to it)",
        f"packets of {f'up to {size} bytes' if size else 'any size'}",
        f"QoS up to {getattr(properties, 'MaximumQoS', 2)}",
        *(f"{what}: {'yes' if getattr(properties, name, 1) else 'no'}" for what, name in yes_or_no.items()),
    ))  # fmt: skip


def _subscribed(
    settings: Settings, visiting: Visiting, filters: Mapping[str, int], opening: Opening, context: ssl.SSLContext | None
) -> Looking[None]:
    """Subscribe to each filter with its QoS, on one connection as long as the broker does not close it."""
    yield Step(f"subscribing to {named(list(filters))} and unsubscribing")
    rest, closed = list(filters), 0
    while rest and closed < MOST_CLOSED:
        visit = None
        try:
            visit = Visit(visiting, opening.open(Attempt(CONNECT_SECONDS), context))
            signed = visit.sign_in(ANSWER_SECONDS, session_expiry_seconds=0)
            if signed.is_refusal:
                raise ConnectionRefusedError(f"the broker refuses another connection: {signed.name}")
            while rest:
                answer = visit.subscribe(rest[0], filters[rest[0]], ANSWER_SECONDS)
                yield subscribed(rest[0], filters[rest.pop(0)], answer, settings)
        except OSError as error:
            closed += 1
            yield REPORT.wrong(
                "filter",
                rest[0],
                f"no answer to SUBSCRIBE for {rest[0]!r}: {short(error)}",
                "Look at the broker's log: some brokers close the connection at a filter that is not allowed.",
            )
            rest.pop(0)
        finally:
            with contextlib.suppress(OSError):
                if visit is not None:
                    visit.leave()
    if rest:
        text = f"{named(rest)} not asked for, as the broker closes the connections"
        yield REPORT.doubtful("filter", "", text, "Correct what is named above, and check again.")


def subscribed(topic_filter: str, qos: int, answer: Answered, settings: Settings) -> Finding:
    """Return the finding of what SUBACK answered for a filter, and the QoS that was asked for."""
    if answer.is_refusal:
        text = f"the broker refuses {topic_filter!r}: {answer.name}"
        advice = "Allow the user of MQTT_USER_NAME to subscribe to it and to receive from it, or change the route."
        if settings.mqtt_client_id in topic_filter.split("/"):
            return REPORT.doubtful(
                "filter",
                topic_filter,
                f"{text}; rights may hang on the client id, which is part of this filter",
                f"It was asked for under another client id. {advice}",
            )
        return REPORT.wrong("filter", topic_filter, text, advice)
    if answer.code < qos:
        means = granted.of_suback(lambda _filter: qos, {topic_filter: answer.code})[0].means
        text = f"{topic_filter!r} is granted with QoS {answer.code} instead of {qos}: {means}"
        return REPORT.doubtful("filter", topic_filter, text, "Raise the broker's limit, or lower MQTT_QOS.")
    in_group = " (asked for without the group)" if settings.mqtt_shared_group else ""
    return REPORT.good("filter", topic_filter, f"{topic_filter!r} is granted with QoS {answer.code}{in_group}")
