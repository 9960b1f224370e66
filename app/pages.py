"""The pages: metrics, health, and the status as JSON.

`/health/live` fails only when the process cannot mend itself; `/health/ready` tells whether messages can be accepted
and kept. Kafka being away is no reason to be unready: that is what the table is for.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app import metrics
from app.application import app
from tables import layout

if TYPE_CHECKING:
    from agents.keeper import Keeper
    from app.kafka.lane import Lane
    from app.kafka.lanes import Lanes
    from app.mqtt.session import Session
    from app.mqtt.source import MqttSource
    from tables.undelivered import UndeliveredTable

STALLED_SECONDS = 30.0
SAMPLE_SECONDS = 1.0


class Status:
    """What the pages say, read from the rooms when asked."""

    def __init__(
        self, *, source: MqttSource, session: Session, lanes: Lanes, keeper: Keeper, table: UndeliveredTable
    ) -> None:
        """Take the rooms to look into."""
        self._source = source
        self._session = session
        self._lanes = lanes
        self._keeper = keeper
        self._table = table
        self._disk_is_full = False
        self.messages_trend = metrics.Trend()
        self.bytes_trend = metrics.Trend()

    def sample(self) -> None:
        """Note how full the table and its disk are; called every second."""
        self._disk_is_full = self._table.check_disk_full()
        self.messages_trend.sample(self._table.total_messages)
        self.bytes_trend.sample(self._table.total_bytes)

    @property
    def is_alive(self) -> bool:
        """Whether the MQTT thread moves; that this runs at all shows that the event loop does."""
        return time.monotonic() - self._source.moved_at < STALLED_SECONDS

    def reasons_not_ready(self) -> list[str]:
        """Why messages cannot be accepted and kept; empty if they can."""
        reasons = []
        if self._source.stopping:
            reasons.append("stopping")
        if app.first_error is not None:
            reasons.append(f"the worker ends: {app.first_error}")
        if not self._source.connected:
            reasons.append("the MQTT broker is not connected")
        if self._session.leaving:
            reasons.append("drained: subscribed to nothing until the next start")
        reasons += [
            f"the MQTT broker refused the filter {name}: {why}" for name, why in sorted(self._session.refused.items())
        ]
        if self._keeper.is_full or self._disk_is_full:
            reasons.append(self._keeper.full_reason)
        return reasons

    def oldest_age_seconds(self) -> float:
        """Return the age of the oldest message in the table, 0 if it is empty."""
        oldest_ms = None
        for topic, first in self._table.lanes():
            for message in self._table.read(layout.undelivered_prefix(topic), first, 1, 1):
                oldest_ms = min(oldest_ms or message.timestamp_ms, message.timestamp_ms)
        return max(0.0, time.time() - oldest_ms / 1000) if oldest_ms is not None else 0.0

    def full_seconds(self) -> float:
        """Return the time to a full table at the present inflow, 0 if it is full."""
        room_bytes = self._table.limit_bytes - self._table.total_bytes
        # With drop_oldest a full table goes up and down a little below its limit.
        if self._keeper.is_full or self._disk_is_full or room_bytes < self._table.limit_bytes / 100:
            return 0.0
        rate = self.bytes_trend.per_second
        return room_bytes / rate if rate > 0 else float("inf")

    def drain_seconds(self) -> float:
        """Return the time to an empty table at the present outflow, what still comes in counted against it."""
        if not self._table.total_messages:
            return 0.0
        rate = -self.messages_trend.per_second
        return self._table.total_messages / rate if rate > 0 else float("inf")

    def _trouble(self, lane: Lane) -> str:
        """Return why a lane's messages do not move, empty if they do."""
        if lane.trouble:
            return lane.trouble
        if not self._lanes.producer.connected:
            return "Kafka is not reachable"
        return f"Kafka shows no topic named {lane.topic}" if lane.topic in self._lanes.missing_topics else ""

    def as_dictionary(self) -> dict[str, Any]:
        """Return everything, for `/status`."""
        return {
            "ready": not self.reasons_not_ready(),
            "reasons": self.reasons_not_ready(),
            "mqtt": {"connected": self._source.connected, "sessions_lost": self._session.lost},
            "kafka": {"connected": self._lanes.producer.connected},
            "table": {
                "messages": self._table.total_messages,
                "bytes": self._table.total_bytes,
                "limit_bytes": self._table.limit_bytes,
                "full": self._keeper.is_full,
                "fullest_route": self._keeper.fullest_lane,
                "oldest_age_seconds": round(self.oldest_age_seconds(), 3),
                "dead_letters": self._table.dead_messages,
                "durable": self._table.is_durable,
            },
            "lanes": {
                lane.topic: {
                    "behind": lane.behind,
                    "with_kafka_client": lane.in_flight_messages,
                    "trouble": self._trouble(lane),
                }
                for lane in self._lanes
            },
            "routes": {
                route: {
                    "received": account.received,
                    "recovered": account.recovered,
                    "delivered": account.delivered,
                    "undelivered": account.undelivered,
                    "in_flight": account.in_flight,
                    "dead_lettered": dict(account.dead_lettered),
                    "dropped": dict(account.dropped),
                }
                for route, account in metrics.accounts.items()
            },
        }


def build_information() -> dict[str, str]:
    """Return the version and the table's format."""
    try:
        version = importlib.metadata.version("connector")
    except importlib.metadata.PackageNotFoundError:
        version = "0.1.0"
    return {"version": version, "format": str(layout.FORMAT_VERSION)}


def register(**rooms: Any) -> None:
    """Serve the pages."""
    status = Status(**rooms)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    metrics.gauges.register(
        oldest_undelivered_age_seconds=status.oldest_age_seconds,
        store_full_seconds=status.full_seconds,
        drain_seconds=status.drain_seconds,
    )
    histograms = {
        "connector_delivery_seconds": metrics.delivery_seconds,
        "connector_store_seconds": metrics.store_seconds,
    }
    registry.register(metrics.ConnectorCollector(metrics.accounts, metrics.gauges, histograms, build_information()))

    @app.timer(interval=SAMPLE_SECONDS, name="sampler")
    async def sample() -> None:
        """Note how full the table is."""
        status.sample()

    @app.page("/", name="pages")
    async def show_pages(view: Any, _request: Any) -> Any:
        """Name the pages; Faust's own answer here would look like a health check that never fails."""
        return view.text("Connector: /status /metrics /health/ready /health/live\n")

    @app.page("/metrics", name="metrics")
    async def show_metrics(view: Any, _request: Any) -> Any:
        """Show every metric, as Prometheus reads it."""
        response = view.bytes(generate_latest(registry))
        response.headers["Content-Type"] = CONTENT_TYPE_LATEST
        return response

    @app.page("/health/live", name="live")
    async def show_live(view: Any, _request: Any) -> Any:
        """Show whether the process should be restarted."""
        alive = status.is_alive
        return view.json({"alive": alive}, status=200 if alive else 503)

    @app.page("/health/ready", name="ready")
    async def show_ready(view: Any, _request: Any) -> Any:
        """Show whether messages can be accepted and kept."""
        reasons = status.reasons_not_ready()
        return view.json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    @app.page("/status", name="status")
    async def show_status(view: Any, _request: Any) -> Any:
        """Show everything at a glance, as JSON."""
        return view.text(json.dumps(status.as_dictionary(), indent=2), content_type="application/json")
