"""The limits of this machine: memory, open files, and the port of the pages."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.check.findings import Finding, Report
from app.memory import memory_limit, plan_for
from app.open_files import ENOUGH_FILES, file_limit, file_limit_advice
from app.web.listening import HINTS

if TYPE_CHECKING:
    from app.settings import Settings

REPORT = Report("machine")


def machine(settings: Settings, largest_record_bytes: int) -> Iterator[Finding]:
    """Yield what is found.

    Args:
        settings: Of the worker.
        largest_record_bytes: `message.max.bytes` of the Kafka client.
    """
    limit = memory_limit()
    plan = plan_for(limit, settings.most_kafka_topics)
    danger = plan.packet_limit(settings.mqtt_maximum_packet_bytes, largest_record_bytes).danger
    text = f"a memory limit of {limit.size_bytes} bytes ({limit.source})"
    if danger:
        yield REPORT.doubtful("memory", "", text, f"{danger[:1].upper()}{danger[1:]}.")
    else:
        yield REPORT.good("memory", "", text)
    if danger := plan.danger_of_topics:
        yield REPORT.doubtful("kafka_topics", "", "many Kafka topics may be in use", f"U{danger[1:]}.")
    else:
        yield REPORT.good("kafka_topics", "", f"memory carries the {plan.kafka_topics} Kafka topics that may be in use")
    if file_limit() < ENOUGH_FILES:
        yield REPORT.doubtful("open_files", "", "few files may be open", f"{file_limit_advice().capitalize()}.")
    else:
        yield REPORT.good("open_files", "", f"{file_limit()} files may be open")


def pages(host: str, port: int, *, has_worker: bool = False) -> Finding:
    """Judge whether the pages can be served: bind to the port, and do not listen, which keeps nobody from it.

    Args:
        host: WEB_HOST.
        port: WEB_PORT.
        has_worker: A worker runs on DB_PERSIST_PATH: it is the one that has the port.
    """
    subject = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
    except OSError as error:
        reason = HINTS.get(error.errno or 0, "set another WEB_HOST or WEB_PORT")
        text = f"the pages cannot be served at {subject} ({error.strerror})"
        if error.errno == errno.EADDRINUSE and has_worker:
            return REPORT.good("pages", subject, f"{subject} is in use by the worker that runs here")
        if error.errno == errno.EADDRINUSE:
            return REPORT.doubtful("pages", subject, f"{text}, unless a worker of yours does it now", f"Else {reason}.")
        return REPORT.wrong("pages", subject, text, f"A start would end: {reason}.")
    return REPORT.good("pages", subject, f"the pages can be served at {subject}")
