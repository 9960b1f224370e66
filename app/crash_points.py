"""Named places at which the worker kills itself, for the tests of crashes; nothing of it exists unless it is asked for.

CONNECTOR_CRASH_POINT=<name>:<count> ends the process with SIGKILL when it reaches the place for the count-th time. The
places are before or after one function each, which is wrapped only then: otherwise a message costs nothing more.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from agents.router import Router
from app.core.requests import Batch
from app.errors import SettingsError
from app.kafka.producer import KafkaProducer
from app.kafka.reports import Reports
from app.mqtt.client import BridgeClient
from app.mqtt.hand_over import HandOver
from app.mqtt.window import Window
from app.storage.syncs import Syncs
from app.storage.writer import TableWriter


class Place(NamedTuple):
    """One crash point: before or after a method, at the calls that count."""

    owner: type
    method: str
    after: bool
    meaning: str
    counts: Callable[..., bool]


def _always(*_: Any) -> bool:
    return True


def _before(owner: type, method: str, meaning: str, counts: Callable[..., bool] = _always) -> Place:
    return Place(owner, method, after=False, meaning=meaning, counts=counts)


def _after(owner: type, method: str, meaning: str, counts: Callable[..., bool] = _always) -> Place:
    return Place(owner, method, after=True, meaning=meaning, counts=counts)


def _brings_messages(_: Any, batch: Batch, *_more: Any) -> bool:
    return bool(batch.messages)


def _has_some(_: Any, messages: Sequence[object], *_more: Any) -> bool:
    return bool(messages)


def _releases(window: Window) -> bool:
    return bool(window.pending) and window.pending[0].safe


# In the order in which a message meets them.
PLACES = {
    "after-receive": _after(HandOver, "pass_batch", "read from the socket, in memory alone", _brings_messages),
    "after-route": _after(Router, "route", "on its way to librdkafka, or to the table writer", _brings_messages),
    "after-produce": _after(KafkaProducer, "produce", "with librdkafka"),
    "after-pieces": _after(TableWriter, "_put_pieces", "its payload written in pieces, and no entry that names them"),
    "before-write": _before(TableWriter, "_store", "about to be written to the table"),
    "after-write": _after(TableWriter, "_store", "written to the table, not synced"),
    "after-sync": _before(Syncs, "_after", "synced, not acknowledged", _has_some),
    "before-reports": _before(Reports, "on_reports", "confirmed by Kafka, of which nothing here took note"),
    "before-acknowledgement": _before(Window, "acknowledge_safe", "safe, its acknowledgement not queued", _releases),
    "after-acknowledgement": _after(BridgeClient, "send_acknowledgements", "acknowledged"),
    "before-completion": _before(Window, "complete", "PUBREL noted durably, PUBCOMP not queued", _has_some),
    "before-remove": _before(TableWriter, "remove", "delivered from the table, and still in it"),
    "after-remove": _after(TableWriter, "remove", "removed from the table, not synced"),
}


def arm(text: str) -> None:
    """Have the process killed at a place.

    Args:
        text: The place's name, a colon, and the how manieth call that counts.

    Raises:
        SettingsError: There is no such place.
    """
    name, _, count = text.partition(":")
    place = PLACES.get(name)
    if place is None:
        raise SettingsError([f"CONNECTOR_CRASH_POINT: {name!r} is no place; there are {', '.join(PLACES)}"])
    calls_left = int(count)

    def pass_by(arguments: tuple[Any, ...]) -> None:
        nonlocal calls_left
        if place.counts(*arguments):
            calls_left -= 1
            if not calls_left:
                os.kill(os.getpid(), signal.SIGKILL)

    function = getattr(place.owner, place.method)
    setattr(place.owner, place.method, _wrapped(function, pass_by, after=place.after))


def _wrapped(
    function: Callable[..., Any], pass_by: Callable[[tuple[Any, ...]], None], *, after: bool
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        if not after:
            pass_by(arguments)
        result = function(*arguments, **options)
        if after:
            pass_by(arguments)
        return result

    @functools.wraps(function)
    async def wrapper_of_coroutine(*arguments: Any, **options: Any) -> Any:
        if not after:
            pass_by(arguments)
        result = await function(*arguments, **options)
        if after:
            pass_by(arguments)
        return result

    return wrapper_of_coroutine if inspect.iscoroutinefunction(function) else wrapper
