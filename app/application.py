"""The Faust app: which services start, in which order, and what of Faust is switched off.

Connector must start, accept and keep messages while Kafka is unreachable. So Faust's own Kafka consumer, leader
election and changelog recovery stay off, and the boot order is a list of our own: the table, the Kafka client, the
agents, the web server, and last the MQTT source, which therefore stops first.

Faust reads some ninety variables whose names other programs use too (APP_VERSION, BROKER_URL, WEB_BIND). Here they have
no effect.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import Iterable
from typing import Any, NoReturn

import faust
import faust.app.base
from faust.app.base import BootStrategy as FaustBootStrategy
from faust.cli.worker import worker as worker_command
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from app.command_line import WORKERS, command, needs_no_settings
from app.data_directory import described
from app.errors import BESIDE_A_WORKER, WHERE_SETTINGS_ARE, ConnectorError, SettingsError
from app.hardening import harden_process
from app.lines import JsonFormatter, LineFormatter, LogHandler, last_word
from app.memory import TRIM_SECONDS, calm_collector, give_free_memory_back, give_memory_back
from app.service_manager import ServiceManager, has_terminal
from app.settings import (
    ENOUGH_TO_LOAD,
    TRACE,
    LogFormat,
    Settings,
    load_settings,
    notify_variables,
    wanted_log_format,
    wanted_site,
    weaknesses,
)
from app.throttle import LibraryFilter
from app.web.server import WebServer, in_url

NAME = "connector"
# What strangers can make to say the same again and again, and what others sent; a filter holds for one logger alone.
_OF_AIOHTTP = ("access", "client", "internal", "server", "web", "websocket")
FLOODING_LOGGERS = ("asyncio", *(f"aiohttp.{name}" for name in _OF_AIOHTTP))
log = logging.getLogger(__name__)


class BootStrategy(FaustBootStrategy):
    """The services in the order of their start; they stop in the reverse order."""

    enable_kafka = False

    def server(self) -> Iterable[Any]:
        """Return what the worker starts."""
        return self._chain(self.sensors(), self.app.before_agents, self.agents(), self.web_server(), self.app.after_web)


class Worker(faust.Worker):
    """The worker process: log level and exit codes as documented, no debugger on a signal."""

    def __init__(self, *args: Any, loglevel: Any = None, debug: bool = False, **kwargs: Any) -> None:
        """Take the level from LOG_LVL unless the command line names one; Faust's own default is WARN.

        FAUST_DEBUG, which may be anybody's, opens no console: only `--debug` does.
        """
        harden_process()
        give_memory_back()
        calm_collector()
        if loglevel in (None, "WARN"):
            loglevel = settings.log_level
        debug = debug and "--debug" in sys.argv
        super().__init__(*args, loglevel=loglevel, debug=debug, logging_config=_logging_config(), **kwargs)
        self.spinner = None

    def _install_signal_handlers_unix(self) -> None:
        super()._install_signal_handlers_unix()
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it, to outlive a terminal
            self.loop.add_signal_handler(signal.SIGHUP, self._on_sighup)

    def _on_sighup(self) -> None:
        """Stop; or have the routes read anew at the end of the start, after which `app.lifecycle.reload` listens."""
        self.app.reload_later() if sighup_reads_routes() else self._schedule_shutdown(signal.SIGHUP)

    def _on_sigusr1(self) -> None:
        self.log.warning("SIGUSR1 is ignored: what Faust would write here has the values of all variables, secrets too")

    def _on_sigusr2(self) -> None:
        self.log.warning("SIGUSR2 is ignored: the debugger that Faust would start here stops the bridge")

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        log.info("%s: the worker stops", signal.name)
        super()._schedule_shutdown(signal)

    def _say(self, *_words: Any, **_options: Any) -> None:
        """Write none of the marks that Faust has for people in front of a terminal; the log says it."""

    async def on_startup_finished(self) -> None:
        """Say in one line what is bridged, now that nothing has refused to start."""
        log.info(
            "Connector has started: MQTT %s:%d -> Kafka %s, table in %s, pages at http://%s:%d/",
            in_url(settings.mqtt_host),
            settings.mqtt_port,
            settings.kafka_broker,
            described(settings.db_persist_path),
            in_url(self.app.conf.web_bind),
            self.app.conf.web_port,
        )
        service_manager.ready()

    async def start(self) -> None:
        """Start everything; an error that the operator can act on is told without a traceback."""
        try:
            await super().start()
        except ConnectorError as error:
            self.app.note_error(error)

    def execute_from_commandline(self) -> Any:
        """Run, and exit with the code of the first error that ended the worker."""
        try:
            super().execute_from_commandline()
        except SystemExit as exit_request:
            cause = self.app.first_error or exit_request.__context__
            if cause is None:
                raise
            if isinstance(cause, ConnectorError):
                _say_last(str(cause))
                raise SystemExit(cause.exit_code) from None
            _say_last(f"the worker ends by an error that nobody expected: {cause!r}")
            raise SystemExit(1) from None


class ConnectorApp(faust.App):
    """The Faust app with the bridge's services.

    Attributes:
        before_agents: Services that start before the agents.
        after_web: Services that start last.
        first_error: What ended the worker; None while all is well.
        is_reload_due: SIGHUP came during the start.
    """

    BootStrategy = BootStrategy
    mundane_level = "debug"  # that each service starts and stops is no news

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.before_agents: list[Any] = []
        self.after_web: list[Any] = []
        self.first_error: BaseException | None = None
        self.is_reload_due = False
        super().__init__(*args, **kwargs)

    async def on_start(self) -> None:
        """Say that it starts, which variables look like settings and are none, and what weakens TLS."""
        service_manager.starting()
        await super().on_start()
        for name in settings.unknown_names:
            log.warning("%s is no setting of Connector and is ignored; is it misspelled?", name)
        for weakness in weaknesses(settings):
            log.warning("TLS is weakened: %s. %s", weakness.text, weakness.advice)

    async def on_stop(self) -> None:
        """Say that it stops, before anything does."""
        service_manager.stopping(settings.stop_budget_sec)
        await super().on_stop()

    def reload_later(self) -> None:
        """Have the routes read anew at the end of the start."""
        log.info("SIGHUP: the routes are read anew when the worker has started")
        self.is_reload_due = True

    async def fail(self, error: BaseException) -> None:
        """End the worker because of an error that nothing here can mend; the first one names the cause."""
        if self.note_error(error):
            await self.crash(error)

    def note_error(self, error: BaseException) -> bool:
        """Note what ends the worker; return whether it is the first error."""
        is_first = self.first_error is None
        if is_first:
            self.first_error = error
        return is_first

    def FlowControlQueue(self, maxsize: int | None = None, **_options: Any) -> ThrowableQueue:  # noqa: N802, Faust's name
        """Make a queue that always flows: Faust would suspend and empty it for its consumer, which is off."""
        return ThrowableQueue(maxsize or 0, flow_control=FlowControlEvent(initially_suspended=False))

    def _init_fixups(self) -> list[Any]:
        """Load none: DJANGO_SETTINGS_MODULE may be anybody's."""
        return []

    def _new_web(self) -> WebServer:
        return WebServer(self, allowed_hosts=settings.web_allowed_hosts.split(","))

    async def _producer_flush(self, logger: Any) -> None:
        """Flush nothing: a Kafka producer of Faust's own is never used, and app.kafka's is closed by now."""

    def _create_directories(self) -> None:
        """Make none: Faust would make its data directory in the working directory, which may be read-only."""


