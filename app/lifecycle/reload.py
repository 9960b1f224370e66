"""Other routes for a running worker: ROUTES_FILE is read anew, by `connector reload` or SIGHUP.

    read and check the file -> learn of the new Kafka topics -> route by the new routes -> SUBSCRIBE, UNSUBSCRIBE

What is wrong with the file is said, and then nothing changes. The routes change at one moment, between two batches of
messages: what was routed before keeps its Kafka topic. The MQTT thread takes the filters up (`app.mqtt.subscriptions`),
while messages flow.

SIGHUP is also what a terminal sends when it is closed. So it has the file read where there is one, or systemd runs the
worker, and the worker has no terminal; otherwise it stops the worker (`app.application`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypedDict

from mode import Service

from app.application import app, service_manager, sighup_reads_routes
from app.bounds import LONG_TOPIC_BYTES
from app.errors import ConnectorError, SettingsError
from app.lifecycle.reload_log import log_differences, log_shadowed
from app.metrics import accounts
from app.mqtt.filter_orders import FilterOrder
from app.routes import Differences, RouteTable, differences
from app.settings import Settings, with_routes_read_anew

if TYPE_CHECKING:
    from app.kafka.dispatcher import Dispatcher
    from app.mqtt.source import MqttSource
    from app.routes import DerivedNames

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0  # for a reload that is under way; with its own time that is less than a command waits
ANSWER_SECONDS = 10.0  # for what the MQTT broker is asked; the command waits longer
LEARN_SECONDS = 3.0  # as long as a start waits for Kafka
LOOK_SECONDS = 0.02
TOPICS_AT_ONCE = 200  # new lanes, in some milliseconds
NAMES_AT_ONCE = 2_000  # of routes
LISTS = (
    "the worker was started without ROUTES_FILE, and TOPIC_LIST and WILDCARD_TOPIC_LIST are read at a start only: "
    "restart it to have other routes"
)
NEEDS_RESTART = (
    "with MQTT_SHARED_GROUP, filters, their order and their QoS are the same in all workers: restart them with the new "
    "file; a reload takes up what leaves these as they are"
)
UNDER_WAY = "another reload is under way: try again when it is done"
MORE_HEADERS = (
    "the headers of a route are larger than those of all routes before, for which the memory was divided at the start: "
    "restart the worker to have them"
)


class Reloaded(TypedDict):
    """What has become of the routes.

    Attributes:
        problems: What is wrong with the file, a sentence each; then the routes are as before.
        added: The names that are new.
        removed: The names that are gone.
        changed: The names of which anything else is new.
        moved: Whether the others are in another order.
        routes: How many there are.
        mqtt: What of the subscriptions is not done, as a sentence; empty if all is.
        shadowed: Routes that never get a message, a sentence each.
        missing_topics: Kafka topics that routes name and that Kafka does not show, as far as it has said so by now.
    """

    problems: list[str]
    added: list[str]
    removed: list[str]
    changed: list[str]
    moved: bool
    routes: int
    mqtt: str
    shadowed: list[str]
    missing_topics: list[str]


class Reload(Service):
    """Reads the routes anew when it is asked to; on the event loop."""

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        routes: RouteTable,
        derived_names: DerivedNames,
        dispatcher: Dispatcher,
        source: MqttSource,
        **kwargs: Any,
    ) -> None:
        """Make the service.

        Args:
            settings: Those of the start.
            routes: The routes of the worker, which are changed.
            derived_names: Which Kafka topics the templates can make.
            dispatcher: The lanes.
            source: What subscribes.
            **kwargs: For `mode.Service`.
        """
        self._settings = settings
        self._routes = routes
        self._derived_names = derived_names
        self._headers_bytes = routes.headers_bytes(LONG_TOPIC_BYTES)  # for which memory was divided
        self._dispatcher = dispatcher
        self._source = source
        self._subscriptions = source.session.subscriptions
        self._is_under_way = False
        self._is_due = False  # one that SIGHUP asked for waits
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Say which routes are in vain, and listen to SIGHUP."""
        await asyncio.to_thread(log_shadowed, self._routes.routes)
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as `nohup` has it
        if sighup_reads_routes() and not ignored:
            self.loop.add_signal_handler(signal.SIGHUP, lambda: self.add_future(self._reload_and_log()))
            if app.is_reload_due:
                self.add_future(self._reload_and_log())

    async def _reload_and_log(self) -> None:
        if self._is_due:  # the one that waits reads the file as it is then
            return
        self._is_due = True
        try:
            await self._wait_for_others(math.inf)
        finally:
            self._is_due = False
        try:
            await self._reload_alone()
        except ConnectorError as error:
            log.error("the routes are not read anew: %s", error)  # noqa: TRY400, it says all of it
        except Exception:  # whatever it was, the worker goes on
            log.exception("the routes are not read anew, as something unexpected happened")

    async def ask(self) -> Reloaded:
        """Read the file anew, and have its routes; return what has changed.

        Raises:
            ConnectorError: It cannot be done now, or not in this way.
        """
        if not await self._wait_for_others(WAIT_SECONDS):
            raise ConnectorError(UNDER_WAY)
        return await self._reload_alone()

    async def _wait_for_others(self, seconds: float) -> bool:
        """Wait until no reload is under way; return whether none is."""
        give_up_at = time.monotonic() + seconds
        while self._is_under_way and time.monotonic() < give_up_at:
            await asyncio.sleep(LOOK_SECONDS)
        return not self._is_under_way

    async def _reload_alone(self) -> Reloaded:
        self._is_under_way = True
        try:
            with service_manager.reloading():
                return await self._reload()
        finally:
            self._is_under_way = False

    async def _reload(self) -> Reloaded:
        self._see_that_it_can_be_done()
        try:
            table, settings = await asyncio.to_thread(_read, self._settings)
        except SettingsError as error:
            return self._refused(error.problems)
        found = await asyncio.to_thread(differences, self._routes.routes, table.routes)
        if not found:
            log.info("the routes were read anew: nothing has changed")
            return self._answer(found, [])
        order = await asyncio.to_thread(_order, self._routes, table)
        await self._prepare(table, changes_filters=order is not None)
        self._see_that_it_can_be_done()
        self._change(table, order)
        self._settings = settings
        log_differences(found)
        hidden = await asyncio.to_thread(log_shadowed, table.routes)
        await self._wait_for_broker(ANSWER_SECONDS)
        return self._answer(found, hidden)

    def _see_that_it_can_be_done(self) -> None:
        if self._settings.routes_file is None:
            raise ConnectorError(LISTS)
        if self._source.stopping:
            raise ConnectorError("the worker stops; its next start reads the file")
        if self._source.session.unsubscribing.has_begun:
            raise ConnectorError("the worker is drained, and subscribes to nothing; its next start reads the file")

    async def _prepare(self, table: RouteTable, *, changes_filters: bool) -> None:
        """See that the broker has answered what was asked last, and learn of the new Kafka topics.

        Raises:
            ConnectorError: The filters cannot change now.
        """
        if await asyncio.to_thread(table.headers_bytes, LONG_TOPIC_BYTES) > self._headers_bytes:
            raise ConnectorError(MORE_HEADERS)
        if changes_filters:
            if self._subscriptions.is_shared:
                raise ConnectorError(NEEDS_RESTART)
            if not await self._wait_for_broker(ANSWER_SECONDS) and self._source.connected:
                raise ConnectorError(
                    "the routes stay as they are, as the MQTT broker has not answered all that was asked for the last "
                    "change: try again"
                )
        for first in range(0, len(table.routes), NAMES_AT_ONCE):
            some = table.routes[first : first + NAMES_AT_ONCE]
            for route in some:
                accounts[route.name]  # so that a scrape shows every route from now on
            self._derived_names.add(route.to for route in some)
            await asyncio.sleep(0)
        await self._learn_topics(table)

    async def _learn_topics(self, table: RouteTable) -> None:
        """Make the lanes of Kafka topics that are new, and wait until Kafka has said what they take, if it is there."""
        lanes = self._dispatcher.lanes
        new = sorted({route.kafka_topic for route in table.routes if route.kafka_topic} - lanes.lasting)
        for first in range(0, len(new), TOPICS_AT_ONCE):
            lanes.keep(new[first : first + TOPICS_AT_ONCE])
            self._dispatcher.note_shown(new[first : first + TOPICS_AT_ONCE])  # an earlier route may have made them
            await asyncio.sleep(0)
        topics, give_up_at = self._dispatcher.topics, time.monotonic() + LEARN_SECONDS
        if new:
            topics.ask.set()
        while self._dispatcher.producer.connected and time.monotonic() < give_up_at:
            if topics.learned.union(topics.not_shown, topics.singles).issuperset(new):
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _change(self, table: RouteTable, order: FilterOrder | None) -> None:
        """Route by the new routes from now on, and have the MQTT thread subscribe as they want it."""
        self._routes.become(table)
        if order is not None:
            self._subscriptions.orders.order(*order)
            self._source.wake()

    async def _wait_for_broker(self, seconds: float) -> bool:
        """Wait until the broker has answered what it was asked, if it is there; return whether it has."""
        give_up_at = time.monotonic() + seconds
        while self._subscriptions.orders.is_under_way and self._source.connected and time.monotonic() < give_up_at:
            await asyncio.sleep(LOOK_SECONDS)
        return not self._subscriptions.orders.is_under_way

    def _refused(self, problems: list[str]) -> Reloaded:
        log.error("the routes are not read anew, and stay as they are: %s", "; ".join(problems))
        return {**self._answer(Differences([], [], [], are_moved=False), []), "problems": problems}

    def _answer(self, found: Differences, hidden: list[str]) -> Reloaded:
        return {
            "problems": [],
            "added": found.added,
            "removed": found.removed,
            "changed": found.changed,
            "moved": found.are_moved,
            "routes": len(self._routes.routes),
            "mqtt": self._not_done(),
            "shadowed": hidden,
            "missing_topics": sorted(self._dispatcher.topics.not_shown.intersection(self._named_topics())),
        }

    def _named_topics(self) -> Iterator[str]:
        return (route.kafka_topic for route in self._routes.routes if route.kafka_topic)

    def _not_done(self) -> str:
        """Return what the broker has not done of what the filters want."""
        if self._subscriptions.orders.is_under_way:
            if self._source.connected:
                return "the MQTT broker has not answered yet"
            return "the MQTT broker is not connected: filters are subscribed to with the next connection"
        refused = sorted(self._subscriptions.refused.items())
        return "; ".join(f"the MQTT broker refused the filter {name}: {why}" for name, why in refused)


def _read(settings: Settings) -> tuple[RouteTable, Settings]:
    fresh = with_routes_read_anew(settings)
    return fresh.route_table(), fresh


def _order(before: RouteTable, after: RouteTable) -> FilterOrder | None:
    """Return what is to be subscribed to; None: the filters, their order and their QoS are as they were."""
    had, wants = ([(route.mqtt_filter, route.qos) for route in table.routes] for table in (before, after))
    if had == wants:
        return None
    qos_before = dict(had)
    return FilterOrder(
        tuple(name for name, _ in wants),
        frozenset(name for name, qos in wants if qos_before.get(name, qos) != qos),
    )
