"""Ways in which TLS is weaker than Connector's own settings make it, or a secret crosses a network without it.

They are allowed, as who must bring messages through with a certificate that has just expired would otherwise switch TLS
off; but not in silence: each is in the log at every start, red on the status page, in `/status` and a metric.

An address of this host alone is no network: a proxy beside the worker may well be reached in clear text.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from app.settings.addresses import broker_hosts
from app.settings.load import KEY_LOG, tls_keys_are_written

if TYPE_CHECKING:
    from app.settings.all_settings import Settings

CERTIFICATE, NAME, CIPHERS = "kafka_certificate_unchecked", "kafka_name_unchecked", "kafka_weak_ciphers"
KAFKA_CLEAR, TOKEN_CLEAR, MQTT_CLEAR = "kafka_sign_in_in_clear", "token_secret_in_clear", "mqtt_password_in_clear"
KEYS_WRITTEN = "mqtt_keys_written"
WAYS = (CERTIFICATE, NAME, CIPHERS, KAFKA_CLEAR, TOKEN_CLEAR, MQTT_CLEAR, KEYS_WRITTEN)

# What OpenSSL calls ciphers without encryption, without a certificate, or broken ones; and its level without a floor.
_WEAK_CIPHER = re.compile(
    r"NULL|ADH|AECDH|EXP|RC2|RC4|DES|MD5|IDEA|SEED|LOW|MEDIUM|COMPLEMENT|SECLEVEL=[01]", re.IGNORECASE
)
_BETWEEN_CIPHERS = re.compile("[:;, ]+")  # whatever OpenSSL takes for an end of a name
_ADDS_NO_CIPHER = ("!", "-", "+")  # what is named is forbidden, left out, or tried last
# With a level of its own choice OpenSSL uses none of less, whatever names a list has; 2 is what it has by itself.
_LOWEST_LEVEL, _LOWEST_BITS = 2, 128
_WEAK_CURVE = re.compile(r"(?<![0-9])1[0-9]{2}(?![0-9])")  # bits: secp160r1, P-192
_WEAK_SIGNATURE = re.compile(r"SHA-?1(?![0-9])|MD5", re.IGNORECASE)


class Weakness(NamedTuple):
    """One way.

    Attributes:
        way: Its name, one of `WAYS`.
        text: What is weak, with the setting at fault.
        advice: What to do.
    """

    way: str
    text: str
    advice: str


def weaknesses(settings: Settings) -> tuple[Weakness, ...]:
    """Return in which ways the settings weaken TLS; empty if in none."""
    found = [*_of_kafka(settings.kafka_configuration()), *_of_secrets(settings)]
    return tuple(found)


def _of_kafka(properties: Mapping[str, object]) -> Iterator[Weakness]:
    """Yield what librdkafka's properties weaken."""
    if not str(properties["security.protocol"]).endswith("SSL"):
        return
    if properties.get("enable.ssl.certificate.verification") == "false":
        yield Weakness(
            CERTIFICATE,
            "Kafka's certificate is not checked (enable.ssl.certificate.verification in KAFKA_PRODUCER_CONFIG), so "
            "anybody on the way can read the messages and the password",
            "Remove it, and name the authority of Kafka's certificate in KAFKA_CA_FILE",
        )
    elif properties.get("ssl.endpoint.identification.algorithm") == "none":
        yield Weakness(
            NAME,
            "It is not checked that Kafka's certificate is for the host that is connected to "
            "(ssl.endpoint.identification.algorithm in KAFKA_PRODUCER_CONFIG)",
            "Remove it, and give Kafka's nodes certificates with the names that they advertise",
        )
    if _are_weak(
        *(str(properties.get(f"ssl.{name}", "")) for name in ("cipher.suites", "curves.list", "sigalgs.list"))
    ):
        yield Weakness(
            CIPHERS,
            "Broken ciphers, curves or signatures are allowed for TLS with Kafka (ssl.cipher.suites, ssl.curves.list "
            "or ssl.sigalgs.list in KAFKA_PRODUCER_CONFIG), so others on the network may be able to read the messages",
            "Remove it: OpenSSL's own choice is a safe one",
        )


def _are_weak(ciphers: str, curves: str, signatures: str) -> bool:
    """Tell whether one of the lists has what is broken; an empty list is OpenSSL's own choice."""
    added = [name for name in re.split("[:/]+", curves) if not name.startswith("-")]
    return bool(
        (ciphers and (_has_weak_names(ciphers) or _openssl_takes_weak(ciphers)))
        or _WEAK_CURVE.search(" ".join(added))
        or _WEAK_SIGNATURE.search(signatures)
    )


def _has_weak_names(ciphers: str) -> bool:
    """Tell whether a list adds what is called broken: OpenSSL beside Python may not have it, and that of librdkafka."""
    rules = _BETWEEN_CIPHERS.split(ciphers.removeprefix("DEFAULT"))  # which needs no separator behind it
    return bool(_WEAK_CIPHER.search(" ".join(rule for rule in rules if not rule.startswith(_ADDS_NO_CIPHER))))


def _openssl_takes_weak(ciphers: str) -> bool:
    """Ask OpenSSL what comes of a list, however it is written: names are left to `_has_weak_names` if it refuses it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(f"DEFAULT:@SECLEVEL={_LOWEST_LEVEL}")  # whatever the system has set
    with contextlib.suppress(ssl.SSLError):  # a level in the list counts all the same
        context.set_ciphers(ciphers)
    # Ciphers without encryption or certificate are part of many a list, and used below this level only.
    return context.security_level < _LOWEST_LEVEL or any(
        0 < cipher["strength_bits"] < _LOWEST_BITS for cipher in context.get_ciphers()
    )


def _of_secrets(settings: Settings) -> Iterator[Weakness]:
    """Yield what crosses a network in clear text."""
    kafka_hosts = broker_hosts(settings.kafka_broker)
    if settings.kafka_sasl_mechanism and not settings.kafka_tls and not all(map(_is_own, kafka_hosts)):
        yield Weakness(
            KAFKA_CLEAR,
            f"Connector signs in to Kafka with {settings.kafka_sasl_mechanism} and without TLS, so others on the "
            "network can read the password or guess it",
            "Set KAFKA_TLS=true",
        )
    endpoint = urlsplit(settings.sasl_oauthbearer_token_endpoint_uri or "")
    if settings.sasl_ssl and endpoint.scheme == "http" and not _is_own(endpoint.hostname or ""):
        yield Weakness(
            TOKEN_CLEAR,
            "The token endpoint is asked without TLS, so others on the network can read the client's secret",
            "Give SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI an address with https://",
        )
    if settings.mqtt_user_password and not settings.mqtt_tls and not _is_own(settings.mqtt_host):
        yield Weakness(
            MQTT_CLEAR,
            "Connector signs in to the MQTT broker without TLS, so others on the network can read the password",
            "Give MQTT_BROKER_URL an address with mqtts://, or set MQTT_TLS=true",
        )
    if settings.mqtt_tls and tls_keys_are_written():
        yield Weakness(
            KEYS_WRITTEN,
            f"The keys of each connection to the MQTT broker are written into a file ({KEY_LOG}), so who has it can "
            "read the messages and the password",
            f"Unset {KEY_LOG}, and delete the file",
        )


def _is_own(host: str) -> bool:
    """Tell whether a host is this one by its name: what is sent there crosses no network."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
