"""The router: gives each message its Kafka topic, record key, headers and sequence, and hands it to the dispatcher.

What is the same for messages with the same topic, flags and properties is worked out once (`app.routing`). A packet
that was too large for memory is only counted here. `app.storage.oversize` decides about messages that are larger than
the table.

A broker that speaks MQTT 5 delivers one copy of a message per matching subscription. One copy is kept
(`app.mqtt.copies` says which), the others are acknowledged and dropped without being counted as received.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from app.application import app
from app.channels import inbound
from app.core.destination import Destination
from app.core.message import Message
from app.core.requests import Batch
from app.kafka.outcomes import ILLEGAL_TOPIC, INVALID_MQTT_TOPIC, POSSIBLE_COPY, TOO_MANY_KAFKA_TOPICS, UNDECODABLE
from app.logged_text import LoggedText
from app.metrics import PACKET_TOO_LARGE, UNMAPPED, accounts
from app.routing.completing import complete
from app.routing.known_routes import CachedRoute
from app.routing.route_cache import RouteCache
from app.settings import TRACE
from app.throttle import Throttle
from tables.layout import pack_sequence

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.memory import PacketLimit
    from app.storage.oversize import Oversize

log = logging.getLogger(__name__)

# Routed in one go: 240 messages of 50 properties, or 5,000 small ones, which take 20 to 50 ms. Of what routes make of
# long topics as much at once, beside what the messages were received with.
LOT_BYTES = 4 * 1024 * 1024
# Routed in one go of what costs much more: new Kafka topics, and dead letters. Publishers may make each of 5,000
# messages such a one, which would take 300 ms; librdkafka alone needs 0.1 ms for a new topic, and more for thousands.
COSTLY_AT_ONCE = 100
# The same of new kinds of messages. Each costs more with each route that matches it: with 2,000 some tenths of a
# millisecond.
COSTLY_SECONDS = 0.01
COSTLY_BYTES = 1024 * 1024  # after a larger batch other tasks run first, even if more batches wait

# What is said of messages that go to no Kafka topic, by the reason of the dead letter.
NOT_ROUTED = {
    UNMAPPED: "no route matches it; add one, reload or restart, and retry it, or delete it",
    INVALID_MQTT_TOPIC: "MQTT allows no such topic; repair its publisher",
    ILLEGAL_TOPIC: "what its route makes of it is no Kafka topic; repair its publisher or the route, and retry it",
    TOO_MANY_KAFKA_TOPICS: "ROUTES_MAX_TOPICS Kafka topics are in use; see which of them are wanted, and retry it",
    POSSIBLE_COPY: "it has too many properties to tell it from its copies; repair its publisher, and retry one of them",
    UNDECODABLE: "the dead letter has the packet; tell whoever makes the MQTT broker",
}


class Router:
    """Routes batches, in order; on the event loop."""

    def __init__(
        self,
        cache: RouteCache,
        dispatcher: Dispatcher,
        acknowledge: Callable[[Iterable[Message]], None],
        worker_name: str,
        packets: PacketLimit,
        oversize: Oversize,
        *,
        costly_seconds: float = COSTLY_SECONDS,
        count_more: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Make a router; `begin_epoch` sets its epoch, once the table has synced it.

        Args:
            cache: Where messages of each kind go.
            dispatcher: What they are handed to.
            acknowledge: Acknowledges messages that are dropped.
            worker_name: SITE and MQTT_CLIENT_ID, the first part of each `connector-id`.
            packets: The largest packet that is accepted.
            oversize: Decides about messages that the table cannot keep.
            costly_seconds: How long new kinds of messages are routed before others have a turn.
            count_more: Has memory count what messages take in addition to what they were received with.
        """
        self.epoch = 0
        self.routed_messages = 0
        self._counter = 0
        self._cache = cache
        self._throttle = Throttle(log)
        self._dispatcher = dispatcher
        self._acknowledge = acknowledge
        self._packets = packets
        self._oversize = oversize
        self._costly_seconds = costly_seconds
        self._count_more = count_more
        self._more_bytes = 0  # what the messages of the last lots take in addition
        self._harmless_bytes = sys.maxsize  # no message of a smaller batch is larger than the table
        # Random, so that an older copy of the data directory cannot make ids that were used before.
        self._id_prefix = f"{worker_name}/{secrets.token_hex(8)}/".encode()

    async def route(self, batch: Batch) -> None:
        """Route a batch, and hand it to the dispatcher; a costly one in parts, with other tasks in between."""
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
        routed = 0
        while routed < len(messages):
            if routed:
                await asyncio.sleep(0)
            routed += await self._route_some(messages[routed:] if routed else messages, size_bytes)

    async def _route_some(self, messages: list[Message], size_bytes: int) -> int:
        """Route the first of these messages, nearly always all of them; return how many."""
        await self._cache.follow_changes()
        before = self._counter
        lots = self._address(messages)
        routed = self._counter - before
        if log.isEnabledFor(TRACE):
            _trace(messages[:routed])
        if self._more_bytes:
            self._count_more(self._more_bytes)
        may_be_too_large = size_bytes + self._more_bytes >= self._harmless_bytes
        if may_be_too_large:
            await self._oversize.find_out(lots)
        for destination, lot in lots.items():
            accounts.receive([message.route for message in lot], [len(message.payload) for message in lot])
            topic = destination.topic
            self._dispatcher.accept(topic, self._oversize.admit(topic, lot) if may_be_too_large else lot)
        self.routed_messages += routed
        return routed

    def _address(self, messages: Iterable[Message]) -> dict[Destination, list[Message]]:  # noqa: C901, a call costs more
        """Fill in what records need, of all messages or, where that costs much, the first; return lots for lanes."""
        known, prefix, epoch, counter = self._cache.known.by_topic, self._id_prefix, self.epoch, self._counter
        lots: dict[Destination, list[Message]] = {}
        left_out: list[tuple[Message, CachedRoute]] = []
        costly_until, more_bytes = math.inf, 0
        for message in messages:
            topic = message.topic
            found = known.get(topic)
            if found is None or found.flags != message.flags or found.properties != message.properties:
                found = self._cache.look_up(message)
                if found is None:
                    now = time.monotonic()
                    if now >= costly_until:
                        break
                    costly_until = min(costly_until, now + self._costly_seconds)
                    found = self._cache.find(message)
            counter += 1
            if (destination := found.destination) is None:
                left_out.append((message, found))
                continue
            message.destination = destination
            message.route = found.route
            message.record_key = topic if found.is_keyed_by_topic else found.record_key
            message.key = destination.prefix + pack_sequence(epoch, counter)
            message.headers = [("connector-id", b"%b%d" % (prefix, counter)), ("mqtt-topic", topic), *found.headers]
            if found.needs_more:
                complete(message, found)
                more_bytes += found.more_bytes
                if found.problem:
                    left_out.append((message, found))
                else:
                    lots.setdefault(destination, []).append(message)
                if max(len(left_out), len(lots)) >= COSTLY_AT_ONCE or more_bytes >= LOT_BYTES:
                    break
                continue
            if destination in lots:
                lots[destination].append(message)
            else:
                lots[destination] = [message]
                if len(lots) >= COSTLY_AT_ONCE:
                    break
        self._counter, self._more_bytes = counter, more_bytes
        self._leave_out(left_out)
        return lots

    def _leave_out(self, messages: list[tuple[Message, CachedRoute]]) -> None:
        """Account for messages that go to no lane: further copies, unmapped ones, and dead letters."""
        if not messages:
            return
        dropped = []
        for message, found in messages:
            account = accounts[found.route]
            if found.problem:
                account.receive(1, len(message.payload))
                self._dispatcher.set_aside(message, found.problem, NOT_ROUTED[found.problem])
                continue
            if not found.is_copy:
                account.receive_and_drop(UNMAPPED, len(message.payload))
            dropped.append(message)
        self._acknowledge(dropped)

    def _drop(self, message: Message, packet_bytes: int) -> None:
        """Account for a message whose packet was too large to be held."""
        accounts[self._cache.mapped(message.topic).route].receive_and_drop(PACKET_TOO_LARGE)
        self._throttle.error(
            "too large",
            "a packet of %d bytes for the MQTT topic %r is dropped: at most %d are accepted (the limit is %s)",
            packet_bytes,
            LoggedText(message.topic_text),
            self._packets.size_bytes,
            self._packets.reason,
        )
        self._acknowledge([message])
        self.routed_messages += 1

    def begin_epoch(self, epoch: int) -> None:
        """Take the number of this start, which the table has made durable."""
        self.epoch = epoch
        self._harmless_bytes = self._oversize.harmless_bytes

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
        headers = getattr(message, "headers", None)  # none where no route matches
        what = headers[0][1].decode() if headers else "no record"
        log.log(
            TRACE, "%r, QoS %d, %d bytes: %s", LoggedText(message.topic_text), message.qos, len(message.payload), what
        )


def register(router: Router) -> None:
    """Start the agent that routes what the MQTT source received."""

    @app.agent(inbound, name="router")
    async def route(batches):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Route received messages to their Kafka topics."""
        async for batch in batches:
            if app.first_error is not None:
                continue
            try:
                await router.route(batch)
            except Exception as error:  # noqa: BLE001, see the header of `agents`
                await app.fail(error)
