"""TLS with a server: the handshake that the worker would have, and what the certificate says."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.check.findings import Finding, Looking, Report, Step
from app.check.network import Place, reach
from app.lines import short
from app.mqtt.opening import with_tls
from app.mqtt.race import Attempt

HANDSHAKE_SECONDS = 10.0
SOON_SECONDS = 14 * 86_400  # of 90-day certificates, those that should have been renewed 16 days ago
# What OpenSSL says, and what to do about it; the first that is part of its words counts.
_ADVICE = (
    ("expired", "Renew the server's certificate, or set this machine's clock right."),
    ("not yet valid", "Set this machine's clock right, or wait until the certificate counts."),
    ("not valid for", "Use a name that the certificate has in {place}, or give the server a certificate for this one."),
    ("mismatch", "Use a name that the certificate has in {place}, or give the server a certificate for this one."),
    ("issuer", "Name a file with the authority that signed the server's certificate in {authority}."),
    ("self-signed", "Name a file with the authority that signed the server's certificate in {authority}."),
    ("self signed", "Name a file with the authority that signed the server's certificate in {authority}."),
    ("WRONG_VERSION_NUMBER", "The server speaks no TLS at this port: correct the port in {place}, or do without TLS."),
    ("CERTIFICATE_REQUIRED", "Give a client certificate that the server trusts in {certificate}."),
)
_OTHERWISE = "Look at the server's log; perhaps it speaks no TLS at this port, or wants another client certificate."


def shaken(
    report: Report, place: Place, connection: socket.socket, context: ssl.SSLContext, prefix: str
) -> Looking[ssl.SSLSocket | None]:
    """Make a handshake; return the connection with TLS on it, or None.

    Args:
        report: What makes the findings.
        place: Where the connection goes to.
        connection: The connection, which does not block; it is closed if the handshake fails.
        context: Whom to trust, and what to show.
        prefix: MQTT or KAFKA, with which the settings of certificates begin.
    """
    yield Step(f"TLS with {place}")
    try:
        encrypted = with_tls(connection, context, place.host, Attempt(HANDSHAKE_SECONDS))
    except (OSError, ValueError) as error:
        yield refused(report, place, error, prefix)
        return None
    certificate: Mapping[str, Any] = encrypted.getpeercert() or {}
    yield described(report, place, certificate, encrypted.version() or "TLS", time.time())
    return encrypted


def speaks_tls(place: Place) -> bool:
    """Tell whether a server that was asked without TLS wants it; nothing is sent but the beginning of a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with with_tls(reach(place), context, place.host, Attempt(HANDSHAKE_SECONDS)):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error)  # with which a server of TLS ends a handshake, as for a missing certificate
    except OSError:
        return False


def refused(report: Report, place: Place, error: Exception, prefix: str) -> Finding:
    """Return the finding of a handshake that failed."""
    words = getattr(error, "verify_message", "") or str(error)
    advice = next((advice for part, advice in _ADVICE if part in words), _OTHERWISE)
    named = advice.format(place=place.setting, authority=f"{prefix}_CA_FILE", certificate=f"{prefix}_CERT_FILE")
    return report.wrong("tls", str(place), f"no TLS with {place}: {short(words)}", named)


def described(report: Report, place: Place, certificate: Mapping[str, Any], version: str, now: float) -> Finding:
    """Return the finding of a handshake that succeeded.

    Args:
        report: What makes the findings.
        place: Where the connection goes to.
        certificate: As `ssl.SSLSocket.getpeercert` has it; empty if nobody checked it.
        version: Of TLS.
        now: The time, in seconds since 1970.
    """
    if not certificate:
        return report.doubtful(
            "tls",
            str(place),
            f"{version} with {place}, and nobody checks its certificate",
            "Have it checked: anybody on the way can read the messages.",
        )
    until = certificate["notAfter"]
    text = f"{version} with {place}; its certificate is signed by {_issuer(certificate)}, and counts until {until}"
    left_seconds = ssl.cert_time_to_seconds(until) - now
    if left_seconds < SOON_SECONDS:
        soon = f"{text}, which is in {left_seconds / 86_400:.0f} days"
        return report.doubtful("tls", str(place), soon, "Renew the server's certificate.")
    return report.good("tls", str(place), text)


def _issuer(certificate: Mapping[str, Any]) -> str:
    """Return the name of the authority, the most special part of it that there is."""
    parts = dict(pair for part in certificate.get("issuer", ()) for pair in part)
    names = ("commonName", "organizationalUnitName", "organizationName")
    return repr(next((parts[name] for name in names if parts.get(name)), "somebody without a name"))


# What of librdkafka's properties Python has no counterpart of: then only librdkafka tells how its handshake goes.
NOT_FOR_PYTHON = ("ssl.keystore.", "ssl.ca.certificate.stores", "ssl.key.pem", "ssl.certificate.pem", "ssl.cipher.",
                  "ssl.curves.", "ssl.sigalgs.", "ssl.crl.", "ssl.key.password")  # fmt: skip


def kafka_context(properties: Mapping[str, Any]) -> ssl.SSLContext | None:
    """Make a context that trusts and shows what librdkafka would; None if Python cannot have the same.

    Raises:
        OSError: A file is of no use.
    """
    if any(name.startswith(NOT_FOR_PYTHON) for name in properties):
        return None
    named = properties.get("ssl.ca.location")
    is_directory = named is not None and Path(str(named)).is_dir()
    context = ssl.create_default_context(
        cafile=None if is_directory or named is None else str(named),
        capath=str(named) if is_directory else None,
        cadata=properties.get("ssl.ca.pem"),
    )
    if properties.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if str(properties.get("enable.ssl.certificate.verification")).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := properties.get("ssl.certificate.location"):
        context.load_cert_chain(str(certificate), str(properties.get("ssl.key.location") or certificate), b"")
    return context
