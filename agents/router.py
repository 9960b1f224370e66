"""The router: gives each message its Kafka topic, record key, headers and sequence, and its lane the message.

What messages have in common that look alike is worked out once (`agents.kinds`). A packet that was too large to be held
is only counted here; a message that the table could never keep is `agents.oversize`'s to decide about.

A broker that speaks MQTT 5 delivers one copy of a message per matching subscription. One copy is kept
(`app.mqtt.copies` says which), the others are acknowledged and dropped without being counted as received.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from agents.kinds import Kind, Kinds
from agents.shell import for_each
from app import channels
from app.application import app
from app.kafka.outcomes import INVALID_MQTT_TOPIC, PERHAPS_COPY, UNDECODABLE
from app.messages import Batch, Message
from app.metrics import PACKET_TOO_LARGE, UNMAPPED, accounts
from app.settings import TRACE
from app.throttle import Throttle
from tables.layout import pack_sequence

if TYPE_CHECKING:
    from agents.oversize import Oversize
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from app.memory import PacketLimit
    from app.mqtt.copies import Copies
    from app.routes import RecordKey, RouteTable

log = logging.getLogger(__name__)

# Routed in one go: 240 messages of 50 properties, or 5,000 small ones, which take 20 to 50 ms.
LOT_BYTES = 4 * 1024 * 1024
COSTLY_BYTES = 1024 * 1024  # after so much others have a turn, though more has come

# What is said of messages that go to no Kafka topic, by the reason of the dead letter.
NOT_ROUTED = {
    UNMAPPED: "no mapping matches it; map its topic, restart, and retry it, or delete it",
    INVALID_MQTT_TOPIC: "MQTT allows no such topic; repair its publisher",
    PERHAPS_COPY: "it has too many properties to tell it from its copies; repair its publisher, and retry one of them",
    UNDECODABLE: "the dead letter has the packet; tell whoever makes the MQTT broker",
}


class Router:
    """Routes batches, in order; on the event loop."""

    def __init__(
        self,
        routes: RouteTable,
        record_key: RecordKey,
        lanes: Lanes,
        copies: Copies,
        acknowledge: Callable[[Iterable[Message]], None],
        client_id: str,
        packets: PacketLimit,
        oversize: Oversize,
    ) -> None:
        """Make a router; its epoch is set when the table has begun it.

        Args:
            routes: The mappings.
            record_key: The template of record keys.
            lanes: Where the messages go.
            copies: Which copy of a message to keep.
            acknowledge: For messages of which nothing shall become.
            client_id: MQTT_CLIENT_ID, the first part of each `connector-id`.
            packets: The largest packet that is accepted.
            oversize: Decides about messages that the table cannot keep.
        """
        self.epoch = 0
        self.routed_messages = 0
        self._counter = 0
        self._kinds = Kinds(routes, record_key, lanes, copies)
        self._throttle = Throttle(log)
        self._lanes = lanes
        self._acknowledge = acknowledge
        self._packets = packets
        self._oversize = oversize
        # Random, so that an older copy of the data directory cannot make ids that were used before.
        self._id_prefix = f"{client_id}/{secrets.token_hex(8)}/".encode()

    async def route(self, batch: Batch) -> None:
        """Route a batch, and pass on what that set in motion; between the parts of a costly one others have a turn."""
        if batch.too_large_bytes:
            self._drop(batch.messages[0], batch.too_large_bytes)
            return
        if batch.size_bytes <= LOT_BYTES or len(batch.messages) == 1:
            await self._route(batch.messages, batch.size_bytes)
            if batch.size_bytes > COSTLY_BYTES:
                await asyncio.sleep(0)
            return
        for messages, size_bytes in _in_lots(batch.messages):
            await self._route(messages, size_bytes)
            await asyncio.sleep(0)

    async def _route(self, messages: list[Message], size_bytes: int) -> None:
        self._kinds.follow_subscriptions()
        lots = self._address(messages)
        if log.isEnabledFor(TRACE):
            _trace(messages)
        may_be_too_large = self._oversize.is_possible(size_bytes)
        if may_be_too_large:
            await self._oversize.find_out(lots)
        for lane, lot in lots.items():
            for route, times in Counter([message.route for message in lot]).items():
                account = accounts[route]
                account.received += times
                account.in_flight += times
            lane.accept(self._oversize.admit(lane, lot) if may_be_too_large else lot)
        self.routed_messages += len(messages)
        await self._lanes.flush()

    def _address(self, messages: Iterable[Message]) -> dict[Lane, list[Message]]:
        """Fill in what the records need; return the messages by lane, without those that go nowhere."""
        known, prefix, epoch, counter = self._kinds.known, self._id_prefix, self.epoch, self._counter
        lots: dict[Lane, list[Message]] = {}
        left_out: list[tuple[Message, Kind]] = []
        for message in messages:
            kind = known.get((message.topic, message.flags, message.properties)) or self._kinds.find(message)
            counter += 1
            lane = message.lane = kind.lane  # type: ignore[assignment]  # what has none is left out
            if lane is None:
                left_out.append((message, kind))
                continue
            message.route = kind.route
            message.record_key = kind.record_key
            message.key = lane.prefix + pack_sequence(epoch, counter)
            message.headers = [("connector-id", b"%b%d" % (prefix, counter)), *kind.headers]
            if kind.problem:
                left_out.append((message, kind))
            elif lane in lots:
                lots[lane].append(message)
            else:
                lots[lane] = [message]
        self._counter = counter
        if left_out:
            self._leave_out(left_out)
        return lots

    def _leave_out(self, messages: list[tuple[Message, Kind]]) -> None:
        """Account for messages that go to no lane: further copies, unmapped ones, and dead letters."""
        dropped = []
        for message, kind in messages:
            account = accounts[kind.route]
            if not kind.is_copy:
                account.received += 1
            if kind.problem:
                account.in_flight += 1
                self._lanes.set_aside(message, kind.problem, NOT_ROUTED[kind.problem])
                continue
            if not kind.is_copy:
                account.dropped[UNMAPPED] += 1
            dropped.append(message)
        self._acknowledge(dropped)

    def _drop(self, message: Message, packet_bytes: int) -> None:
        """Account for a message whose packet was too large to be held."""
        account = accounts[self._kinds.destination(message.topic).route]
        account.received += 1
        account.dropped[PACKET_TOO_LARGE] += 1
        self._throttle.error(
            "too large",
            "a packet of %d bytes for the MQTT topic %r is dropped: at most %d are accepted (the limit is %s)",
            packet_bytes,
            message.topic_text,
            self._packets.size_bytes,
            self._packets.reason,
        )
        self._acknowledge([message])
        self.routed_messages += 1

    def next_key(self, prefix: bytes) -> bytes:
        """Return a new key of a lane, behind all that there are."""
        self._counter += 1
        return prefix + pack_sequence(self.epoch, self._counter)


def _in_lots(messages: Iterable[Message]) -> Iterator[tuple[list[Message], int]]:
    """Iterate over parts of a batch and their sizes, in order; none costs much more than others can wait for."""
    lot: list[Message] = []
    size_bytes = 0
    for message in messages:
        lot.append(message)
        size_bytes += message.size_bytes
        if size_bytes >= LOT_BYTES:
            yield lot, size_bytes
            lot, size_bytes = [], 0
    if lot:
        yield lot, size_bytes


def _trace(messages: Iterable[Message]) -> None:
    for message in messages:
        headers = getattr(message, "headers", None)  # none where no mapping matches
        what = headers[0][1].decode() if headers else "no record"
        log.log(TRACE, "%r, QoS %d, %d bytes: %s", message.topic, message.qos, len(message.payload), what)


def register(router: Router) -> None:
    """Start an agent that routes what comes through `inbound`."""

    @app.agent(channels.inbound, name="router")
    async def route(batches):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Route received messages to their lanes."""
        await for_each(batches, router.route)
