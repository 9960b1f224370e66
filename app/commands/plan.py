"""`connector plan`: how much disk and time an outage takes.

It connects to neither worker nor brokers, and needs no settings (`app.application` allows that). The calculation is in
`app.plan`; here are the options and the output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from faust.cli import option

from app.application import app
from app.commands.telling import as_json_option, errors_are_told
from app.errors import ConnectorError
from app.lines import escaped, escaped_json
from app.plan import RECEIVE_MAXIMUM_LIMIT, Stream, bytes_text, duration_seconds, duration_text

# Of Kafka's answer: a tenth of what was measured in docs/performance.md, as networks and brokers are slower than that.
DRAIN_RATE = 10_000.0


def rows(stream: Stream) -> Iterator[tuple[str, str, str]]:
    """Yield what to set or provide: heading or name, value, and why."""
    outage = duration_text(stream.outage_seconds)
    yield f"Kafka is away for {outage}: {stream.messages:,} messages wait in the table", "", ""
    each = f"{stream.entry_bytes} bytes a message, and a tenth more"
    yield "UNDELIVERED_MAX_BYTES", bytes_text(stream.limit_bytes), each
    yield "taken of the disk", bytes_text(stream.disk_bytes), "with dead letters and what RocksDB adds"
    yield "disk of DB_PERSIST_PATH", bytes_text(stream.volume_bytes), "if damaged, it is copied, and both stay"
    yield "a start that repairs it takes", duration_text(stream.repair_seconds), "at most, on a slow disk; startupProbe"
    live = f"Kafka takes {stream.drain_rate:,.0f}/s, new messages go on"
    if stream.drain_rate <= stream.rate:
        live = f"Kafka takes {stream.drain_rate:,.0f}/s (--drain-rate), no more than come: use more workers"
    yield "drained afterwards in", duration_text(stream.drain_seconds), live
    yield "The disk answers for Kafka meanwhile", "", ""
    window, why = stream.receive_maximum, f"round trip {stream.round_trip_seconds * 1000:g} ms, STORE_AFTER_MS=100"
    if window > RECEIVE_MAXIMUM_LIMIT:
        window, why = RECEIVE_MAXIMUM_LIMIT, f"{window:,} would be needed: use more workers (MQTT_SHARED_GROUP)"
    yield "MQTT_RECEIVE_MAXIMUM", str(window), f"{why}; at least this"
    yield "max_inflight_messages", str(window), "mosquitto.conf; the smaller one counts"
    yield f"Connector is away for {outage}: the MQTT broker queues (QoS 1 and 2)", "", ""
    yield "max_queued_messages", str(stream.queued_messages), "mosquitto.conf, with a tenth more; 0 is without limit"
    yield "max_queued_bytes", str(stream.queued_bytes), "the same in payloads; 0 is without limit"
    yield "MQTT_SESSION_EXPIRY_SEC", str(stream.expiry_seconds), "at least twice the outage"
    yield "persistent_client_expiration", "unset", "mosquitto.conf; or longer than that"


OPTIONS = (
    option("--rate", type=float, required=True, help="messages a second that come"),
    option("--message-bytes", type=int, required=True, help="payload of a message"),
    option("--outage", required=True, help="how long it lasts: 90s, 30m, 8h, 2d"),
    option(
        "--drain-rate",
        type=float,
        default=DRAIN_RATE,
        show_default=True,
        help="messages a second that Kafka takes from one worker afterwards, new ones included",
    ),
    option("--round-trip-ms", type=float, default=10.0, show_default=True, help="to the MQTT broker and back"),
    option("--topic-bytes", type=int, default=40, show_default=True, help="length of an MQTT topic"),
    as_json_option,
)


def table(stream: Stream) -> Iterator[str]:
    """Yield the lines to print."""
    for name, value, why in rows(stream):
        yield f"  {name:<30}{value:>14}  {why}" if value else name


def fields(stream: Stream) -> dict[str, float | None]:
    """Return the same for programs, in the units of the names; None: it never ends, or no worker is enough."""
    window = stream.receive_maximum
    return {
        "outage_seconds": stream.outage_seconds,
        "messages": stream.messages,
        "undelivered_max_bytes": stream.limit_bytes,
        "disk_bytes": stream.disk_bytes,
        "volume_bytes": stream.volume_bytes,
        "repair_seconds": stream.repair_seconds,
        "drain_seconds": stream.drain_seconds if math.isfinite(stream.drain_seconds) else None,
        "mqtt_receive_maximum": window if window <= RECEIVE_MAXIMUM_LIMIT else None,
        "max_queued_messages": stream.queued_messages,
        "max_queued_bytes": stream.queued_bytes,
        "mqtt_session_expiry_seconds": stream.expiry_seconds,
    }


def register() -> None:
    """Add the command to the app."""

    @app.command(*OPTIONS)
    async def plan(
        self: Any,
        rate: float,
        message_bytes: int,
        outage: str,
        drain_rate: float,
        round_trip_ms: float,
        topic_bytes: int,
        as_json: bool,
    ) -> None:
        """Say what an outage takes: disk, time to drain, window, and the queue of the MQTT broker.

        Nothing is connected, and no settings are needed.

        \b
        Example:
          connector plan --rate 1000 --message-bytes 200 --outage 8h
        """  # noqa: D301, \b is Click's: lines that stay as they are
        with errors_are_told():
            if rate <= 0 or message_bytes < 0 or drain_rate <= 0 or round_trip_ms < 0 or topic_bytes < 1:
                raise ConnectorError("rates and --topic-bytes must be above 0, the others at least 0")
            seconds = duration_seconds(outage)
            stream = Stream(rate, message_bytes, seconds, drain_rate, round_trip_ms / 1000, topic_bytes)
            _say(self, stream, as_json=as_json or self.json)


def _say(command: Any, stream: Stream, *, as_json: bool) -> None:
    if as_json:
        command.say(escaped_json(fields(stream)))
        return
    for line in table(stream):
        command.say(escaped(line))
