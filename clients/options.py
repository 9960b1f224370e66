"""Where the clients' options come from: the command line, else the environment, else the file `.env`."""

from __future__ import annotations

import argparse
import os

from dotenv import dotenv_values

MQTT_PORT = 1883


class Environment:
    """The environment over the file `.env` of the working directory; an empty value counts as none."""

    def __init__(self) -> None:
        given = [*dotenv_values(".env").items(), *os.environ.items()]
        self._values = {name: value for name, value in given if value}

    def get(self, name: str, default: str = "") -> str:
        """Return a value as it stands; argparse converts it exactly as it converts an option."""
        return self._values.get(name, default)


def topic_list(text: str) -> list[str]:
    """Return the names in a list with commas.

    Raises:
        ArgumentTypeError: when there is none.
    """
    topics = [topic.strip() for topic in text.split(",") if topic.strip()]
    if not topics:
        raise argparse.ArgumentTypeError("name at least one topic")
    return topics


def publish_topic_list(text: str) -> list[str]:
    """Return the topics in a list with commas, to publish to.

    Raises:
        ArgumentTypeError: when there is none, or one has a wildcard.
    """
    topics = topic_list(text)
    for topic in topics:
        if "+" in topic or "#" in topic:
            raise argparse.ArgumentTypeError(f"{topic!r} has a wildcard; a message is published to one topic")
    return topics


def address(text: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `mqtt://host:port`.

    Raises:
        ArgumentTypeError: when there is no host or the port is not a number.
    """
    bare = text.rpartition("://")[2].rstrip("/")
    host, colon, port = bare.rpartition(":")
    # An IPv6 address has colons of its own, and is told from its port by brackets.
    if not colon or (":" in host and not host.endswith("]")):
        host, port = bare, str(MQTT_PORT)
    if not host or not port.isdigit() or int(port) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not host or host:port")
    return host.strip("[]"), int(port)


def at_least_zero(text: str) -> int:
    """Return a whole number that is not negative.

    Raises:
        ArgumentTypeError: when it is anything else.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def quality_of_service(text: str) -> int:
    """Return a quality of service.

    Raises:
        ArgumentTypeError: when it is not 0, 1 or 2.
    """
    # Not left to `choices` of argparse, which does not look at a default, and so not at the environment.
    if text not in {"0", "1", "2"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0, 1 or 2")
    return int(text)


def seconds(text: str) -> float:
    """Return a time span.

    Raises:
        ArgumentTypeError: when it is not a number or negative.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0")
    return value
