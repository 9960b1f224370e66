"""Where the pages are served, and the timers: one samples for them, another tells systemd what they show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from faust.web import View
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app import metrics
from app.application import app, service_manager, settings
from app.control import ControlServer
from app.errors import ConnectorError
from app.lines import escaped, escaped_json, escaped_values
from app.pages import static
from app.pages.dead_letters import Answer, DeadLetterPages
from app.pages.exposition import ConnectorCollector, exposition
from app.pages.json_text import json_pieces
from app.pages.problems import ProblemsService, RecentProblems
from app.pages.reuse import Reused, ReusedText, Share
from app.pages.status import Status
from app.service_manager import ServiceManager
from app.version import VERSION
from tables import layout

SAMPLE_SECONDS = 1.0


def build_information(site: str | None) -> dict[str, str]:
    """Return the version, the table's format, and the site if it has a name."""
    return {"version": VERSION, "format": str(layout.FORMAT_VERSION), **({"site": site} if site else {})}


def register(*, control: ControlServer, token: str | None, **rooms: Any) -> None:
    """Serve the pages.

    Args:
        control: What changes the table while the worker runs.
        token: WEB_TOKEN; None: nothing can be changed here.
        **rooms: What `Status` looks into.
    """
    status = Status(**rooms)
    problems = RecentProblems()
    app.before_agents.insert(0, ProblemsService(problems))  # first, so that it hears what the others say

    @app.timer(interval=SAMPLE_SECONDS, name="sampler")
    async def sample() -> None:
        """Note how full the table is, and what flows."""
        status.samples.sample()

    if service_manager.is_there:

        @app.timer(interval=service_manager.interval_seconds, name="service-manager")
        async def tell() -> None:
            """Tell systemd how it is."""
            tell_service_manager(service_manager, status)

    share = Share()
    _serve_metrics(status, share)
    _serve_health(status)
    dead_letters = DeadLetterPages(rooms["table"], control, token, share)
    _serve_status(status, problems, dead_letters, share)
    _serve_dead_letters(dead_letters)
    static.serve()


def tell_service_manager(manager: ServiceManager, status: Status) -> None:
    """Tell systemd what `/health/live` says, and the headline; nothing while the worker should be restarted."""
    if not status.is_alive:
        return
    try:
        headline = status.headline()
    except ConnectorError as error:  # the table cannot be read, which its writer finds as well
        headline = str(error)
    manager.alive(escaped(headline))


def _serve_metrics(status: Status, share: Share) -> None:
    process = ProcessCollector(registry=None), GCCollector(registry=CollectorRegistry())
    metrics.gauges.register(
        ready=lambda: not status.reasons_not_ready(),
        oldest_in_flight_seconds=status.oldest_in_flight_seconds,
        oldest_undelivered_age_seconds=status.oldest_age_seconds,
        retention_exceeded_messages=lambda: status.samples.retention.messages,
        store_full_seconds=status.full_seconds,
        drain_seconds=status.drain_seconds,
    )
    histograms = {
        "connector_delivery_seconds": metrics.delivery_seconds,
        "connector_store_seconds": metrics.store_seconds,
    }
    metrics.gauges.register_labelled(web_refusals_total=lambda: app.web.refusals)
    ours = ConnectorCollector(metrics.accounts, metrics.gauges, histograms, build_information(settings.site))
    scraped = ReusedText(share, lambda: exposition(ours, process))

    @app.page("/metrics", name="metrics")
    async def show_metrics(view: Any, _request: Any) -> Any:
        """Show every metric, as Prometheus reads it."""
        response = view.bytes((await scraped()).encode())
        response.headers["Content-Type"] = CONTENT_TYPE_LATEST
        return response


def _serve_health(status: Status) -> None:
    @app.page("/health/live", name="live")
    async def show_live(view: Any, _request: Any) -> Any:
        """Show whether the process should be restarted."""
        alive = status.is_alive
        return view.json({"alive": alive}, status=200 if alive else 503)

    @app.page("/health/ready", name="ready")
    async def show_ready(view: Any, _request: Any) -> Any:
        """Show whether messages can be accepted and kept."""
        reasons = status.reasons_not_ready()
        return view.json({"ready": not reasons, "reasons": escaped_values(reasons)}, status=503 if reasons else 200)


def _serve_status(status: Status, problems: RecentProblems, dead_letters: DeadLetterPages, share: Share) -> None:
    def glance() -> Iterator[str]:
        shown = {
            "version": VERSION,
            "site": settings.site,
            **status.as_dictionary(),
            "recent_problems": problems.as_list(),
            "dead_letters_version": dead_letters.version,
            "may_change": dead_letters.may_change,
        }
        return json_pieces(shown)

    at_a_glance = ReusedText(share, glance)
    last_hour = Reused(share, lambda: escaped_json(status.samples.history.as_dictionary()))

    @app.page("/status", name="status")
    async def show_status(view: Any, _request: Any) -> Any:
        """Show everything at a glance, as JSON."""
        return view.text(await at_a_glance(), content_type="application/json")

    @app.page("/history", name="history")
    async def show_history(view: Any, _request: Any) -> Any:
        """Show the last hour, as JSON."""
        return view.text(last_hour(), content_type="application/json")


def _serve_dead_letters(pages: DeadLetterPages) -> None:
    @app.page("/dead-letters", name="dead letters")
    async def show_dead_letters(view: Any, request: Any) -> Any:
        """List the oldest dead letters; their payloads with WEB_TOKEN."""
        answer = pages.listing(request.headers.get("Authorization"))
        return _json(view, answer)

    class Change(View):
        """Retry or delete dead letters, with WEB_TOKEN."""

        async def post(self, request: Any, action: str) -> Any:
            """Do it, and say how many."""
            authorization = request.headers.get("Authorization")
            refusal = pages.refusal(authorization)  # before anything of a stranger's body is read
            answer = refusal or await pages.change(action, authorization, await request.read())
            return _json(self, answer)

    app.page("/dead-letters/{action:retry|delete}", name="change dead letters")(Change)


def _json(view: Any, answer: Answer) -> Any:
    response = view.text(answer.text, content_type="application/json", status=answer.status)
    if answer.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
