"""The way to a server: its name, and a TCP connection, opened as the worker does to MQTT (`app.mqtt.opening`)."""

from __future__ import annotations

import socket
from typing import NamedTuple

from app.check.findings import Looking, Report, Step
from app.lines import short
from app.listed import first_of
from app.mqtt.opening import Lookup
from app.mqtt.race import Address, Attempt, first_to_answer, in_turn

LOOKUP_SECONDS = 10.0
CONNECT_SECONDS = 5.0
NAMED_ADDRESSES = 5
OWN = ("localhost", "127.0.0.1", "::1")
IN_A_CONTAINER = " In a container this is the container itself, not its host."


class Place(NamedTuple):
    """Where a server should be.

    Attributes:
        host: Its name or address.
        port: Its port.
        setting: What says so.
    """

    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        """Return it as it is written in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def opened(report: Report, place: Place) -> Looking[socket.socket | None]:
    """Look a name up and connect; return the connection, which does not block, or None."""
    addresses = yield from looked_up(report, place)
    return (yield from connected(report, place, addresses)) if addresses else None


def looked_up(report: Report, place: Place) -> Looking[list[Address]]:
    """Look a name up; return its addresses."""
    yield Step(f"looking up {place.host}")
    try:
        addresses = _addresses(place)
    except OSError as error:
        yield report.wrong(
            "name", str(place), short(error), f"Correct {place.setting}, or the name service that this machine asks."
        )
        return []
    numbers = [str(address[0]) for _, address in addresses]
    if numbers != [place.host]:
        yield report.good("name", str(place), f"{place.host} is {first_of(numbers, NAMED_ADDRESSES)}")
    return addresses


def _addresses(place: Place) -> list[Address]:
    lookup, attempt = Lookup(place.host, place.port), Attempt(LOOKUP_SECONDS)
    while not lookup.done.wait(attempt.wait_seconds(f"no answer to the lookup of the name {place.host}")):
        pass
    return lookup.answer()


def connected(report: Report, place: Place, addresses: list[Address]) -> Looking[socket.socket | None]:
    """Connect to the first address that answers; return the connection, or None."""
    yield Step(f"connecting to {place}")
    try:
        _, connection = first_to_answer(in_turn(addresses), Attempt(CONNECT_SECONDS))
    except OSError as error:
        yield report.wrong(
            "connect",
            str(place),
            f"no connection to {place}: {error}",
            f"Start the server, open the way to it (firewall, network policy), or correct {place.setting}."
            + (IN_A_CONTAINER if place.host in OWN else ""),
        )
        return None
    yield report.good("connect", str(place), f"{place} accepts connections")
    return connection


def reach(place: Place) -> socket.socket:
    """Return a connection to a server, without findings.

    Raises:
        OSError: It cannot be reached.
    """
    return first_to_answer(in_turn(_addresses(place)), Attempt(CONNECT_SECONDS))[1]