def _logging_config() -> dict[str, Any]:
    """One line per event on standard error."""
    logging.addLevelName(TRACE, "TRACE")
    formatter = JsonFormatter if _is_json(settings.log_format) else LineFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "site": settings.site}},
        "handlers": {"stderr": {"()": LogHandler, "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": settings.log_level},
        "filters": {"library": {"()": LibraryFilter}},
        # What the frameworks say of themselves is for whoever looks for a fault in them.
        "loggers": {name: {"level": _framework_level()} for name in ("faust", "mode", "aiokafka", "aiohttp")}
        | {name: {"filters": ["library"]} for name in FLOODING_LOGGERS},
    }


def _is_json(log_format: LogFormat) -> bool:
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def _framework_level() -> int:
    return settings.log_level if settings.log_level <= logging.DEBUG else max(settings.log_level, logging.WARNING)


def _load() -> Settings:
    """Read the settings; wrong ones end the process before anything is connected."""
    try:
        return load_settings()
    except SettingsError as error:
        if needs_no_settings():
            return load_settings(ENOUGH_TO_LOAD)
        refuse(error)


def refuse(error: SettingsError) -> NoReturn:
    """End the process because of wrong settings, before anything is connected."""
    hint = f"\n{BESIDE_A_WORKER}" if error.has_missing and command() not in {"", *WORKERS} else ""
    _say_last(f"{error}\n{WHERE_SETTINGS_ARE}{hint}")
    raise SystemExit(error.exit_code)


def _say_last(text: str) -> None:
    """Write why the process ends, at every log level; to the user of a command as text."""
    is_worker = command() in WORKERS
    as_json, site = is_worker and _is_json(wanted_log_format()), wanted_site() if is_worker else None
    print(last_word(text, as_json=as_json, site=site), file=sys.stderr)  # noqa: T201, there is no log yet, or none any more


def sighup_reads_routes() -> bool:
    """Tell whether SIGHUP has the routes read anew: it is no terminal's end.

    systemd (Type=notify-reload) does not mean to stop the worker by it, even where there is no file to read.
    """
    return (settings.routes_file is not None or service_manager.is_there) and not has_terminal()


def create_app(settings: Settings) -> ConnectorApp:
    """Make the app; importing it starts nothing."""
    return ConnectorApp(
        NAME,
        broker="kafka://librdkafka",  # a name for Faust's banner: app.kafka is the only door to Kafka
        store="memory://",
        Worker=Worker,
        datadir=settings.db_persist_path or tempfile.gettempdir(),
        env={},  # else each variable that bears the name of a setting of Faust's would beat what stands here
        debug=False,
        autodiscover=False,
        web_bind=settings.web_host,
        web_host="localhost",  # a name for Faust's URLs, which nobody follows
        web_port=settings.web_port,
        web_router_enabled=False,
        web_tables_enabled=False,
        web_graph_enabled=False,
        web_stats_enabled=False,
        web_metrics_enabled=False,
        topic_disable_leader=True,
    )


faust.app.base.STRICT = False  # read from FAUST_STRICT; it forbids what Faust's own commands do
worker_command.on_worker_created = lambda _command, _worker: None  # a banner, before it is known what is refused
settings = _load()
service_manager = ServiceManager(*notify_variables())
app = create_app(settings)


@app.timer(interval=TRIM_SECONDS, name="memory-timer")
async def trim_memory() -> None:
    """Give back what an outage or a burst took; in a thread, as it may take longer than messages should wait."""
    await asyncio.to_thread(give_free_memory_back)
