"""The whole check, in the order in which a start meets things: settings, machine, disk, MQTT, Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.check.disk import disk
from app.check.findings import Finding, Step
from app.check.kafka import kafka
from app.check.machine import machine, pages
from app.check.mqtt import mqtt
from app.check.offline import offline
from app.check.output import Output
from app.kafka.producer_defaults import BASE_CONFIGURATION

if TYPE_CHECKING:
    from app.settings import Settings


def run(settings: Settings, *, offline: bool, as_json: bool) -> int:
    """Check everything and write what is found, as it is found.

    Args:
        settings: Of the worker.
        offline: Look at the settings alone, and connect to nothing.
        as_json: Write objects of JSON.

    Returns:
        The exit code: 1 if something is wrong, else 0.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was found so far is counted.
    """
    output = Output(as_json=as_json)
    try:
        for found in everything(settings, is_offline=offline):
            output.show(found)
    except KeyboardInterrupt:
        output.end()
        raise
    return output.end()


def everything(settings: Settings, *, is_offline: bool) -> Iterator[Finding | Step]:
    """Yield all findings; each part is begun when the one before it is done."""
    yield from offline(settings)
    if is_offline:
        return
    kafka_client = {**BASE_CONFIGURATION, **settings.kafka_configuration()}
    yield from machine(settings, int(kafka_client["message.max.bytes"]))
    has_worker = yield from disk(settings)
    yield pages(settings.web_host, settings.web_port, has_worker=has_worker)
    yield from mqtt(settings)
    yield from kafka(settings)
