"""Addresses: the host and port of a broker, and what is refused in one.

A refused address is shown only if it can hold no password: without the characters that stand around one in a URL, and
of what is no port nothing is shown, as `mqtt://user:password` looks like a host with one.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urlsplit

from app.settings.files import shown, value_shown

_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(?!.*[^.]{64})[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?"
    r"(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?"
)
_ADDRESS = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_AT = re.compile("@|%40|\uff20|\ufe6b", re.IGNORECASE)  # as it is, escaped, and as two characters that look like it
_MQTT_SCHEMES = {"mqtt": False, "mqtts": True}
_MQTT_ALLOWED = "a host, mqtt://host[:port] or mqtts://host[:port] (an IPv6 address in brackets)"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens; `host` is without brackets."""

    host: str
    port: int | None
    tls: bool = False


def is_host(text: str) -> bool:
    """Whether the text is a host name or an IP address, without port and brackets."""
    try:
        IPv6Address(text)
    except AddressValueError:
        return _is_ipv4_or_name(text)
    return True


def _is_ipv4_or_name(text: str) -> bool:
    # "10.0.0.300" is a legal host name by its characters, but never meant as one.
    if re.fullmatch(r"[0-9.]+", text):
        try:
            IPv4Address(text)
        except AddressValueError:
            return False
    return _HOST_NAME.fullmatch(text) is not None


def _host_and_port(text: str, allowed: str) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"must be {allowed}, not {value_shown(text)}")
    host, port = match["host"].removeprefix("[").removesuffix("]"), match["port"]
    if match["host"].startswith("[") != (":" in host) or not is_host(host):
        raise ValueError(f"must be {allowed}, but {value_shown(host)} is no host name or IP address")
    if port is None:
        return Address(host, None)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        found = f", not {shown(port)}" if re.fullmatch(r"[0-9]{0,5}", port) else " after the last colon"
        raise ValueError(f"must be {allowed} with a port from 1 to 65535{found}")
    return Address(host, int(port))


def parse_mqtt_broker(text: str) -> Address:
    """Read MQTT_BROKER_URL.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    if _AT.search(text):
        raise ValueError("must not contain a user or password; set MQTT_USER_NAME and MQTT_USER_PASSWORD instead")
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and scheme.lower() not in _MQTT_SCHEMES:
        raise ValueError(f"must be {_MQTT_ALLOWED}, not {value_shown(scheme)}://")
    address = _host_and_port(rest.removesuffix("/"), _MQTT_ALLOWED)
    return Address(address.host, address.port, _MQTT_SCHEMES.get(scheme.lower(), False))


def parse_kafka_brokers(text: str) -> str:
    """Check KAFKA_BROKER and give it the form of librdkafka's `bootstrap.servers`.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    allowed = "host[:port], several separated by commas (an IPv6 address in brackets)"
    if _AT.search(text):
        raise ValueError(f"must be {allowed}, without a user or password; set the KAFKA_SASL_ variables instead")
    if "://" in text:
        raise ValueError(f"must be {allowed}, without a scheme; KAFKA_TLS and the SASL settings decide how to connect")
    brokers = [part.strip() for part in text.split(",")]
    for broker in brokers:
        _host_and_port(broker, allowed)
    return ",".join(brokers)


def broker_hosts(brokers: str) -> list[str]:
    """Return the hosts of a list that `parse_kafka_brokers` returned, IPv6 addresses without brackets."""
    return [_host_and_port(broker, "").host for broker in brokers.split(",")]


def check_token_endpoint(text: str) -> str:
    """Check the URL of an OAuth token endpoint.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    allowed = "must be the URL of the token endpoint, https://host[:port]/path"
    if "@" in text:
        raise ValueError(f"{allowed}, without a user or password")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise ValueError(f"{allowed}, not {value_shown(text)}")
    return text
