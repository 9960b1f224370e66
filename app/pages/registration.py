"""Where the pages are served, and the timer that samples for them."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app import metrics
from app.application import app
from app.pages.status import Status
from tables import layout

SAMPLE_SECONDS = 1.0


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
